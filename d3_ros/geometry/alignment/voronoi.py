"""Which sample is nearest to every cell of an image, and how far: a discrete Voronoi diagram."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from d3_ros.geometry.alignment.parallel import together

# A grid cell for every so many cells of spacing between points, at most so many pixels.
CELLS_A_SPACING, MAX_STEP = 4.0, 8
# So far, in spacings of the points, the nearest sample is the nearest; beyond, it is some sample.
REACH = 4.0


@dataclass(frozen=True)
class Samples:
    """N points: integer `rows`, `columns`; `base`, `truth`: log depth (N,); `trust` in [0, 1]."""

    rows: np.ndarray
    columns: np.ndarray
    base: np.ndarray
    truth: np.ndarray
    trust: np.ndarray

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: np.ndarray | slice) -> Samples:
        return Samples(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class Diagram:
    """Nearest sample of every cell, (h, w), and the distance to it in cells.

    A cell is `step` pixels wide and high. `spacing`: of the samples, cells.
    """

    nearest: np.ndarray
    distance: np.ndarray
    spacing: float
    step: int


def diagram_of(samples: Samples, shape: tuple[int, int]) -> Diagram:
    """Diagram of at least one sample in an image of that height and width."""
    spacing = np.sqrt(shape[0] * shape[1] / len(samples))
    step = 1
    while 2 * step <= min(spacing / CELLS_A_SPACING, MAX_STEP):
        step *= 2
    height, width = -(-shape[0] // step), -(-shape[1] // step)
    sample_rows, sample_columns = samples.rows // step, samples.columns // step
    empty = np.ones((height, width), np.uint8)
    empty[sample_rows, sample_columns] = 0
    nearest = np.empty((height, width), np.intp)
    distance = np.empty((height, width), np.float32)
    # Each half of the image by itself, with as much of the other as the samples reach.
    reach = int(np.ceil(REACH * spacing / step))

    def fill(rows: slice) -> np.ndarray:
        top, bottom = max(rows.start - reach, 0), min(rows.stop + reach, height)
        far, label = cv2.distanceTransformWithLabels(
            empty[top:bottom], cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        here = np.flatnonzero((sample_rows >= top) & (sample_rows < bottom))
        sample_of_label = np.zeros(len(here) + 1, np.intp)
        sample_of_label[label[sample_rows[here] - top, sample_columns[here]]] = here
        inner = slice(rows.start - top, rows.stop - top)
        nearest[rows], distance[rows] = sample_of_label[label[inner]], far[inner]
        return np.bincount(nearest[rows].ravel(), minlength=len(samples))

    middle = height // 2
    areas = together(lambda: fill(slice(0, middle)), lambda: fill(slice(middle, height)))
    cell_area = np.sum(areas, axis=0)
    typical = np.sqrt(np.median(cell_area[cell_area > 0]))
    return Diagram(nearest, distance, float(typical), step)


def insert(diagram: Diagram, samples: Samples, first: int) -> Diagram:
    """The diagram with more samples, numbered from `first`, in the cells that are nearest to them.

    Their cells are looked for within two spacings.
    """
    reach = int(2 * diagram.spacing)
    window = np.arange(-reach, reach + 1)
    apart = np.hypot(window[:, None], window).astype(np.float32).ravel()
    # A border in which everything is near enough already.
    bordered = np.pad(diagram.distance, reach, constant_values=-1.0)
    stride = bordered.shape[1]
    rows, columns = samples.rows // diagram.step, samples.columns // diagram.step
    own = (rows + reach) * stride + columns + reach
    around = (window[:, None] * stride + window).ravel()
    which, place = np.nonzero(apart < bordered.ravel()[own[:, None] + around])
    order = np.argsort(-apart[place], kind="stable")  # of several the last, nearest, stays
    which, place = which[order], place[order]
    down, right = np.divmod(place, len(window))
    cells = rows[which] + down - reach, columns[which] + right - reach
    nearest, distance = diagram.nearest.copy(), diagram.distance.copy()
    nearest[cells], distance[cells] = first + which, apart[place]
    return replace(diagram, nearest=nearest, distance=distance)


def concatenate(a: Samples, b: Samples) -> Samples:
    """The first samples, then the second."""
    names = [field.name for field in fields(Samples)]
    return Samples(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in names))

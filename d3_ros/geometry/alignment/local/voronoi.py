"""A discrete Voronoi diagram: the nearest sample of every cell of an image, and its distance."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from d3_ros.geometry.alignment.numerics import median

# A cell is as large as the spacing of the points allows: at least so many cells between two points,
# and at most so many pixels (a divisor of `parallel.BAND_STEP`).
CELLS_PER_SPACING, MAX_STEP = 4.0, 8
# When a sample leaves or joins, cells within so many spacings of it are updated.
REACH = 2.0


@dataclass(frozen=True)
class Samples:
    """N sensor points: pixel `rows`, `columns`; log depth `base` (predicted so far) and `truth`
    (measured); `trust` in [0, 1]. All are (N,)."""

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
    """The index of each cell's nearest sample, (h, w), and the distance to it in cells, (h, w).

    A cell is `step` pixels wide and high. `spacing` is the typical distance of samples, in cells.
    """

    nearest: np.ndarray
    distance: np.ndarray
    spacing: float
    step: int


def diagram_of(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Diagram:
    """The diagram of N >= 1 samples at pixels `rows`, `columns` (N,); `shape` is (H, W)."""
    spacing = np.sqrt(shape[0] * shape[1] / len(rows))
    step = 1
    while 2 * step <= min(spacing / CELLS_PER_SPACING, MAX_STEP):
        step *= 2
    rows, columns = rows // step, columns // step
    empty = np.ones((-(-shape[0] // step), -(-shape[1] // step)), np.uint8)
    empty[rows, columns] = 0
    distance, label = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    sample_of_label = np.zeros(len(rows) + 1, np.intp)
    sample_of_label[label[rows, columns]] = np.arange(len(rows))
    nearest = sample_of_label[label]
    cell_area = np.bincount(nearest.ravel())
    typical = np.sqrt(median(cell_area[cell_area > 0]))
    return Diagram(nearest, distance, float(typical), step)


def hand_on(diagram: Diagram, samples: Samples, leaving: np.ndarray) -> Diagram:
    """The diagram without the samples where `leaving`, (N,) bool, is true.

    All cells of a leaving sample go to the staying sample nearest to it. Where there is none within
    `REACH`, the cells' distance becomes infinite.
    """
    leavers = np.flatnonzero(leaving)
    if len(leavers) == 0:
        return diagram
    rows, columns = samples.rows // diagram.step, samples.columns // diagram.step
    reach = int(REACH * diagram.spacing)
    window = np.arange(-reach, reach + 1)
    height, width = diagram.nearest.shape
    around = diagram.nearest[
        np.clip(rows[leavers, None] + window, 0, height - 1)[:, :, None],
        np.clip(columns[leavers, None] + window, 0, width - 1)[:, None, :],
    ].reshape(len(leavers), -1)
    apart = np.hypot(rows[around] - rows[leavers, None], columns[around] - columns[leavers, None])
    apart[leaving[around]] = np.inf
    best = np.argmin(apart, axis=1)[:, None]
    heir = np.arange(len(samples))
    heir[leavers] = np.take_along_axis(around, best, axis=1)[:, 0]
    lonely = np.zeros(len(samples), bool)
    lonely[leavers] = np.isinf(np.take_along_axis(apart, best, axis=1)[:, 0])

    v, u = np.nonzero(leaving[diagram.nearest])
    before = diagram.nearest[v, u]
    nearest, distance = diagram.nearest.copy(), diagram.distance.copy()
    nearest[v, u] = after = heir[before]
    distance[v, u] = np.where(lonely[before], np.inf, np.hypot(rows[after] - v, columns[after] - u))
    return replace(diagram, nearest=nearest, distance=distance)


def insert(diagram: Diagram, samples: Samples, first: int) -> Diagram:
    """The diagram after `samples` joined it, with indices from `first` on."""
    reach = int(REACH * diagram.spacing)
    window = np.arange(-reach, reach + 1)
    apart = np.hypot(window[:, None], window).astype(np.float32).ravel()
    # A border whose distance is below any other, so that no sample takes a cell outside.
    bordered = np.pad(diagram.distance, reach, constant_values=-1.0)
    stride = bordered.shape[1]
    rows, columns = samples.rows // diagram.step, samples.columns // diagram.step
    own = (rows + reach) * stride + columns + reach
    around = (window[:, None] * stride + window).ravel()
    which, place = np.nonzero(apart < bordered.ravel()[own[:, None] + around])
    order = np.argsort(-apart[place], kind="stable")  # the nearest is written last and stays
    which, place = which[order], place[order]
    down, right = np.divmod(place, len(window))
    cells = rows[which] + down - reach, columns[which] + right - reach
    nearest, distance = diagram.nearest.copy(), diagram.distance.copy()
    nearest[cells], distance[cells] = first + which, apart[place]
    return replace(diagram, nearest=nearest, distance=distance)


def concatenate(a: Samples, b: Samples) -> Samples:
    """The samples of `a`, then those of `b`."""
    names = [field.name for field in fields(Samples)]
    return Samples(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in names))

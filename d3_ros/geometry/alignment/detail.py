"""What the smooth field leaves over, carried from every sensor point to the pixels around it.

The field is fitted to at most a few hundred points and smooth; a LiDAR has tens of thousands. Here
each pixel takes the residual of its nearest point (a discrete Voronoi diagram), averaged over a
window as large as the distance to that point, which makes straight runs from point to point. It
fades where points are far, and does not cross depth edges. How wide the window is in x and in y (a
LiDAR's lines are dense along themselves and far apart), and how much of the network's own detail
stays, is what predicts points best that were held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import product

import cv2
import numpy as np

from d3_ros.geometry.alignment.choice import SteadyChoice

# Residuals that do not stand out of the noise (robust standard deviations) are mostly noise.
NOISE_FACTOR = 2.0
MAD_TO_SIGMA = 1.4826
# A grid cell for every so many cells of spacing between points, at most so many pixels.
CELLS_A_SPACING, MAX_STEP = 4.0, 8
# In spacings of the points: full strength up to the first distance, none from the second.
FADE_FROM, FADE_TO = 1.0, 3.0
# Difference of log depth between a pixel and its nearest point that is an edge.
EDGE = 0.2
# Windows, in cells to either side; between them it is interpolated.
RADII = (1, 2, 4, 8, 16)
MIN_JUDGES, JUDGED_RADIUS = 50, 8
# Log depth; a judge that is off by more may itself be an outlier.
ERROR_CAP = 0.5


@dataclass(frozen=True)
class Style:
    """How residuals are carried: window in x and y, in distances to the nearest point; `detail`,
    the share of the base's own detail that stays between the points; `denoise` or not.
    """

    window_x: float = 1.0
    window_y: float = 1.0
    detail: float = 1.0
    denoise: bool = True


# Without points to judge by: the window that is right for points all over the image.
PLAIN = Style()
STYLES = tuple(
    Style(x, y, detail, denoise)
    for (x, y), detail, denoise in product(
        ((1.0, 1.0), (1.0, 0.25), (1.5, 0.25)), (1.0, 0.5, 0.0), (True, False)
    )
)


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
class Detail:
    """(h, w) float32 maps over the image: log depth becomes (1 - weight) * it + offset.

    A cell is `step` pixels wide and high; no weight is zero weight.
    """

    offset: np.ndarray
    weight: np.ndarray | None
    step: int

    def maps(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Offset and weight for every pixel of the image, (height, width) each."""
        weight = None if self.weight is None else self._per_pixel(self.weight, height, width)
        return self._per_pixel(self.offset, height, width), weight

    def at(self, rows: np.ndarray, columns: np.ndarray, log_depth: np.ndarray) -> np.ndarray:
        """(N,) log depth of pixels after the correction, given theirs before."""
        cell = rows // self.step, columns // self.step
        weight = 0.0 if self.weight is None else self.weight[cell]
        return np.asarray((1.0 - weight) * log_depth + self.offset[cell])

    def _per_pixel(self, cells: np.ndarray, height: int, width: int) -> np.ndarray:
        if self.step > 1:
            size = (cells.shape[1] * self.step, cells.shape[0] * self.step)
            cells = cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)
        return cells[:height, :width]


@dataclass(frozen=True)
class _Diagram:
    """Nearest sample of every cell, (h, w), and the distance to it in cells.

    `spacing`: of the samples, cells.
    """

    nearest: np.ndarray
    distance: np.ndarray
    spacing: float
    step: int

    @property
    def strength(self) -> np.ndarray:
        """(h, w) in [0, 1]: 1 near samples, 0 far from them."""
        rise = (FADE_TO * self.spacing - self.distance) / ((FADE_TO - FADE_FROM) * self.spacing)
        return np.clip(rise, 0.0, 1.0)


class DetailModel:
    """Carries residuals; remembers which style predicted held-out points best.

    Args:
        hysteresis: share by which another style must be better to take over.
    """

    def __init__(self, hysteresis: float) -> None:
        self._choice: SteadyChoice[Style | None] = SteadyChoice(hysteresis)

    def fit(
        self,
        samples: Samples,
        judges: Samples | None,
        shape: tuple[int, int],
        base: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> Detail | None:
        """The detail that samples add, or None where they add none.

        Args:
            samples: what to carry.
            judges: points that neither the base nor the samples know, to choose the style by; with
                fewer than `MIN_JUDGES` it is `PLAIN`.
            shape: height and width of the image.
            base: rows (h,) and columns (w,) of pixels to their (h, w) log depth so far.
        """
        believed = samples.trust > 0
        if not believed.any():
            return None
        samples = samples[believed]
        diagram = _diagram(samples, shape)
        style: Style | None = PLAIN
        if judges is not None and len(judges) >= MIN_JUDGES:
            style = self._choice.choose(_style_errors(samples, judges, diagram))
        if style is None:
            return None
        residual, around = (
            values.astype(np.float32)[diagram.nearest]
            for values in (_residual(samples, style.denoise), samples.base)
        )
        values = np.dstack([residual, around])

        def mean(x: int, y: int) -> np.ndarray:
            size = (2 * x + 1, 2 * y + 1)
            return np.asarray(cv2.blur(values, size, borderType=cv2.BORDER_REPLICATE))

        residual, around = cv2.split(_average(mean, diagram.distance, style))
        rows, columns = (
            np.minimum(np.arange(cells) * diagram.step + diagram.step // 2, pixels - 1)
            for cells, pixels in zip(diagram.nearest.shape, shape, strict=True)
        )
        offset, weight = _combine(
            np.nan_to_num(base(rows, columns)), residual, around, diagram.strength, style
        )
        return Detail(offset, weight, diagram.step)


def _diagram(samples: Samples, shape: tuple[int, int]) -> _Diagram:
    spacing = np.sqrt(shape[0] * shape[1] / len(samples))
    step = 1
    while 2 * step <= min(spacing / CELLS_A_SPACING, MAX_STEP):
        step *= 2
    rows, columns = samples.rows // step, samples.columns // step
    empty = np.ones((-(-shape[0] // step), -(-shape[1] // step)), np.uint8)
    empty[rows, columns] = 0
    distance, label = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    sample_of_label = np.zeros(len(rows) + 1, np.int32)
    sample_of_label[label[rows, columns]] = np.arange(len(rows))
    cell_area = np.bincount(label.ravel())
    typical = np.sqrt(np.median(cell_area[cell_area > 0]))
    return _Diagram(sample_of_label[label], distance, float(typical), step)


def _residual(samples: Samples, denoise: bool) -> np.ndarray:
    """(N,) what the base lacks at the samples, less what may be noise."""
    residual = samples.truth - samples.base
    if denoise:
        noise = NOISE_FACTOR * MAD_TO_SIGMA * float(np.median(np.abs(residual)))
        squared = residual**2
        residual = residual * (squared / (squared + max(noise**2, 1e-12)))
    return residual * samples.trust


def _average(
    mean: Callable[[int, int], np.ndarray], distance: np.ndarray, style: Style
) -> np.ndarray:
    """Mean over a window that grows with distance, between the windows of `RADII`.

    `mean(x, y)` is that over x pixels to either side and y up and down, (..., C) for (...) pixels.
    """
    inner, radius = mean(0, 0), 0
    average = inner.copy()
    most = float(distance.max(initial=0.0))
    for next_radius in RADII:
        if most <= radius:
            break
        outer = mean(round(style.window_x * next_radius), round(style.window_y * next_radius))
        share = np.clip((distance - radius) / np.float32(next_radius - radius), 0.0, 1.0)
        average += (outer - inner) * share[..., None]
        inner, radius = outer, next_radius
    return average


def _combine(
    base: np.ndarray, residual: np.ndarray, around: np.ndarray, strength: np.ndarray, style: Style
) -> tuple[np.ndarray, np.ndarray | None]:
    """Offset and weight (see `Detail`) from residual and base, both averaged over samples."""
    edge = (base - around) * np.float32(np.sqrt(0.5 * style.detail) / EDGE)
    offset = strength * np.exp(-np.square(edge)) * residual
    if style.detail == 1.0:
        return offset, None
    weight = strength * np.float32(1.0 - style.detail)
    return offset + weight * around, weight


def _style_errors(
    samples: Samples, judges: Samples, diagram: _Diagram
) -> dict[Style | None, float]:
    """Mean error (log depth) of the judges under every style, and without detail (None)."""
    rows, columns = judges.rows // diagram.step, judges.columns // diagram.step
    reach = int(max(style.window_x for style in STYLES) * JUDGED_RADIUS)
    window = np.arange(-reach, reach + 1)
    height, width = diagram.nearest.shape
    patch = diagram.nearest[
        np.clip(rows[:, None] + window, 0, height - 1)[:, :, None],
        np.clip(columns[:, None] + window, 0, width - 1)[:, None, :],
    ]
    channels = [_residual(samples, False), _residual(samples, True), samples.base]
    integral = np.zeros((len(rows), 2 * reach + 2, 2 * reach + 2, len(channels)))
    integral[:, 1:, 1:] = np.stack(channels, axis=-1)[patch].cumsum(axis=1).cumsum(axis=2)

    def mean(x: int, y: int) -> np.ndarray:
        left, right, top, bottom = reach - x, reach + x + 1, reach - y, reach + y + 1
        total = integral[:, bottom, right] - integral[:, top, right]
        total -= integral[:, bottom, left] - integral[:, top, left]
        return total / ((right - left) * (bottom - top))

    distance = np.minimum(diagram.distance[rows, columns], JUDGED_RADIUS)
    strength = diagram.strength[rows, columns]
    averages = {
        window: _average(mean, distance, Style(*window))
        for window in {(style.window_x, style.window_y) for style in STYLES}
    }
    errors: dict[Style | None, float] = {None: _mean_error(judges.base, judges.truth)}
    for style in STYLES:
        average = averages[style.window_x, style.window_y]
        residual, around = average[:, int(style.denoise)], average[:, 2]
        offset, weight = _combine(judges.base, residual, around, strength, style)
        corrected = offset + (1.0 if weight is None else 1.0 - weight) * judges.base
        errors[style] = _mean_error(corrected, judges.truth)
    return errors


def _mean_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean(np.minimum(np.abs(predicted - truth), ERROR_CAP)))

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
from dataclasses import dataclass, fields, replace
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
RADII = (1, 2, 4)
MIN_JUDGES = 100
MIN_TRUST = 0.1
# Log depth; a held-out point that is off by more may itself be an outlier.
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
        ((1.0, 1.0), (1.5, 0.25)), (1.0, 0.5, 0.0), (True, False)
    )
    if detail > 0.0 or not denoise  # of the residual, which without detail has no part
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

    def maps(self, top: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Offset and weight for every pixel of a band of the image, (height, width) each.

        `top`, the image's row that is the band's first, is a multiple of `step`.
        """
        weight = None if self.weight is None else self._per_pixel(self.weight, top, height, width)
        return self._per_pixel(self.offset, top, height, width), weight

    def _per_pixel(self, cells: np.ndarray, top: int, height: int, width: int) -> np.ndarray:
        if self.step > 1:
            first = top // self.step
            above = min(first, 1)  # a row more on either side, as the whole image has it there
            cells = cells[first - above : -(-(top + height) // self.step) + 1]
            size = (cells.shape[1] * self.step, cells.shape[0] * self.step)
            cells = cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)
            top = above * self.step
        return cells[top : top + height, :width]


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
        seen: Samples,
        held_out: Samples,
        honest: np.ndarray,
        choose: bool,
        shape: tuple[int, int],
        base: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> tuple[Detail | None, np.ndarray]:
        """The detail that samples add to the base, or None, and how well it predicts.

        Args:
            seen: samples to predict by.
            held_out: samples to predict, which join the others afterwards.
            honest: (M,) base of those held out that does not know them.
            choose: whether every other one held out settles the style, if they are `MIN_JUDGES`;
                else it is `PLAIN`.
            shape: height and width of the image.
            base: rows (h,) and columns (w,) of pixels to their (h, w) log depth so far.

        Returns:
            The detail, and errors (log depth) of the held-out samples that settled nothing.
        """
        choose = choose and len(held_out) >= MIN_JUDGES
        measured = slice(1, None, 2) if choose else slice(None)
        seen = seen[seen.trust > MIN_TRUST]
        if len(seen) == 0:
            return None, (honest - held_out.truth)[measured]
        diagram = _diagram(seen, shape)
        guesses = _Guesses(seen, held_out, honest, diagram)
        style: Style | None = PLAIN
        if choose:
            style = self._choice.choose(guesses.errors(slice(0, None, 2)))
        errors = (guesses.predict(style) - held_out.truth)[measured]
        if style is None:
            return None, errors
        joining = held_out[held_out.trust > MIN_TRUST]
        diagram = _insert(diagram, joining, len(seen))
        return _carry(_concatenate(seen, joining), diagram, style, shape, base), errors


def _carry(
    samples: Samples,
    diagram: _Diagram,
    style: Style,
    shape: tuple[int, int],
    base: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Detail:
    shares = _shares(diagram.distance)

    def averaged(values: np.ndarray) -> np.ndarray:
        image = np.take(values.astype(np.float32), diagram.nearest)

        def mean(x: int, y: int) -> np.ndarray:
            size = (2 * x + 1, 2 * y + 1)
            return np.asarray(cv2.blur(image, size, borderType=cv2.BORDER_REPLICATE))

        return _average(mean, shares, style)

    alone = np.log(averaged(np.exp(samples.truth)))
    before = residual = alone
    if style.detail > 0.0:
        residual = averaged(_residual(samples, style.denoise))
        before = _base_of_cells(base, diagram, shape)
    offset, weight = _combine(before, residual, alone, diagram.strength, style)
    return Detail(offset, weight, diagram.step)


def _base_of_cells(
    base: Callable[[np.ndarray, np.ndarray], np.ndarray], diagram: _Diagram, shape: tuple[int, int]
) -> np.ndarray:
    """(h, w) log depth so far; from every other pixel where cells are pixels, to be quick."""
    step = max(diagram.step, 2)
    rows, columns = (
        np.minimum(np.arange(0, pixels, step) + step // 2, pixels - 1) for pixels in shape
    )
    cells = np.nan_to_num(base(rows, columns))
    height, width = diagram.nearest.shape
    if diagram.step == 1:
        return np.asarray(cv2.resize(cells, (2 * cells.shape[1], 2 * cells.shape[0])))[
            :height, :width
        ]
    return cells


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


def _insert(diagram: _Diagram, samples: Samples, first: int) -> _Diagram:
    """The diagram with more samples, numbered from `first`, in the cells that are nearest to them.

    Their cells are looked for within two spacings.
    """
    reach = int(2 * diagram.spacing)
    window = np.arange(-reach, reach + 1)
    apart = np.hypot(window[:, None], window).astype(np.float32)
    height, width = diagram.nearest.shape
    rows = samples.rows[:, None, None] // diagram.step + window[:, None]
    columns = samples.columns[:, None, None] // diagram.step + window
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    cell = np.where(inside, rows * width + columns, 0)
    nearer = inside & (apart < diagram.distance.ravel()[cell])
    which, *_ = np.nonzero(nearer)
    cell, closeness = cell[nearer], np.broadcast_to(apart, nearer.shape)[nearer]
    order = np.argsort(-closeness, kind="stable")  # of several the last, nearest, stays
    nearest, distance = diagram.nearest.copy(), diagram.distance.copy()
    nearest.flat[cell[order]] = first + which[order]
    distance.flat[cell[order]] = closeness[order]
    return replace(diagram, nearest=nearest, distance=distance)


def _concatenate(a: Samples, b: Samples) -> Samples:
    names = [field.name for field in fields(Samples)]
    return Samples(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in names))


def _residual(samples: Samples, denoise: bool) -> np.ndarray:
    """(N,) what the base lacks at the samples, less what may be noise."""
    residual = samples.truth - samples.base
    if denoise:
        noise = NOISE_FACTOR * MAD_TO_SIGMA * float(np.median(np.abs(residual)))
        squared = residual**2
        residual = residual * (squared / (squared + max(noise**2, 1e-12)))
    return residual * samples.trust


def _shares(distance: np.ndarray) -> list[np.ndarray]:
    """Per radius of `RADII`, how far each distance is on its way to it from the one before."""
    shares, before = [], 0
    for radius in RADII:
        share = distance - np.float32(before)
        share *= np.float32(1.0 / (radius - before))
        shares.append(np.clip(share, 0.0, 1.0, out=share))
        before = radius
    return shares


def _average(
    mean: Callable[[int, int], np.ndarray], shares: list[np.ndarray], style: Style
) -> np.ndarray:
    """Mean over a window that grows with distance, between the windows of `RADII`.

    `mean(x, y)` is that over x pixels to either side and y up and down, of the shape of `shares`.
    """
    inner = mean(0, 0)
    average = inner.copy()
    for radius, share in zip(RADII, shares, strict=True):
        outer = mean(round(style.window_x * radius), round(style.window_y * radius))
        np.subtract(outer, inner, out=inner)
        inner *= share
        average += inner
        inner = outer
    return average


def _combine(
    base: np.ndarray, residual: np.ndarray, alone: np.ndarray, strength: np.ndarray, style: Style
) -> tuple[np.ndarray, np.ndarray | None]:
    """Offset and weight (see `Detail`): base plus residual, mixed with what the samples say alone.

    The residual and the log depth `alone` are averages over samples. Where they contradict each
    other by a depth edge, the nearest sample lies beyond it, and its residual says nothing.
    """
    share = np.float32(1.0 - style.detail)
    if style.detail == 0.0:
        return strength * alone, strength
    edge = base + residual - alone
    carried = residual * np.exp(edge * edge * np.float32(-0.5 * style.detail / EDGE**2))
    if style.detail == 1.0:
        return strength * carried, None
    return strength * (style.detail * carried + share * alone), strength * share


class _Guesses:
    """Log depth of samples that the diagram does not know, under every style."""

    def __init__(
        self, samples: Samples, asked: Samples, honest: np.ndarray, diagram: _Diagram
    ) -> None:
        self.base, self.truth = honest, asked.truth
        rows, columns = asked.rows // diagram.step, asked.columns // diagram.step
        self._shares = _shares(diagram.distance[rows, columns])
        self._strength = diagram.strength[rows, columns]
        self._reach = int(max(style.window_x for style in STYLES) * RADII[-1])
        window = np.arange(-self._reach, self._reach + 1)
        height, width = diagram.nearest.shape
        patch = diagram.nearest[
            np.clip(rows[:, None] + window, 0, height - 1)[:, :, None],
            np.clip(columns[:, None] + window, 0, width - 1)[:, None, :],
        ]
        truth = np.exp(samples.truth)
        channels = [_residual(samples, False), _residual(samples, True), truth]
        size = 2 * self._reach + 2
        self._integrals = np.zeros((len(channels), len(asked), size, size))
        values = np.stack(channels)[:, patch]
        values.cumsum(axis=2, out=values).cumsum(axis=3, out=self._integrals[:, :, 1:, 1:])
        self._averages: dict[tuple[int, float, float], np.ndarray] = {}

    def _average(self, channel: int, style: Style) -> np.ndarray:
        key = channel, style.window_x, style.window_y
        if key not in self._averages:
            integral = self._integrals[channel]

            def mean(x: int, y: int) -> np.ndarray:
                middle = self._reach
                left, right, top, bottom = middle - x, middle + x + 1, middle - y, middle + y + 1
                total = integral[:, bottom, right] - integral[:, top, right]
                total += integral[:, top, left] - integral[:, bottom, left]
                return np.asarray(total / ((right - left) * (bottom - top)))

            self._averages[key] = _average(mean, self._shares, style)
        return self._averages[key]

    def predict(self, style: Style | None) -> np.ndarray:
        """(M,) log depth under a style, or without detail (None)."""
        if style is None:
            return self.base
        residual, alone = self._average(int(style.denoise), style), self._average(2, style)
        offset, weight = _combine(self.base, residual, np.log(alone), self._strength, style)
        return offset + (1.0 if weight is None else 1.0 - weight) * self.base

    def errors(self, which: slice) -> dict[Style | None, float]:
        """Mean error of some of the samples for every style, and without detail (None)."""
        candidates: list[Style | None] = [*STYLES, None]
        return {style: self._error(style, which) for style in candidates}

    def _error(self, style: Style | None, which: slice) -> float:
        error = np.abs(self.predict(style) - self.truth)[which]
        return float(np.mean(np.minimum(error, ERROR_CAP)))

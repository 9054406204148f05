"""Detail from the points alone: each pixel takes the residual of its nearest point.

The residual is the point's log depth minus that of the smooth field, which is fitted to a few
hundred points; a LiDAR has tens of thousands. The nearest points come from a discrete Voronoi
diagram. Their residuals are averaged over a window as large as the distance to the point, so that
the result is straight from point to point. It fades far from points and stops at depth edges.

Held-out points choose the style: how wide the window is in x and in y (a LiDAR's lines are dense
along themselves and far apart), and how much of the network's own detail stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np

from d3_ros.geometry.alignment.local.voronoi import (
    Diagram,
    Samples,
    concatenate,
    hand_on,
    insert,
)
from d3_ros.geometry.alignment.numerics import MAD_TO_SIGMA, median
from d3_ros.geometry.alignment.parallel import in_image_bands, together
from d3_ros.geometry.alignment.smoothing import SteadyChoice

# Residuals below so many robust standard deviations are mostly noise.
NOISE_FACTOR = 1.5
# In spacings of the points: full strength up to the first distance, none from the second.
FADE_FROM, FADE_TO = 1.0, 3.0
# Windows, in cells to either side; between them it is interpolated.
RADII = (1, 2, 4)
# Difference of log depth between a pixel and its nearest point that is an edge.
EDGE = 0.05
# Fewer held-out points choose no style.
MIN_JUDGES = 100
# Samples with less trust are left out.
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


# The style where no points choose one: right for points all over the image.
PLAIN = Style()
# Where no points choose a style, this share of the detail is interpolated from the points without
# the network, whose edges may be false. The share falls to zero where the field misses the points
# by much less than `ALONE_RESIDUAL` (log depth); below `MIN_ALONE_SHARE` it is taken for zero.
ALONE_SHARE, ALONE_RESIDUAL, MIN_ALONE_SHARE = 0.15, 0.0005, 0.01
STYLES = tuple(
    Style(x, y, detail, denoise)
    for (x, y), detail, denoise in product(
        ((1.0, 1.0), (1.5, 0.25)), (1.0, 0.5, 0.0), (True, False)
    )
    if detail > 0.0 or not denoise  # without detail, the residual is not used
)


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
        offset, weight = (
            None if cells is None else enlarge(cells, self.step, top, height)[:, :width]
            for cells in (self.offset, self.weight)
        )
        assert offset is not None
        return offset, weight


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
        loo_base: np.ndarray,
        choose: bool,
        shape: tuple[int, int],
        base: Callable[[np.ndarray, np.ndarray], np.ndarray],
        diagram: Diagram,
    ) -> tuple[Detail | None, np.ndarray]:
        """The detail that samples add to the base, or None, and how well it predicts.

        Args:
            seen: samples to predict by.
            held_out: samples to predict, which join the others afterwards.
            loo_base: (M,) base at the held-out samples, predicted without them.
            choose: whether every other held-out sample chooses the style, if there are at least
                `MIN_JUDGES`; else the style is `PLAIN`.
            shape: height and width of the image.
            base: rows (h,) and columns (w,) of pixels to their (h, w) log depth so far.
            diagram: of all seen samples, also those of little trust.

        Returns:
            The detail, and errors (log depth) at the held-out samples that chose no style.
        """
        choose = choose and len(held_out) >= MIN_JUDGES
        measured = slice(1, None, 2) if choose else slice(None)
        believed = seen.trust > MIN_TRUST
        if not believed.any():
            return None, (loo_base - held_out.truth)[measured]
        diagram = hand_on(diagram, seen, ~believed)
        joining = held_out[held_out.trust > MIN_TRUST]

        def judge() -> tuple[Style | None, np.ndarray]:
            guesses = _Guesses(seen, held_out, loo_base, diagram)
            style: Style | None = _plain(seen)
            if choose:
                style = self._choice.choose(guesses.errors(slice(0, None, 2)))
            return style, (guesses.predict(style) - held_out.truth)[measured]

        def prepare() -> tuple[Diagram, np.ndarray]:
            return insert(diagram, joining, len(seen)), _coarse_base(base, diagram.step, shape)

        (style, errors), (diagram_of_all, coarse) = together(judge, prepare)
        if style is None:
            return None, errors
        return _carry(concatenate(seen, joining), diagram_of_all, style, coarse), errors


def _plain(samples: Samples) -> Style:
    """`PLAIN`, with less of the network's detail where the base misses the points."""
    missed = median(np.abs(samples.truth - samples.base)[samples.trust > MIN_TRUST])
    share = ALONE_SHARE * missed**2 / (missed**2 + ALONE_RESIDUAL**2)
    return replace(PLAIN, detail=1.0 - share) if share > MIN_ALONE_SHARE else PLAIN


def _carry(samples: Samples, diagram: Diagram, style: Style, coarse: np.ndarray) -> Detail:
    """Detail of the samples in a style; `coarse` is the log depth so far, see `_coarse_base`."""
    truth = np.exp(samples.truth).astype(np.float32)
    residual = _residual(samples, style.denoise).astype(np.float32)
    height, width = diagram.nearest.shape
    offset = np.empty((height, width), np.float32)
    weight = None if style.detail == 1.0 else np.empty((height, width), np.float32)

    def carry(rows: slice) -> None:
        shares = _shares(diagram.distance[rows])

        def averaged(values: np.ndarray) -> np.ndarray:
            return _average(_means(values, diagram.nearest, rows), shares, style)

        before = local = alone = cv2.log(averaged(truth))
        if style.detail > 0.0:
            local = averaged(residual)
            before = coarse[rows]
            if diagram.step == 1:
                before = enlarge(coarse, 2, rows.start, len(alone))[:, :width]
        strength = _strength(diagram.distance[rows], diagram.spacing)
        offset[rows], share = _combine(before, local, alone, strength, style)
        if weight is not None and share is not None:
            weight[rows] = share

    in_image_bands(carry, height, width)
    return Detail(offset, weight, diagram.step)


def _means(
    values: np.ndarray, nearest: np.ndarray, rows: slice
) -> Callable[[int, int], np.ndarray]:
    """The function `mean(x, y)` of `_average` for a band of cells; each has its sample's value."""
    top = min(rows.start, RADII[-1])  # windows reach so many rows above the band
    image = values[nearest[rows.start - top : rows.stop + RADII[-1]]]

    def mean(x: int, y: int) -> np.ndarray:
        blurred = image
        if x or y:
            blurred = cv2.blur(image, (2 * x + 1, 2 * y + 1), borderType=cv2.BORDER_REPLICATE)
        return np.asarray(blurred[top : top + rows.stop - rows.start])

    return mean


def _coarse_base(
    base: Callable[[np.ndarray, np.ndarray], np.ndarray], step: int, shape: tuple[int, int]
) -> np.ndarray:
    """(h, w) log depth so far, at the cells; at every other pixel where a cell is one pixel."""
    step = max(step, 2)
    rows, columns = (
        np.minimum(np.arange(0, pixels, step) + step // 2, pixels - 1) for pixels in shape
    )
    return np.nan_to_num(base(rows, columns))


def coarse(image: np.ndarray, step: int) -> np.ndarray:
    """(h, w) values of an image (H, W) at the centres of cells of that many pixels."""
    rows, columns = (
        np.minimum(np.arange(0, pixels, step) + step // 2, pixels - 1) for pixels in image.shape
    )
    return np.asarray(image[np.ix_(rows, columns)])


def enlarge(cells: np.ndarray, step: int, top: int, height: int) -> np.ndarray:
    """Rows `top` to `top + height` of an image of cells, enlarged; `top` is a multiple of `step`.

    Linear between the centres of cells.
    """
    if step == 1:
        return cells[top : top + height]
    first = top // step
    above = min(first, 1)  # one more row on either side, which the interpolation needs
    cells = cells[first - above : -(-(top + height) // step) + 1]
    size = (cells.shape[1] * step, cells.shape[0] * step)
    large = np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR))
    return large[above * step : above * step + height]


def _residual(samples: Samples, denoise: bool) -> np.ndarray:
    """(N,) truth minus base at the samples, by trust; `denoise` shrinks what may be noise."""
    residual = samples.truth - samples.base
    if denoise:
        believed = np.abs(residual[samples.trust > MIN_TRUST])
        noise = NOISE_FACTOR * MAD_TO_SIGMA * median(believed)
        squared = residual**2
        residual = residual * (squared / (squared + max(noise**2, 1e-12)))
    return residual * samples.trust


def _strength(distance: np.ndarray, spacing: float) -> np.ndarray:
    """In [0, 1], of the distances' shape: 1 near samples, 0 far from them."""
    strength = distance * np.float32(-1.0 / ((FADE_TO - FADE_FROM) * spacing))
    strength += np.float32(FADE_TO / (FADE_TO - FADE_FROM))
    return np.clip(strength, 0.0, 1.0, out=strength)


def _shares(distance: np.ndarray) -> list[np.ndarray]:
    """For each radius of `RADII`: where a distance lies between the previous radius and this one.

    0 at the previous radius or nearer, 1 at this one or farther.
    """
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
    """Mean over a window that grows with distance, interpolated between the windows of `RADII`.

    `mean(x, y)` averages over x cells to either side and y cells up and down.
    """
    inner = mean(0, 0)
    average = inner.copy()
    for radius, share in zip(RADII, shares, strict=True):
        outer = mean(*_window(style, radius))
        difference = outer - inner
        difference *= share
        average += difference
        inner = outer
    return average


def _window(style: Style, radius: int) -> tuple[int, int]:
    """Cells to either side, and up and down."""
    return round(style.window_x * radius), round(style.window_y * radius)


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


WINDOWS = sorted({(0, 0)} | {_window(style, radius) for style in STYLES for radius in RADII})


class _Guesses:
    """Log depth of samples that the diagram does not know, under every style."""

    def __init__(
        self, samples: Samples, asked: Samples, loo_base: np.ndarray, diagram: Diagram
    ) -> None:
        self.base, self.truth = loo_base, asked.truth
        rows, columns = asked.rows // diagram.step, asked.columns // diagram.step
        self._shares = _shares(diagram.distance[rows, columns])
        self._strength = _strength(diagram.distance[rows, columns], diagram.spacing)
        reach = max(max(window) for window in WINDOWS)
        window = np.arange(-reach, reach + 1)
        height, width = diagram.nearest.shape
        patch = diagram.nearest[
            np.clip(rows[:, None] + window, 0, height - 1)[:, :, None],
            np.clip(columns[:, None] + window, 0, width - 1)[:, None, :],
        ].reshape(len(asked), window.size**2)
        within = [(np.abs(window)[:, None] <= y) & (np.abs(window) <= x) for x, y in WINDOWS]
        share = np.stack([mask.ravel() / mask.sum() for mask in within], axis=1)
        channels = [_residual(samples, False), _residual(samples, True), np.exp(samples.truth)]
        self._means = [(values[patch] @ share).T for values in channels]
        self._averages: dict[tuple[int, float, float], np.ndarray] = {}

    def _average(self, channel: int, style: Style) -> np.ndarray:
        key = channel, style.window_x, style.window_y
        if key not in self._averages:

            def mean(x: int, y: int) -> np.ndarray:
                return np.asarray(self._means[channel][WINDOWS.index((x, y))])

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

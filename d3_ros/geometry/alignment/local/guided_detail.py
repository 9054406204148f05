"""Detail that follows the image's edges: a local regression of the sensor points, guided by colour.

Each cell of the image fits a plane in log depth to the points around it. A point's weight falls
with its distance, with the difference of colour, and with the difference of the depth that the
smooth field predicts. Where no point is alike, the smooth field stays. Left-out points choose the
style: how much the points outweigh the field, and whether the field's own shape stays between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.spatial import cKDTree

from d3_ros.geometry.alignment.local.detail import Detail
from d3_ros.geometry.alignment.local.voronoi import Samples
from d3_ros.geometry.alignment.parallel import together
from d3_ros.geometry.alignment.smoothing import SteadyChoice

# Pixels of a cell where points are farther apart than `FINE_SPACING` pixels, half of it elsewhere.
COARSE_STEP, FINE_SPACING = 4, 10.0
# Cells of one block share their candidate points; its side in spacings of the points.
BLOCK_SPACINGS = 1.5
# Points that each block looks at.
NEIGHBOURS = 14
# Weights fall to 0.6 at these differences: distance (over that to the sixth neighbour), colour
# (CIE Lab) and log depth of the smooth field.
REACH, BANDWIDTH_NEIGHBOUR = 0.8, 5
COLOUR, FIELD_DEPTH = 6.0, 0.15
# Weight of the slopes' regularisation, in squared bandwidths.
SLOPE_RIDGE = 0.03
# A plane may leave the range of its points by this (log depth).
OVERSHOOT = 0.05
# Log depth; a left-out point that is off by more may itself be an outlier.
ERROR_CAP = 0.5
# Samples of less trust are doubted, unless the image explains them and they are at most this share.
DISTRUSTED, MOST_SMALL_OBJECTS = 0.3, 0.05
# Least total weight, which keeps divisions finite.
LEAST_WEIGHT = 1e-4


# The usual style for so many points, and how its values change with their number N: as
# (N / points) to these powers. More points leave less to the field.
USUAL_POINTS, USUAL_WEIGHT, USUAL_SHAPE = 500.0, 0.01, 0.1
WEIGHT_POWER, SHAPE_POWER = -0.5, -0.5
WEIGHT_LIMITS = (0.005, 2.0)
# The styles to choose from: factor on the usual weight of the field, and whether its whole shape
# stays. The first one is the usual style.
VARIANTS = ((1.0, False), (10.0, False), (1.0, True), (10.0, True), (100.0, True))
# Another style must be better than the usual one by so many standard errors of the difference.
SIGNIFICANT_ERRORS = 1.0


@dataclass(frozen=True)
class GuidedStyle:
    """`field_weight`: weight of the smooth field against points of weight 1 each.

    `field_shape`: share of the field's own shape that stays between the points, 0 to 1.
    """

    field_weight: float
    field_shape: float


def styles_for(points: int) -> list[GuidedStyle]:
    """One style per entry of `VARIANTS`, for that many points."""
    more = points / USUAL_POINTS
    weight = float(np.clip(USUAL_WEIGHT * more**WEIGHT_POWER, *WEIGHT_LIMITS))
    shape = min(1.0, USUAL_SHAPE * more**SHAPE_POWER)
    return [GuidedStyle(weight * factor, 1.0 if whole else shape) for factor, whole in VARIANTS]


class Guide:
    """The image at half size. Its colours are compared in CIE Lab, where differences are even."""

    def __init__(self, rgb: np.ndarray) -> None:
        height, width = rgb.shape[:2]
        half = (-(-width // 2), -(-height // 2))
        self._half = cv2.resize(rgb, half, interpolation=cv2.INTER_AREA)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(3, N) colours of pixels (N,), in units of `COLOUR`."""
        return _scaled_lab(self._half[rows // 2, columns // 2][:, None])[..., 0]

    def over(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(3, h, w) colours of a grid of pixels, rows (h,) and columns (w,); see `at`."""
        return _scaled_lab(self._half[rows // 2].take(columns // 2, axis=1))


def _scaled_lab(rgb: np.ndarray) -> np.ndarray:
    """(3, h, w) float32 Lab of RGB (h, w, 3) uint8, in units of `COLOUR`."""
    lightness, a, b = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))
    factors = (100.0 / 255.0 / COLOUR, 1.0 / COLOUR, 1.0 / COLOUR)
    channels = zip((lightness, a, b), factors, strict=True)
    return np.stack([channel * np.float32(factor) for channel, factor in channels])


class GuidedDetailModel:
    """Detail from points and image; remembers which style predicted left-out points best.

    Args:
        hysteresis: share by which another style must be better to take over.
    """

    def __init__(self, hysteresis: float) -> None:
        self._choice: SteadyChoice[int] = SteadyChoice(hysteresis)

    def fit(
        self,
        guide: Guide,
        samples: Samples,
        loo_base: np.ndarray,
        shape: tuple[int, int],
        base: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> tuple[Detail, np.ndarray, np.ndarray]:
        """The detail that samples add to the base; errors and trust of the samples that judge.

        Args:
            guide: the image.
            samples: sensor points.
            loo_base: (M,) base at the last M samples, each predicted without itself. These samples
                choose the style.
            shape: (H, W) of the image.
            base: rows (h,) and columns (w,) of pixels to their (h, w) log depth so far.
        """
        samples = _believe_small_objects(guide, samples)
        judges = np.arange(len(samples) - len(loo_base), len(samples))
        truth = samples.truth[judges]
        styles = styles_for(len(samples))
        cloud = _Cloud(guide, samples)

        def judge() -> tuple[GuidedStyle, np.ndarray]:
            if len(truth) == 0:
                return styles[0], truth
            some = samples[judges]
            planes = cloud.at_points(some.rows, some.columns, loo_base, judges)
            errors = [planes.predict(style)[:, 0] - truth for style in styles]
            # The root, so that the few points beside a step do not decide alone.
            capped = [np.sqrt(np.minimum(np.abs(error), ERROR_CAP)) for error in errors]
            chosen = self._choice.choose(
                {
                    number: float(np.mean(error)) + _standard_error(error - capped[0])
                    for number, error in enumerate(capped)
                }
            )
            return styles[chosen], errors[chosen]

        cells = _Cells(shape, (shape[0] * shape[1] / len(samples)) ** 0.5)

        def regress() -> _Planes:
            return cloud.at_cells(cells, np.nan_to_num(base(cells.rows, cells.columns)))

        planes, (style, errors) = together(regress, judge)
        offset, weight = (cells.image(part) for part in planes.blend(style))
        return Detail(offset, weight, cells.step), errors, samples.trust[judges]


def _believe_small_objects(guide: Guide, samples: Samples) -> Samples:
    """Trust distrusted samples where the image explains them: no sample near has their colour.

    Only where they are few: many of them are outliers of the sensor.
    """
    distrusted = np.flatnonzero(samples.trust < DISTRUSTED)
    if not 0 < len(distrusted) <= MOST_SMALL_OBJECTS * len(samples):
        return samples
    some = samples[distrusted]
    planes = _Cloud(guide, samples).at_points(some.rows, some.columns, some.base, distrusted)
    trust = samples.trust.copy()
    trust[distrusted] = np.maximum(some.trust, np.exp(-planes.mass[:, 0]))
    return replace(samples, trust=trust)


def _standard_error(differences: np.ndarray) -> float:
    """`SIGNIFICANT_ERRORS` standard errors of the mean of (N,) differences; 0 if all are equal."""
    return SIGNIFICANT_ERRORS * float(np.std(differences)) / len(differences) ** 0.5


class _Cloud:
    """Samples with their colours and a search tree."""

    def __init__(self, guide: Guide, samples: Samples) -> None:
        self.guide = guide
        rows, columns = samples.rows.astype(np.intp), samples.columns.astype(np.intp)
        pixels = np.column_stack([rows, columns])
        # A tree that is built quickly and asked once.
        self.tree = cKDTree(pixels, balanced_tree=False, compact_nodes=False)
        self.pixels = pixels.astype(np.float32)
        self.likeness = _likeness(guide.at(rows, columns), samples.base).T
        self.base = samples.base.astype(np.float32)
        self.truth = samples.truth.astype(np.float32)
        self.log_trust = np.log(np.maximum(samples.trust, 1e-6)).astype(np.float32)

    def at_points(
        self, rows: np.ndarray, columns: np.ndarray, base: np.ndarray, own: np.ndarray
    ) -> _Planes:
        """Planes at (P,) pixels; `own` (P,) is the sample that each may not use, or -1."""
        centres = np.column_stack([rows, columns]).astype(np.float32)
        at_centre = np.zeros((2, 1), np.float32)
        likeness = _likeness(self.guide.at(rows, columns), base).T
        return self._planes(centres, at_centre, likeness[..., None], own)

    def at_cells(self, cells: _Cells, base: np.ndarray) -> _Planes:
        """Planes at all cells of an image; `base` (h, w) is their log depth so far."""
        colours = self.guide.over(cells.padded_rows, cells.padded_columns)
        likeness = cells.blocks(_likeness(colours, cells.pad(base)))
        return self._planes(cells.centres, cells.offsets, likeness)

    def _planes(
        self,
        centres: np.ndarray,
        offsets: np.ndarray,
        likeness: np.ndarray,
        own: np.ndarray | None = None,
    ) -> _Planes:
        """Planes at B blocks of Q places each, which share their candidate samples.

        Args:
            centres: (B, 2) row and column of the blocks.
            offsets: (2, Q) rows and columns of a block's places from its centre.
            likeness: (B, 4, Q) of the places, see `_likeness`.
            own: (B,) the sample that each may not use.
        """
        count = min(NEIGHBOURS + (own is not None), len(self.truth))
        distance, index = self.tree.query(centres, k=count)
        distance, index = distance.reshape(-1, count), index.reshape(-1, count)
        sixth = distance[:, min(BANDWIDTH_NEIGHBOUR, count - 1)]
        per_bandwidth = (1.0 / (REACH * np.maximum(sixth, 1.0))).astype(np.float32)[:, None, None]
        near = (self.pixels[index] - centres[:, None]) * per_bandwidth
        like = self.likeness[index]
        log_trust = self.log_trust[index]
        if own is not None:
            log_trust = np.where(index == own[:, None], np.float32(-50.0), log_trust)
        # log_trust - |place - sample|^2 / 2 as one product of matrices, in which the places'
        # factors do not depend on the bandwidth.
        blocks, _, many = likeness.shape
        places = np.empty((blocks, 9, many), np.float32)
        places[:, :4], places[:, 4:6] = likeness, offsets
        places[:, 6] = -0.5 * np.einsum("bfq,bfq->bq", likeness, likeness)
        places[:, 7] = -0.5 * (offsets * offsets).sum(axis=0)
        places[:, 8] = 1.0
        samples = np.empty((blocks, count, 9), np.float32)
        samples[..., :4], samples[..., 4:6], samples[..., 6] = like, near * per_bandwidth, 1.0
        samples[..., 7:8] = per_bandwidth * per_bandwidth
        samples[..., 8] = log_trust - 0.5 * (_squared_norm(near) + _squared_norm(like))
        exponent = samples @ places
        weight = cv2.exp(exponent.reshape(-1, many)).reshape(exponent.shape)
        truth, field = self.truth[index], self.base[index]
        # 1, y, x; yy, yx, xx; and the two log depths times 1, y, x.
        moments = np.empty((blocks, 12, count), np.float32)
        moments[:, 0], moments[:, 1:3] = 1.0, near.transpose(0, 2, 1)
        np.multiply(moments[:, 1:3], moments[:, 1:2], out=moments[:, 3:5])
        np.square(moments[:, 2], out=moments[:, 5])
        np.multiply(moments[:, :3], truth[:, None], out=moments[:, 6:9])
        np.multiply(moments[:, :3], field[:, None], out=moments[:, 9:])
        base = likeness[:, 3] * np.float32(FIELD_DEPTH)
        values = self.truth[index.T], self.base[index.T]
        return _Planes(moments @ weight, offsets * per_bandwidth, *values, base)


def _likeness(colours: np.ndarray, base: np.ndarray) -> np.ndarray:
    """(4, ...) float32: colours (3, ...) and log depth of the smooth field, both in bandwidths."""
    return np.concatenate([colours, (base * (1.0 / FIELD_DEPTH)).astype(np.float32)[None]])


def _squared_norm(vectors: np.ndarray) -> np.ndarray:
    """(B, N) of (B, N, F)."""
    return np.asarray(np.einsum("bnf,bnf->bn", vectors, vectors))


class _Planes:
    """Weighted planes through the samples around B blocks of Q places.

    Args:
        moments: (B, 12, Q) weighted sums: 1, y, x, yy, yx, xx; z, yz, xz of the sensor's log depth,
            and of the field's.
        position: (B, 2, Q) of the places: y and x, in bandwidths from the block's centre.
        truth, field: (K, B) log depth of the samples, by the sensor and by the field.
        base: (B, Q) log depth of the places by the field.
    """

    def __init__(
        self,
        moments: np.ndarray,
        position: np.ndarray,
        truth: np.ndarray,
        field: np.ndarray,
        base: np.ndarray,
    ) -> None:
        self.mass = moments[:, 0] + np.float32(LEAST_WEIGHT)
        moments /= self.mass[:, None]
        _, y, x, yy, yx, xx = (moments[:, number] for number in range(6))
        self._values = moments[:, 6:9], moments[:, 9:12]
        self._truth, self._field, self.base = truth, field, base
        yy = yy - y * y + SLOPE_RIDGE
        xx = xx - x * x + SLOPE_RIDGE
        yx = yx - y * x
        up, right = position[:, 0] - y, position[:, 1] - x
        scale = 1.0 / (xx * yy - yx * yx)
        # The plane's level at the place is the product of these with (z, yz, xz).
        along_y = (xx * up - yx * right) * scale
        along_x = (yy * right - yx * up) * scale
        self._factors = 1.0 - along_y * y - along_x * x, along_y, along_x
        self._levels: dict[float, np.ndarray] = {}  # styles share them

    def blend(self, style: GuidedStyle) -> tuple[np.ndarray, np.ndarray]:
        """Offset and weight (B, Q), see `Detail`."""
        shape = np.float32(style.field_shape)
        share = self.mass / (self.mass + np.float32(style.field_weight))
        return share * self._level_without(float(shape)), share * (1 - shape)

    def _level_without(self, shape: float) -> np.ndarray:
        """(B, Q) level of the planes through truth - shape * field."""
        if shape not in self._levels:
            values = self._values[0] - np.float32(shape) * self._values[1]
            level = sum(factor * values[:, number] for number, factor in enumerate(self._factors))
            samples = self._truth - np.float32(shape) * self._field
            low, high = samples.min(axis=0), samples.max(axis=0)
            bounds = low[:, None] - OVERSHOOT, high[:, None] + OVERSHOOT
            self._levels[shape] = np.clip(level, *bounds)
        return self._levels[shape]

    def predict(self, style: GuidedStyle) -> np.ndarray:
        """(B, Q) log depth."""
        offset, weight = self.blend(style)
        return (1.0 - weight) * self.base + offset


class _Cells:
    """A grid of cells over an image, in square blocks that share their candidate samples.

    `rows` (h,), `columns` (w,): pixels at the cells' centres. `step`: pixels a cell. `padded`:
    shape of the grid with whole blocks. `centres` (B, 2): of the blocks, pixels. `offsets`
    (2, Q): rows and columns of a block's cells from its centre, pixels.
    """

    def __init__(self, shape: tuple[int, int], spacing: float) -> None:
        self.step = COARSE_STEP if spacing > FINE_SPACING else COARSE_STEP // 2
        side = max(1, round(BLOCK_SPACINGS * spacing / self.step))
        self._side = min(side, max(-(-pixels // self.step) for pixels in shape))
        self.rows, self.columns = (self._pixels(-(-size // self.step), size) for size in shape)
        blocks = [-(-len(axis) // self._side) for axis in (self.rows, self.columns)]
        self._blocks = blocks[0], blocks[1]
        self.padded = blocks[0] * self._side, blocks[1] * self._side
        self.padded_rows, self.padded_columns = (
            self._pixels(cells, size) for cells, size in zip(self.padded, shape, strict=True)
        )
        width = self._side * self.step
        axes = [np.arange(count) * width + 0.5 * (width - self.step) for count in blocks]
        centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) + self.step // 2
        self.centres = centres.reshape(-1, 2).astype(np.float32)
        within = (np.arange(self._side) - 0.5 * (self._side - 1)) * self.step
        offsets = np.stack(np.meshgrid(within, within, indexing="ij"))
        self.offsets = offsets.reshape(2, -1).astype(np.float32)

    def _pixels(self, cells: int, size: int) -> np.ndarray:
        return np.minimum(np.arange(cells) * self.step + self.step // 2, size - 1)

    def pad(self, image: np.ndarray) -> np.ndarray:
        """(h, w) to the padded shape, the last cells repeated."""
        more = [whole - size for whole, size in zip(self.padded, image.shape, strict=True)]
        return np.pad(image, [(0, count) for count in more], mode="edge")

    def blocks(self, image: np.ndarray) -> np.ndarray:
        """Padded (C, h, w) of cells to (B, C, Q)."""
        high, wide = self._blocks
        image = image.reshape(-1, high, self._side, wide, self._side).transpose(1, 3, 0, 2, 4)
        return image.reshape(high * wide, -1, self._side**2)

    def image(self, blocks: np.ndarray) -> np.ndarray:
        """(B, Q) back to (h, w)."""
        image = blocks.reshape(*self._blocks, self._side, self._side).transpose(0, 2, 1, 3)
        image = image.reshape(self.padded)[: len(self.rows), : len(self.columns)]
        return np.ascontiguousarray(image, np.float32)

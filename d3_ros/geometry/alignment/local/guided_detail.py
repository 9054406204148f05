"""Detail that follows the image's edges: a local regression of the sensor points, guided by colour.

Each cell of the image takes the points around it, weighted by distance, by colour and by the depth
that the smooth field predicts, and fits a plane in log depth to them. Where no point is alike, the
smooth field stays. How much the points outweigh the field, and whether the field's own shape stays
between them, is what predicts left-out points best.
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
BLOCK_SPACINGS = 0.8
# Points that each block looks at.
NEIGHBOURS = 12
# Weights fall to 0.6 at these differences: distance (over that to the sixth neighbour), colour
# (CIE Lab) and log depth of the smooth field.
REACH, BANDWIDTH_NEIGHBOUR = 0.7, 5
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
WEIGHT_POWER, SHAPE_POWER = -1.43, -0.5
WEIGHT_LIMITS = (0.005, 2.0)
# The styles to choose from: factor on the usual weight of the field, and whether its whole shape
# stays. The first one is the usual style.
VARIANTS = ((1.0, False), (10.0, False), (1.0, True), (10.0, True), (100.0, True))
# Another style must be better than the usual one by so many standard errors of the difference.
SIGNIFICANT_ERRORS = 0.5


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
    """The image at half size in CIE Lab, where colour differences are even."""

    def __init__(self, rgb: np.ndarray) -> None:
        height, width = rgb.shape[:2]
        half = cv2.resize(rgb, (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(half, cv2.COLOR_RGB2LAB).astype(np.float32)
        lab[..., 0] *= np.float32(100.0 / 255.0)
        self._scaled = lab / np.float32(COLOUR)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(..., 3) colours of pixels, in units of `COLOUR`."""
        return np.asarray(self._scaled[rows // 2, columns // 2])


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
        honest: np.ndarray,
        shape: tuple[int, int],
        base: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> tuple[Detail, np.ndarray, np.ndarray]:
        """The detail that samples add to the base; errors and trust of the samples that judge.

        Args:
            guide: the image.
            samples: sensor points.
            honest: (M,) base at the last M samples, each made without itself. These judge.
            shape: (H, W) of the image.
            base: rows (h,) and columns (w,) of pixels to their (h, w) log depth so far.
        """
        samples = _believe_small_objects(guide, samples)
        judges = np.arange(len(samples) - len(honest), len(samples))
        truth = samples.truth[judges]
        styles = styles_for(len(samples))
        cloud = _Cloud(guide, samples)

        def judge() -> tuple[GuidedStyle, np.ndarray]:
            if len(truth) == 0:
                return styles[0], truth
            some = samples[judges]
            planes = cloud.at_points(some.rows, some.columns, honest, judges)
            errors = [planes.predict(style)[:, 0] - truth for style in styles]
            capped = [np.minimum(np.abs(error), ERROR_CAP) for error in errors]
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
    """What a mean of paired differences must exceed to be significant; 0 for equal errors."""
    return SIGNIFICANT_ERRORS * float(np.std(differences)) / len(differences) ** 0.5


class _Cloud:
    """Samples with their colours and a search tree."""

    def __init__(self, guide: Guide, samples: Samples) -> None:
        self.guide = guide
        rows, columns = samples.rows.astype(np.intp), samples.columns.astype(np.intp)
        pixels = np.column_stack([rows, columns])
        self.tree = cKDTree(pixels, balanced_tree=False, compact_nodes=False)
        self.pixels = pixels.astype(np.float32)
        self.likeness = np.column_stack([guide.at(rows, columns), samples.base / FIELD_DEPTH])
        self.likeness = self.likeness.astype(np.float32)
        self.base = samples.base.astype(np.float32)
        self.truth = samples.truth.astype(np.float32)
        self.log_trust = np.log(np.maximum(samples.trust, 1e-6)).astype(np.float32)

    def at_points(
        self, rows: np.ndarray, columns: np.ndarray, base: np.ndarray, own: np.ndarray
    ) -> _Planes:
        """Planes at (P,) pixels; `own` (P,) is the sample that each may not use, or -1."""
        centres = np.column_stack([rows, columns]).astype(np.float32)
        likeness = np.column_stack([self.guide.at(rows, columns), base / FIELD_DEPTH])
        at_centre = np.zeros((1, 1, 2), np.float32)
        return self._planes(centres, at_centre, likeness[:, None].astype(np.float32), own)

    def at_cells(self, cells: _Cells, base: np.ndarray) -> _Planes:
        """Planes at all cells of an image; `base` (h, w) is their log depth so far."""
        likeness = np.empty((*cells.padded, 4), np.float32)
        likeness[..., :3] = self.guide.at(cells.padded_rows[:, None], cells.padded_columns)
        likeness[..., 3] = cells.pad(base) * np.float32(1.0 / FIELD_DEPTH)
        return self._planes(cells.centres, cells.offsets, cells.blocks(likeness))

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
            offsets: (1, Q, 2) rows and columns of a block's places from its centre.
            likeness: (B, Q, 4) scaled colours and log depths of the places.
            own: (B,) the sample that each may not use.
        """
        count = min(NEIGHBOURS + (own is not None), len(self.truth))
        distance, index = self.tree.query(centres, k=count)
        distance, index = distance.reshape(-1, count), index.reshape(-1, count)
        sixth = distance[:, min(BANDWIDTH_NEIGHBOUR, count - 1), None, None]
        per_bandwidth = (1.0 / (REACH * np.maximum(sixth, 1.0))).astype(np.float32)
        position = offsets * per_bandwidth
        near = (self.pixels[index] - centres[:, None]) * per_bandwidth
        like = self.likeness[index]
        log_trust = self.log_trust[index]
        if own is not None:
            log_trust = np.where(index == own[:, None], np.float32(-50.0), log_trust)
        # -|place - sample|^2 / 2 + log_trust as one product of matrices.
        places = np.empty((*likeness.shape[:2], 8), np.float32)
        places[..., :2], places[..., 2:6] = position, likeness
        places[..., 6] = -0.5 * (_squared_norm(position) + _squared_norm(likeness))
        places[..., 7] = 1.0
        samples = np.empty((*near.shape[:2], 8), np.float32)
        samples[..., :2], samples[..., 2:6], samples[..., 6] = near, like, 1.0
        samples[..., 7] = log_trust - 0.5 * (_squared_norm(near) + _squared_norm(like))
        exponent = places @ samples.transpose(0, 2, 1)
        weight = np.asarray(cv2.exp(exponent.reshape(-1, count))).reshape(exponent.shape)
        y, x = near[..., 0], near[..., 1]
        truth, field = self.truth[index], self.base[index]
        moments = np.stack(
            [np.ones_like(x), y, x, y * y, x * x, y * x]
            + [factor * value for value in (truth, field) for factor in (1.0, y, x)],
            axis=2,
        )
        base = likeness[..., 3] * np.float32(FIELD_DEPTH)
        return _Planes(weight @ moments, position[..., 0], position[..., 1], truth, field, base)


def _squared_norm(vectors: np.ndarray) -> np.ndarray:
    """(B, N) of (B, N, F)."""
    return np.asarray(np.einsum("bnf,bnf->bn", vectors, vectors))


class _Planes:
    """Weighted planes through the samples around B blocks of Q places.

    Args:
        moments: (B, Q, 12) weighted sums: 1, y, x, yy, xx, yx; z, yz, xz of the sensor's log depth,
            and of the field's.
        y, x: (B, Q) of the places, in bandwidths from the block's centre.
        truth, field: (B, K) log depth of the samples, by the sensor and by the field.
        base: (B, Q) log depth of the places by the field.
    """

    def __init__(
        self,
        moments: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        truth: np.ndarray,
        field: np.ndarray,
        base: np.ndarray,
    ) -> None:
        self.mass = moments[..., 0] + np.float32(LEAST_WEIGHT)
        self._moments = np.moveaxis(moments, 2, 0) / self.mass
        self._y, self._x = y, x
        self._truth, self._field, self.base = truth, field, base

    def blend(self, style: GuidedStyle) -> tuple[np.ndarray, np.ndarray]:
        """Offset and weight (B, Q), see `Detail`."""
        _, y, x, yy, xx, yx, *values = self._moments
        shape = np.float32(style.field_shape)
        z, yz, xz = (values[i] - shape * values[i + 3] for i in range(3))
        yy = yy - y * y + SLOPE_RIDGE
        xx = xx - x * x + SLOPE_RIDGE
        yx = yx - y * x
        yz = yz - y * z
        xz = xz - x * z
        determinant = xx * yy - yx * yx
        level = (
            z
            + ((yy * xz - yx * yz) * (self._x - x) + (xx * yz - yx * xz) * (self._y - y))
            / determinant
        )
        samples = self._truth - shape * self._field
        low, high = samples.min(axis=1), samples.max(axis=1)
        level = np.clip(level, low[:, None] - OVERSHOOT, high[:, None] + OVERSHOOT)
        share = self.mass / (self.mass + np.float32(style.field_weight))
        return share * level, share * (1 - shape)

    def predict(self, style: GuidedStyle) -> np.ndarray:
        """(B, Q) log depth."""
        offset, weight = self.blend(style)
        return (1.0 - weight) * self.base + offset


class _Cells:
    """A grid of cells over an image, in square blocks that share their candidate samples.

    `rows` (h,), `columns` (w,): pixels at the cells' centres. `step`: pixels a cell. `padded`:
    shape of the grid with whole blocks. `centres` (B, 2): of the blocks, pixels. `offsets`
    (1, Q, 2): of a block's cells from its centre.
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
        offsets = np.stack(np.meshgrid(within, within, indexing="ij"), axis=-1)
        self.offsets = offsets.reshape(1, -1, 2).astype(np.float32)

    def _pixels(self, cells: int, size: int) -> np.ndarray:
        return np.minimum(np.arange(cells) * self.step + self.step // 2, size - 1)

    def pad(self, image: np.ndarray) -> np.ndarray:
        """(h, w) to the padded shape, the last cells repeated."""
        more = [whole - size for whole, size in zip(self.padded, image.shape, strict=True)]
        return np.pad(image, [(0, count) for count in more], mode="edge")

    def blocks(self, image: np.ndarray) -> np.ndarray:
        """Padded (h, w, C) of cells to (B, Q, C)."""
        high, wide = self._blocks
        image = image.reshape(high, self._side, wide, self._side, -1).transpose(0, 2, 1, 3, 4)
        return image.reshape(high * wide, self._side**2, -1)

    def image(self, blocks: np.ndarray) -> np.ndarray:
        """(B, Q) back to (h, w)."""
        image = blocks.reshape(*self._blocks, self._side, self._side).transpose(0, 2, 1, 3)
        image = image.reshape(self.padded)[: len(self.rows), : len(self.columns)]
        return np.ascontiguousarray(image, np.float32)

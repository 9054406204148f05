"""The expected error of every metre: larger away from the points, at steps, and for old fits.

The relative error is a product of powers of what tells how well a pixel is known. The powers are
fitted by quantile regression to frames of several sources, for random points, one scan line and the
lower half of the image alike; see docs/alignment.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.spatial import cKDTree

from d3_ros.geometry.alignment.numerics import LEAST_METRES
from d3_ros.geometry.alignment.points import Points

# log of the relative error = CONSTANT + sum of power * log(value + offset). Distances are in units
# of the image's longer side, depths are logarithms.
CONSTANT = 2.22
# Distance to the nearest point, and the difference of depth to it.
DISTANCE_POWER, DISTANCE_OFFSET = 0.45, 0.005
STEP_POWER, STEP_OFFSET = 0.3, 0.01
# Range of depth within `WINDOW` of the pixel: edges are near.
RANGE_POWER, RANGE_OFFSET, WINDOW = 0.385, 0.01, 9
# The smaller side of the rectangle around the points.
EXTENT_POWER, EXTENT_OFFSET = -0.1, 0.05
# Mean error of the LEFT_OUT_AROUND left-out points around the nearest point. It says nothing about
# pixels outside the rectangle around all points: within the distance OUTSIDE of the rectangle it
# changes to ERROR_OUTSIDE.
ERROR_POWER, ERROR_OFFSET, LEFT_OUT_AROUND = 0.598, 0.003, 6
OUTSIDE, ERROR_OUTSIDE = 0.05, 0.129
# The left-out points of a frame calibrate it: sigma is multiplied by the QUANTILE of actual over
# expected error at them, relative to its usual value USUAL_QUANTILE. With n points, the factor is
# taken to the power n / (n + USUAL_WEIGHT): few points change little.
QUANTILE, USUAL_QUANTILE, QUANTILE_OFFSET, USUAL_WEIGHT = 0.68, 0.75, 0.05, 8.0
# More than `MANY` points show their own errors well, and less of what lies at edges between them:
# sigma grows with their number to this power, up to `MOST` points.
MANY, MOST, MANY_POWER = 100, 2000, 0.06
# Left-out points whose weight is below this are outliers of the sensor.
BELIEVED = 0.5
LEAST_ERROR, MOST_ERROR = 1e-3, 3.0
# Pixels are looked at in steps of this many.
STRIDE = 2
# Where metres do not follow the network, or all points lie at one depth, nothing is known of what
# is farther than this from them: the relative error grows to `UNKNOWN_ERROR`.
UNKNOWN_DISTANCE, UNKNOWN_ERROR = 0.1, 0.5
# Relative error that a held fit gains per second.
ERROR_PER_SECOND = 0.05
# Mean relative error of an image, as a share of the mean of its expected errors, which count as
# `MOST_OF_MEAN` at most. It is looked at in so many rows, in every `MEAN_STRIDE`-th column.
MEAN_SHARE, MOST_OF_MEAN, MEAN_ROWS, MEAN_STRIDE = 0.75, 0.5, 6, 8
# Points whose rectangle is less than the first share of the image tell nothing about the error of
# the rest; from the second on they stand for all of it.
COVERS_LITTLE, COVERS_ALL = 0.55, 0.65
# Weight of a left-out point that is not believed at all.
LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class LeftOut:
    """M sensor points and the error of a prediction at each, made without that point if possible.

    `rows`, `columns`: pixels. `depth`: the sensor's, metres. `error`: |predicted - depth| / depth,
    finite. `weight`: how far each point is believed, 0 to 1.
    """

    rows: np.ndarray
    columns: np.ndarray
    depth: np.ndarray
    error: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, points: Points, predicted: np.ndarray) -> LeftOut:
        """Points and the (N,) metres predicted for them; without those that have none."""
        error = np.abs(predicted / points.depth - 1.0)
        known = np.isfinite(error)
        error = error[known]
        some = points[known]
        return cls(some.rows, some.columns, some.depth, error, np.ones(len(error)))

    def __len__(self) -> int:
        return len(self.error)

    def mean(self) -> float:
        """Weighted mean error; NaN without points."""
        return float(self.error @ self.weight / self.weight.sum()) if len(self) else np.nan

    def around(self, points: Points) -> np.ndarray:
        """(N,) weighted mean error of the left-out points nearest to each of N points."""
        tree = cKDTree(np.column_stack([self.rows, self.columns]))
        count = min(LEFT_OUT_AROUND, len(self))
        _, near = tree.query(np.column_stack([points.rows, points.columns]), k=count)
        near = near.reshape(len(points), count)
        weight = self.weight[near] + LEAST_WEIGHT
        return np.asarray((self.error[near] * weight).sum(axis=1) / weight.sum(axis=1))


@dataclass(frozen=True)
class ErrorModel:
    """What the expected error of one fit depends on.

    `points`: N of the sensor's. `left_out`: (N,) mean error of the left-out points around each.
    `guess`: nothing is known away from the points. `age_s`: of the fit, 0 when measured.
    `lost_error`: relative error that is added to a held fit without its local correction.
    `log_factor`: logarithm of this frame's errors over the usual ones; see `calibrated`.
    """

    points: Points
    left_out: np.ndarray
    guess: bool
    age_s: float = 0.0
    lost_error: float = 0.0
    log_factor: float = 0.0

    def calibrated(
        self, judges: LeftOut, depth_range: np.ndarray, longer: int, given: int
    ) -> ErrorModel:
        """The same, calibrated by left-out points of the frame.

        Args:
            judges: M left-out points.
            depth_range: (M,) range of log depth around them.
            longer: side of the image, in pixels.
            given: how many points the sensor gave; `points` may be thinned.
        """
        believed = judges.weight >= BELIEVED
        count = int(np.count_nonzero(believed))
        if count == 0 or len(self.points) < 2:
            return self
        tree = cKDTree(np.column_stack([self.points.rows, self.points.columns]))
        two, index = tree.query(np.column_stack([judges.rows, judges.columns])[believed], k=2)
        itself = (two[:, 0] == 0).astype(np.intp)
        one = np.arange(count), itself
        alike = replace(self, left_out=np.full(len(self.points), judges.mean()))
        expected = alike._relative_error(
            np.log(judges.depth[believed])[None].astype(np.float32),
            depth_range[believed][None].astype(np.float32),
            np.zeros((1, count), np.float32),
            two[one][None],
            index[one][None],
            longer,
        )
        share = float(np.quantile(judges.error[believed] / expected[0], QUANTILE))
        log_factor = np.log((share + QUANTILE_OFFSET) / (USUAL_QUANTILE + QUANTILE_OFFSET))
        log_factor *= count / (count + USUAL_WEIGHT)
        log_factor += MANY_POWER * np.log(np.clip(given, MANY, MOST) / MANY)
        return replace(self, log_factor=float(log_factor))

    def __call__(self, metric: np.ndarray) -> np.ndarray:
        """(H, W) float32 expected relative error (1 sigma) of (H, W) metres; NaN stays NaN."""
        height, width = metric.shape
        known = np.isfinite(metric)
        if not known.any():
            return np.full(metric.shape, np.nan, np.float32)
        log_depth = np.log(np.where(known, metric, np.float32(1.0))[::STRIDE, ::STRIDE])
        cells = (
            (self.points.rows // STRIDE).astype(np.intp),
            (self.points.columns // STRIDE).astype(np.intp),
        )
        distance, nearest = _nearest(*cells, log_depth.shape)
        distance *= np.float32(STRIDE)
        rows, columns = (STRIDE * np.arange(size) for size in log_depth.shape)
        relative = self._relative_error(
            log_depth,
            _range(log_depth),
            self._outside(rows, columns),
            distance,
            nearest,
            max(height, width),
        )
        sigma = np.asarray(cv2.resize(relative, (width, height), interpolation=cv2.INTER_LINEAR))
        sigma[~known] = np.nan
        return sigma

    def mean(
        self, held_out: float, metres: Callable[[slice], np.ndarray], shape: tuple[int, int]
    ) -> float:
        """Expected mean relative error of an image; NaN without metres.

        Where the points cover the image, it is that of held-out points; else (a scanner, a LiDAR)
        it comes from the expected error of some pixels.

        Args:
            held_out: mean relative error of held-out points, NaN where unknown.
            metres: the (h, W) metres of a band of the image's rows.
            shape: (H, W) of the image.
        """
        points = self.points
        covered = float(np.ptp(points.rows)) * float(np.ptp(points.columns)) / (shape[0] * shape[1])
        # Few points that are spread evenly do not reach the border.
        covered *= ((len(points) + 1) / max(len(points) - 1, 1)) ** 2
        trust = float(np.clip((covered - COVERS_LITTLE) / (COVERS_ALL - COVERS_LITTLE), 0.0, 1.0))
        if not np.isfinite(held_out):
            return self._mean_of_pixels(metres, shape)
        if trust == 1.0:
            return held_out
        return trust * held_out + (1.0 - trust) * self._mean_of_pixels(metres, shape)

    def _mean_of_pixels(
        self, metres: Callable[[slice], np.ndarray], shape: tuple[int, int]
    ) -> float:
        """Expected mean relative error of an image by that of some of its pixels."""
        evenly = (np.arange(MEAN_ROWS) + 0.5) / MEAN_ROWS
        tops = (evenly * max(shape[0] - WINDOW, 0)).astype(int)
        bands = [metres(slice(top, min(top + WINDOW, shape[0]))) for top in tops]
        log_depth = np.log(np.stack(bands)[:, ::STRIDE, ::STRIDE])
        count, height, width = log_depth.shape
        middle = height // 2  # its window is the band
        depth_range = _range(np.nan_to_num(log_depth).reshape(-1, width)).reshape(count, height, -1)
        some = slice(0, None, MEAN_STRIDE // STRIDE)
        depth, depth_range = log_depth[:, middle, some], depth_range[:, middle, some]
        known = np.isfinite(depth)
        if not known.any():
            return float("nan")
        rows, columns = tops + STRIDE * middle, MEAN_STRIDE * np.arange(depth.shape[1])
        tree = cKDTree(np.column_stack([self.points.rows, self.points.columns]))
        pixels = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        distance, nearest = tree.query(pixels)
        error = self._relative_error(
            np.nan_to_num(depth),
            depth_range,
            self._outside(rows, columns),
            distance,
            nearest,
            max(shape),
        )
        return MEAN_SHARE * float(np.minimum(error[known], MOST_OF_MEAN).mean())

    def _outside(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(h, w) float32 distance of a grid's pixels to the rectangle around all points."""
        beyond = _beyond(rows, self.points.rows)[:, None], _beyond(columns, self.points.columns)
        return np.asarray(np.hypot(*beyond))

    def _relative_error(
        self,
        log_depth: np.ndarray,
        depth_range: np.ndarray,
        outside: np.ndarray,
        distance: np.ndarray,
        nearest: np.ndarray,
        longer: int,
    ) -> np.ndarray:
        """(h, w) float32 expected relative error of pixels.

        Args:
            log_depth: (h, w) log of metres.
            depth_range: (h, w) range of log depth around.
            outside: (h, w) distance to the rectangle around all points, in pixels.
            distance: (h, w) to the nearest point, in pixels.
            nearest: (h, w) the index of that point.
            longer: side of the image, in pixels.
        """
        points = self.points
        distance = distance.astype(np.float32) * np.float32(1.0 / longer)
        step = np.abs(log_depth - np.log(points.depth).astype(np.float32)[nearest])
        outside = np.minimum(outside * np.float32(1.0 / (longer * OUTSIDE)), np.float32(1.0))
        left_out = np.log(self.left_out + ERROR_OFFSET).astype(np.float32)[nearest]
        left_out += outside * (np.float32(np.log(ERROR_OUTSIDE + ERROR_OFFSET)) - left_out)
        extent = min(_span(points.rows), _span(points.columns)) / longer
        total = np.float32(ERROR_POWER) * left_out
        total += np.float32(self.log_factor) * (np.float32(1.0) - outside)
        total += np.float32(CONSTANT + EXTENT_POWER * np.log(extent + EXTENT_OFFSET))
        for value, power, offset in (
            (distance, DISTANCE_POWER, DISTANCE_OFFSET),
            (step, STEP_POWER, STEP_OFFSET),
            (depth_range, RANGE_POWER, RANGE_OFFSET),
        ):
            total += np.float32(power) * cv2.log(value + np.float32(offset))
        relative = np.clip(cv2.exp(total), LEAST_ERROR, MOST_ERROR)
        more = np.hypot(self.lost_error, ERROR_PER_SECOND * self.age_s)
        if self.guess:
            far = 1.0 - cv2.exp(distance * np.float32(-1.0 / UNKNOWN_DISTANCE))
            more = np.hypot(np.float32(more), np.float32(UNKNOWN_ERROR) * far)
        elif more == 0.0:
            return np.asarray(relative)
        return np.asarray(np.hypot(relative, more), np.float32)


def range_at(
    relative: np.ndarray, judges: LeftOut, metres: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(M,) range of log depth within `WINDOW` pixels of points.

    Args:
        relative: (H, W) relative depth.
        judges: the points.
        metres: of relative depth (M,), monotonic.
    """
    cells = np.ascontiguousarray(relative[::STRIDE, ::STRIDE])
    window = np.ones((WINDOW // STRIDE | 1,) * 2, np.uint8)
    at = (judges.rows // STRIDE).astype(np.intp), (judges.columns // STRIDE).astype(np.intp)
    ends = (metres(side(cells, window)[at]) for side in (cv2.dilate, cv2.erode))
    near, far = (np.log(np.maximum(end, LEAST_METRES)) for end in ends)
    return np.nan_to_num(np.abs(far - near))


def _range(log_depth: np.ndarray) -> np.ndarray:
    """Range of log depth within `WINDOW` pixels of each cell, (h, w)."""
    side = WINDOW // STRIDE | 1
    window = np.ones((side, side), np.uint8)
    return np.asarray(cv2.dilate(log_depth, window) - cv2.erode(log_depth, window))


def _nearest(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every cell to the nearest of the cells (N,), and which one that is, (h, w)."""
    empty = np.ones(shape, np.uint8)
    empty[rows, columns] = 0
    distance, label = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    index = np.zeros(len(rows) + 1, np.intp)
    index[label[rows, columns]] = np.arange(len(rows))
    return distance, index[label]


def _beyond(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) float32 by how much each of (n,) numbers is outside the range of the values."""
    return np.maximum(np.maximum(values.min() - at, at - values.max()), 0).astype(np.float32)


def _span(values: np.ndarray) -> float:
    low, high = np.quantile(values, (0.05, 0.95))
    return float(high - low)

"""The expected error of every metre: larger away from the points, at steps, and for old fits.

The relative error is a product of powers of what tells how well a pixel is known. The powers are
fitted by quantile regression to frames of several sources, for random points, one scan line and the
lower half of the image alike; see docs/alignment.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.geometry.alignment.points import Points

# log of the relative error = CONSTANT + sum of power * log(value + offset). Distances are in units
# of the image's longer side, depths are logarithms.
CONSTANT = 3.97
# The frame's own left-out error.
ERROR_POWER, ERROR_OFFSET = 0.419, 0.004
# Distance to the nearest point, and the difference of depth to it.
DISTANCE_POWER, DISTANCE_OFFSET = 0.712, 0.005
STEP_POWER, STEP_OFFSET = 0.237, 0.01
# Range of depth within `WINDOW` of the pixel: edges are near.
RANGE_POWER, RANGE_OFFSET, WINDOW = 0.564, 0.01, 9
# Distance to the rectangle around all points, and the smaller side of that rectangle.
OUTSIDE_POWER, OUTSIDE_OFFSET = 0.336, 0.02
EXTENT_POWER, EXTENT_OFFSET = -0.39, 0.05
LEAST_ERROR, MOST_ERROR = 1e-3, 3.0
# Pixels are looked at in steps of this many.
STRIDE = 2
# Where metres do not follow the network, or all points lie at one depth, nothing is known of what
# is farther than this from them: the relative error grows to `UNKNOWN_ERROR`.
UNKNOWN_DISTANCE, UNKNOWN_ERROR = 0.1, 0.5
# Relative error that a held fit gains per second.
ERROR_PER_SECOND = 0.05
# Left-out error of a fit without any that could be measured.
USUAL_ERROR = 0.1


@dataclass(frozen=True)
class ErrorModel:
    """What the expected error of one fit depends on.

    `points`: the sensor's. `left_out_error`: mean relative error of left-out points. `guess`:
    nothing is known away from the points. `age_s`: of the fit, 0 when measured. `lost_error`:
    relative error by which a held fit is worse without its local correction.
    """

    points: Points
    left_out_error: float
    guess: bool
    age_s: float = 0.0
    lost_error: float = 0.0

    def __call__(self, metric: np.ndarray) -> np.ndarray:
        """(H, W) float32 expected relative error (1 sigma) of (H, W) metres; NaN stays NaN."""
        height, width = metric.shape
        longer = max(height, width)
        known = np.isfinite(metric)
        if not known.any():
            return np.full(metric.shape, np.nan, np.float32)
        log_depth = np.log(np.where(known, metric, np.float32(1.0))[::STRIDE, ::STRIDE])
        rows = (self.points.rows // STRIDE).astype(np.intp)
        columns = (self.points.columns // STRIDE).astype(np.intp)
        distance, nearest = _nearest(rows, columns, log_depth.shape)
        distance *= np.float32(STRIDE / longer)
        measured = np.log(self.points.depth).astype(np.float32)
        step = np.abs(log_depth - measured[nearest])
        side = WINDOW // STRIDE | 1
        window = np.ones((side, side), np.uint8)
        spread = cv2.dilate(log_depth, window) - cv2.erode(log_depth, window)
        error = self.left_out_error if np.isfinite(self.left_out_error) else USUAL_ERROR
        extent = min(_span(self.points.rows), _span(self.points.columns)) / longer
        frame = CONSTANT + ERROR_POWER * np.log(error + ERROR_OFFSET)
        frame += EXTENT_POWER * np.log(extent + EXTENT_OFFSET)
        total = np.full(log_depth.shape, frame, np.float32)
        for value, power, offset in (
            (distance, DISTANCE_POWER, DISTANCE_OFFSET),
            (step, STEP_POWER, STEP_OFFSET),
            (spread, RANGE_POWER, RANGE_OFFSET),
            (_outside(rows, columns, log_depth.shape, longer), OUTSIDE_POWER, OUTSIDE_OFFSET),
        ):
            total += np.float32(power) * cv2.log(value + np.float32(offset))
        relative = np.clip(cv2.exp(total), LEAST_ERROR, MOST_ERROR)
        more = np.full(relative.shape, np.float32(self.lost_error))
        more = np.hypot(more, np.float32(ERROR_PER_SECOND * self.age_s))
        if self.guess:
            far = 1.0 - cv2.exp(distance * np.float32(-1.0 / UNKNOWN_DISTANCE))
            more = np.hypot(more, np.float32(UNKNOWN_ERROR) * far)
        relative = np.hypot(relative, more).astype(np.float32)
        sigma = np.asarray(cv2.resize(relative, (width, height), interpolation=cv2.INTER_LINEAR))
        sigma[~known] = np.nan
        return sigma


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


def _outside(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...], longer: int
) -> np.ndarray:
    """(h, w) float32 distance to the rectangle around the cells (N,), 0 inside."""
    beyond = []
    for size, cells in zip(shape, (rows, columns), strict=True):
        at = np.arange(size)
        beyond.append(np.maximum(np.maximum(cells.min() - at, at - cells.max()), 0))
    distance = np.hypot(beyond[0][:, None], beyond[1])
    return (distance * (STRIDE / longer)).astype(np.float32)


def _span(values: np.ndarray) -> float:
    low, high = np.quantile(values, (0.05, 0.95))
    return float(high - low)

"""Sensor depth on the pixels of the camera image: another resolution, a LiDAR, a planar scan.

Measurements are moved, never interpolated: between two of them there may be an edge.
"""

from __future__ import annotations

import cv2
import numpy as np

from d3_ros.errors import DataError
from d3_ros.geometry.camera import project
from d3_ros.types import CameraIntrinsics

# A nearer surface hides a point that lies behind it by this share of the point's depth.
HIDDEN_RATIO = 0.15
# Points of a cloud or scan outside this range from their sensor are not used, metres. Drivers write
# (0, 0, 0) where there was no return.
MIN_RANGE_M, MAX_RANGE_M = 0.1, 200.0


def place_on_image(depth_m: np.ndarray, width: int, height: int) -> np.ndarray:
    """Put each measurement on the image pixel that its own pixel's centre falls into.

    Both images show the same view (registered), so that only the resolution differs. Where several
    measurements fall on one pixel, the nearest wins: what is behind it is hidden.

    Args:
        depth_m: (h, w) float32 metres, NaN = none. Not changed.
        width: columns of the camera image.
        height: rows of it.

    Returns:
        (height, width) float32 metres, NaN where no measurement fell; `depth_m` itself if it is of
        that size already.

    Raises:
        DataError: the two have different aspect ratios, so they cannot show the same view.
    """
    own_height, own_width = depth_m.shape
    if (own_width, own_height) == (width, height):
        return depth_m
    # Equal aspect up to the rounding of one row of the sensor.
    if abs(own_height - own_width * height / width) >= 1.0:
        raise DataError(
            f"sensor depth of {own_width} x {own_height} pixels cannot be registered to an image "
            f"of {width} x {height}: their aspect ratios differ"
        )
    depth_m, rows = _along(depth_m, height, axis=0)
    depth_m, columns = _along(depth_m, width, axis=1)
    placed = np.full((height, width), np.nan, np.float32)
    placed[np.ix_(rows, columns)] = depth_m
    return placed


def _along(depth_m: np.ndarray, size: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce rows (or columns) to at most one for each target row; also the target of each."""
    own = depth_m.shape[axis]
    target = ((np.arange(own) + 0.5) * size / own).astype(np.intp)
    if own <= size:
        return depth_m, target
    first = np.searchsorted(target, np.arange(size))
    return np.fmin.reduceat(depth_m, first, axis=axis), np.arange(size)


def scan_to_points(
    ranges: np.ndarray,
    angle_min: float,
    angle_increment: float,
    range_min: float = 0.0,
    range_max: float = np.inf,
) -> np.ndarray:
    """Points of a planar scan in the scanner's own frame (REP 103: x forward, y left, z up).

    Args:
        ranges: (N,) metres as in sensor_msgs/LaserScan; REP 117: +inf, -inf and NaN are no point.
        angle_min, angle_increment: radians, counter-clockwise about z.
        range_min, range_max: metres; what is not within them is no measurement.

    Returns:
        (M, 3) float64 metres, M <= N.
    """
    ranges = np.asarray(ranges, np.float64)
    angles = angle_min + angle_increment * np.arange(len(ranges))
    valid = (ranges >= range_min) & (ranges <= range_max) & np.isfinite(ranges)
    r, angle = ranges[valid], angles[valid]
    return np.column_stack([r * np.cos(angle), r * np.sin(angle), np.zeros_like(r)])


def project_points(
    points_xyz: np.ndarray,
    T_camera_sensor: np.ndarray,  # noqa: N803 - the field's name
    intrinsics: CameraIntrinsics,
    min_range: float = 0.0,
    max_range: float = np.inf,
    hidden_window_px: int | None = None,
    hidden_ratio: float = HIDDEN_RATIO,
) -> np.ndarray:
    """Sparse z-depth image of points that another sensor measured.

    Points go to the pixel they project to in the raw (distorted) image at its own resolution; on
    one pixel the nearest wins; a point that the camera could only see through a nearer surface
    is removed (see `remove_hidden`). Points need no order; their times are not looked at.

    Args:
        points_xyz: (N, 3) metres in the sensor's frame; not finite = no point. Not changed.
        T_camera_sensor: (4, 4) maps the sensor's frame into the camera's optical frame.
        intrinsics: the camera that took the image.
        min_range, max_range: distance from the sensor, metres.
        hidden_window_px: as for `remove_hidden`; None: a 64th of the image's width; 0 keeps all.
        hidden_ratio: as for `remove_hidden`.

    Returns:
        (H, W) float32 z-depth in metres (not range), NaN where there is no point.

    Raises:
        ValueError: an array has the wrong shape.
    """
    points = np.asarray(points_xyz)
    transform = np.asarray(T_camera_sensor, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or transform.shape != (4, 4):
        raise ValueError(
            f"need (N, 3) points and a 4 x 4 transform, got {points.shape}, {transform.shape}"
        )
    if points.dtype != np.float32:
        points = points.astype(np.float64)
    if min_range > 0.0 or max_range < np.inf:
        squared = np.einsum("ij,ij->i", points, points)
        points = points[(squared >= min_range**2) & (squared <= max_range**2)]
    with np.errstate(invalid="ignore"):  # points that are not finite
        ahead = points @ transform[2, :3].astype(points.dtype) + points.dtype.type(transform[2, 3])
    # Most points of a LiDAR are behind the camera; false for NaN.
    in_front = (ahead > 0) & (ahead < np.inf)
    points = points[in_front].astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]

    pixels = project(points, intrinsics)
    height, width = intrinsics.height, intrinsics.width
    with np.errstate(invalid="ignore"):
        u, v = np.floor(pixels + 0.5).T
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)  # false for NaN
    index = v[inside].astype(np.intp) * width + u[inside].astype(np.intp)
    depth = _nearest(index, points[inside, 2].astype(np.float32), height * width)
    depth = depth.reshape(height, width)
    window = max(2, width // 64) if hidden_window_px is None else hidden_window_px
    return remove_hidden(depth, window, hidden_ratio) if window > 0 else depth


def _nearest(index: np.ndarray, z: np.ndarray, size: int) -> np.ndarray:
    """(size,) float32: the smallest z at each index, NaN at none."""
    nearest = np.full(size, np.inf, np.float32)
    while len(z):
        # NumPy keeps any one of several values at an index. Smaller ones are written again.
        nearest[index] = z
        nearer = z < nearest[index]
        index, z = index[nearer], z[nearer]
    nearest[np.isinf(nearest)] = np.nan
    return nearest


def remove_hidden(depth_m: np.ndarray, window_px: int, ratio: float = HIDDEN_RATIO) -> np.ndarray:
    """Sparse depth without the points that a nearer surface hides from the camera.

    A sensor beside the camera also measures what lies behind an object. Such points project between
    the sparse points of the object itself. A point counts as hidden when points nearer by `ratio`
    lie in two opposite quarters of its surroundings, so that the nearer surface continues on both
    sides. On a slanted plane, and beside an edge, nearer points lie on one side only.

    Args:
        depth_m: (H, W) float32 metres, NaN = none. Not changed.
        window_px: how far to look, pixels.
        ratio: how much farther than its surroundings a hidden point is, as a share of its depth.

    Returns:
        (H, W) float32, NaN where there is no point or a hidden one.
    """
    near = cv2.patchNaNs(depth_m.copy(), np.inf)
    limit = near * np.float32(1.0 - ratio)
    kernel = np.ones((window_px + 1, window_px + 1), np.uint8)

    def nearer(anchor: tuple[int, int]) -> np.ndarray:
        # The minimum over a square with the point in one corner, that is, over one quarter.
        lowest = cv2.erode(
            near, kernel, anchor=anchor, borderType=cv2.BORDER_CONSTANT, borderValue=[np.inf]
        )
        return np.asarray(lowest < limit)

    far = window_px
    hidden = (nearer((0, 0)) & nearer((far, far))) | (nearer((0, far)) & nearer((far, 0)))
    visible = depth_m.copy()
    visible[hidden] = np.nan
    return visible

"""The camera model: pixels to viewing rays and back, through the lens distortion.

Frames and pixels as in `d3_ros.types`: optical frame (x right, y down, z forward), pixel (0, 0) is
the centre of the first pixel. Distortion models are those of sensor_msgs/CameraInfo, with OpenCV's
equations:

- plumb_bob: Brown-Conrady, k1 k2 p1 p2 [k3]
- rational_polynomial: k1 k2 p1 p2 k3 k4 k5 k6 [s1 s2 s3 s4 [tx ty]]; s are the thin prism's, t the
  angles of a tilted sensor in radians
- equidistant: Kannala-Brandt, for fisheye lenses, k1 k2 k3 k4
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from d3_ros.errors import DataError
from d3_ros.types import CameraIntrinsics, DistortionModel

COEFFICIENT_COUNTS: dict[DistortionModel, tuple[int, ...]] = {
    "none": (0,),
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (0, 4, 5, 8, 12, 14),
    "equidistant": (0, 4),
}
# Other names of the models, in small letters and with "_" between words.
MODEL_NAMES: dict[str, DistortionModel] = {
    **{model: model for model in COEFFICIENT_COUNTS},
    "brown_conrady": "plumb_bob",
    "radtan": "plumb_bob",
    "radial_tangential": "plumb_bob",
    "rational": "rational_polynomial",
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
}
# A ray is believed when projecting it again ends this close to its pixel.
RAY_TOLERANCE_PX = 0.005


def checked_intrinsics(given: Sequence[float]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels, as a user gave them with --intrinsics.

    Raises:
        DataError: no camera has such numbers.
    """
    fx, fy, cx, cy = (float(number) for number in given)
    if not (0 < fx < np.inf and 0 < fy < np.inf):
        raise DataError(f"--intrinsics: fx and fy must be positive, in pixels, got {fx} {fy}")
    if not np.isfinite([cx, cy]).all():
        raise DataError(f"--intrinsics: the principal point must be finite, got {cx} {cy}")
    return fx, fy, cx, cy


def lens_distortion(
    name: str, coefficients: Sequence[float]
) -> tuple[DistortionModel, tuple[float, ...]]:
    """The distortion model and the coefficients that a calibration means.

    Drivers and calibrators write the names in several ways ("Plumb Bob", "fisheye"), and zeros
    behind the last coefficient that is used: both change no ray.

    Returns:
        the model, and as many coefficients as it takes.

    Raises:
        DataError: an unknown model, or a number of coefficients that is not the model's.
    """
    values = tuple(map(float, coefficients))
    model = MODEL_NAMES.get(re.sub(r"[\s_-]+", "_", name.strip().lower()))
    if not any(values) and model != "equidistant":
        return "none", ()
    if model is None:
        known = ", ".join(model for model in COEFFICIENT_COUNTS if model != "none")
        raise DataError(f"unknown distortion model {name!r}, known are {known}")
    used = len(values)
    while used and values[used - 1] == 0.0:
        used -= 1
    counts = COEFFICIENT_COUNTS[model]
    smallest = next((count for count in counts if count >= used), None)
    if smallest is None or len(values) < smallest:
        numbers = " or ".join(str(count) for count in counts if count)
        raise DataError(
            f"distortion model {name!r} takes {numbers or 'no'} coefficients, got {len(values)}: "
            "correct the coefficients or the name of the model"
        )
    return model, values[:smallest]


def is_distorted(intrinsics: CameraIntrinsics) -> bool:
    """Whether the lens bends rays at all.

    An equidistant lens does even with all coefficients zero.

    Raises:
        DataError: the number of coefficients does not belong to the model.
    """
    model, coefficients = intrinsics.distortion_model, intrinsics.distortion
    allowed = COEFFICIENT_COUNTS.get(model)
    if allowed is None:
        raise DataError(
            f"unknown distortion model '{model}'; use one of {list(COEFFICIENT_COUNTS)}"
        )
    if len(coefficients) not in allowed:
        raise DataError(
            f"distortion model '{model}' takes {' or '.join(map(str, allowed))} coefficients, "
            f"got {len(coefficients)}"
        )
    if not np.all(np.isfinite(coefficients)):
        raise DataError(f"distortion coefficients are not finite: {coefficients}")
    if model == "equidistant":
        return True
    return any(coefficients)


@lru_cache(maxsize=16)
def ray_map(intrinsics: CameraIntrinsics) -> np.ndarray:
    """Viewing ray of every pixel, scaled to z = 1, so that z-depth times ray is the point.

    Returns:
        (H, W, 3) float32, read-only, shared between callers. NaN where the distortion model has no
        ray for the pixel: beyond its valid field, or 90 degrees and more off the optical axis.

    Raises:
        DataError: unknown distortion model or wrong number of coefficients.
    """
    height, width = intrinsics.height, intrinsics.width
    u = np.arange(width, dtype=np.float64)
    v = np.arange(height, dtype=np.float64)
    rays = np.ones((height, width, 3), np.float32)
    if not is_distorted(intrinsics):
        rays[..., 0] = (u - intrinsics.cx) / intrinsics.fx
        rays[..., 1] = ((v - intrinsics.cy) / intrinsics.fy)[:, None]
    else:
        pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
        xy = _undistort(pixels, intrinsics)
        # Undistortion iterates and may fail. A ray is kept only if it projects back to its pixel.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            points = np.column_stack([xy, np.ones(len(xy))])
            error = np.abs(project(points, intrinsics) - pixels).max(axis=1)
            believed = error < RAY_TOLERANCE_PX
        points[~believed] = np.nan
        rays[:] = points.reshape(height, width, 3)
    rays.flags.writeable = False
    return rays


def project(points_xyz: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Project points of the optical frame to pixels of the (distorted) image.

    Args:
        points_xyz: (N, 3) metres.
        intrinsics: the camera.

    Returns:
        (N, 2) float64 pixels (u, v), also outside the image; NaN for points at or behind the
        camera and beyond the field in which the distortion model is one to one (where a polynomial
        turns around, far points would otherwise land in the picture).

    Raises:
        DataError: unknown distortion model or wrong number of coefficients.
        ValueError: `points_xyz` is not (N, 3).
    """
    points = np.asarray(points_xyz, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be (N, 3), got {points.shape}")
    z = points[:, 2]
    in_front = z > 0
    safe_z = np.where(in_front, z, np.nan)
    xy = points[:, :2] / safe_z[:, None]
    if is_distorted(intrinsics):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            xy = _distort(xy, intrinsics)
    return xy * (intrinsics.fx, intrinsics.fy) + (intrinsics.cx, intrinsics.cy)


def z_to_range(depth_m: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Turn (H, W) z-depth into distance along each pixel's ray, both metres, float32."""
    return (np.asarray(depth_m, np.float32) * ray_length(intrinsics)).astype(np.float32, copy=False)


@lru_cache(maxsize=16)
def ray_length(intrinsics: CameraIntrinsics) -> np.ndarray:
    """(H, W) float32 length of every ray of `ray_map`, read-only: times z-depth it is range."""
    length = np.linalg.norm(ray_map(intrinsics), axis=2)
    length.flags.writeable = False
    return length


def _distort(xy: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Bend (N, 2) ideal normalised coordinates as the lens does; NaN beyond its valid field."""
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    if intrinsics.distortion_model == "equidistant":
        r = np.sqrt(r2)
        angle = np.arctan(r)
        bent = np.where(angle < _field_limit(intrinsics), _radial(angle, intrinsics), np.nan)
        return xy * np.where(r > 1e-12, bent / np.maximum(r, 1e-12), 1.0)[:, None]
    r2 = np.where(r2 < _field_limit(intrinsics) ** 2, r2, np.nan)
    p1, p2 = intrinsics.distortion[2:4]
    s1, s2, s3, s4, tilt_x, tilt_y = (*intrinsics.distortion[8:], *[0.0] * 6)[:6]
    factor = _radial_factor(r2, intrinsics.distortion)
    bent_x = x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2)
    bent_y = y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4)
    bent_xy = np.column_stack([bent_x, bent_y])
    return _tilted(bent_xy, tilt_x, tilt_y) if tilt_x or tilt_y else bent_xy


def _tilted(xy: np.ndarray, tilt_x: float, tilt_y: float) -> np.ndarray:
    """(N, 2) coordinates on a sensor that is turned about x and y, in radians; NaN behind it."""
    about_x = np.array(
        [
            [1, 0, 0],
            [0, np.cos(tilt_x), np.sin(tilt_x)],
            [0, -np.sin(tilt_x), np.cos(tilt_x)],
        ]
    )
    about_y = np.array(
        [
            [np.cos(tilt_y), 0, -np.sin(tilt_y)],
            [0, 1, 0],
            [np.sin(tilt_y), 0, np.cos(tilt_y)],
        ]
    )
    turned = about_y @ about_x
    onto_sensor = np.array(
        [[turned[2, 2], 0, -turned[0, 2]], [0, turned[2, 2], -turned[1, 2]], [0, 0, 1]]
    )
    points = np.column_stack([xy, np.ones(len(xy))]) @ (onto_sensor @ turned).T
    return points[:, :2] / np.where(points[:, 2:] > 0, points[:, 2:], np.nan)


def _radial_factor(r2: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    k1, k2, _, _, k3, k4, k5, k6 = (*coefficients, 0.0, 0.0, 0.0, 0.0)[:8]
    numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return numerator / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))


def _radial(r: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Distorted radius of an ideal radius (equidistant: of an angle in radians)."""
    if intrinsics.distortion_model == "equidistant":
        k1, k2, k3, k4 = intrinsics.distortion or (0.0, 0.0, 0.0, 0.0)
        a2 = r * r
        return r * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    return r * _radial_factor(r * r, intrinsics.distortion)


@lru_cache(maxsize=16)
def _field_limit(intrinsics: CameraIntrinsics) -> float:
    """Radius (equidistant: angle) up to which the radial function grows, that is, is one to one."""
    equidistant = intrinsics.distortion_model == "equidistant"
    r = np.linspace(0.0, np.pi / 2 if equidistant else 20.0, 20001)
    with np.errstate(all="ignore"):
        grows = np.diff(_radial(r, intrinsics)) > 0
    return float(r[-1] if grows.all() else r[np.argmin(grows)])


def _undistort(pixels: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """(N, 2) ideal normalised coordinates of (N, 2) pixels; wrong ones where OpenCV fails."""
    coefficients = np.array(intrinsics.distortion or (0.0, 0.0, 0.0, 0.0))
    source = pixels.reshape(-1, 1, 2)
    if intrinsics.distortion_model == "equidistant":
        xy = cv2.fisheye.undistortPoints(source, intrinsics.matrix, coefficients)
    else:
        until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
        # In OpenCV 4 the function of this name takes no criteria; in 5 there is no other.
        undistort: Any = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
        xy = undistort(
            source, intrinsics.matrix, coefficients, R=np.eye(3), P=np.eye(3), criteria=until
        )
    return xy.reshape(-1, 2)

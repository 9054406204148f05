"""Metric scale from the floor: a camera at a known height sees it at a known depth.

For a floor with upward unit normal n (optical frame) at the distance h below the camera, the
points P on it satisfy n . P = -h; with P = z * ray follows z = h / -(n . ray).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.geometry.camera import ray_length, ray_map
from d3_ros.types import CameraIntrinsics, CameraMounting

LEVEL_UP = (0.0, -1.0, 0.0)
# Defaults, of the node's parameters too: a floor pixel's normal is at most this far from "up"
# (radians), and at least this share of the image is floor.
MAX_TILT_RAD, MIN_SHARE = 0.26, 0.03
# Rays nearer to the horizon than this are not used: a degree of tilt changes their depth too much.
MIN_SINE_BELOW_HORIZON = 0.1
# The floor's normal is taken from every so many pixels, each way.
SAMPLE_STEP = 4


@dataclass(frozen=True)
class Floor:
    """`depth`: (H, W) float32 z-depth of floor pixels, NaN elsewhere, or None with a `reason`.

    `normal`: (3,) unit vector, up, optical frame. `share`: of the image's pixels that are floor.
    """

    depth: np.ndarray | None
    normal: np.ndarray
    share: float
    reason: str = ""


def floor_depth(
    normals: np.ndarray,
    intrinsics: CameraIntrinsics,
    camera_height_m: float,
    up: tuple[float, float, float] | np.ndarray = LEVEL_UP,
    max_tilt_deg: float = float(np.rad2deg(MAX_TILT_RAD)),
    min_share: float = MIN_SHARE,
) -> Floor:
    """Metric depth of the floor that surface normals show.

    A floor pixel is under the horizon, and its normal is within `max_tilt_deg` of `up`. The floor's
    own normal is the robust mean of these normals, so a few degrees of error in `up` do not matter.
    A table top has the same normal at another height. The aligner's robust fit follows the majority
    of the pixels, so it ignores a small table.

    Args:
        normals: (H, W, 3) unit normals in the optical frame, facing the camera; NaN = unknown.
        intrinsics: the camera at this image's size.
        camera_height_m: height of the camera above the floor, metres.
        up: the upward direction in the optical frame; the default is a camera that looks level.
        max_tilt_deg: how far from `up` a floor pixel's normal may be.
        min_share: smallest share of the image that must be floor.

    Raises:
        ValueError: the height is not positive, `up` is zero, or the sizes differ.
    """
    if not camera_height_m > 0:
        raise ValueError(f"camera_height_m must be positive, got {camera_height_m}")
    if normals.shape != (intrinsics.height, intrinsics.width, 3):
        raise ValueError(f"normals {normals.shape} are not of the camera's size")
    direction = np.asarray(up, np.float32)
    length = float(np.linalg.norm(direction))
    if not length > 0:
        raise ValueError("up must not be zero")
    direction = direction / np.float32(length)

    rays, ray_lengths = ray_map(intrinsics), ray_length(intrinsics)

    def floor_pixels(upward: np.ndarray, step: int) -> np.ndarray:
        below = cv2.transform(rays[::step, ::step], -upward[None])  # distance down, per z
        floor = below > np.float32(MIN_SINE_BELOW_HORIZON) * ray_lengths[::step, ::step]
        along_up = cv2.transform(normals[::step, ::step], upward[None])
        return np.asarray(floor & (along_up > np.cos(np.deg2rad(max_tilt_deg))))

    coarse = floor_pixels(direction, SAMPLE_STEP)
    share = float(coarse.mean())
    if share < min_share:
        return Floor(None, direction, share, f"only {share:.1%} of the image is floor")
    # The median, scaled back to length 1, is robust to other things in the image.
    normal = np.median(normals[::SAMPLE_STEP, ::SAMPLE_STEP][coarse], axis=0)
    normal /= np.linalg.norm(normal)

    seen = floor_pixels(normal, 1)
    depth = np.full(seen.shape, np.nan, np.float32)
    below = cv2.transform(rays, -normal[None])
    np.divide(np.float32(camera_height_m), below, out=depth, where=seen)
    return Floor(depth, normal, float(seen.mean()))


def mounting_from_tilt(height_m: float, tilt_rad: float) -> CameraMounting:
    """A camera at a height over the floor (metres) that looks down by an angle, without roll."""
    return CameraMounting(height_m, (0.0, -float(np.cos(tilt_rad)), -float(np.sin(tilt_rad))))


def mounting_from_pose(T_floor_camera: np.ndarray) -> CameraMounting:  # noqa: N803 - the field's name
    """A camera whose optical frame the (4, 4) pose places in a frame whose x-y plane is the floor.

    Raises:
        ValueError: the camera is not above the floor.
    """
    height_m = float(T_floor_camera[2, 3])
    if not height_m > 0:
        raise ValueError(f"the camera is at height {height_m:.2f} m: it must be above the floor")
    x, y, z = T_floor_camera[2, :3].tolist()  # the floor's z axis, seen from the camera
    return CameraMounting(height_m, (x, y, z))

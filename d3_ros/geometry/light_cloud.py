"""A light cloud for costmaps: a few thousand points that keep every obstacle, and where it is free.

A costmap asks two things of a depth camera: what stands in the way, and along which rays nothing
does. The first are points; the second are the ends of rays that were seen to go far.
"""

from __future__ import annotations

import cv2
import numpy as np

from d3_ros.geometry.camera import ray_map, z_to_range
from d3_ros.types import CameraIntrinsics

# A pixel whose relative depth is saturated (1.0) has no metres. It is taken to be as far as pixels
# just before saturation, from JUST_BEFORE_SATURATION on: as far as their SATURATED_DOUBT quantile,
# and only if there are SATURATED_EVIDENCE of them.
JUST_BEFORE_SATURATION = 0.95
SATURATED_DOUBT = 0.1
SATURATED_EVIDENCE = 20


def light_cloud(
    depth_m: np.ndarray,
    intrinsics: CameraIntrinsics,
    *,
    stride: int,
    voxel_size: float = 0.0,
    min_range: float = 0.0,
    max_range: float = np.inf,
) -> np.ndarray:
    """The nearest point of every block of pixels, in the optical frame.

    The nearest rather than the middle one, so that a pole thinner than a block is not lost.

    Args:
        depth_m: (H, W) float32 z-depth in metres; NaN, infinity and values <= 0 are no point.
        intrinsics: the camera at this image's size; its distortion is undone per pixel.
        stride: rows and columns of a block, pixels.
        voxel_size: keep one point of each cube of this size, metres; 0: keep all.
        min_range: points nearer to the camera are left out, metres.
        max_range: points farther from the camera are left out, metres.

    Returns:
        (N, 3) float32 [x y z] metres, finite.
    """
    rays = ray_map(intrinsics)
    # What is no point must not be a block's nearest, or it would hide the points behind it.
    valid = (depth_m > 0) & (depth_m < np.inf) & np.isfinite(rays[..., 0])
    if min_range > 0:
        valid &= z_to_range(depth_m, intrinsics) >= min_range
    nearest, pixel = _nearest_of_each_block(depth_m, valid, stride)
    points = rays.reshape(-1, 3)[pixel] * nearest[:, None]
    points = points[np.linalg.norm(points, axis=1) <= max_range]
    return points[_one_of_each_voxel(points, voxel_size)] if voxel_size > 0 else points


def far_pixels(
    depth_m: np.ndarray, relative: np.ndarray, intrinsics: CameraIntrinsics, range_m: float
) -> np.ndarray:
    """Which pixels surely look farther than a distance.

    A pixel does where its depth says so. A pixel without metres whose relative depth is saturated
    at the far end does if the pixels just before saturation are that far already; in a narrow room
    they are not.

    Args:
        depth_m: (H, W) float32 z-depth in metres that a pixel has at least (depth minus its
            expected error), NaN where unknown.
        relative: (H, W) float32 in [0, 1], 1 is saturated.
        intrinsics: the camera at this image's size.
        range_m: distance from the camera, metres.

    Returns:
        (H, W) bool; false where nothing is known.
    """
    far = z_to_range(depth_m, intrinsics) > range_m  # NaN, of depth or of a ray, is not
    before = depth_m[(relative >= JUST_BEFORE_SATURATION) & (relative < 1.0)]
    before = before[np.isfinite(before)]
    if len(before) >= SATURATED_EVIDENCE and np.quantile(before, SATURATED_DOUBT) > range_m:
        unknown = (relative >= 1.0) & ~np.isfinite(depth_m)  # a sensor may know more
        far |= unknown & np.isfinite(ray_map(intrinsics)[..., 2])
    return far


def clearing_points(
    far: np.ndarray, intrinsics: CameraIntrinsics, *, stride: int, range_m: float
) -> np.ndarray:
    """Ends of rays that are free: for every block of pixels that are all far, one at a distance.

    Args:
        far: (H, W) bool, as from `far_pixels` with at least this distance.
        intrinsics: the camera at this image's size.
        stride: rows and columns of a block, pixels.
        range_m: how far from the camera the points are put, metres.

    Returns:
        (N, 3) float32 [x y z] metres, along the rays of the middles of the blocks.
    """
    height, width = far.shape[0] // stride, far.shape[1] // stride  # whole blocks only
    blocks = far[: height * stride, : width * stride].reshape(height, stride, width, stride)
    row, column = np.nonzero(blocks.all(axis=(1, 3)))
    rays = ray_map(intrinsics)[row * stride + stride // 2, column * stride + stride // 2]
    return rays * (np.float32(range_m) / np.linalg.norm(rays, axis=1, keepdims=True))


def _nearest_of_each_block(
    depth_m: np.ndarray, valid: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest valid depth of each block that has one, and the flat index of its pixel."""
    height, width = depth_m.shape
    rows, columns = -(-height // stride), -(-width // stride)
    padded = np.full((rows * stride, columns * stride), np.inf, np.float32)
    # copyTo, because np.where is ten times slower on a mask without runs.
    cv2.copyTo(depth_m, valid.view(np.uint8), padded[:height, :width])
    blocks = padded.reshape(rows, stride, columns, stride).swapaxes(1, 2)
    blocks = blocks.reshape(rows * columns, stride * stride)
    place = blocks.argmin(axis=1)
    nearest = blocks[np.arange(len(blocks)), place]
    block = np.flatnonzero(nearest < np.inf)
    v, u = np.divmod(place[block], stride)
    row, column = np.divmod(block, columns)
    return nearest[block], (row * stride + v) * width + column * stride + u


def _one_of_each_voxel(points: np.ndarray, voxel_size: float) -> np.ndarray:
    """Indices of the points to keep: the first of each cube in the order of the image."""
    cell = np.floor(points / np.float32(voxel_size)).astype(np.int64)
    cell -= cell.min(axis=0, initial=0)
    size = cell.max(axis=0, initial=0) + 1
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.ones(len(key), bool)
    first[1:] = key[1:] != key[:-1]
    return order[first]

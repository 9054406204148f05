"""A light cloud for costmaps: a few thousand points that keep every obstacle, and where it is free.

A costmap asks two things of a depth camera: what stands in the way, and along which rays nothing
does. The first are points; the second are the ends of rays that were seen to go far.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from d3_ros.geometry.camera import ray_map
from d3_ros.types import CameraIntrinsics

# Relative depth that is saturated is at least as far as what the network puts just before it, but
# for the nearest SATURATED_DOUBT of that, provided that there is SATURATED_EVIDENCE of it.
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
        voxel_size: keep one point, the nearest, of each cube of this size, metres; 0: keep all.
        min_range: points nearer to the camera are left out, metres.
        max_range: points farther from the camera are left out, metres.

    Returns:
        (N, 3) float32 [x y z] metres, finite.
    """
    columns = _blocks(depth_m.shape[1], stride)
    best = np.full((_blocks(depth_m.shape[0], stride), columns), np.inf, np.float32)
    pixel = np.zeros(best.shape, np.intp)
    for (v, u), part in _parts(depth_m, stride):
        here = best[: part.shape[0], : part.shape[1]]
        nearer = (part > 0) & (part < here)
        np.copyto(here, part, where=nearer)
        pixel[: part.shape[0], : part.shape[1]][nearer] = v * depth_m.shape[1] + u
    row, column = np.nonzero(np.isfinite(best))
    pixel = pixel[row, column] + stride * (row * depth_m.shape[1] + column)
    points = ray_map(intrinsics).reshape(-1, 3)[pixel] * best[row, column, None]
    distance = np.linalg.norm(points, axis=1)
    within = (distance >= min_range) & (distance <= max_range)
    points, distance = points[within], distance[within]
    if voxel_size > 0:
        points = points[_nearest_of_each_voxel(points, distance, voxel_size)]
    return points


def far_pixels(
    depth_m: np.ndarray, relative: np.ndarray, intrinsics: CameraIntrinsics, range_m: float
) -> np.ndarray:
    """Which pixels surely look farther than a distance.

    Those whose depth says so; and those whose relative depth is saturated at the far end, if what
    lies just before the saturation is that far already (in a narrow room it is not).

    Args:
        depth_m: (H, W) float32 z-depth in metres, NaN where unknown.
        relative: (H, W) float32 in [0, 1], 1 is saturated.
        intrinsics: the camera at this image's size.
        range_m: distance from the camera, metres.

    Returns:
        (H, W) bool; false where nothing is known.
    """
    x, y, z = cv2.split(ray_map(intrinsics))
    # A pixel without a ray (NaN) compares false.
    far = depth_m * cv2.sqrt(x * x + y * y + z * z) > range_m
    before = depth_m[(relative >= JUST_BEFORE_SATURATION) & (relative < 1.0)]
    before = before[np.isfinite(before)]
    if len(before) >= SATURATED_EVIDENCE and np.quantile(before, SATURATED_DOUBT) > range_m:
        far |= (relative >= 1.0) & np.isfinite(z)
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
    free = np.ones((height, width), bool)
    for _, part in _parts(far, stride):
        free &= part[:height, :width]
    row, column = np.nonzero(free)
    rays = ray_map(intrinsics)[row * stride + stride // 2, column * stride + stride // 2]
    return rays * (np.float32(range_m) / np.linalg.norm(rays, axis=1, keepdims=True))


def _blocks(pixels: int, stride: int) -> int:
    """Blocks along an axis, the last one perhaps not whole."""
    return -(-pixels // stride)


def _parts(image: np.ndarray, stride: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """For each place (v, u) in a block, the pixels at that place of all blocks that have it."""
    for v in range(min(stride, image.shape[0])):
        for u in range(min(stride, image.shape[1])):
            yield (v, u), image[v::stride, u::stride]


def _nearest_of_each_voxel(
    points: np.ndarray, distance: np.ndarray, voxel_size: float
) -> np.ndarray:
    """Indices of the points to keep."""
    cell = np.floor(points / np.float32(voxel_size)).astype(np.int64)
    cell -= cell.min(axis=0, initial=0)
    size = cell.max(axis=0, initial=0) + 1
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
    order = np.lexsort((distance, key))
    key = key[order]
    first = np.ones(len(key), bool)
    first[1:] = key[1:] != key[:-1]
    return order[first]

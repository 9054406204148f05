"""Point clouds from depth images, laid out as in sensor_msgs/PointCloud2, and PLY files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from d3_ros.geometry.camera import ray_map
from d3_ros.types import CameraIntrinsics


def pack_cloud(
    depth_m: np.ndarray,
    rgb: np.ndarray | None,
    normals: np.ndarray | None,
    intrinsics: CameraIntrinsics,
    out: np.ndarray | None = None,
    *,
    sigma_m: np.ndarray | None = None,
    stride: int = 1,
    min_range: float = 0.0,
    max_range: float = np.inf,
) -> np.ndarray:
    """Organised point cloud of a depth image, in the optical frame.

    Args:
        depth_m: (H, W) float32 z-depth in metres; NaN, infinity and values <= 0 are invalid.
        rgb: (H, W, 3) uint8, or None for black.
        normals: (H, W, 3) float32, or None.
        intrinsics: the camera at this image's size; its distortion is undone per pixel.
        out: C-contiguous float32 array of the result's shape to write into (a message's buffer).
        sigma_m: (H, W) float32 expected error of `depth_m` in metres, or None.
        stride: take every stride-th pixel of every stride-th row, from the first on.
        min_range: points nearer to the camera are invalid, metres.
        max_range: points farther from the camera are invalid, metres.

    Returns:
        (h, w, 4) float32 [x y z rgb] (point_step 16), or with normals (h, w, 8) float32
        [x y z rgb nx ny nz curvature] (point_step 32), curvature 0; (h, w) is `cloud_size`. With
        `sigma_m`, a field sigma follows as the last one. `rgb` holds the bits 0x00RRGGBB. Invalid
        points have NaN in x, y and z; their other fields are kept.

    Raises:
        ValueError: an array has the wrong shape, dtype or layout.
    """
    size = (intrinsics.height, intrinsics.width)
    _check("depth", depth_m, size, np.float32)
    if rgb is not None:
        _check("rgb", rgb, (*size, 3), np.uint8)
    if normals is not None:
        _check("normals", normals, (*size, 3), np.float32)
    if sigma_m is not None:
        _check("sigma", sigma_m, size, np.float32)
    size = cloud_size(*size, stride)
    shape = (*size, (4 if normals is None else 8) + (sigma_m is not None))
    if out is None:
        out = np.empty(shape, np.float32)
    _check("out", out, shape, np.float32)
    if not out.flags.c_contiguous:
        raise ValueError("out must be C-contiguous")

    if stride > 1:
        depth_m = np.ascontiguousarray(depth_m[::stride, ::stride])
        rgb = None if rgb is None else np.ascontiguousarray(rgb[::stride, ::stride])
        normals = None if normals is None else np.ascontiguousarray(normals[::stride, ::stride])
        sigma_m = None if sigma_m is None else np.ascontiguousarray(sigma_m[::stride, ::stride])
    rays = _ray_planes(intrinsics, stride)
    z = _within(depth_m, rays.length, min_range, max_range)
    if rays.z is not None:
        z *= rays.z
    planes = [cv2.multiply(z, rays.x), cv2.multiply(z, rays.y), z, _pack_rgb(rgb, size)]
    if sigma_m is not None:
        if normals is not None:
            planes += [*cv2.split(normals), np.zeros(size, np.float32)]
        planes.append(sigma_m)
    if normals is None or sigma_m is not None:
        cv2.merge(planes, out)
    else:
        _merge_halves(planes, normals, out)
    return out


def _merge_halves(planes: list[np.ndarray], normals: np.ndarray, out: np.ndarray) -> None:
    """Write (H, W, 8) points to `out`: four (H, W) planes, the (H, W, 3) normals, curvature 0.

    Half a point is 16 bytes, the size of one complex128: copying the two halves as such is three
    times faster than interleaving eight planes.
    """
    halves = out.view(np.complex128)
    halves[..., 0] = cv2.merge(planes).view(np.complex128)[..., 0]
    with_curvature = cv2.cvtColor(normals, cv2.COLOR_RGB2RGBA)
    with_curvature[..., 3] = 0.0
    halves[..., 1] = with_curvature.view(np.complex128)[..., 0]


def _within(
    depth_m: np.ndarray, ray_length: np.ndarray, min_range: float, max_range: float
) -> np.ndarray:
    """(H, W) float32 depth, NaN where it is invalid or its distance is out of the range."""
    valid = (depth_m > 0) & (depth_m < np.inf)
    if min_range > 0:
        valid &= cv2.multiply(depth_m, ray_length) >= min_range
    if max_range < np.inf:
        valid &= cv2.multiply(depth_m, ray_length) <= max_range
    z = np.full(depth_m.shape, np.nan, np.float32)
    # copyTo, because np.where is ten times slower on a mask without runs.
    cv2.copyTo(depth_m, valid.view(np.uint8), z)
    return z


def cloud_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Rows and columns of the cloud of every stride-th pixel."""
    return -(-height // stride), -(-width // stride)


def ply_file(xyz: np.ndarray, rgb: np.ndarray, normals: np.ndarray | None = None) -> bytes:
    """The content of a binary little-endian PLY file; invalid points are left out.

    Args:
        xyz: (..., 3) metres; points with NaN or infinity are left out.
        rgb: (..., 3) uint8.
        normals: (..., 3) or None.
    """
    xyz = np.asarray(xyz).reshape(-1, 3)
    valid = np.isfinite(xyz).all(axis=1)
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if normals is not None:
        fields += [("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
    fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.empty(int(valid.sum()), dtype=fields)
    columns = [xyz] if normals is None else [xyz, np.asarray(normals).reshape(-1, 3)]
    columns.append(np.asarray(rgb).reshape(-1, 3))
    for (name, _), column in zip(fields, np.concatenate([c.T for c in columns]), strict=True):
        vertices[name] = column[valid]

    types = {"<f4": "float", "u1": "uchar"}
    properties = "".join(f"property {types[kind]} {name}\n" for name, kind in fields)
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment optical frame: x right, y down, z forward\n"
        f"element vertex {len(vertices)}\n{properties}end_header\n"
    )
    return header.encode("ascii") + vertices.tobytes()


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {shape} {np.dtype(dtype).name}, got {array.shape} {array.dtype}"
        )


def _pack_rgb(rgb: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 whose bits are 0x00RRGGBB."""
    if rgb is None:
        return np.zeros(size, np.float32)
    bits = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA).view("<u4")[..., 0]
    bits &= np.uint32(0x00FFFFFF)  # cvtColor sets alpha to 255, which would make it a NaN
    return bits.view(np.float32)


@dataclass(frozen=True)
class _RayPlanes:
    """The ray map as one (h, w) float32 plane per coordinate.

    `z`: 1, or NaN where a pixel has no ray; None if all pixels have one. `length`: of the ray, NaN
    where there is none.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray | None
    length: np.ndarray


@lru_cache(maxsize=16)
def _ray_planes(intrinsics: CameraIntrinsics, stride: int) -> _RayPlanes:
    rays = np.ascontiguousarray(ray_map(intrinsics)[::stride, ::stride])
    x, y, z = cv2.split(rays)
    length = np.linalg.norm(rays, axis=2)
    return _RayPlanes(x, y, None if np.isfinite(z).all() else z, length)

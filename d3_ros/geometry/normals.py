"""Surface normals from metric depth.

On a plane, inverse z-depth is linear in the coordinates (x, y) of the z = 1 rays: from
n . (z x, z y, z) = d follows 1/z = a x + b y + c with (a, b, c) parallel to n. So the normal is
read off the gradient of inverse depth, exactly for planes at any slant, and a second difference of
inverse depth other than zero tells a depth edge from a steep plane.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from d3_ros.geometry.camera import is_distorted, ray_map
from d3_ros.types import CameraIntrinsics

# One-sided slopes that differ by more than this share of the inverse depth are two surfaces.
EDGE_RATIO = 0.02


def normals_from_depth(
    depth_m: np.ndarray, intrinsics: CameraIntrinsics, step: int = 2
) -> np.ndarray:
    """Unit normals of the surface that a depth image shows.

    Args:
        depth_m: (H, W) float32 z-depth in metres; NaN, zero and infinity are no measurement.
        intrinsics: the camera at this image's size.
        step: pixels between the neighbours that are compared; larger is smoother.

    Returns:
        (H, W, 3) float32 unit vectors in the optical frame, facing the camera (n . ray < 0); NaN
        where the depth is unknown or too few neighbours are known. At depth edges the neighbour on
        the pixel's own surface is used, so that two surfaces are never mixed.

    Raises:
        ValueError: the depth is not of the camera's size.
    """
    if depth_m.shape != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"depth is {depth_m.shape}, the camera {(intrinsics.height, intrinsics.width)}"
        )
    depth = np.asarray(depth_m, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.float32(1.0) / depth
    inverse[~(inverse > 0) | np.isinf(inverse)] = np.nan  # 1/0, 1/inf, negative, NaN

    gradient_u = _edge_aware_slope(inverse, step, horizontal=True)
    gradient_v = _edge_aware_slope(inverse, step, horizontal=False)
    if is_distorted(intrinsics):
        u_x, v_x, u_y, v_y = _pixels_per_ray(intrinsics, step)
        a = gradient_u * u_x + gradient_v * v_x
        b = gradient_u * u_y + gradient_v * v_y
    else:
        a, b = gradient_u * np.float32(intrinsics.fx), gradient_v * np.float32(intrinsics.fy)

    x, y = _ray_xy(intrinsics)
    c = inverse - a * x - b * y
    length = cv2.sqrt(a * a + b * b + c * c)
    # n . ray = (a x + b y + c) / length = inverse depth / length > 0, so minus faces the camera.
    with np.errstate(divide="ignore", invalid="ignore"):
        minus_one_over = np.float32(-1.0) / length
    return cv2.merge([a * minus_one_over, b * minus_one_over, c * minus_one_over])


def _edge_aware_slope(inverse: np.ndarray, step: int, *, horizontal: bool) -> np.ndarray:
    """Change of inverse depth per pixel; central, or one-sided at edges, gaps and borders."""
    pad_v, pad_u = (0, step) if horizontal else (step, 0)
    padded = cv2.copyMakeBorder(
        inverse, pad_v, pad_v, pad_u, pad_u, cv2.BORDER_CONSTANT, value=[float("nan")]
    )
    height, width = inverse.shape
    forward = cv2.subtract(padded[2 * pad_v :, 2 * pad_u :], inverse)
    backward = cv2.subtract(inverse, padded[:height, :width])

    central = cv2.addWeighted(forward, 0.5, backward, 0.5, 0.0)
    smooth = cv2.absdiff(forward, backward) <= inverse * np.float32(EDGE_RATIO * step)
    # At an edge the flatter side is the pixel's own surface; fmin passes the known side of a gap.
    run_backward = np.abs(backward)
    backward_is_flatter = np.fmin(np.abs(forward), run_backward) == run_backward
    # copyTo with a mask, because np.where is ten times slower on a mask without runs.
    slope = forward
    cv2.copyTo(backward, backward_is_flatter.view(np.uint8), slope)
    cv2.copyTo(central, smooth.view(np.uint8), slope)
    return slope * np.float32(1.0 / step)


@lru_cache(maxsize=16)
def _ray_xy(intrinsics: CameraIntrinsics) -> tuple[np.ndarray, np.ndarray]:
    x, y, _ = cv2.split(ray_map(intrinsics))
    return x, y


@lru_cache(maxsize=16)
def _pixels_per_ray(intrinsics: CameraIntrinsics, step: int) -> tuple[np.ndarray, ...]:
    """Planes u_x, v_x, u_y, v_y (float32 pixels per unit of ray coordinate) of the lens.

    Differences are taken as those of the inverse depth are, which keeps planes exact.
    """
    x, y = (plane.astype(np.float64) for plane in _ray_xy(intrinsics))
    x_u, y_u = _slope(x, step), _slope(y, step)
    x_v, y_v = _slope(x.T, step).T, _slope(y.T, step).T
    determinant = x_u * y_v - x_v * y_u
    planes = (y_v / determinant, -y_u / determinant, -x_v / determinant, x_u / determinant)
    return tuple(plane.astype(np.float32) for plane in planes)


def _slope(plane: np.ndarray, step: int) -> np.ndarray:
    """Change along the rows per pixel: central, one-sided where a neighbour is missing.

    NaN where both are missing, in images narrower than two steps.
    """
    slope = np.full_like(plane, np.nan)
    width = plane.shape[1]
    if width > step:
        one_sided = (plane[:, step:] - plane[:, :-step]) / step
        slope[:, : width - step] = one_sided
        slope[:, step:] = one_sided
    if width > 2 * step:
        slope[:, step:-step] = (plane[:, 2 * step :] - plane[:, : -2 * step]) / (2 * step)
        slope[:, :step] = one_sided[:, :step]
    return slope


def median_angle_to_depth(
    normals: np.ndarray, depth_m: np.ndarray, intrinsics: CameraIntrinsics, stride: int = 4
) -> float:
    """How far predicted normals are from those of the depth: the median angle, radians.

    Args:
        normals: (H, W, 3) float32 unit vectors, optical frame.
        depth_m: (H, W) float32 z-depth in metres; NaN is unknown.
        intrinsics: the camera at this size.
        stride: one pixel in so many columns and rows is looked at.

    Returns:
        Radians; NaN where nothing can be compared.

    Raises:
        ValueError: the sizes differ.
    """
    coarse = np.ascontiguousarray(depth_m[::stride, ::stride])
    height, width = coarse.shape
    # Pixel (u, v) of the coarse image is pixel (stride u, stride v): centres on centres.
    camera = replace(
        intrinsics,
        width=width,
        height=height,
        fx=intrinsics.fx / stride,
        fy=intrinsics.fy / stride,
        cx=intrinsics.cx / stride,
        cy=intrinsics.cy / stride,
    )
    of_depth = normals_from_depth(coarse, camera)
    cosine = np.einsum("ijk,ijk->ij", of_depth, normals[::stride, ::stride])
    known = cosine[np.isfinite(cosine)]
    return float(np.median(np.arccos(np.clip(known, -1.0, 1.0)))) if known.size else float("nan")

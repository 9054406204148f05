"""From the image of a lens that bends rays to that of a pinhole camera.

The image is resampled before anything is predicted from it, not the results after: interpolating
colours is harmless, interpolating depth across an edge makes points in mid-air. Measured depth is
moved pixel by pixel, never interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from d3_ros.errors import DataError
from d3_ros.geometry.camera import project, ray_map
from d3_ros.types import CameraIntrinsics

Rotation = tuple[float, ...]
LARGEST_SIDE = 32_766  # of an image, pixels: cv2.remap's limit
IDENTITY: Rotation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Rectification:
    """How one camera's raw pixels become rectified ones.

    `camera`: the rectified one. `inside`: (H, W) bool, the rectified pixels that the raw image
    shows; the others are made up of nothing.
    """

    camera: CameraIntrinsics
    inside: np.ndarray
    _maps: tuple[np.ndarray, np.ndarray]  # for cv2.remap, fixed point
    _target: np.ndarray  # (H * W,) rectified pixel that a raw one falls on, -1 outside
    _z_factor: np.ndarray  # (H * W,) float32, rectified z-depth over raw z-depth

    def image(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) or (H, W) uint8 rectified image of a raw one; black outside."""
        return cv2.remap(rgb, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def depth(self, depth_m: np.ndarray) -> np.ndarray:
        """(H, W) float32 rectified z-depth of a raw one, metres, NaN = none.

        Every measurement falls on the pixel of its point; where several do, the nearest wins.
        """
        raw = depth_m.ravel()
        measured = np.flatnonzero((raw > 0) & (raw < np.inf) & (self._target >= 0))
        out = np.full(raw.shape, np.inf, np.float32)
        np.minimum.at(out, self._target[measured], raw[measured] * self._z_factor[measured])
        out[np.isinf(out)] = np.nan
        return out.reshape(depth_m.shape)


@lru_cache(maxsize=16)
def rectification(
    raw: CameraIntrinsics, rectified: CameraIntrinsics, rotation: Rotation = IDENTITY
) -> Rectification:
    """The rectification of one camera. Costs up to a second at 640 x 480, once.

    Args:
        raw: the camera with its distortion, at the image's size.
        rectified: the pinhole camera to become, of the same size.
        rotation: 9 numbers row by row, from the raw camera's axes to the rectified one's
            (camera_info.r).

    Raises:
        DataError: an unknown distortion model, a wrong number of coefficients, or a side longer
            than `LARGEST_SIDE`.
        ValueError: the two differ in size.
    """
    height, width = raw.height, raw.width
    if (rectified.height, rectified.width) != (height, width):
        raise ValueError(
            f"{width} x {height} cannot be rectified to {rectified.width} x {rectified.height}"
        )
    if max(height, width) > LARGEST_SIDE:
        raise DataError(
            f"{width} x {height} images cannot be rectified, {LARGEST_SIDE} pixels is the limit of "
            "a side: set output.rectified to false"
        )
    R = np.array(rotation, np.float64).reshape(3, 3)  # noqa: N806

    rays = ray_map(rectified).reshape(-1, 3).astype(np.float64)
    pixels = project(rays @ R, raw)  # rows, so R transposed from the left
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= 0) & (pixels <= (width - 1, height - 1))).all(axis=1)
    pixels[~inside] = -10.0  # far enough outside not to be mixed with the border
    u, v = pixels.astype(np.float32).T.reshape(2, height, width)
    maps = cv2.convertMaps(u, v, cv2.CV_16SC2)

    raw_rays = ray_map(raw).reshape(-1, 3).astype(np.float64) @ R.T
    with np.errstate(invalid="ignore"):
        target = np.rint(project(raw_rays, rectified))
        lands = ((target >= 0) & (target < (width, height))).all(axis=1)
    target[~lands] = 0
    flat = (target[:, 1] * width + target[:, 0]).astype(np.intp)
    return Rectification(
        camera=rectified,
        inside=inside.reshape(height, width),
        _maps=(maps[0], maps[1]),
        _target=np.where(lands, flat, -1),
        _z_factor=raw_rays[:, 2].astype(np.float32),
    )

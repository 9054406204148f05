"""Colour pictures of depth and normals, for eyes only."""

from __future__ import annotations

import cv2
import numpy as np

INVALID_GREY = 96
ROBUST_QUANTILES = (0.02, 0.98)


def colour_depth(
    depth: np.ndarray, near: float | None = None, far: float | None = None
) -> np.ndarray:
    """Picture of a depth image: near is bright and warm, far is dark, unknown is grey.

    The colours are matplotlib's *inferno*, reversed: perceptually uniform and readable by
    colour-blind people. No colour of it is the neutral grey (96, 96, 96) of invalid pixels.

    Args:
        depth: (H, W) float32, metric or relative, larger = farther; not finite = invalid, and in
            metric depth values <= 0 should be passed as NaN.
        near: the depth shown brightest; None: the 2 % quantile of the valid pixels.
        far: the depth shown darkest; None: the 98 % quantile.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    depth = np.asarray(depth, np.float32)
    valid = np.isfinite(depth)
    if near is None or far is None:
        low, high = _robust_range(depth, valid)
        near = low if near is None else near
        far = high if far is None else far
    gain = 255.0 / max(far - near, 1e-6)
    bright = (np.float32(far) - depth) * np.float32(gain)
    cv2.patchNaNs(bright, 0.0)
    levels = np.clip(bright, 0, 255, out=bright).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = np.full_like(picture, INVALID_GREY)
    cv2.copyTo(picture, valid.view(np.uint8), grey)
    return grey


def colour_error(error: np.ndarray, low: float, high: float) -> np.ndarray:
    """Picture of an (H, W) float32 error: dark at `low`, bright at `high`, unknown is grey.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return colour_depth(-np.asarray(error, np.float32), -high, -low)


def colour_normals(normals: np.ndarray) -> np.ndarray:
    """Picture of surface normals in the field's usual colours.

    (H, W, 3) unit vectors in the optical frame to (H, W, 3) uint8 RGB: x right is red, y up is
    green, towards the viewer is blue, each from -1..1 to 0..255. A wall seen head-on is
    (128, 128, 255), a floor (128, 255, 128). NaN is black.
    """
    half = 127.5
    to_colour = np.array([[half, 0, 0, half], [0, -half, 0, half], [0, 0, -half, half]])
    picture = cv2.transform(np.ascontiguousarray(normals, np.float32), to_colour)
    cv2.patchNaNs(picture, 0.0)
    return cv2.convertScaleAbs(picture)


def _robust_range(depth: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """Quantiles over a subsample: a picture needs no more, and sorting all pixels takes 5 ms."""
    stride = max(1, min(depth.shape) // 120)
    sample = depth[::stride, ::stride][valid[::stride, ::stride]]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = np.quantile(sample, ROBUST_QUANTILES)
    return float(low), float(high)

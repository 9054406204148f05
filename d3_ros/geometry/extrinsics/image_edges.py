"""How strongly an image's brightness changes at each pixel, along x and along y."""

from __future__ import annotations

import cv2
import numpy as np

# Width of the blur, and of the surroundings that an edge is compared with: shares of the width.
BLUR_SHARE, SURROUND_SHARE = 1 / 500, 1 / 12
# Gradients below this many grey levels a pixel are noise.
NOISE_LEVELS = 1.5


def edge_strength(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32 in [0, 1): strength of edges across x and across y.

    The gradient of the grey image is compared with its surroundings, so that an outline in a dark
    corner counts as much as one in the light, and texture counts little.

    Args:
        rgb: (H, W, 3) uint8. Not changed.
    """
    blur = max(0.8, BLUR_SHARE * rgb.shape[1])
    levels = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey = cv2.GaussianBlur(levels, (0, 0), blur)
    gradient = np.stack(
        [cv2.Scharr(grey, cv2.CV_32F, 1, 0), cv2.Scharr(grey, cv2.CV_32F, 0, 1)], axis=-1
    )
    gradient = np.abs(gradient) / np.float32(32)
    side = 2 * round(SURROUND_SHARE * grey.shape[1]) + 1
    around = cv2.blur(gradient, (side, side))
    strength = gradient / (gradient + 2.0 * around + np.float32(NOISE_LEVELS / blur))
    return cv2.GaussianBlur(strength, (0, 0), blur)

"""From linear radiance to the image of a cheap robot camera."""

from __future__ import annotations

import cv2
import numpy as np

from d3_ros.imaging.image_file import jpeg_artefacts


def photograph(
    radiance: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0
) -> np.ndarray:
    """(H, W, 3) linear radiance to (H, W, 3) uint8 sRGB, through a random camera.

    Exposure, white balance, vignetting, blur, shot and read noise, tone curve and JPEG artefacts
    are drawn from `rng`; `strength` scales these degradations.
    """
    height, width = radiance.shape[:2]
    grey = radiance.mean(axis=-1)
    anchor = max(float(np.quantile(grey, rng.uniform(0.75, 0.97))), 1e-6)
    image = radiance / anchor * np.exp(rng.normal(-0.35, 0.3 * strength))
    image = image * np.exp(rng.normal(0, 0.09 * strength, 3))

    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image = image * (1 - rng.uniform(0, 0.3 * strength) * (u**2 + v**2) / 2)[..., None]
    if rng.random() < 0.4 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.0) * width / 320)
    noise = rng.standard_normal(image.shape) * np.exp(rng.uniform(-6.0, -3.4 + 0.2 * strength))
    image = image + noise * np.sqrt(np.clip(image, 0.02, 2.0))

    image = np.clip(image, 0, None)
    image = image / (1 + image * rng.uniform(0.0, 0.5))  # highlights roll off
    image = np.clip(image * 1.15, 0, 1) ** (1 / rng.uniform(1.8, 2.5))
    out = (image * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.5 * strength:
        out = jpeg_artefacts(out, int(rng.integers(45, 95)))
    return out

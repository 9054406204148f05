"""Parts of pictures for eyes: text, dots, legends, strips, and the files they are written to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from d3_ros.imaging.colour_maps import colour_depth
from d3_ros.imaging.image_file import write_image

BACKGROUND = (24, 26, 32)
TEXT = (200, 204, 214)
# Pictures are at least so high, so that legends and dots look alike at every camera's size.
LEAST_HEIGHT = 480
PANEL_HEIGHT = 300
BAR_WIDTH = 92
CAPTION_HEIGHT = 26


def write_text(picture: np.ndarray, text: str, at: tuple[int, int], size: float) -> None:
    """Write ASCII text into an RGB picture; `at` is the (u, v) of its lower left corner."""
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, TEXT, 1, cv2.LINE_AA)


def enlarged(picture: np.ndarray, interpolation: int) -> np.ndarray:
    """An (H, W, 3) uint8 picture by a whole factor larger, if it is lower than `LEAST_HEIGHT`."""
    factor = -(-LEAST_HEIGHT // picture.shape[0])
    if factor <= 1:
        return picture
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=interpolation)


def with_points(rgb: np.ndarray, sensor: np.ndarray | None) -> np.ndarray:
    """The image with a dot where something was measured, if those pixels are few.

    `rgb` (H, W, 3) uint8; `sensor` (H, W) float32, not finite = not measured, or None.
    """
    picture = enlarged(rgb, cv2.INTER_LINEAR)
    if sensor is None:
        return picture
    rows, columns = np.nonzero(np.isfinite(sensor))
    if len(rows) > sensor.size // 20:
        return picture
    factor = picture.shape[0] / rgb.shape[0]
    picture = picture.copy()
    for v, u in np.floor((np.stack([rows, columns], axis=1) + 0.5) * factor).astype(int).tolist():
        cv2.circle(picture, (u, v), 2, (0, 0, 0), -1)
        cv2.circle(picture, (u, v), 1, (90, 255, 90), -1)
    return picture


def with_bar(picture: np.ndarray, near: float, far: float, unit: str) -> np.ndarray:
    """A picture of `colour_depth` with its scale of colours at the right, near at the bottom."""
    picture = enlarged(picture, cv2.INTER_NEAREST)
    height = picture.shape[0]
    panel = np.full((height, BAR_WIDTH, 3), BACKGROUND, np.uint8)
    ramp = np.linspace(far, near, height - 24, dtype=np.float32)[:, None]
    panel[12:-12, 6:20] = np.repeat(colour_depth(ramp, near, far), 14, axis=1)
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        v = round(12 + (height - 25) * (1.0 - fraction))
        label = f"{near + fraction * (far - near):.2f}"
        write_text(panel, f"{label} {unit}" if fraction == 1.0 else label, (24, v + 5), 0.48)
    return np.concatenate([picture, panel], axis=1)


def strip(pictures: dict[str, np.ndarray], captions: dict[str, str]) -> np.ndarray:
    """All pictures of a frame side by side at one height, each under its caption: RGB uint8."""
    panels = []
    for name, picture in pictures.items():
        width = round(picture.shape[1] * PANEL_HEIGHT / picture.shape[0])
        shrinks = picture.shape[0] > PANEL_HEIGHT
        resized = cv2.resize(
            picture,
            (width, PANEL_HEIGHT),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        panel = np.full((PANEL_HEIGHT + CAPTION_HEIGHT, width + 4, 3), BACKGROUND, np.uint8)
        panel[CAPTION_HEIGHT:, 2:-2] = resized
        write_text(panel, captions.get(name, name), (6, 18), 0.46)
        panels.append(panel)
    return np.concatenate(panels, axis=1)


def save_picture(path: Path, rgb: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB picture; the suffix says how.

    Raises:
        DataError: the file cannot be written.
    """
    write_image(path, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

"""Parts of pictures for people: text, dots, legends, panels, and the files they are written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from d3_ros.imaging.colour_maps import colour_depth
from d3_ros.imaging.image_file import write_image

BACKGROUND = (24, 26, 32)
TEXT = (200, 204, 214)
# Smaller pictures are enlarged, so that legends and dots have one size for all cameras.
LEAST_HEIGHT = 480
PANEL_WIDTH = 400
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


def with_points(rgb: np.ndarray, sensor: np.ndarray) -> np.ndarray:
    """The image with a dot at every measured pixel.

    Args:
        rgb: (H, W, 3) uint8.
        sensor: (H, W) float32, not finite where nothing was measured.
    """
    picture = enlarged(rgb, cv2.INTER_LINEAR).copy()
    rows, columns = np.nonzero(np.isfinite(sensor))
    factor = picture.shape[0] / rgb.shape[0]
    for v, u in np.floor((np.stack([rows, columns], axis=1) + 0.5) * factor).astype(int).tolist():
        cv2.circle(picture, (u, v), 2, (0, 0, 0), -1)
        cv2.circle(picture, (u, v), 1, (90, 255, 90), -1)
    return picture


def with_bar(
    picture: np.ndarray,
    low: float,
    high: float,
    unit: str,
    colours: Callable[[np.ndarray, float, float], np.ndarray] = colour_depth,
) -> np.ndarray:
    """A picture with its legend at the right, `low` at the bottom.

    Args:
        picture: (H, W, 3) uint8, drawn by `colours`.
        low: smallest value of the legend.
        high: largest value of the legend.
        unit: of both.
        colours: from (H, W) values, low and high to (H, W, 3) uint8.
    """
    picture = enlarged(picture, cv2.INTER_NEAREST)
    height = picture.shape[0]
    panel = np.full((height, BAR_WIDTH, 3), BACKGROUND, np.uint8)
    ramp = np.linspace(high, low, height - 24, dtype=np.float32)[:, None]
    panel[12:-12, 6:20] = np.repeat(colours(ramp, low, high), 14, axis=1)
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        v = round(12 + (height - 25) * (1.0 - fraction))
        label = f"{low + fraction * (high - low):.3g}"
        write_text(panel, f"{label} {unit}" if fraction == 1.0 else label, (24, v + 5), 0.48)
    return np.concatenate([picture, panel], axis=1)


def panels(pictures: dict[str, np.ndarray], columns: int = 3) -> np.ndarray:
    """Captioned pictures in rows of `columns`, each `PANEL_WIDTH` wide: one RGB uint8 picture."""
    cells = []
    for caption, picture in pictures.items():
        height = round(picture.shape[0] * PANEL_WIDTH / picture.shape[1])
        shrinks = picture.shape[1] > PANEL_WIDTH
        resized = cv2.resize(
            picture,
            (PANEL_WIDTH, height),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        cell = cv2.copyMakeBorder(
            resized, CAPTION_HEIGHT, 4, 2, 2, cv2.BORDER_CONSTANT, value=BACKGROUND
        )
        write_text(cell, caption, (6, 18), 0.46)
        cells.append(cell)
    return tiled(cells, columns)


def tiled(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """(h, w, 3) pictures of one width in rows of `columns`, filled up with the background."""
    blank = np.full_like(cells[0], BACKGROUND)
    cells = cells + [blank] * (-len(cells) % columns if len(cells) > columns else 0)
    rows = []
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        height = max(len(cell) for cell in row)
        rows.append(
            np.concatenate(
                [
                    cv2.copyMakeBorder(
                        cell, 0, height - len(cell), 0, 0, cv2.BORDER_CONSTANT, value=BACKGROUND
                    )
                    for cell in row
                ],
                axis=1,
            )
        )
    return np.concatenate(rows)


def save_picture(path: Path, rgb: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB picture in the format of the suffix.

    Raises:
        DataError: the file cannot be written.
    """
    write_image(path, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

"""The pictures of one recorded frame: each output on its own, and all of them in one strip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from d3_ros.demo.cloud_view import BACKGROUND, view_from_above, view_oblique, write_text
from d3_ros.errors import DataError
from d3_ros.geometry.colour import colour_depth, colour_normals

# Pictures are at least so high, so that legends and dots look alike at every camera's size.
LEAST_HEIGHT = 480
PANEL_HEIGHT = 300
BAR_WIDTH = 92
CAPTION_HEIGHT = 26


@dataclass(frozen=True)
class Cloud:
    """Points of one frame in the optical frame, invalid ones left out.

    `xyz`: (N, 3) float32 metres. `rgb`: (N, 3) uint8. `normals`: (N, 3) float32 or None.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    normals: np.ndarray | None = None


def frame_pictures(
    rgb: np.ndarray,
    *,
    sensor: np.ndarray | None,
    truth: np.ndarray | None,
    relative: np.ndarray | None,
    metric: np.ndarray | None,
    normals: np.ndarray | None,
    cloud: Cloud | None,
) -> dict[str, np.ndarray]:
    """Every picture that can be made of one frame, by name, in the order of the strip.

    Metric depth, measured depth and their legends share one range of colours. Where there is no
    metric depth the relative one is shown, and its legend says so.

    Args:
        rgb: (H, W, 3) uint8, the camera's image.
        sensor: (H, W) float32 metres that the node was given, NaN elsewhere, or None.
        truth: (H, W) float32 metres held back to score with, NaN elsewhere, or None.
        relative: (H, W) float32 in [0, 1], or None.
        metric: (H, W) float32 metres, NaN invalid, or None.
        normals: (H, W, 3) float32 unit vectors, optical frame, or None.
        cloud: the points received, or None.

    Returns:
        (h, w, 3) uint8 RGB pictures under some of: colour, depth, measured, normals,
        cloud_above, cloud_oblique.
    """
    pictures = {"colour": _with_points(rgb, sensor)}
    if metric is not None and np.isfinite(metric).any():
        shown = {"depth": metric}
        if truth is not None and np.isfinite(truth).any():
            shown["measured"] = np.where(np.isfinite(truth), truth, _or_nan(sensor, truth))
        ranges = [np.nanquantile(depth, (0.02, 0.98)) for depth in shown.values()]
        near, far = float(np.min(ranges)), float(np.max(ranges))
        for name, depth in shown.items():
            pictures[name] = _with_bar(colour_depth(depth, near, far), near, far, "m")
    elif relative is not None:
        pictures["depth"] = _with_bar(colour_depth(relative, 0.0, 1.0), 0.0, 1.0, "rel.")
    if normals is not None:
        pictures["normals"] = _enlarged(colour_normals(normals), cv2.INTER_NEAREST)
    if cloud is not None and len(cloud.xyz):
        height, width = pictures["colour"].shape[:2]
        pictures["cloud_above"] = view_from_above(cloud.xyz, cloud.rgb, width, height)
        pictures["cloud_oblique"] = view_oblique(cloud.xyz, cloud.rgb, width, height)
    return pictures


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
        DataError: the folder cannot be written to.
    """
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise DataError(f"{path}: cannot be written; is the disk full or the folder read-only?")


def encode_jpeg(rgb: np.ndarray, quality: int = 88) -> bytes:
    """An (H, W, 3) uint8 RGB picture as the bytes of a JPEG file."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done, "OpenCV always encodes 8-bit colour as JPEG"
    return data.tobytes()


def _or_nan(sensor: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.full_like(like, np.nan) if sensor is None else sensor


def _enlarged(picture: np.ndarray, interpolation: int) -> np.ndarray:
    """The picture by a whole factor larger, if it is small."""
    factor = -(-LEAST_HEIGHT // picture.shape[0])
    if factor <= 1:
        return picture
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=interpolation)


def _with_points(rgb: np.ndarray, sensor: np.ndarray | None) -> np.ndarray:
    """The image with a dot where the node was given a measurement, if those are few."""
    picture = _enlarged(rgb, cv2.INTER_LINEAR)
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


def _with_bar(picture: np.ndarray, near: float, far: float, unit: str) -> np.ndarray:
    """The picture with its scale of colours at the right, near at the bottom."""
    picture = _enlarged(picture, cv2.INTER_NEAREST)
    height = picture.shape[0]
    panel = np.full((height, BAR_WIDTH, 3), BACKGROUND, np.uint8)
    ramp = np.linspace(far, near, height - 24, dtype=np.float32)[:, None]
    panel[12:-12, 6:20] = np.repeat(colour_depth(ramp, near, far), 14, axis=1)
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        v = round(12 + (height - 25) * (1.0 - fraction))
        label = f"{near + fraction * (far - near):.2f}"
        write_text(panel, f"{label} {unit}" if fraction == 1.0 else label, (24, v + 5), 0.48)
    return np.concatenate([picture, panel], axis=1)

"""Pictures of a point cloud, by plain splatting: from above with a metric grid, and oblique."""

from __future__ import annotations

import math

import cv2
import numpy as np

from d3_ros.imaging.drawing import BACKGROUND, write_text

GRID = (62, 66, 78)
CAMERA = (255, 196, 0)
# What the views are fitted to: a few stray points must not shrink the scene to a dot.
FIT_QUANTILES = (0.01, 0.99)


def view_from_above(xyz: np.ndarray, rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """The cloud seen from above: x (right) to the right, z (forward) up, equal scales.

    The camera is the yellow triangle at the bottom, the grid is labelled in metres, and where
    points cover each other the highest is seen.

    Args:
        xyz: (N, 3) finite metres, optical frame (x right, y down, z forward).
        rgb: (N, 3) uint8.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = _canvas(width, height)
    if len(xyz) == 0:
        return picture
    left, right = np.quantile(xyz[:, 0], FIT_QUANTILES)
    far = float(np.quantile(xyz[:, 2], FIT_QUANTILES[1]))
    left, right = min(float(left), 0.0), max(float(right), 0.0)
    margin = 22
    pixels_per_m = min(
        (width - 2 * margin) / max(right - left, 1e-3), (height - 2 * margin) / max(far, 1e-3)
    )
    origin = np.array([width / 2 - pixels_per_m * (left + right) / 2, height - margin])

    def to_pixels(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return origin + pixels_per_m * np.stack([x, -z], axis=-1)

    step = _nice_step(80 / pixels_per_m)
    _draw_grid(picture, origin, pixels_per_m, step)
    order = np.argsort(-xyz[:, 1], kind="stable")
    _splat(picture, to_pixels(xyz[order, 0], xyz[order, 2]), rgb[order])
    tip = np.array([[0, 0], [-6, 11], [6, 11]]) + origin
    cv2.fillPoly(picture, [np.round(tip).astype(np.int32)], CAMERA, cv2.LINE_AA)
    return picture


def view_oblique(
    xyz: np.ndarray,
    rgb: np.ndarray,
    width: int,
    height: int,
    *,
    yaw_deg: float = 28.0,
    pitch_deg: float = 22.0,
) -> np.ndarray:
    """The cloud in perspective from a viewpoint that is not the camera's.

    The viewer has walked around the middle of the scene to the left by `yaw_deg` and up by
    `pitch_deg`: what the camera could not see shows as holes, what is flat shows as flat.

    Args:
        xyz: (N, 3) finite metres, optical frame.
        rgb: (N, 3) uint8.
        width: of the picture, pixels.
        height: of the picture, pixels.
        yaw_deg: angle about the vertical.
        pitch_deg: angle about the horizontal.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = _canvas(width, height)
    if len(xyz) == 0:
        return picture
    centre = np.median(xyz, axis=0)
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    about_y = np.array(
        [[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
    )
    distance = 1.3 * float(np.linalg.norm(centre))
    seen = (xyz - centre) @ (about_x @ about_y).T + (0.0, 0.0, distance)
    in_front = seen[:, 2] > 0.1 * distance
    seen, colours = seen[in_front], rgb[in_front]
    if len(seen) == 0:
        return picture
    plane = seen[:, :2] / seen[:, 2:]
    low, high = np.quantile(plane, FIT_QUANTILES, axis=0)
    extent = np.maximum(high - low, 1e-6)
    focal_px = 0.94 * float(np.min(np.array([width, height]) / extent))
    pixels = (plane - (low + high) / 2) * focal_px + (width / 2, height / 2)
    order = np.argsort(-seen[:, 2], kind="stable")
    _splat(picture, pixels[order], colours[order])
    return picture


def _canvas(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _splat(picture: np.ndarray, pixels: np.ndarray, colours: np.ndarray) -> None:
    """Paint each point 2 x 2 pixels large; later points cover earlier ones."""
    height, width = picture.shape[:2]
    corner = np.floor(pixels).astype(np.int64)
    for dv, du in ((0, 0), (0, 1), (1, 0), (1, 1)):
        u, v = corner[:, 0] + du, corner[:, 1] + dv
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        picture[v[inside], u[inside]] = colours[inside]


def _nice_step(at_least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `at_least`."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= at_least * (1 - 1e-9))


def _draw_grid(picture: np.ndarray, origin: np.ndarray, pixels_per_m: float, step: float) -> None:
    """Lines every `step` metres, with the metres at the lower and the left border."""
    height, width = picture.shape[:2]
    first = math.ceil(-origin[0] / pixels_per_m / step)
    last = math.floor((width - origin[0]) / pixels_per_m / step)
    for i in range(first, last + 1):
        u = round(origin[0] + i * step * pixels_per_m)
        cv2.line(picture, (u, 0), (u, height - 1), GRID, 1)
        write_text(picture, f"{i * step:g}", (u + 2, height - 4), 0.42)
    for i in range(math.floor(origin[1] / pixels_per_m / step) + 1):
        v = round(origin[1] - i * step * pixels_per_m)
        cv2.line(picture, (0, v), (width - 1, v), GRID, 1)
        write_text(picture, f"{i * step:g} m", (2, v - 3), 0.42)

"""Pictures of an organised point cloud: from above with a metric grid, and oblique.

Each point is drawn as a square as large as its distance to its neighbours in the picture, so that
surfaces have no gaps. Flying points, between a foreground and its background, are left out.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from d3_ros.imaging.drawing import BACKGROUND, write_text

GRID = (62, 66, 78)
CAMERA = (255, 196, 0)
# The views are fitted to these quantiles, so that a few far points do not shrink the scene. What
# lies beyond is cropped.
FIT_QUANTILES = (0.02, 0.98)
# Steepest surface that is drawn, as depth per height and depth per width: steeper ones are most
# often the blur between a foreground and its background. A low camera sees far floor very steeply.
STEEPEST = (16.0, 8.0)
# Pictures are drawn so many times larger, then averaged.
SUPERSAMPLING = 2
# Side of a point's square, pixels: of a point without neighbours, and the largest.
LONE_POINT, LARGEST_POINT = 4, 14
MOST_POINTS = 80_000


def view_from_above(xyz: np.ndarray, rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """The cloud seen from above: x (right) to the right, z (forward) up, equal scales.

    The yellow triangle at the bottom is the camera. The grid is labelled in metres. Where points
    cover each other, the highest is seen.

    Args:
        xyz: (H, W, 3) metres, optical frame (x right, y down, z forward), NaN invalid.
        rgb: (H, W, 3) uint8.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = _canvas(width, height)
    points = xyz[np.isfinite(xyz).all(axis=2)]
    if len(points) == 0:
        return picture
    left, right = np.quantile(points[:, 0], FIT_QUANTILES)
    far = float(np.quantile(points[:, 2], FIT_QUANTILES[1]))
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
    xyz, rgb = _thinned(xyz, rgb)
    pixels = to_pixels(xyz[..., 0], xyz[..., 2])
    picture = _splat(picture, pixels, xyz[..., 1], on_surface(xyz), rgb)
    tip = np.array([[0, 0], [-6, 11], [6, 11]]) + origin
    cv2.fillPoly(picture, [np.round(tip).astype(np.int32)], CAMERA, cv2.LINE_AA)
    return picture


def view_oblique(
    xyz: np.ndarray,
    rgb: np.ndarray,
    width: int,
    height: int,
    *,
    yaw_deg: float = 18.0,
    pitch_deg: float = 14.0,
) -> np.ndarray:
    """The cloud in perspective from a viewpoint that is not the camera's.

    The viewpoint is turned about the middle of the scene: to the left by `yaw_deg`, up by
    `pitch_deg`. Places that the camera could not see are holes.

    Args:
        xyz: (H, W, 3) metres, optical frame, NaN invalid.
        rgb: (H, W, 3) uint8.
        width: of the picture, pixels.
        height: of the picture, pixels.
        yaw_deg: angle about the vertical.
        pitch_deg: angle about the horizontal.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = _canvas(width, height)
    points = xyz[np.isfinite(xyz).all(axis=2)]
    if len(points) == 0:
        return picture
    centre = np.median(points, axis=0)
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    about_y = np.array(
        [[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
    )
    distance = 1.3 * float(np.linalg.norm(centre))
    xyz, rgb = _thinned(xyz, rgb)
    seen = (xyz - centre) @ (about_x @ about_y).T + (0.0, 0.0, distance)
    with np.errstate(invalid="ignore"):
        drawn = on_surface(xyz) & (seen[..., 2] > 0.1 * distance)
    if not drawn.any():
        return picture
    plane = seen[..., :2] / seen[..., 2:]
    low, high = np.quantile(plane[drawn], FIT_QUANTILES, axis=0)
    extent = np.maximum(high - low, 1e-6)
    focal_px = 0.9 * float(np.min(np.array([width, height]) / extent))
    pixels = (plane - (low + high) / 2) * focal_px + (width / 2, height / 2)
    return _splat(picture, pixels, seen[..., 2], drawn, rgb)


def _canvas(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _thinned(xyz: np.ndarray, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every k-th row and column, so that a picture takes a fraction of a second."""
    stride = math.ceil(math.sqrt(xyz.shape[0] * xyz.shape[1] / MOST_POINTS))
    return xyz[::stride, ::stride], rgb[::stride, ::stride]


def _steps(values: np.ndarray) -> list[np.ndarray]:
    """(H, W) absolute differences of (H, W) values to the four neighbours, NaN at borders."""
    found = []
    for axis in (0, 1):
        step = np.abs(np.diff(values, axis=axis))
        for before, after in ((1, 0), (0, 1)):
            pad = [(before, after) if i == axis else (0, 0) for i in (0, 1)]
            found.append(np.pad(step, pad, constant_values=np.nan))
    return found


def on_surface(xyz: np.ndarray) -> np.ndarray:
    """(H, W) bool: valid points of (H, W, 3) that are no flying points; see `STEEPEST`."""
    drawn = np.isfinite(xyz).all(axis=2)
    if min(xyz.shape[:2]) == 1:
        return drawn
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = xyz[..., 2]
        across = xyz[..., :2] / depth[..., None]
        widths = _steps(across[..., 1])[:2] + _steps(across[..., 0])[2:]
        limits = np.repeat(STEEPEST, 2)
        for step, width, limit in zip(_steps(depth), widths, limits, strict=True):
            drawn &= ~(step > limit * width * depth)
    return drawn


def _splat(
    picture: np.ndarray,
    pixels: np.ndarray,
    distance: np.ndarray,
    drawn: np.ndarray,
    colours: np.ndarray,
) -> np.ndarray:
    """Draw points as squares over an (h, w, 3) picture; near points cover far ones.

    Args:
        picture: the background.
        pixels: (H, W, 2) where each point is in the picture.
        distance: (H, W) from the viewer, in any unit.
        drawn: (H, W) bool.
        colours: (H, W, 3) uint8.
    """
    height, width = (SUPERSAMPLING * size for size in picture.shape[:2])
    pixels = pixels * SUPERSAMPLING
    canvas = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
    spacing = np.full(drawn.shape, np.nan)
    if len(drawn) > 1:
        # Points that are not drawn count as no neighbours.
        where = np.where(drawn[..., None], pixels, np.nan)
        for step in (*_steps(where[..., 0]), *_steps(where[..., 1])):
            spacing = np.fmax(spacing, step)
    spacing = np.where(np.isfinite(spacing), spacing, LONE_POINT)
    sides = np.clip(np.ceil(spacing) + 1, 3, LARGEST_POINT).astype(int)[drawn]
    corner = np.floor(pixels[drawn] - (sides[:, None] - 1) / 2).astype(np.int64)
    far_first = np.argsort(-distance[drawn], kind="stable")
    places, points = [], []
    for dv in range(LARGEST_POINT):
        for du in range(LARGEST_POINT):
            covers = far_first[sides[far_first] > max(du, dv)]
            u, v = corner[covers, 0] + du, corner[covers, 1] + dv
            inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            places.append((v * width + u)[inside])
            points.append(covers[inside])
    place, point = np.concatenate(places), np.concatenate(points)
    rank = np.empty(len(far_first), np.int64)
    rank[far_first] = np.arange(len(far_first))
    order = np.argsort(rank[point], kind="stable")
    canvas.reshape(-1, 3)[place[order]] = colours[drawn][point[order]]
    return cv2.resize(canvas, picture.shape[1::-1], interpolation=cv2.INTER_AREA)


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

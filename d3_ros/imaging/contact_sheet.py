"""One picture of many frames: colour, depth, and one laid over the other, to be checked by eye."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from d3_ros.imaging.colour_maps import colour_depth
from d3_ros.imaging.drawing import BACKGROUND, tiled, write_text

TILE_WIDTH, CAPTION_HEIGHT, COLUMNS = 320, 20, 2
# Depth known at fewer pixels than this share is sparse: it is drawn as dots on the dimmed image.
SPARSE_SHARE = 0.2
# Neighbours whose depth differs by more than this share are two sides of an edge.
EDGE_STEP = 0.06
EDGE = (60, 255, 60)


def contact_sheet(
    frames: Iterable[tuple[str, np.ndarray, np.ndarray]], near_m: float, far_m: float
) -> np.ndarray:
    """Tiles of colour, depth and an overlay, two frames a row.

    The overlay is for checking that image and depth are registered. Dense depth: its edges in green
    on the image, which must lie on the borders of objects. Sparse depth: its dots on the edges of
    the image.

    Args:
        frames: caption, (H, W, 3) uint8 RGB, (H, W) float32 metres with NaN or 0 for unknown.
        near_m, far_m: the depths at the two ends of the colours, the same for all frames.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    tiles = [_tile(caption, rgb, depth, near_m, far_m) for caption, rgb, depth in frames]
    return tiled(tiles, COLUMNS)


def _tile(
    caption: str, rgb: np.ndarray, depth: np.ndarray, near_m: float, far_m: float
) -> np.ndarray:
    height = round(TILE_WIDTH * rgb.shape[0] / rgb.shape[1])
    size = (TILE_WIDTH, height)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    depth_m = np.where(depth > 0, depth, np.float32(np.nan)).astype(np.float32)
    if np.isfinite(depth_m).mean() < SPARSE_SHARE:
        edges = cv2.Canny(small, 80, 160)
        measured = _with_dots(small // 3, depth_m, near_m, far_m)
        overlay = _with_dots(cv2.merge([edges // 2] * 3), depth_m, near_m, far_m)
    else:
        coloured = colour_depth(depth_m, near_m, far_m)
        measured = cv2.resize(coloured, size, interpolation=cv2.INTER_NEAREST)
        overlay = _with_edges(small // 2, depth_m)
    tile = np.full((height + CAPTION_HEIGHT, 3 * TILE_WIDTH + 4, 3), BACKGROUND, np.uint8)
    tile[CAPTION_HEIGHT:, :-4] = np.concatenate([small, measured, overlay], axis=1)
    write_text(tile, caption, (4, 14), 0.4)
    return tile


def _with_dots(picture: np.ndarray, depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """An (h, w, 3) picture with a dot for every known pixel of (H, W) depth, near ones on top."""
    picture = picture.copy()
    rows, columns = np.nonzero(np.isfinite(depth_m))
    far_first = np.argsort(-depth_m[rows, columns])
    rows, columns = rows[far_first], columns[far_first]
    colours = colour_depth(depth_m[rows, columns][:, None], near_m, far_m)[:, 0]
    scale = np.divide(picture.shape[1::-1], depth_m.shape[::-1])
    pixels = ((np.stack([columns, rows], 1) + 0.5) * scale).astype(int)
    for (u, v), colour in zip(pixels.tolist(), colours.tolist(), strict=True):
        cv2.rectangle(picture, (u, v), (u + 1, v + 1), colour, -1)
    return picture


def _with_edges(picture: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """An (h, w, 3) picture with the edges of (H, W) depth in green."""
    edges = np.zeros(depth_m.shape, np.uint8)
    for axis in (0, 1):
        near, far = (np.take(depth_m, np.arange(depth_m.shape[axis] - 1) + i, axis) for i in (0, 1))
        step = np.abs(far - near) > EDGE_STEP * np.minimum(near, far)
        edges[: step.shape[0], : step.shape[1]] |= step
    drawn = cv2.resize(255 * edges, picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    picture = picture.copy()
    picture[drawn > 40] = EDGE
    return picture

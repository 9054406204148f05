"""One picture of many frames: colour beside what is known of their depth, to look at once."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from d3_ros.imaging.colour_maps import colour_depth
from d3_ros.imaging.drawing import BACKGROUND, write_text

TILE_WIDTH, CAPTION_HEIGHT, COLUMNS = 240, 20, 3
# Depth known at fewer pixels than this share is shown as dots on the picture.
SPARSE_SHARE = 0.2


def contact_sheet(
    frames: Iterable[tuple[str, np.ndarray, np.ndarray]], near_m: float, far_m: float
) -> np.ndarray:
    """Tiles of colour and depth, three frames a row.

    Args:
        frames: caption, (H, W, 3) uint8 RGB, (H, W) float32 metres with NaN or 0 for unknown.
        near_m, far_m: the depths at the two ends of the colours, the same for all frames.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    tiles = [_tile(caption, rgb, depth, near_m, far_m) for caption, rgb, depth in frames]
    height = max(len(tile) for tile in tiles)
    width = tiles[0].shape[1]
    tiles += [np.full((height, width, 3), BACKGROUND, np.uint8)] * (-len(tiles) % COLUMNS)
    padded = [
        cv2.copyMakeBorder(tile, 0, height - len(tile), 0, 0, cv2.BORDER_CONSTANT, value=BACKGROUND)
        for tile in tiles
    ]
    rows = [np.concatenate(padded[i : i + COLUMNS], 1) for i in range(0, len(padded), COLUMNS)]
    return np.concatenate(rows)


def _tile(
    caption: str, rgb: np.ndarray, depth: np.ndarray, near_m: float, far_m: float
) -> np.ndarray:
    height = round(TILE_WIDTH * rgb.shape[0] / rgb.shape[1])
    size = (TILE_WIDTH, height)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    depth_m = np.where(depth > 0, depth, np.float32(np.nan)).astype(np.float32)
    known = np.isfinite(depth_m)
    if known.mean() < SPARSE_SHARE:
        measured: np.ndarray = small // 3
        rows, columns = np.nonzero(known)
        colours = colour_depth(depth_m[rows, columns][:, None], near_m, far_m)[:, 0]
        scale = np.divide(size, rgb.shape[1::-1])
        pixels = ((np.stack([columns, rows], 1) + 0.5) * scale).astype(int)
        far_first = np.argsort(-depth_m[rows, columns])
        for (u, v), colour in zip(
            pixels[far_first].tolist(), colours[far_first].tolist(), strict=True
        ):
            cv2.rectangle(measured, (u, v), (u + 1, v + 1), colour, -1)
    else:
        coloured = colour_depth(depth_m, near_m, far_m)
        measured = cv2.resize(coloured, size, interpolation=cv2.INTER_NEAREST)
    tile = np.full((height + CAPTION_HEIGHT, 2 * TILE_WIDTH + 4, 3), BACKGROUND, np.uint8)
    tile[CAPTION_HEIGHT:, :TILE_WIDTH] = small
    tile[CAPTION_HEIGHT:, TILE_WIDTH:-4] = measured
    write_text(tile, caption, (4, 14), 0.4)
    return tile

"""A sensor's points and its depth edges over the image, to see whether they fit."""

from __future__ import annotations

import cv2
import numpy as np

from d3_ros.imaging.colour_maps import colour_depth
from d3_ros.imaging.drawing import BACKGROUND, LEAST_HEIGHT, write_text

EDGE_COLOUR = (0, 255, 255)
MOST_POINTS = 20_000
DIMMED = 0.55
CAPTION_HEIGHT = 28


def edge_overlay(
    rgb: np.ndarray,
    pixels: np.ndarray,
    depth_m: np.ndarray,
    edges: np.ndarray,
    caption: str,
) -> np.ndarray:
    """The dimmed image with points coloured by depth, depth edges marked, and a caption above.

    Args:
        rgb: (H, W, 3) uint8.
        pixels: (N, 2) u, v of the points; points outside of the image are left out.
        depth_m: (N,) their depth; near is bright.
        edges: (M, 2) u, v of the depth edges.
        caption: one line of ASCII text.

    Returns:
        (h, w, 3) uint8; small images are enlarged by a whole factor.
    """
    factor = max(1, -(-LEAST_HEIGHT // (2 * rgb.shape[0])), 960 // rgb.shape[1])
    picture = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    picture = (picture * DIMMED).astype(np.uint8)
    inside = _inside(pixels, rgb)
    inside = inside[:: max(1, -(-len(inside) // MOST_POINTS))]
    if len(inside):
        shown = np.log(np.maximum(depth_m[inside], 1e-3)).astype(np.float32)
        near, far = np.quantile(shown, (0.02, 0.98))
        far += 0.5 * (far - near)  # so that the farthest are not black
        colours = colour_depth(shown[None], float(near), float(far))[0].tolist()
        for place, colour in zip(_places(pixels[inside], factor), colours, strict=True):
            cv2.circle(picture, place, 1, colour, -1)
    for place in _places(edges[_inside(edges, rgb)], factor):
        cv2.circle(picture, place, 3, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(picture, place, 2, EDGE_COLOUR, -1, cv2.LINE_AA)
    framed = cv2.copyMakeBorder(
        picture, CAPTION_HEIGHT, 0, 0, 0, cv2.BORDER_CONSTANT, value=BACKGROUND
    )
    write_text(framed, caption, (6, 19), 0.5)
    return framed


def _inside(pixels: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Index of the pixels that are in the image; false for NaN."""
    with np.errstate(invalid="ignore"):
        within = (pixels >= 0) & (pixels <= (rgb.shape[1] - 1, rgb.shape[0] - 1))
    return np.flatnonzero(within.all(axis=1))


def _places(pixels: np.ndarray, factor: int) -> list[tuple[int, int]]:
    return [(int(u), int(v)) for u, v in np.floor((pixels + 0.5) * factor)]

"""Flying pixels: points that hang between two surfaces because the network blurs depth edges.

On a plane, inverse z-depth is linear in the pixel (see `geometry.normals`). So the surfaces to the
left and to the right of a pixel (and above and below) are carried on to it as straight lines of
inverse depth. A pixel on either surface lies on its line, however steep the surface is seen; one
that lies between the two lines, and off both, is on neither surface.
"""

from __future__ import annotations

import cv2
import numpy as np

# Width of the network's blurred edges, as a share of the image's longer side. The surfaces are read
# this far, and twice as far, from the pixel.
EDGE_SHARE = 0.01
# A point this share of its depth off a surface is not on it.
OFF_SURFACE = 0.05


def flying_pixels(depth_m: np.ndarray, off_surface: float = OFF_SURFACE) -> np.ndarray:
    """Which pixels hang between two surfaces.

    Args:
        depth_m: (H, W) float32 z-depth in metres, NaN where unknown.
        off_surface: how far off both surfaces, as a share of the depth, a pixel must be.

    Returns:
        (H, W) bool. False where the depth is unknown and on objects narrower than the blur. Near
        the border (two blur widths) there is no second surface to see: steps along rows are not
        found at the left and right, steps along columns not at the top and bottom.
    """
    reach = max(2, round(EDGE_SHARE * max(depth_m.shape)))
    with np.errstate(divide="ignore"):
        inverse = np.float32(1.0) / depth_m
    flying = np.zeros(depth_m.shape, bool)
    for axis in (0, 1):
        _mark(inverse, flying, reach, axis, off_surface)
    return flying


def _mark(
    inverse: np.ndarray, flying: np.ndarray, reach: int, axis: int, off_surface: float
) -> None:
    """Mark what hangs between the surfaces at both sides along an axis."""
    length = inverse.shape[axis] - 4 * reach
    if length <= 0:
        return

    def beside(plane: np.ndarray, offset: int = 0) -> np.ndarray:
        along = slice((2 + offset) * reach, (2 + offset) * reach + length)
        return plane[along] if axis == 0 else plane[:, along]

    before = cv2.addWeighted(beside(inverse, -1), 2.0, beside(inverse, -2), -1.0, 0.0)
    after = cv2.addWeighted(beside(inverse, 1), 2.0, beside(inverse, 2), -1.0, 0.0)
    farther = np.minimum(before, after)
    nearer = np.maximum(before, after, out=before)
    farther *= np.float32(1.0 / (1.0 - off_surface))
    nearer *= np.float32(1.0 / (1.0 + off_surface))
    # NaN fails every comparison, so that next to a hole nothing is removed.
    here = beside(inverse)
    between = (farther < here) & (here < nearer)
    np.logical_or(beside(flying), between, out=beside(flying))

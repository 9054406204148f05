"""Sensor depth of another resolution on the pixels of the camera image.

Measurements are moved, never interpolated: between two of them there may be an edge.
"""

from __future__ import annotations

import numpy as np

from d3_ros.errors import DataError


def place_on_image(depth_m: np.ndarray, width: int, height: int) -> np.ndarray:
    """Put each measurement on the image pixel that its own pixel's centre falls into.

    Both images show the same view (registered), so that only the resolution differs. Where several
    measurements fall on one pixel, the nearest wins: what is behind it is hidden.

    Args:
        depth_m: (h, w) float32 metres, NaN = none. Not changed.
        width: columns of the camera image.
        height: rows of it.

    Returns:
        (height, width) float32 metres, NaN where no measurement fell; `depth_m` itself if it is of
        that size already.

    Raises:
        DataError: the two have different aspect ratios, so they cannot show the same view.
    """
    own_height, own_width = depth_m.shape
    if (own_width, own_height) == (width, height):
        return depth_m
    # Equal aspect up to the rounding of one row of the sensor.
    if abs(own_height - own_width * height / width) >= 1.0:
        raise DataError(
            f"sensor depth of {own_width} x {own_height} pixels cannot be registered to an image "
            f"of {width} x {height}: their aspect ratios differ"
        )
    depth_m, rows = _along(depth_m, height, axis=0)
    depth_m, columns = _along(depth_m, width, axis=1)
    placed = np.full((height, width), np.nan, np.float32)
    placed[np.ix_(rows, columns)] = depth_m
    return placed


def _along(depth_m: np.ndarray, size: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The depth with at most one entry a target row (or column), and those entries' targets."""
    own = depth_m.shape[axis]
    target = ((np.arange(own) + 0.5) * size / own).astype(np.intp)
    if own <= size:
        return depth_m, target
    first = np.searchsorted(target, np.arange(size))
    return np.fmin.reduceat(depth_m, first, axis=axis), np.arange(size)

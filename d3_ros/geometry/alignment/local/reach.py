"""How far beyond the sensor's points the correction by them is believed.

Points of a 2-D scanner say much about the metres along their row and little about the floor below
it: left-out points judge the correction between points, never beyond them. Beyond the points it
fades, and what stays is the global fit, which follows the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.geometry.alignment.points import Points

# The rectangle around the points leaves out this share of them at either end of each axis.
LONERS = 0.02
# In units of the image's longer side: the correction stays whole up to `MARGIN` beyond the
# rectangle. Then it falls to 1 / e within `LEAST_REACH`, and `TIMES_EXTENT` of the rectangle's own
# extent along that axis more. The last two were chosen on `field`, for a row and for the lower half
# of the image.
MARGIN, LEAST_REACH, TIMES_EXTENT = 0.05, 0.2, 4.0


@dataclass(frozen=True)
class Reach:
    """Share of the correction that stays: the product of one factor per row and one per column.

    `rows` (H,) and `columns` (W,) are float32 in (0, 1].
    """

    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, points: Points, shape: tuple[int, int]) -> Reach | None:
        """Of points in an image of `shape` (H, W); None if they are all over it."""
        if len(points) == 0:
            return None
        axes = zip((points.rows, points.columns), shape, strict=True)
        rows, columns = (_share(at, size, max(shape)) for at, size in axes)
        if min(rows.min(), columns.min()) == 1.0:
            return None
        return cls(rows, columns)

    def within(self, band: slice) -> np.ndarray | None:
        """(h, W) float32 shares of some rows; None where the whole correction stays."""
        rows = self.rows[band, None]
        if min(rows.min(), self.columns.min()) == 1.0:
            return None
        return np.asarray(rows * self.columns)


def _share(at: np.ndarray, size: int, longer: int) -> np.ndarray:
    """(size,) float32 shares along one axis, of points at `at` (N,)."""
    low, high = np.quantile(at, (LONERS, 1.0 - LONERS))
    pixels = np.arange(size)
    beyond = np.maximum(np.maximum(low - pixels, pixels - high) / longer - MARGIN, 0.0)
    reach = LEAST_REACH + TIMES_EXTENT * (high - low) / longer
    return np.asarray(np.exp(-beyond / reach), np.float32)

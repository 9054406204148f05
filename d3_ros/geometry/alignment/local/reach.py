"""Fades the local correction away from the sensor's points, down to the global fit.

Points of a 2-D scanner say much about the metres along their row and little about the floor below
it. Left-out points cannot show that: they judge the correction between points, never beyond them.
It fades sooner where the points lie on a line than where they cover a part of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.geometry.alignment.local.detail import enlarge
from d3_ros.geometry.alignment.points import Points

# In units of the image's longer side: the correction is whole within `MARGIN` of a point. Then it
# falls to 1 / e within `LEAST_REACH` plus `TIMES_EXTENT` times the points' own extent. The three
# were chosen on the data set `field` (docs/data.md), for a row and for the lower half of the image.
MARGIN, LEAST_REACH, TIMES_EXTENT = 0.05, 0.2, 4.0
# The extent of evenly spread points is so many times their standard deviation.
DEVIATIONS = 12.0**0.5
STEP = 8  # pixels, the side of a cell


@dataclass(frozen=True)
class Reach:
    """Share of the correction that stays: `cells` (h, w) float32 in (0, 1], `STEP` pixels each."""

    cells: np.ndarray

    def within(self, top: int, height: int, width: int) -> np.ndarray | None:
        """(height, width) float32 shares of a band of the image; None where all of it stays.

        `top` is the image's row that is the band's first.
        """
        first = top // STEP * STEP
        seen = self.cells[max(top // STEP - 1, 0) : -(-(top + height) // STEP) + 1]
        if seen.min() == 1.0:
            return None
        return enlarge(self.cells, STEP, first, height + top - first)[top - first :, :width]


class SteadyReach:
    """The reach of each frame's points; how far it goes is steady over time.

    Args:
        memory: in [0, 1); 0 is no smoothing.
    """

    def __init__(self, memory: float) -> None:
        self.memory = memory
        self._extent: float | None = None

    def update(self, points: Points, shape: tuple[int, int]) -> Reach | None:
        """Of believed points of an image of `shape` (H, W).

        None if the whole correction stays everywhere, or there are no points.
        """
        if len(points) == 0:
            return None
        rows, columns = points.rows, points.columns
        longer = max(shape)
        extent = DEVIATIONS * float(min(rows.std(), columns.std())) / longer
        if self._extent is None:
            self._extent = extent
        self._extent += (1.0 - self.memory) * (extent - self._extent)
        empty = np.ones([-(-side // STEP) for side in shape], np.uint8)
        empty[(rows // STEP).astype(np.intp), (columns // STEP).astype(np.intp)] = 0
        distance = cv2.distanceTransform(empty, cv2.DIST_L2, cv2.DIST_MASK_5)
        beyond = np.maximum(distance * (STEP / longer) - MARGIN, 0.0)
        cells = np.exp(-beyond / (LEAST_REACH + TIMES_EXTENT * self._extent))
        return Reach(cells.astype(np.float32)) if cells.min() < 1.0 else None

"""sensor_msgs/LaserScan to points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from d3_ros.errors import MessageError
from d3_ros.geometry.sparse_depth import scan_to_points

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import LaserScan


def points_from_scan(message: LaserScan, topic: str) -> np.ndarray:
    """(N, 3) points in metres of a scan, in the frame of its header (REP 103: x forward, z up).

    Readings outside range_min to range_max, infinite ones and NaN are no points (REP 117).

    Raises:
        MessageError: the angles are not usable.
    """
    if not (np.isfinite(message.angle_min) and np.isfinite(message.angle_increment)):
        raise MessageError(
            f"'{topic}' has angle_min {message.angle_min} and angle_increment "
            f"{message.angle_increment}: check its publisher"
        )
    return scan_to_points(
        np.frombuffer(message.ranges, np.float32),
        message.angle_min,
        message.angle_increment,
        message.range_min,
        # A driver that does not say leaves 0.
        message.range_max if message.range_max > 0 else np.inf,
    )

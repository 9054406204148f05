"""Range sensors' messages to points: PointCloud2 of any field layout, and LaserScan.

Points are taken as the message has them: a per-point time (`t`, `time`) is not looked at, so that a
sweep is not corrected for the motion of the sensor while it lasted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from d3_ros.errors import MessageError
from d3_ros.geometry.sparse_depth import scan_to_points

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import LaserScan, PointCloud2

# sensor_msgs/PointField: FLOAT32 and FLOAT64, the only types that coordinates come in.
COORDINATE_TYPES = {7: "f4", 8: "f8"}


def points_from_cloud(message: PointCloud2, topic: str) -> np.ndarray:
    """(N, 3) float64 x, y, z in metres, in the message's frame, without points that are not finite.

    Raises:
        MessageError: no x, y, z of a float type, or less data than width, height and steps say.
    """
    fields = {field.name: field for field in message.fields}
    missing = [name for name in "xyz" if name not in fields]
    if missing:
        raise MessageError(
            f"'{topic}' is a cloud without {', '.join(missing)} (fields: {', '.join(fields)}): "
            "publish one with x, y, z"
        )
    order = ">" if message.is_bigendian else "<"
    formats, offsets = [], []
    for name in "xyz":
        kind = COORDINATE_TYPES.get(fields[name].datatype)
        if kind is None:
            raise MessageError(
                f"'{topic}': field {name} has datatype {fields[name].datatype}, "
                "coordinates must be FLOAT32 (7) or FLOAT64 (8)"
            )
        formats.append(order + kind)
        offsets.append(fields[name].offset)
    height, width = message.height, message.width
    row_step, point_step = message.row_step or width * message.point_step, message.point_step
    ends = [offset + np.dtype(kind).itemsize for offset, kind in zip(offsets, formats, strict=True)]
    if width == 0 or height == 0:
        return np.empty((0, 3))
    needed = (height - 1) * row_step + (width - 1) * point_step + max(ends)
    if max(ends) > point_step or row_step < width * point_step or len(message.data) < needed:
        raise MessageError(
            f"'{topic}': a cloud of {width} x {height} points with steps {point_step} and "
            f"{row_step} needs {needed} bytes of data, got {len(message.data)}: check its publisher"
        )
    columns: list[np.ndarray] = [
        np.ndarray(
            (height, width), kind, message.data, offset=offset, strides=(row_step, point_step)
        )
        for kind, offset in zip(formats, offsets, strict=True)
    ]
    points = np.stack(columns, axis=-1).reshape(-1, 3).astype(np.float64)
    return points[np.isfinite(points).all(axis=1)]


def points_from_scan(message: LaserScan, topic: str) -> np.ndarray:
    """(N, 3) float64 x, y, z in metres, in the scanner's frame; z is 0.

    Raises:
        MessageError: the scan's angles are not finite.
    """
    if not np.isfinite([message.angle_min, message.angle_increment]).all():
        raise MessageError(f"'{topic}': angles of the scan are not finite: check its publisher")
    return scan_to_points(
        np.asarray(message.ranges),
        message.angle_min,
        message.angle_increment,
        message.range_min,
        message.range_max,
    )

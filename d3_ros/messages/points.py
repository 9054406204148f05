"""sensor_msgs/PointCloud2 of any layout to points.

The reader follows the contract of sensor_msgs/PointField (fields by name, offset and datatype). It
needs no sensor_msgs_py, which exists in ROS installations only. Every fault is a MessageError; its
one line names the topic and says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from d3_ros.errors import MessageError

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import PointCloud2

# sensor_msgs/PointField.datatype: INT8, UINT8, INT16, ..., FLOAT32, FLOAT64.
NUMPY_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


def cloud_fields(message: PointCloud2, topic: str, names: Sequence[str]) -> np.ndarray:
    """(H, W) structured view of some fields of a cloud: not a copy, in the message's byte order.

    Where `row_step` is wrong but the length of the data is that of packed points, they are read as
    packed; `wrong_row_step` tells.

    Raises:
        MessageError: a field is missing, or the sizes that the message tells contradict each other
            or its data.
    """
    fields = {field.name: field for field in message.fields}
    if missing := [name for name in names if name not in fields]:
        raise MessageError(
            f"'{topic}' has no field {', '.join(missing)} (it has {', '.join(fields) or 'none'}): "
            "publish a cloud with these fields"
        )
    order = ">" if message.is_bigendian else "<"
    formats, offsets = [], []
    for name in names:
        field = fields[name]
        code = NUMPY_TYPES.get(field.datatype)
        if code is None:
            raise MessageError(
                f"'{topic}': field {name} has the unknown datatype {field.datatype}: "
                "check its publisher"
            )
        formats.append(np.dtype(order + code))
        offsets.append(field.offset)
    ends = [offset + kind.itemsize for offset, kind in zip(offsets, formats, strict=True)]
    height, width, step, row_step = (
        message.height,
        message.width,
        message.point_step,
        message.row_step,
    )
    if height * width == 0:
        return np.empty((0, 0), np.dtype(list(zip(names, formats, strict=True))))
    if step < max(ends):
        raise MessageError(
            f"'{topic}': fields end at byte {max(ends)} of a point of {step} bytes: "
            "check its publisher"
        )
    if height == 1 or wrong_row_step(message):
        row_step = width * step
    needed = row_step * (height - 1) + width * step
    if row_step < width * step or len(message.data) < needed:
        raise MessageError(
            f"'{topic}': {width} x {height} points of {step} bytes, rows of {row_step}, need "
            f"{max(needed, height * width * step)} bytes of data, got {len(message.data)}: "
            "check its publisher"
        )
    layout = np.dtype(
        {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": step}
    )
    view: np.ndarray = np.ndarray(
        (height, width), layout, buffer=message.data, strides=(row_step, step)
    )
    return view


def wrong_row_step(message: PointCloud2) -> bool:
    """Whether the length of a cloud's data contradicts its row_step, and is that of packed points.

    Some drivers leave row_step at 0, or set it to the size of the whole cloud.
    """
    row = message.width * message.point_step
    return message.row_step != row and len(message.data) == row * message.height


def points_from_cloud(message: PointCloud2, topic: str) -> np.ndarray:
    """(N, 3) float32 points in metres of a cloud, in the frame of its header; NaN rows stay.

    x, y and z may be of any datatype and stand anywhere in the point; all other fields are passed
    over. So is a time of each point (`t`, `time`, `timestamp`): a sweep is taken as measured at the
    header's stamp, which is off by what the robot moves during a sweep (0.1 s at 10 Hz). Deskew
    the cloud in its driver where that matters.

    Raises:
        MessageError: x, y or z is missing, or the message contradicts itself.
    """
    view = cloud_fields(message, topic, ("x", "y", "z"))
    points = np.empty((view.size, 3), np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and so no point
        for axis, name in enumerate(("x", "y", "z")):
            points[:, axis] = view[name].ravel()
    return points

"""Arrays to sensor_msgs/PointCloud2: the organised cloud, and the light cloud for Nav2.

`CloudBuffer` fills one message in place, as `messages.images.ImageBuffer` does. Headers are the
input image's own; rows are packed; bytes are little-endian.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import PointCloud2, PointField
    from std_msgs.msg import Header

CLOUD_FIELDS = ("x", "y", "z", "rgb")

CLOUD_FIELDS_WITH_NORMALS = (*CLOUD_FIELDS, "normal_x", "normal_y", "normal_z", "curvature")
SIGMA_FIELD = "sigma"


class CloudBuffer:
    """One organised sensor_msgs/PointCloud2, filled in place and published again and again."""

    def __init__(self) -> None:
        from sensor_msgs.msg import PointCloud2

        self.message = PointCloud2()
        self._points: np.ndarray | None = None

    def points(
        self, header: Header, height: int, width: int, *, normals: bool, sigma: bool = False
    ) -> np.ndarray:
        """Writable (H, W, fields) float32 view of the message's data.

        The fields are `CLOUD_FIELDS` or `CLOUD_FIELDS_WITH_NORMALS` and, if asked for,
        `SIGMA_FIELD`; `rgb` holds the bits 0x00RRGGBB.
        """
        message = self.message
        message.header = header
        names = CLOUD_FIELDS_WITH_NORMALS if normals else CLOUD_FIELDS
        if sigma:
            names = (*names, SIGMA_FIELD)
        shape = (height, width, len(names))
        if self._points is None or self._points.shape != shape:
            message.height, message.width = height, width
            message.fields = _float_fields(names)
            message.point_step = 4 * len(names)
            message.row_step = message.point_step * width
            message.is_bigendian = False
            message.is_dense = False
            message.data = array.array("B", bytes(message.row_step * height))
            self._points = np.frombuffer(message.data, np.float32).reshape(shape)
        return self._points


def light_cloud_message(header: Header, points: np.ndarray) -> PointCloud2:
    """An unorganised, dense cloud of (N, 3) float32 [x y z] metres, all finite."""
    from sensor_msgs.msg import PointCloud2

    message = PointCloud2(header=header, height=1, width=len(points), is_dense=True)
    message.fields = _float_fields(CLOUD_FIELDS[:3])
    message.point_step = 12
    message.row_step = 12 * len(points)
    message.data = array.array("B", points.astype("<f4", copy=False).tobytes())
    return message


def _float_fields(names: Sequence[str]) -> list[PointField]:
    from sensor_msgs.msg import PointField

    return [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]

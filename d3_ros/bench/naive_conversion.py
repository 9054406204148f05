"""A node to compare with: it converts messages by cv_bridge, and clouds as sensor_msgs_py does."""

from __future__ import annotations

import array
import time
from collections.abc import Sequence

import numpy as np
from numpy.lib.recfunctions import unstructured_to_structured
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from d3_ros.bench.camera_peer import NAMESPACE
from d3_ros.messages.clouds import CLOUD_FIELDS_WITH_NORMALS
from d3_ros.messages.cv_bridge_fallback import working_bridge
from d3_ros.ros.topics import DEPTH, DEPTH_INFO, NORMALS, POINTS, TOPICS
from d3_ros.types import D3Prediction

SCALE_M, SHIFT_M = 4.0, 0.5


def why_not() -> str:
    """What is missing for the comparison, in a few words; empty where it can be made."""
    bridge, fault = working_bridge()
    return "" if bridge is not None else f"cv_bridge: {fault}"


class NaiveNode(Node):
    """Depth, normals and cloud of each image, with a known scale, as tutorials do it.

    `ms` has the time of each frame, all in the subscription's callback.
    """

    def __init__(self, prediction: D3Prediction) -> None:
        super().__init__("predictor", namespace=NAMESPACE)
        assert prediction.depth is not None
        assert prediction.normals is not None
        self.ms: list[float] = []
        self._depth, self._normals = prediction.depth, prediction.normals
        self._bridge, _ = working_bridge()
        self._info: CameraInfo | None = None
        self._sensor: Image | None = None
        self._out = {
            topic: self.create_publisher(TOPICS[topic], topic, QoSProfile(depth=2))
            for topic in (DEPTH, DEPTH_INFO, NORMALS, POINTS)
        }
        self.create_subscription(CameraInfo, "camera_info", self._on_info, 1)
        self.create_subscription(Image, "sensor_depth/image", self._on_sensor, 1)
        self.create_subscription(Image, "image", self._on_image, 1)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_sensor(self, message: Image) -> None:
        self._sensor = message

    def _on_image(self, message: Image) -> None:
        if self._info is None or self._sensor is None or self._bridge is None:
            return
        started = time.perf_counter()
        rgb = self._bridge.imgmsg_to_cv2(message, "rgb8")
        sparse = self._bridge.imgmsg_to_cv2(self._sensor).astype(np.float32) / 1000.0
        sparse[sparse == 0] = np.nan
        metric = self._depth * np.float32(SCALE_M) + np.float32(SHIFT_M)
        messages = {
            DEPTH: self._bridge.cv2_to_imgmsg(metric, "32FC1"),
            DEPTH_INFO: self._info,
            NORMALS: self._bridge.cv2_to_imgmsg(self._normals, "32FC3"),
            POINTS: self._cloud(message, rgb, metric),
        }
        for topic, out in messages.items():
            out.header = message.header
            self._out[topic].publish(out)
        self.ms.append((time.perf_counter() - started) * 1e3)

    def _cloud(self, message: Image, rgb: np.ndarray, metric: np.ndarray) -> PointCloud2:
        assert self._info is not None
        fx, fy, cx, cy = (self._info.k[i] for i in (0, 4, 2, 5))
        v, u = np.indices(metric.shape, dtype=np.float32)
        r, g, b = (rgb[..., i].astype(np.uint32) for i in range(3))
        packed = ((r << 16) | (g << 8) | b).view(np.float32)
        columns = [(u - cx) / fx * metric, (v - cy) / fy * metric, metric, packed]
        columns += [*np.moveaxis(self._normals, 2, 0), np.zeros_like(metric)]
        points = np.stack(columns, axis=-1).astype(np.float32).reshape(-1, 8)
        fields = [
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(CLOUD_FIELDS_WITH_NORMALS)
        ]
        return create_cloud(message.header, fields, points)


def create_cloud(header: Header, fields: Sequence[PointField], points: np.ndarray) -> PointCloud2:
    """An unorganised cloud of (N, fields) float32, in the steps of sensor_msgs_py's function.

    The rows become a structured array with a name per field, which is copied byte by byte.
    """
    kinds = np.dtype([(field.name, np.float32) for field in fields])
    rows = np.ascontiguousarray(unstructured_to_structured(points, kinds))
    data = array.array("B")
    data.frombytes(rows.data.cast("B"))
    return PointCloud2(
        header=header,
        height=1,
        width=len(rows),
        fields=list(fields),
        point_step=kinds.itemsize,
        row_step=kinds.itemsize * len(rows),
        data=data,
    )

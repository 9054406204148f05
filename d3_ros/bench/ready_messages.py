"""Messages that are ready to go, published at every image: the least that any node needs."""

from __future__ import annotations

import time

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from d3_ros.bench.camera_peer import NAMESPACE, camera
from d3_ros.messages.clouds import CloudBuffer
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.qos import OUTPUT, input_profile
from d3_ros.ros.topics import DEPTH, DEPTH_INFO, NORMALS, POINTS, TOPICS


class ReadyMessages(Node):
    """Publishes the same depth, camera_info, normals and cloud at every image.

    `ms` has the time of each image, all in the subscription's callback.
    """

    def __init__(self, width: int, height: int, normals: bool) -> None:
        super().__init__("predictor", namespace=NAMESPACE)
        self.ms: list[float] = []
        rng = np.random.default_rng(3)
        cloud = CloudBuffer()
        points = cloud.points(Image().header, height, width, normals=normals)
        points[:] = rng.random(points.shape, np.float32)
        info = CameraInfo(width=width, height=height)
        info.k = camera(width, height).matrix.ravel().tolist()
        depth, vectors = (rng.random((height, width, *c), np.float32) for c in ((), (3,)))
        self._messages = {
            DEPTH: ImageBuffer().fill(Image().header, depth, "32FC1"),
            DEPTH_INFO: info,
            NORMALS: ImageBuffer().fill(Image().header, vectors, "32FC3"),
            POINTS: cloud.message,
        }
        self._out = {
            topic: self.create_publisher(TOPICS[topic], topic, OUTPUT) for topic in self._messages
        }
        # What the node hears too, so that the camera's process waits for nothing.
        inputs = input_profile("best_effort", 1)
        self.create_subscription(CameraInfo, "camera_info", lambda message: None, inputs)
        self.create_subscription(Image, "sensor_depth/image", lambda message: None, inputs)
        self.create_subscription(Image, "image", self._on_image, inputs)

    def _on_image(self, message: Image) -> None:
        started = time.perf_counter()
        for topic, out in self._messages.items():
            out.header = message.header
            self._out[topic].publish(out)
        self.ms.append((time.perf_counter() - started) * 1e3)

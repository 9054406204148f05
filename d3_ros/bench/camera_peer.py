"""The other side of `bench --ros`: a camera and the node's subscriber, in a process of their own.

Publishes colour, camera_info and sensor depth at a rate, receives what the node makes of them (as
serialised bytes, so that Python's part of the receiving costs the node's process nothing), and
prints what it saw as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.diagnostics.statistics import median_and_p95
from d3_ros.ros.topics import TOPICS
from d3_ros.types import CameraIntrinsics

NAMESPACE = "/d3_ros_bench"
FRAME_ID = "camera_optical_frame"
SENSOR_POINTS = 1000


def camera(width: int, height: int) -> CameraIntrinsics:
    """A pinhole camera of about 60 degrees."""
    return CameraIntrinsics(width, height, 0.85 * width, 0.85 * width, width / 2, height / 2)


def relative_depth(width: int, height: int) -> np.ndarray:
    """(H, W) float32 in (0, 1): a floor with waves on it, far above, near below."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    return 0.9 - 0.75 * v / height + 0.05 * np.sin(u / 23.0) * np.cos(v / 17.0)


def sensor_depth(width: int, height: int) -> np.ndarray:
    """(H, W) uint16 millimetres, 0 but for SENSOR_POINTS points of z = 0.5 m + 4 m * relative."""
    rng = np.random.default_rng(0)
    depth = np.zeros(height * width, np.uint16)
    at = rng.choice(depth.size, SENSOR_POINTS, replace=False)
    depth[at] = 500 + 4000 * relative_depth(width, height).ravel()[at]
    return depth.reshape(height, width)


def camera_names(count: int) -> list[str]:
    """The value of the node's parameter `cameras` for `count` cameras."""
    return [""] if count == 1 else [f"camera{number}" for number in range(count)]


class Peer(Node):
    """Publishes the inputs of some cameras and counts the outputs of all."""

    def __init__(self, width: int, height: int, topics: Sequence[str], cameras: int) -> None:
        super().__init__("bench_peer", namespace=NAMESPACE)
        self.received: dict[str, int] = dict.fromkeys(topics, 0)
        self.sent = 0
        self.bytes = 0
        self.latency_ms: list[float] = []
        prefixes = [f"{name}/" if name else "" for name in camera_names(cameras)]
        self.publishers_ = [
            [
                self.create_publisher(kind, prefix + topic, QoSProfile(depth=2))
                for kind, topic in (
                    (Image, "image"),
                    (CameraInfo, "camera_info"),
                    (Image, "sensor_depth/image"),
                )
            ]
            for prefix in prefixes
        ]
        for prefix in prefixes:
            for topic in topics:
                self.create_subscription(
                    TOPICS[topic],
                    topic.replace("~/", f"predictor/{prefix}"),
                    partial(self._on_output, topic),
                    QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE),
                    raw=True,
                )
        image, depth = ImageBuffer(), ImageBuffer()
        rgb = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
        info = CameraInfo(width=width, height=height)
        info.k = camera(width, height).matrix.ravel().tolist()
        self._messages = [
            image.fill(Image().header, rgb, "rgb8"),
            info,
            depth.fill(Image().header, sensor_depth(width, height), "16UC1"),
        ]

    def publish(self) -> None:
        """One frame of every camera, stamped now."""
        for of_camera in self.publishers_:
            seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
            for publisher, message in zip(of_camera, self._messages, strict=True):
                message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
                message.header.frame_id = FRAME_ID
                publisher.publish(message)
            self.sent += 1

    def _on_output(self, topic: str, serialised: bytes) -> None:
        # CDR: four bytes of encapsulation, then the header's stamp.
        seconds, nanoseconds = struct.unpack_from("<iI", serialised, 4)
        self.received[topic] += 1
        self.bytes += len(serialised)
        if topic == list(self.received)[-1]:
            self.latency_ms.append((time.time_ns() - seconds * 1_000_000_000 - nanoseconds) / 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Run for some seconds, print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--topics", nargs="+", choices=list(TOPICS), required=True)
    parser.add_argument("--cameras", type=int, default=1)
    args = parser.parse_args(argv)
    rclpy.init()
    peer = Peer(args.width, args.height, args.topics, args.cameras)
    publishers = [publisher for of_camera in peer.publishers_ for publisher in of_camera]
    outputs = [subscription.topic_name for subscription in peer.subscriptions]
    while any(p.get_subscription_count() == 0 for p in publishers) or any(
        peer.count_publishers(topic) == 0 for topic in outputs
    ):
        rclpy.spin_once(peer, timeout_sec=0.1)
    started = time.monotonic()
    peer.create_timer(1.0 / args.rate, peer.publish)
    while time.monotonic() - started < args.seconds:
        rclpy.spin_once(peer, timeout_sec=0.1)
    elapsed = time.monotonic() - started
    latencies = peer.latency_ms[len(peer.latency_ms) // 10 :]
    p50, p95 = median_and_p95(latencies)
    result = {
        "sent": peer.sent,
        "received": peer.received,
        "latency_ms": {"p50": p50, "p95": p95, "max": max(latencies, default=float("nan"))},
        "received_mb_per_s": peer.bytes / elapsed / 1e6,
    }
    print(json.dumps(result), flush=True)
    peer.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

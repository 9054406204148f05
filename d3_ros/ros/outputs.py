"""The node's publishers, and the work that goes into their messages: none that nobody asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float32MultiArray, Header

from d3_ros.geometry.colour import colour_depth, colour_normals
from d3_ros.geometry.point_cloud import pack_cloud
from d3_ros.pipeline import Output
from d3_ros.ros.qos import OUTPUT, explain_publisher
from d3_ros.ros.scale_report import ScaleReport, scale_message
from d3_ros.ros.settings import NodeSettings
from d3_ros.ros.statistics import StageTimes
from d3_ros.ros.to_messages import CloudBuffer, ImageBuffer, output_camera_info
from d3_ros.types import CameraIntrinsics, DepthFrame

RELATIVE = "~/depth/relative"
DEPTH = "~/depth/image"
DEPTH_INFO = "~/depth/camera_info"
NORMALS = "~/normals/image"
POINTS = "~/points"
DEPTH_COLOR = "~/depth/color"
NORMALS_COLOR = "~/normals/color"
SCALE = "~/scale"

TOPICS: dict[str, type] = {
    RELATIVE: Image,
    DEPTH: Image,
    DEPTH_INFO: CameraInfo,
    NORMALS: Image,
    POINTS: PointCloud2,
    DEPTH_COLOR: Image,
    NORMALS_COLOR: Image,
    SCALE: Float32MultiArray,
}
CAPPED = (DEPTH_COLOR, NORMALS_COLOR)
NEED_CAMERA = (POINTS, DEPTH_INFO)


@dataclass(frozen=True)
class Source:
    """What the outputs take from the input image, and how its depth came to metres."""

    header: Header
    rgb: np.ndarray
    camera_info: CameraInfo | None
    intrinsics: CameraIntrinsics | None
    scale: ScaleReport


class Outputs:
    """The lifecycle publishers of one camera; their messages are filled in place.

    `wanted` and `publish` are the worker's; `close` may be called from any thread. With a
    `prefix`, `~/points` is published as `~/PREFIX/points`.
    """

    def __init__(
        self,
        node: LifecycleNode,
        stage: StageTimes,
        warn: Callable[[str], None],
        prefix: str = "",
    ) -> None:
        self._node = node
        self._stage = stage
        self._lock = threading.Lock()
        self._publishers: dict[str, Any] = {}
        for topic, kind in TOPICS.items():
            name = topic.replace("~/", f"~/{prefix}/") if prefix else topic
            events = explain_publisher(node.resolve_topic_name(name), warn)
            self._publishers[topic] = node.create_lifecycle_publisher(
                kind, name, OUTPUT, event_callbacks=events
            )
        self._images = {topic: ImageBuffer() for topic, kind in TOPICS.items() if kind is Image}
        self._cloud = CloudBuffer()
        self._last_sent = dict.fromkeys(CAPPED, float("-inf"))

    def wanted(self, settings: NodeSettings) -> frozenset[str]:
        """The topics that somebody subscribes to; of the colour images, those that are due."""
        due = time.monotonic() - 1.0 / settings.color.max_rate
        with self._lock:
            return frozenset(
                topic
                for topic, publisher in self._publishers.items()
                if publisher.get_subscription_count() > 0 and self._last_sent.get(topic, due) <= due
            )

    @staticmethod
    def needed(wanted: frozenset[str], settings: NodeSettings) -> set[Output]:
        """What the pipeline must compute for these topics."""
        needed: set[Output] = {"relative"}
        if wanted & {DEPTH, DEPTH_INFO, POINTS}:
            needed.add("metric")
        with_normals = {NORMALS, NORMALS_COLOR} | ({POINTS} if settings.points.normals else set())
        if wanted & with_normals:
            needed.add("normals")
        return needed

    def publish(
        self, frame: DepthFrame, source: Source, wanted: frozenset[str], settings: NodeSettings
    ) -> int:
        """Publish what is wanted and known of a frame; return the number of messages.

        Topics in metres stay silent without a scale, and the cloud without a calibrated camera.
        """
        messages = self._messages(frame, source, settings)
        sent = 0
        for topic in TOPICS:  # in this order: cheap and urgent first
            if topic not in wanted:
                continue
            with self._stage(f"fill {topic}"):
                message = messages[topic]()
            if message is None:
                continue
            with self._stage(f"publish {topic}"), self._lock:
                publisher = self._publishers.get(topic)
                if publisher is None or not publisher.is_activated:
                    return sent
                publisher.publish(message)
            if topic in self._last_sent:
                self._last_sent[topic] = time.monotonic()
            sent += 1
        return sent

    def close(self) -> None:
        """Destroy the publishers; a frame that is still being worked on publishes nothing more."""
        with self._lock:
            for publisher in self._publishers.values():
                self._node.destroy_lifecycle_publisher(publisher)
            self._publishers = {}

    def _messages(
        self, frame: DepthFrame, source: Source, settings: NodeSettings
    ) -> dict[str, Callable[[], Any]]:
        """Topic -> what makes its message, or None where there is nothing to say."""
        header, images = source.header, self._images
        normals, metric = frame.normals, frame.metric

        def depth() -> Image | None:
            if metric is None:
                return None
            if settings.depth.encoding == "16UC1":
                return images[DEPTH].fill_millimetres(header, metric)
            return images[DEPTH].fill(header, metric, "32FC1")

        def depth_info() -> CameraInfo | None:
            if metric is None or source.camera_info is None:
                return None
            height, width = metric.shape
            return output_camera_info(
                source.camera_info, header, width, height, rectified=settings.image.rectified
            )

        def normals_image() -> Image | None:
            return None if normals is None else images[NORMALS].fill(header, normals, "32FC3")

        def normals_color() -> Image | None:
            if normals is None:
                return None
            return images[NORMALS_COLOR].fill(header, colour_normals(normals), "rgb8")

        return {
            RELATIVE: lambda: images[RELATIVE].fill(header, frame.relative, "32FC1"),
            DEPTH: depth,
            DEPTH_INFO: depth_info,
            NORMALS: normals_image,
            POINTS: lambda: self._points(frame, source, settings),
            # Relative depth in colour differs from metric depth only in the legend, and is always
            # there.
            DEPTH_COLOR: lambda: images[DEPTH_COLOR].fill(
                header, colour_depth(frame.relative), "rgb8"
            ),
            NORMALS_COLOR: normals_color,
            SCALE: lambda: scale_message(source.scale, settings.scale.hold_s),
        }

    def _points(
        self, frame: DepthFrame, source: Source, settings: NodeSettings
    ) -> PointCloud2 | None:
        if frame.metric is None or source.intrinsics is None:
            return None
        normals = frame.normals if settings.points.normals else None
        height, width = frame.metric.shape
        points = self._cloud.points(source.header, height, width, normals=normals is not None)
        pack_cloud(frame.metric, source.rgb, normals, source.intrinsics, out=points)
        return self._cloud.message

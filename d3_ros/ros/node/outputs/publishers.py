"""The publishers of one camera. Messages are made only for topics that somebody subscribes to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.utilities import get_rmw_implementation_identifier

from d3_ros.pipeline import Output
from d3_ros.ros.child_processes import shipped
from d3_ros.ros.fast_dds import LargeMessageCheck
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport
from d3_ros.ros.node.diagnostics.statistics import StageTimes
from d3_ros.ros.node.frame import NodeFrame
from d3_ros.ros.node.outputs.frame_messages import Buffers, FrameMessages
from d3_ros.ros.node.outputs.rate_caps import RateCaps
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.ros.qos import OUTPUT, explain_publisher
from d3_ros.ros.topics import (
    CAPPED,
    METRIC,
    NAV_POINTS,
    NORMALS,
    NORMALS_COLOR,
    NORMALS_JPEG,
    POINTS,
    TOPICS,
    UNCERTAINTY,
)
from d3_ros.types import DepthFrame


def max_rates(settings: NodeSettings) -> dict[str, float]:
    """Highest rate of each group of `CAPPED` in Hz; 0: no limit."""
    return {
        "depth": settings.depth.max_rate,
        "relative": settings.relative.max_rate,
        "normals": settings.normals.max_rate,
        "points": settings.points.max_rate,
        "nav points": settings.points.nav.max_rate,
        "depth color": settings.color.max_rate,
        "normals color": settings.color.max_rate,
        "scale": 0.0,
    }


def outputs_for(topics: frozenset[str], settings: NodeSettings) -> set[Output]:
    """What the pipeline must compute for these topics."""
    outputs: set[Output] = {"relative"}
    if topics & METRIC:
        outputs.add("metric")
    with_sigma, with_normals = {UNCERTAINTY}, {NORMALS, NORMALS_COLOR, NORMALS_JPEG}
    if settings.points.sigma:
        with_sigma.add(POINTS)
    if settings.points.nav.clear_range > 0:
        with_sigma.add(NAV_POINTS)
    if settings.points.normals:
        with_normals.add(POINTS)
    if topics & with_sigma:
        outputs.add("uncertainty")
    if topics & with_normals:
        outputs.add("normals")
    return outputs


class OutputPublishers:
    """The lifecycle publishers of one camera; their messages are filled in place.

    `wanted` and `publish` are called by the worker's thread; `close` by any. With a `prefix`,
    `~/points` is published as `~/PREFIX/points`.
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
        with ExitStack() as made:
            made.callback(self.close)
            for topic, kind in TOPICS.items():
                name = topic.replace("~/", f"~/{prefix}/") if prefix else topic
                events = explain_publisher(node.resolve_topic_name(name), warn)
                self._publishers[topic] = node.create_lifecycle_publisher(
                    kind, name, OUTPUT, event_callbacks=events
                )
            made.pop_all()
        self._large_messages = LargeMessageCheck(
            get_rmw_implementation_identifier(), shipped("config/fastdds.xml"), warn
        )
        self._buffers = Buffers()
        self._caps = RateCaps()

    def wanted(self, settings: NodeSettings) -> frozenset[str]:
        """The topics that somebody subscribes to and that are due."""
        now, rates = time.monotonic(), max_rates(settings)
        with self._lock:
            return frozenset(
                topic
                for group, topics in CAPPED.items()
                if self._caps.due(group, rates[group], now)
                for topic in topics
                if topic in self._publishers
                and self._publishers[topic].get_subscription_count() > 0
            )

    def publish(self, frame: NodeFrame, depth: DepthFrame, scale: ScaleReport) -> int:
        """Publish the wanted messages that this frame can fill; return how many were sent."""
        now, rates = time.monotonic(), max_rates(frame.settings)
        messages = FrameMessages(frame, depth, scale, self._buffers)
        sent: set[str] = set()
        for topic in TOPICS:
            if topic not in frame.topics:
                continue
            with self._stage(f"fill {topic}"):
                message = messages.make(topic)
            if message is None:
                continue
            with self._stage(f"publish {topic}"), self._lock:
                publisher = self._publishers.get(topic)
                if publisher is None or not publisher.is_activated:
                    break
                publisher.publish(message)
                self._large_messages.check(publisher.topic_name, message)
            sent.add(topic)
        for group, topics in CAPPED.items():
            if sent.intersection(topics):
                self._caps.sent(group, rates[group], now)
        return len(sent)

    def close(self) -> None:
        """Destroy the publishers; a frame that is still being worked on publishes nothing more."""
        with self._lock:
            for publisher in self._publishers.values():
                self._node.destroy_lifecycle_publisher(publisher)
            self._publishers = {}

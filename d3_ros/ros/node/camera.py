"""One camera of the node: its topics, stored messages, settings, frames and figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d3_ros.ros.node.context import CameraState, NodeContext
from d3_ros.ros.node.diagnostics.statistics import FrameStatistics
from d3_ros.ros.node.frame import ReceivedImage
from d3_ros.ros.node.frame_processor import FrameProcessor
from d3_ros.ros.node.graph import latched_profile, why_silent, wrong_type
from d3_ros.ros.node.inputs.body_mask import BodyMask
from d3_ros.ros.node.inputs.input_topics import SENSOR_TOPICS, InputTopics
from d3_ros.ros.node.inputs.matched_inputs import InputBuffer
from d3_ros.ros.node.outputs.publishers import OutputPublishers
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.ros.qos import explain_subscription, input_profile

# The status says why there is no image after this time, and the log after that one.
SILENT_S = 1.5
SILENCE_IS_LOGGED_S = 5.0


class Camera:
    """Subscribes to one camera's topics, and owns everything that is the camera's alone.

    Its methods are called by the executor's thread; `processor` is the worker's.

    Args:
        name: prefix of its topics: "front" publishes `~/front/depth/image`. Empty for one camera.
        topics: where its messages come from.
        settings: the parameters as they are for this camera.
        mask: which pixels of its images are ignored.
        statistics: counts its frames.
        context: what it shares with the other cameras.
        submit: takes an image that arrived.
        wake: called when a message arrived that an image may be waiting for.
    """

    def __init__(
        self,
        name: str,
        topics: InputTopics,
        settings: NodeSettings,
        mask: BodyMask,
        statistics: FrameStatistics,
        context: NodeContext,
        submit: Callable[[ReceivedImage], None],
        wake: Callable[[], None],
    ) -> None:
        self.topics = topics
        self.state = CameraState(settings)
        self.inputs = InputBuffer(wake)
        self.publishers = OutputPublishers(
            context.node, statistics.stage, context.log.warn, prefix=name
        )
        self.processor = FrameProcessor(
            topics, self.state, mask, self.inputs, self.publishers, statistics, context
        )
        self._context = context
        self._statistics = statistics
        self._submit = submit
        self._subscriptions: list[Subscription] = []
        self._hears_latched = False
        self._state_topics = [
            (topics.camera_info, CameraInfo),
            *((topics.sensors[sensor], kind) for sensor, (kind, _) in SENSOR_TOPICS.items()),
        ]

    def subscribe(self) -> None:
        """Begin anew: no scale, no counts, no stored messages."""
        self.inputs.clear()
        self.processor.reset_scale()
        self._statistics.restart()
        self.state.active_since = time.monotonic()
        self._subscribe(self.topics.image_type, self.topics.image, self._on_image)
        self._subscribe(CameraInfo, self.topics.camera_info, self.inputs.store_camera_info)
        for sensor, (kind, _) in SENSOR_TOPICS.items():
            store = partial(self.inputs.store_sensor, sensor)
            self._subscribe(kind, self.topics.sensors[sensor], store)
        self._hear_latched_camera_info()

    def unsubscribe(self) -> None:
        """Unsubscribe; a frame that is still in work publishes nothing."""
        self.state.active_since = math.inf
        self._hears_latched = False
        while self._subscriptions:
            self._context.node.destroy_subscription(self._subscriptions.pop())

    def watch_inputs(self, since_image_s: float) -> str:
        """Look at the publishers of the inputs; called once a second while subscribed.

        Logs inputs that carry another type than the node reads, and subscribes to a camera_info
        that was published once, for late subscribers.

        Args:
            since_image_s: time without an image.

        Returns:
            Why there is no image, in one line; empty while images come.
        """
        node, log = self._context.node, self._context.log
        self._hear_latched_camera_info()
        for topic, kind in self._state_topics:
            if line := wrong_type(node, topic, kind):
                log.warn(line)
        if since_image_s < SILENT_S:
            return ""
        line = why_silent(node, self.topics.image, self.topics.image_type)
        if since_image_s >= SILENCE_IS_LOGGED_S:
            log.warn(f"no image for {since_image_s:.1f} s: {line}")
        return line

    def close(self) -> None:
        """Destroy the publishers."""
        self.publishers.close()

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.received()
        jump_s = self.inputs.note_image(message.header)
        if jump_s > 0:
            self._context.log.warn(
                f"the stamps of '{self.topics.image}' jumped back by {jump_s:.1f} s (a bag that "
                "starts again?): the scale, transforms and stored sensor depth begin anew"
            )
            self._context.transforms.forget()
            self._statistics.forget_ages()
            self.processor.reset_scale()
        self._submit(ReceivedImage(message, time.monotonic()))

    def _hear_latched_camera_info(self) -> None:
        """Subscribe a second time where a calibration is published once, before the node starts.

        Only a transient-local subscription receives it. The first subscription stays: others may
        publish the calibration with every image.
        """
        if self._hears_latched:
            return
        topic = self.topics.camera_info
        profile = latched_profile(self._context.node, topic)
        if profile is not None:
            self._hears_latched = True
            self._subscribe(CameraInfo, topic, self.inputs.store_camera_info, profile)

    def _subscribe(
        self,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        profile: QoSProfile | None = None,
    ) -> None:
        asked = self.state.settings.input
        self._subscriptions.append(
            self._context.node.create_subscription(
                kind,
                self.topics.asked.get(topic, topic),
                callback,
                profile or input_profile(asked.reliability, asked.queue_depth),
                event_callbacks=explain_subscription(topic, self._context.log.warn),
            )
        )

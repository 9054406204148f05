"""One camera of the node: its topics, stored messages, settings, frames and figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d3_ros.ros.node.context import CameraState, NodeContext
from d3_ros.ros.node.diagnostics.statistics import FrameStatistics
from d3_ros.ros.node.frame import ReceivedImage
from d3_ros.ros.node.frame_processor import FrameProcessor
from d3_ros.ros.node.inputs.input_topics import SENSOR_TOPICS, InputTopics
from d3_ros.ros.node.inputs.matched_inputs import InputBuffer
from d3_ros.ros.node.outputs.publishers import OutputPublishers
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.ros.qos import explain_subscription, input_profile


class Camera:
    """Subscribes to one camera's topics, and owns everything that is the camera's alone.

    Its methods are called by the executor's thread; `processor` is the worker's.

    Args:
        name: prefix of its topics: "front" publishes `~/front/depth/image`. Empty for one camera.
        topics: where its messages come from.
        settings: the parameters as they are for this camera.
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
            topics, self.state, self.inputs, self.publishers, statistics, context
        )
        self._context = context
        self._statistics = statistics
        self._submit = submit
        self._subscriptions: list[Subscription] = []

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

    def unsubscribe(self) -> None:
        """Hear no more; a frame that is in the network publishes nothing."""
        self.state.active_since = math.inf
        while self._subscriptions:
            self._context.node.destroy_subscription(self._subscriptions.pop())

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

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        asked = self.state.settings.input
        self._subscriptions.append(
            self._context.node.create_subscription(
                kind,
                topic,
                callback,
                input_profile(asked.reliability, asked.queue_depth),
                event_callbacks=explain_subscription(topic, self._context.log.warn),
            )
        )

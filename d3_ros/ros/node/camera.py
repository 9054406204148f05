"""One camera of the node: its subscriptions, scale state, publishers and figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from d3_ros.geometry.alignment import GroundAligner, ScaleAligner
from d3_ros.pipeline import DepthPipeline, FusionOptions, Predictor
from d3_ros.ros.node.diagnostics.statistics import FrameStatistics
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.frame_processor import FrameProcessor, InputTopics, ReceivedImage
from d3_ros.ros.node.inputs.image_input import image_input
from d3_ros.ros.node.inputs.matched_inputs import Inputs, Sensor
from d3_ros.ros.node.inputs.mounting import MountingReader
from d3_ros.ros.node.inputs.sensor_depth import SensorReader
from d3_ros.ros.node.inputs.transforms import Transforms
from d3_ros.ros.node.outputs.publishers import Outputs
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.ros.qos import explain_subscription, input_profile

SENSOR_TOPICS: dict[Sensor, tuple[type, str]] = {
    "image": (Image, "sensor_depth/image"),
    "points": (PointCloud2, "sensor_depth/points"),
    "scan": (LaserScan, "sensor_depth/scan"),
}


@dataclass(frozen=True)
class NodeContext:
    """What all cameras of a node share."""

    node: LifecycleNode
    predictor: Predictor
    transforms: Transforms
    tell: ThrottledLogger


class Camera:
    """One camera, by the name that goes before its topics; the only one of a node may have none.

    Args:
        name: "front" subscribes to `front/image` and publishes `~/front/depth/image`.
        settings: as they are for this camera.
        statistics: where its frames are counted.
        surroundings: what it shares with the others.
        submit: takes an image that arrived.
        wake: called when something else arrived that an image may be waiting for.
    """

    def __init__(
        self,
        name: str,
        settings: NodeSettings,
        statistics: FrameStatistics,
        surroundings: NodeContext,
        submit: Callable[[ReceivedImage], None],
        wake: Callable[[], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.statistics = statistics
        self.inputs = Inputs(wake)
        self._node, self._tell = surroundings.node, surroundings.tell
        self._submit = submit
        self._subscriptions: list[Subscription] = []
        self._outputs = Outputs(self._node, statistics.stage, self._tell.warn, prefix=name)
        self._transforms = transforms = surroundings.transforms
        self._image_kind, image_topic = image_input(self._node, settings.image.transport, name)
        self.image_topic = image_topic
        sensor_topics = {
            sensor: self._full_name(topic) for sensor, (_, topic) in SENSOR_TOPICS.items()
        }
        self.processor = FrameProcessor(
            DepthPipeline(surroundings.predictor, stage=statistics.stage),
            settings=settings,
            topics=InputTopics(image=image_topic, camera_info=self._full_name("camera_info")),
            inputs=self.inputs,
            read_sensors=SensorReader(sensor_topics, image_topic, transforms, self._tell),
            read_mounting=MountingReader(transforms, self._tell),
            outputs=self._outputs,
            statistics=statistics,
            tell=self._tell,
            now_ns=lambda: self._node.get_clock().now().nanoseconds,
        )
        self._use_scale_settings(settings)

    def subscribe(self) -> None:
        """Begin anew: no scale, no counts, no stored messages."""
        self.inputs.clear()
        self.reset_scale()
        self.statistics.restart()
        self.processor.since = time.monotonic()
        self._subscribe(self._image_kind, self.image_topic, self._on_image)
        info_topic = self._full_name("camera_info")
        self._subscribe(CameraInfo, info_topic, self.inputs.store_camera_info)
        for sensor, (kind, topic) in SENSOR_TOPICS.items():
            store = partial(self.inputs.store_sensor, sensor)
            self._subscribe(kind, self._full_name(topic), store)

    def unsubscribe(self) -> None:
        """Hear no more; a frame that is in the network publishes nothing."""
        self.processor.since = math.inf
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def apply(self, settings: NodeSettings) -> None:
        """Take new values of the parameters that may change at any time."""
        if (settings.scale, settings.ground) != (self.settings.scale, self.settings.ground):
            self._use_scale_settings(settings)
        self.processor.pipeline.fusion = fusion_options(settings)
        self.settings = self.processor.settings = settings

    def reset_scale(self) -> None:
        """Forget the metric scale."""
        self._use_scale_settings(self.settings)

    def close(self) -> None:
        """Destroy the publishers."""
        self._outputs.close()

    def _use_scale_settings(self, settings: NodeSettings) -> None:
        # New aligners, not a reset: the worker may be using the old ones at this moment.
        pipeline, scale = self.processor.pipeline, asdict(settings.scale)
        pipeline.aligner = ScaleAligner(**scale)
        pipeline.ground = GroundAligner(
            settings.ground.max_tilt, settings.ground.min_share, **scale
        )
        pipeline.fusion = fusion_options(settings)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.statistics.received()
        jump_s = self.inputs.image_came(message.header)
        if jump_s > 0:
            self._tell.warn(
                f"the stamps of '{self.image_topic}' jumped back by {jump_s:.1f} s (a bag that "
                "starts again?): the scale, transforms and stored sensor depth begin anew"
            )
            self._transforms.forget()
            self.statistics.forget_ages()
            self.reset_scale()
        self._submit(ReceivedImage(message, time.monotonic()))

    def _full_name(self, topic: str) -> str:
        relative = f"{self.name}/{topic}" if self.name else topic
        return str(self._node.resolve_topic_name(relative))

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        asked = self.settings.input
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                callback,
                input_profile(asked.reliability, asked.queue_depth),
                event_callbacks=explain_subscription(topic, self._tell.warn),
            )
        )


def fusion_options(settings: NodeSettings) -> FusionOptions | None:
    """What the parameters `fusion.*` ask for; None where it is off."""
    fusion = settings.fusion
    return FusionOptions(fusion.tolerance, fusion.blend) if fusion.enabled else None

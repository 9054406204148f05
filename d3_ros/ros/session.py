"""Everything that exists between configure and cleanup: network, publishers, worker, inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from d3_ros.geometry.alignment import GroundAligner, ScaleAligner
from d3_ros.pipeline import DepthPipeline, FusionOptions, Predictor
from d3_ros.ros.frame_processor import FrameProcessor, InputTopics, ReceivedImage
from d3_ros.ros.image_input import image_input
from d3_ros.ros.inputs import Inputs, Sensor
from d3_ros.ros.mounting import MountingReader
from d3_ros.ros.outputs import Outputs
from d3_ros.ros.qos import explain_subscription, input_profile
from d3_ros.ros.sensor_depth import SensorReader
from d3_ros.ros.settings import NodeSettings
from d3_ros.ros.statistics import FrameStatistics
from d3_ros.ros.telling import Teller
from d3_ros.ros.transforms import Transforms
from d3_ros.ros.worker import NewestWins

SENSOR_TOPICS: dict[Sensor, tuple[type, str]] = {
    "image": (Image, "sensor_depth/image"),
    "points": (PointCloud2, "sensor_depth/points"),
    "scan": (LaserScan, "sensor_depth/scan"),
}


class Session:
    """One configured camera.

    Made by configure; `activate` and `deactivate` any number of times; `close` ends it.
    """

    def __init__(
        self,
        node: LifecycleNode,
        predictor: Predictor,
        settings: NodeSettings,
        statistics: FrameStatistics,
        tell: Teller,
    ) -> None:
        self.settings = settings
        self.inputs = Inputs()
        self._node = node
        self._transforms = Transforms(node, tell.warn)
        self._statistics = statistics
        self._tell = tell
        self._subscriptions: list[Subscription] = []
        self._outputs = Outputs(node, statistics.stage, tell.warn)
        self._image_kind, self.image_topic = image_input(node, settings.image.transport)
        sensor_topics = {
            sensor: node.resolve_topic_name(topic) for sensor, (_, topic) in SENSOR_TOPICS.items()
        }
        self._processor = FrameProcessor(
            DepthPipeline(predictor, stage=statistics.stage),
            settings=settings,
            topics=InputTopics(
                image=self.image_topic, camera_info=node.resolve_topic_name("camera_info")
            ),
            inputs=self.inputs,
            transforms=self._transforms,
            read_sensors=SensorReader(sensor_topics, self.image_topic, self._transforms, tell),
            read_mounting=MountingReader(self._transforms, tell),
            outputs=self._outputs,
            statistics=statistics,
            tell=tell,
            now_ns=lambda: node.get_clock().now().nanoseconds,
        )
        self._use_scale_settings(settings)
        self._worker = NewestWins(self._processor, lambda _: statistics.dropped(), "inference")

    def activate(self) -> None:
        """Subscribe; the publishers must be active already."""
        self.inputs.clear()
        self.reset_scale()
        self._statistics.restart()
        self._processor.since = time.monotonic()
        self._subscribe(self._image_kind, self.image_topic, self._on_image)
        self._subscribe(CameraInfo, "camera_info", self.inputs.store_camera_info)
        for sensor, (kind, topic) in SENSOR_TOPICS.items():
            self._subscribe(kind, topic, partial(self.inputs.store_sensor, sensor))

    def deactivate(self) -> None:
        """Unsubscribe and drop the image that waits."""
        self._processor.since = math.inf
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
        self._worker.clear()

    def apply(self, settings: NodeSettings) -> None:
        """Take new values of the parameters that may change at any time."""
        if (settings.scale, settings.ground) != (self.settings.scale, self.settings.ground):
            self._use_scale_settings(settings)
        self._processor.pipeline.fusion = fusion_options(settings)
        self.settings = self._processor.settings = settings

    def reset_scale(self) -> None:
        """Forget the metric scale."""
        self._use_scale_settings(self.settings)

    def close(self, timeout_s: float) -> bool:
        """Free everything; False where the network is still busy with its last frame.

        That frame publishes nothing, and the network's memory is freed with it.
        """
        self.deactivate()
        finished = self._worker.stop(timeout_s)
        self._transforms.close()
        self._outputs.close()
        return finished

    def _use_scale_settings(self, settings: NodeSettings) -> None:
        # New aligners, not a reset: the worker may be using the old ones at this moment.
        pipeline, scale = self._processor.pipeline, asdict(settings.scale)
        pipeline.aligner = ScaleAligner(**scale)
        pipeline.ground = GroundAligner(
            settings.ground.max_tilt, settings.ground.min_share, **scale
        )
        pipeline.fusion = fusion_options(settings)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.received()
        self._worker.submit(ReceivedImage(message, time.monotonic()))

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        settings = self.settings
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                callback,
                input_profile(settings.input.reliability, settings.input.queue_depth),
                event_callbacks=explain_subscription(
                    self._node.resolve_topic_name(topic), self._tell.warn
                ),
            )
        )


def fusion_options(settings: NodeSettings) -> FusionOptions | None:
    """What the parameters `fusion.*` ask for; None where it is off."""
    fusion = settings.fusion
    return FusionOptions(fusion.tolerance, fusion.blend) if fusion.enabled else None

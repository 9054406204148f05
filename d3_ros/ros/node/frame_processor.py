"""One image from message to messages: decode, match, (predict,) put to metres, publish, count.

In two halves, with the network between them, so that the images of several cameras can go through
it together.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d3_ros.errors import D3Error, MessageError
from d3_ros.geometry.normals import median_angle_to_depth
from d3_ros.messages.camera_info import intrinsics_from_camera_info
from d3_ros.pipeline import DepthPipeline, Output
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport
from d3_ros.ros.node.diagnostics.statistics import FrameStatistics
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.inputs.image_input import rgb_from_message
from d3_ros.ros.node.inputs.matched_inputs import Inputs, stamp_ns
from d3_ros.ros.node.inputs.mounting import MountingReader
from d3_ros.ros.node.inputs.rectified_view import CameraView, rectified_view
from d3_ros.ros.node.inputs.sensor_depth import SensorDepth, SensorReader
from d3_ros.ros.node.outputs.frame_messages import FrameInputs
from d3_ros.ros.node.outputs.publishers import Outputs
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.ros.topics import NEED_CAMERA
from d3_ros.types import CameraIntrinsics, CameraMounting, D3Prediction, DepthFrame, Task

# Stages that are not surrounded by a context.
WAITING = "wait for its turn, camera_info and sensor depth"
NETWORK = "network"
WORKING = "all work"  # but what was done meanwhile for other cameras

# Depth and normals are compared with each other this seldom: it is for the diagnostics only.
COMPARISON_PERIOD_S = 1.0


@dataclass(frozen=True)
class ReceivedImage:
    """An image message and when it arrived, in time.monotonic() seconds."""

    message: Image | CompressedImage
    at: float


@dataclass(frozen=True)
class InputTopics:
    """Full names of the input topics, for what is said about them."""

    image: str
    camera_info: str


@dataclass(frozen=True)
class BegunFrame:
    """An image that is ready for the network, and what belongs to it."""

    image: ReceivedImage
    view: CameraView
    tasks: tuple[Task, ...]
    wanted: frozenset[str]
    outputs: set[Output]
    camera_info: CameraInfo | None
    sensed: SensorDepth
    mounting: CameraMounting | None
    begun_ms: float  # of work so far


class FrameProcessor:
    """Takes one camera's images through the pipeline; called in the worker's thread.

    Whatever is wrong with a frame is told in one line and counted; nothing is raised.
    `settings` may be replaced at any time. Images received before `since` (time.monotonic()
    seconds) are not published: the node was deactivated while they were in the network. While not
    `enabled`, nothing is computed.
    """

    def __init__(
        self,
        pipeline: DepthPipeline,
        *,
        settings: NodeSettings,
        topics: InputTopics,
        inputs: Inputs,
        read_sensors: SensorReader,
        read_mounting: MountingReader,
        outputs: Outputs,
        statistics: FrameStatistics,
        tell: ThrottledLogger,
        now_ns: Callable[[], int],
    ) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.since = math.inf
        self.enabled = True
        self._topics = topics
        self._inputs = inputs
        self._read_sensors = read_sensors
        self._read_mounting = read_mounting
        self._outputs = outputs
        self._statistics = statistics
        self._tell = tell
        self._now_ns = now_ns
        self._normal_angle = math.nan
        self._compared_at = -math.inf

    def ready_in(self, image: ReceivedImage) -> float:
        """Seconds until an image need not wait any longer for what belongs to it; <= 0: now."""
        if self._inputs.are_complete_for(image.message):
            return 0.0
        return image.at + self.settings.input.wait - time.monotonic()

    def begin(self, image: ReceivedImage) -> BegunFrame | None:
        """Make an image ready for the network; None where there is nothing to compute."""
        try:
            return self._begin(image)
        except Exception as error:
            self.fail(error)
            return None

    def complete(self, frame: BegunFrame, prediction: D3Prediction, network_ms: float) -> None:
        """Publish what the network, in so many milliseconds, said of an image."""
        try:
            self._complete(frame, prediction, network_ms)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Tell and count an image of which nothing can be published."""
        if isinstance(error, D3Error):
            self._tell.error(str(error))
            self._statistics.refused(str(error))
        else:  # a programming mistake, or the GPU: the node must live
            trace = "".join(traceback.format_exception(error))
            self._tell.error(f"unexpected while processing an image: {trace}")
            self._statistics.refused(f"{type(error).__name__}: {error}")

    def _begin(self, image: ReceivedImage) -> BegunFrame | None:
        settings, stage = self.settings, self._statistics.stage
        started = time.perf_counter()
        wanted = self._outputs.wanted(settings) if self.enabled else frozenset()
        if not wanted:
            self._statistics.idle()
            return None
        stage.next_frame()
        stage.add(WAITING, (time.monotonic() - image.at) * 1e3)
        with stage("decode"):
            rgb = rgb_from_message(image.message, self._topics.image, settings.image)
        companions = self._inputs.companions_of(image.message)
        header = image.message.header
        intrinsics = self._intrinsics(companions.camera_info, rgb, wanted)
        with stage("sensor depth"):
            sensed = self._read_sensors(
                companions.sensors,
                header,
                (rgb.shape[0], rgb.shape[1]),
                intrinsics,
                settings.sensor_depth,
            )
        view = CameraView(rgb, sensed.depth, intrinsics, settings.image.rectified)
        if settings.output.rectified and not view.rectified:
            with stage("rectify"):
                view = rectified_view(
                    view, companions.camera_info, self._topics.camera_info, self._topics.image
                )
        mounting = self._read_mounting(header, settings.ground)
        outputs = self._outputs.needed(wanted, settings)
        return BegunFrame(
            image=image,
            view=view,
            tasks=self.pipeline.tasks_for(outputs, sparse=view.sparse, mounting=mounting),
            wanted=wanted,
            outputs=outputs,
            camera_info=companions.camera_info if intrinsics is not None else None,
            sensed=sensed,
            mounting=mounting,
            begun_ms=(time.perf_counter() - started) * 1e3,
        )

    def _complete(self, begun: BegunFrame, prediction: D3Prediction, network_ms: float) -> None:
        started = time.perf_counter()
        settings, image = self.settings, begun.image
        view, sensed = begun.view, begun.sensed
        header = image.message.header
        frame = self.pipeline.finish(
            view.rgb,
            prediction,
            stamp=stamp_ns(header) * 1e-9,
            intrinsics=view.intrinsics,
            sparse=view.sparse,
            missing=sensed.reason,
            mounting=begun.mounting,
            outputs=begun.outputs,
        )
        if image.at < self.since:
            if self.since == math.inf:  # else the counts have begun anew
                self._statistics.dropped()
            return
        if "normals" in begun.tasks:
            self._compare_with_normals(frame, view.intrinsics)
        report = ScaleReport(
            frame.fit,
            sensed.pixels,
            frame.fused_pixels,
            frame.disagreeing_pixels,
            self._normal_angle,
        )
        source = FrameInputs(
            header=header,
            rgb=view.rgb,
            camera_info=begun.camera_info,
            intrinsics=view.intrinsics,
            rectified=view.rectified,
            scale=report,
        )
        sent = self._outputs.publish(view.known(frame), source, begun.wanted, settings)
        completed_ms = (time.perf_counter() - started) * 1e3
        self._statistics.stage.add(NETWORK, network_ms)
        self._statistics.stage.add(WORKING, begun.begun_ms + network_ms + completed_ms)
        if sent == 0:
            self._statistics.refused(scale=report)
            return
        self._statistics.published(
            latency_s=time.monotonic() - image.at,
            age_s=(self._now_ns() - stamp_ns(header)) * 1e-9,
            scale=report,
        )

    def _compare_with_normals(self, frame: DepthFrame, intrinsics: CameraIntrinsics | None) -> None:
        """Once in a while, how well the network's two answers fit together."""
        now = time.monotonic()
        if frame.metric is None or frame.normals is None or intrinsics is None:
            return
        if now - self._compared_at >= COMPARISON_PERIOD_S:
            self._compared_at = now
            with self._statistics.stage("compare depth and normals"):
                self._normal_angle = median_angle_to_depth(frame.normals, frame.metric, intrinsics)

    def _intrinsics(
        self, info: CameraInfo | None, rgb: np.ndarray, wanted: frozenset[str]
    ) -> CameraIntrinsics | None:
        """The camera, or None and a line in the log: depth does not need it, the cloud does."""
        topics = self._topics
        if info is None:
            if wanted & NEED_CAMERA:
                self._tell.warn(
                    f"no camera_info on '{topics.camera_info}': depth without a cloud until "
                    "there is one"
                )
            return None
        height, width = rgb.shape[:2]
        try:
            intrinsics = intrinsics_from_camera_info(
                info,
                width,
                height,
                topic=topics.camera_info,
                image_topic=topics.image,
                rectified=self.settings.image.rectified,
            )
        except MessageError as error:
            self._tell.error(f"{error} (depth without a cloud until then)")
            return None
        if intrinsics is None:
            self._tell.warn(
                f"'{topics.camera_info}' is uncalibrated (K[0] = 0): depth without a cloud; "
                "calibrate the camera"
            )
        return intrinsics

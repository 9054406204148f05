"""One image from message to messages: decode, match, (predict,) scale, publish, count.

In two halves, with the network between them, so that the images of several cameras can go through
it together.
"""

from __future__ import annotations

import math
import time
import traceback
from dataclasses import replace

import numpy as np
from sensor_msgs.msg import CameraInfo

from d3_ros.errors import D3Error, MessageError, one_line
from d3_ros.geometry.normals import median_angle_to_depth
from d3_ros.imaging.image_region import Rectangle
from d3_ros.messages.camera_info import intrinsics_from_camera_info, why_uncalibrated
from d3_ros.messages.compressed import rgb_from_any
from d3_ros.pipeline import (
    DepthPipeline,
    FloorOptions,
    FrameRequest,
    FusionOptions,
    ScaleSettings,
)
from d3_ros.ros.node.context import CameraState, NodeContext
from d3_ros.ros.node.diagnostics.extrinsics_watch import ExtrinsicsWatch
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport
from d3_ros.ros.node.diagnostics.statistics import FrameStatistics
from d3_ros.ros.node.frame import NodeFrame, ReceivedImage
from d3_ros.ros.node.inputs.body_mask import BodyMask
from d3_ros.ros.node.inputs.camera_view import ViewReader
from d3_ros.ros.node.inputs.input_topics import InputTopics
from d3_ros.ros.node.inputs.matched_inputs import InputBuffer, stamp_ns
from d3_ros.ros.node.inputs.mounting import MountingReader
from d3_ros.ros.node.inputs.rectified_request import rectified_request
from d3_ros.ros.node.inputs.sensor_depth import SensorReader
from d3_ros.ros.node.inputs.shown_region import cloud_region
from d3_ros.ros.node.outputs.publishers import OutputPublishers, outputs_for
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.ros.topics import CLOUDS, NEED_CAMERA
from d3_ros.types import CameraIntrinsics, D3Prediction, DepthFrame

# Stages that are not surrounded by a context.
WAITING = "wait for its turn, camera_info and sensor depth"
NETWORK = "network"
WORKING = "all work"  # without what was done meanwhile for other cameras

# Least time between two comparisons of depth and normals, which only the diagnostics need.
COMPARISON_PERIOD_S = 1.0


class FrameProcessor:
    """Takes one camera's images through the pipeline; called in the worker's thread.

    Whatever is wrong with a frame is logged in one line and counted; nothing is raised.

    Args:
        topics: where the camera's messages come from, for messages about them.
        state: the camera's settings and activity, which may change at any time.
        mask: which pixels of its images are ignored.
        inputs: calibrations and sensor messages to match with an image.
        publishers: the camera's outputs.
        statistics: counts its frames.
        context: what it shares with the other cameras.
    """

    def __init__(
        self,
        topics: InputTopics,
        state: CameraState,
        mask: BodyMask,
        inputs: InputBuffer,
        publishers: OutputPublishers,
        statistics: FrameStatistics,
        context: NodeContext,
    ) -> None:
        self._topics = topics
        self._state = state
        self._mask = mask
        self._inputs = inputs
        self._publishers = publishers
        self._statistics = statistics
        self._log = context.log
        self._clock = context.node.get_clock()
        self._ros = context.node.context
        self._pipeline = DepthPipeline(context.predictor, stage=statistics.stage)
        self._read_sensors = SensorReader(
            topics.sensors, topics.image, context.transforms, context.log
        )
        self._read_mounting = MountingReader(context.transforms, context.log)
        self._read_view = ViewReader(context.transforms, context.log)
        self.extrinsics_watch = ExtrinsicsWatch(topics.sensors, context.log)
        self._normal_angle = math.nan
        self._compared_at = -math.inf

    def reset_scale(self) -> None:
        """Forget the metric scale; may be called from any thread."""
        self._pipeline.reset()
        self.extrinsics_watch.reset()

    @property
    def extrinsics_fault(self) -> str:
        """What is wrong with the sensors' places, in one line; empty where nobody looks."""
        checks = self._state.settings.diagnostics.check_extrinsics
        return self.extrinsics_watch.line if checks else ""

    def ready_in(self, image: ReceivedImage) -> float:
        """Seconds that an image may wait for camera_info and sensor depth; <= 0: process it now."""
        if self._inputs.are_complete_for(image.message):
            return 0.0
        return image.at + self._state.settings.input.wait - time.monotonic()

    def prepare(self, image: ReceivedImage) -> NodeFrame | None:
        """Make an image ready for the network; None where there is nothing to compute."""
        try:
            return self._prepare(image)
        except Exception as error:
            self.fail(error)
            return None

    def complete(self, frame: NodeFrame, prediction: D3Prediction, network_ms: float) -> None:
        """Publish what the network predicted for an image, in so many milliseconds."""
        try:
            self._complete(frame, prediction, network_ms)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Log and count an image of which nothing can be published.

        Unexpected errors after a signal has ended ROS are no fault, and are passed over.
        """
        if isinstance(error, D3Error):
            self._log.error(str(error))
            self._statistics.refused(str(error))
        elif self._ros.ok():  # a programming mistake, or the GPU: the node must live
            trace = "".join(traceback.format_exception(error))
            self._log.error(f"unexpected while processing an image: {trace}")
            self._statistics.refused(f"{type(error).__name__}: {one_line(error)}")

    def _prepare(self, image: ReceivedImage) -> NodeFrame | None:
        settings, stage = self._state.settings, self._statistics.stage
        started = time.perf_counter()
        topics = self._publishers.wanted(settings) if self._state.enabled else frozenset()
        if not topics:
            self._statistics.idle()
            return None
        stage.next_frame()
        stage.add(WAITING, (time.monotonic() - image.at) * 1e3)
        with stage("decode"):
            rgb = self._decoded(image, settings)
        height, width = rgb.shape[:2]
        matched = self._inputs.match(image.message)
        header = image.message.header
        ignored = self._mask(matched.camera_info, width, height)
        intrinsics = self._intrinsics(matched.camera_info, rgb, topics, settings)
        topics, region = self._cloud_region(topics, settings, matched.camera_info, intrinsics)
        with stage("sensor depth"):
            measured = self._read_sensors(
                matched.sensors, header, (height, width), intrinsics, settings.sensor_depth, ignored
            )
        if settings.diagnostics.check_extrinsics and intrinsics is not None:
            self.extrinsics_watch.offer(rgb, intrinsics, measured.clouds)
        request = FrameRequest(
            rgb=rgb,
            stamp=stamp_ns(header) * 1e-9,
            intrinsics=intrinsics,
            sparse=measured.depth,
            missing=measured.reason,
            mounting=self._read_mounting(header, settings.ground),
            outside=ignored,
            outputs=outputs_for(topics, settings),
            settings=scale_settings(settings),
        )
        if settings.output.rectified and not settings.image.rectified:
            with stage("rectify"):
                request = rectified_request(request, matched.camera_info, self._topics)
        return NodeFrame(
            image=image,
            request=request,
            tasks=self._pipeline.plan(request),
            topics=topics,
            settings=settings,
            camera_info=matched.camera_info if intrinsics is not None else None,
            rectified=settings.image.rectified or settings.output.rectified,
            cloud_region=region,
            sensor_pixels=measured.pixels,
            preparation_ms=(time.perf_counter() - started) * 1e3,
        )

    def _complete(self, frame: NodeFrame, prediction: D3Prediction, network_ms: float) -> None:
        started = time.perf_counter()
        if self._is_of_the_past(frame):  # its fit must not get into a scale that was reset
            return
        view = self._read_view(frame)
        depth = self._pipeline.finish(replace(frame.request, view=view), prediction)
        if self._is_of_the_past(frame):
            return
        if "normals" in frame.tasks:
            self._compare_with_normals(depth, frame.request.intrinsics)
        report = ScaleReport(
            depth.fit,
            frame.sensor_pixels,
            depth.fused_pixels,
            depth.disagreeing_pixels,
            self._normal_angle,
        )
        sent = self._publishers.publish(frame, depth, report)
        completed_ms = (time.perf_counter() - started) * 1e3
        self._statistics.stage.add(NETWORK, network_ms)
        self._statistics.stage.add(WORKING, frame.preparation_ms + network_ms + completed_ms)
        if sent == 0:
            self._statistics.refused(scale=report)
            return
        self._statistics.published(
            latency_s=time.monotonic() - frame.image.at,
            age_s=(self._clock.now().nanoseconds - stamp_ns(frame.header)) * 1e-9,
            scale=report,
        )

    def _is_of_the_past(self, frame: NodeFrame) -> bool:
        """Whether the camera was deactivated, and perhaps activated again, since the image came."""
        active_since = self._state.active_since
        if frame.image.at >= active_since:
            return False
        if active_since == math.inf:  # else the counts have begun anew
            self._statistics.dropped()
        return True

    def _decoded(self, image: ReceivedImage, settings: NodeSettings) -> np.ndarray:
        """(H, W, 3) uint8 RGB; not to be written to."""
        limits = settings.image
        return rgb_from_any(
            image.message, self._topics.image, limits.bit_depth, limits.max_megapixels
        )

    def _cloud_region(
        self,
        topics: frozenset[str],
        settings: NodeSettings,
        info: CameraInfo | None,
        intrinsics: CameraIntrinsics | None,
    ) -> tuple[frozenset[str], Rectangle | None]:
        """The topics that this image can have, and the pixels that its clouds hold (None: all).

        A region that does not fit the image leaves the clouds out, and a line in the log.
        """
        rectangle = settings.points.region_rectangle
        if rectangle is None or intrinsics is None or not topics & CLOUDS:
            return topics, None
        size = (intrinsics.width, intrinsics.height)
        try:
            return topics, cloud_region(rectangle, info, *size, self._topics.image)
        except MessageError as error:
            if topics <= CLOUDS:
                raise
            self._log.error(str(error))
            return topics - CLOUDS, None

    def _compare_with_normals(self, depth: DepthFrame, intrinsics: CameraIntrinsics | None) -> None:
        """Once in a while, measure how well the network's depth and normals fit together."""
        now = time.monotonic()
        if depth.metric is None or depth.normals is None or intrinsics is None:
            return
        if now - self._compared_at >= COMPARISON_PERIOD_S:
            self._compared_at = now
            with self._statistics.stage("compare depth and normals"):
                self._normal_angle = median_angle_to_depth(depth.normals, depth.metric, intrinsics)

    def _intrinsics(
        self,
        info: CameraInfo | None,
        rgb: np.ndarray,
        wanted: frozenset[str],
        settings: NodeSettings,
    ) -> CameraIntrinsics | None:
        """The camera, or None and a line in the log: depth does not need it, the cloud does."""
        topics = self._topics
        if info is None:
            if wanted & NEED_CAMERA:
                self._log.warn(
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
                rectified=settings.image.rectified,
            )
        except MessageError as error:
            self._log.error(f"{error} (depth without a cloud until then)")
            return None
        if intrinsics is None:
            why = why_uncalibrated(info, topics.camera_info, rectified=settings.image.rectified)
            self._log.warn(f"{why} (depth without a cloud until then)")
        return intrinsics


def scale_settings(settings: NodeSettings) -> ScaleSettings:
    """What the parameters about metric depth mean for the pipeline."""
    ground, fusion = settings.ground, settings.fusion
    return ScaleSettings(
        alignment=settings.scale,
        floor=FloorOptions(ground.max_tilt, ground.min_share),
        fusion=FusionOptions(fusion.tolerance, fusion.blend) if fusion.enabled else None,
        max_relative_sigma=settings.depth.max_relative_sigma,
    )

"""One image from message to messages: decode, match, predict, publish, count."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d3_ros.errors import D3Error, MessageError
from d3_ros.pipeline import DepthPipeline
from d3_ros.ros.frame_messages import Source
from d3_ros.ros.from_messages import intrinsics_from_camera_info
from d3_ros.ros.image_input import rgb_from_message
from d3_ros.ros.inputs import Inputs, stamp_ns
from d3_ros.ros.mounting import MountingReader
from d3_ros.ros.outputs import Outputs
from d3_ros.ros.scale_report import ScaleReport
from d3_ros.ros.sensor_depth import SensorReader
from d3_ros.ros.settings import NodeSettings
from d3_ros.ros.statistics import FrameStatistics
from d3_ros.ros.telling import Teller
from d3_ros.ros.topics import NEED_CAMERA
from d3_ros.ros.transforms import Transforms
from d3_ros.ros.view import View, rectified_view
from d3_ros.types import CameraIntrinsics

# Two stages that are not surrounded by a context: all of a frame is one or the other.
WAITING = "wait for camera_info and sensor depth"
WORKING = "all work"


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


class FrameProcessor:
    """Takes an image through the pipeline; called in the worker's thread, one image at a time.

    Whatever is wrong with a frame is told in one line and counted; nothing is raised.
    `settings` may be replaced at any time. Images received before `since` (time.monotonic()
    seconds) are not published: the node was deactivated while they were in the network.
    """

    def __init__(
        self,
        pipeline: DepthPipeline,
        *,
        settings: NodeSettings,
        topics: InputTopics,
        inputs: Inputs,
        transforms: Transforms,
        read_sensors: SensorReader,
        read_mounting: MountingReader,
        outputs: Outputs,
        statistics: FrameStatistics,
        tell: Teller,
        now_ns: Callable[[], int],
    ) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.since = math.inf
        self._topics = topics
        self._inputs = inputs
        self._transforms = transforms
        self._read_sensors = read_sensors
        self._read_mounting = read_mounting
        self._outputs = outputs
        self._statistics = statistics
        self._tell = tell
        self._now_ns = now_ns

    def __call__(self, image: ReceivedImage) -> None:
        """Process one image."""
        try:
            self._process(image)
        except D3Error as error:
            self._tell.error(str(error))
            self._statistics.refused(str(error))
        except Exception as error:  # a programming mistake, or the GPU: the node must live
            self._tell.error(f"unexpected while processing an image: {traceback.format_exc()}")
            self._statistics.refused(f"{type(error).__name__}: {error}")

    def _process(self, image: ReceivedImage) -> None:
        settings, stage = self.settings, self._statistics.stage
        started = time.perf_counter()
        wanted = self._outputs.wanted(settings)
        if not wanted:
            self._statistics.idle()
            return
        stage.next_frame()
        with stage("decode"):
            rgb = rgb_from_message(image.message, self._topics.image, settings.image)
        waiting = time.perf_counter()
        companions = self._inputs.companions_of(image.message, wait_s=settings.input.wait)
        waited = time.perf_counter() - waiting
        header = image.message.header
        if companions.jumped_back_s > 0:
            self._time_jumped_back(companions.jumped_back_s)
        intrinsics = self._intrinsics(companions.camera_info, rgb, wanted)
        with stage("sensor depth"):
            sensed = self._read_sensors(
                companions.sensors,
                header,
                (rgb.shape[0], rgb.shape[1]),
                intrinsics,
                settings.sensor_depth,
            )
        view = View(rgb, sensed.depth, intrinsics)
        if settings.output.rectified and not settings.image.rectified:
            with stage("rectify"):
                view = rectified_view(
                    view, companions.camera_info, self._topics.camera_info, self._topics.image
                )
        frame = self.pipeline(
            view.rgb,
            stamp=stamp_ns(header) * 1e-9,
            intrinsics=view.intrinsics,
            sparse=view.sparse,
            missing=sensed.reason,
            mounting=self._read_mounting(header, settings.ground),
            outputs=self._outputs.needed(wanted, settings),
        )
        if image.at < self.since:
            if self.since == math.inf:  # else the counts have begun anew
                self._statistics.dropped()
            return
        report = ScaleReport(frame.fit, sensed.pixels, frame.fused_pixels, frame.disagreeing_pixels)
        source = Source(
            header=header,
            rgb=view.rgb,
            camera_info=companions.camera_info if intrinsics is not None else None,
            intrinsics=view.intrinsics,
            scale=report,
        )
        sent = self._outputs.publish(view.known(frame), source, wanted, settings)
        stage.add(WAITING, waited * 1e3)
        stage.add(WORKING, (time.perf_counter() - started - waited) * 1e3)
        if sent == 0:
            self._statistics.refused(scale=report)
            return
        self._statistics.published(
            latency_s=time.monotonic() - image.at,
            age_s=(self._now_ns() - stamp_ns(header)) * 1e-9,
            scale=report,
        )

    def _time_jumped_back(self, jump_s: float) -> None:
        """Forget what is known of a time that is now to come; the scale forgets by itself."""
        self._tell.warn(
            f"the stamps of '{self._topics.image}' jumped back by {jump_s:.1f} s (a bag that "
            "starts again?): the scale, transforms and stored sensor depth begin anew"
        )
        self._transforms.forget()
        self._statistics.forget_ages()

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

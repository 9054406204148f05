"""Sparse depth for one image from the robot's sensors: depth image, LiDAR, planar scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from d3_ros.errors import D3Error, DataError, TransformError
from d3_ros.geometry.sparse_depth import place_on_image, project_points
from d3_ros.messages.images import depth_from_image
from d3_ros.messages.points import points_from_cloud, wrong_row_step
from d3_ros.messages.scans import points_from_scan
from d3_ros.ros.node.diagnostics.extrinsics_watch import PlacedCloud
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.inputs.matched_inputs import SENSORS, Sensor, stamp_ns
from d3_ros.ros.node.inputs.transforms import TF_WAIT_S, Transforms
from d3_ros.ros.parameters.metric_settings import SensorDepthSettings
from d3_ros.types import CameraIntrinsics


@dataclass(frozen=True)
class SensorDepth:
    """What the sensors measured of one image.

    `depth`: (H, W) float32 z-depth in metres, NaN where nothing was measured; None where no pixel
    was. `pixels`: number of measured pixels of each sensor that was used. `faults`: why the other
    sensors gave nothing. `clouds`: the points of LiDAR and scanner, with their place.
    """

    depth: np.ndarray | None
    pixels: Mapping[Sensor, int]
    faults: Mapping[Sensor, str]
    clouds: Mapping[Sensor, PlacedCloud]

    @property
    def reason(self) -> str:
        """Why there is no sensor depth, in one line."""
        if not self.faults:
            return "no sensor depth"
        return "no sensor depth: " + "; ".join(self.faults.values())


class _UnusableError(D3Error):
    """A sensor's message cannot be used for this image: reported in the status, but not logged."""


class SensorReader:
    """Turns the sensors' messages of one image into one sparse depth image.

    Args:
        topics: full name of each sensor's topic, for messages about it.
        image_topic: full name of the image's topic, likewise.
        transforms: looked up for extrinsics that no parameter gives.
        log: gets a line about messages that cannot be read.
    """

    def __init__(
        self,
        topics: Mapping[Sensor, str],
        image_topic: str,
        transforms: Transforms,
        log: ThrottledLogger,
    ) -> None:
        self._topics = topics
        self._image_topic = image_topic
        self._transforms = transforms
        self._log = log
        self._clouds: dict[Sensor, PlacedCloud] = {}
        self._read: dict[Sensor, Callable[..., np.ndarray]] = {
            "image": self._from_image,
            "points": self._from_points,
            "scan": self._from_scan,
        }

    def __call__(
        self,
        messages: Mapping[Sensor, Any],
        camera: Header,
        shape: tuple[int, int],
        intrinsics: CameraIntrinsics | None,
        settings: SensorDepthSettings,
        ignored: np.ndarray | None = None,
    ) -> SensorDepth:
        """Everything that `messages` measure of an image.

        Where several sensors measure the same pixel, the registered image wins over points, and
        points win over the scan: the denser sensor sees better which points are hidden.

        Args:
            messages: each sensor's message that is closest to the image in time.
            camera: the image's header.
            shape: (rows, columns) of the image.
            intrinsics: the camera; without it only a registered image can be used.
            settings: tolerances, ranges and extrinsics.
            ignored: (H, W) bool, pixels whose measurements are not used; None: all are.
        """
        depth: np.ndarray | None = None
        pixels: dict[Sensor, int] = {}
        faults: dict[Sensor, str] = {}
        self._clouds = {}
        for sensor in SENSORS:
            message = messages.get(sensor)
            if message is None:
                continue
            try:
                measured = self._read[sensor](message, camera, shape, intrinsics, settings)
            except _UnusableError as unusable:
                faults[sensor] = str(unusable)
                continue
            except D3Error as error:
                faults[sensor] = str(error)
                # In the first seconds, transforms may still be on their way.
                if not (isinstance(error, TransformError) and self._transforms.settling):
                    self._log.error(str(error))
                continue
            if ignored is not None:
                measured = np.where(ignored, np.float32(np.nan), measured)
            count = int(np.count_nonzero(measured > 0))
            if count == 0:
                faults[sensor] = f"'{self._topics[sensor]}' measures nothing that the camera sees"
                continue
            pixels[sensor] = count
            depth = measured if depth is None else np.where(depth > 0, depth, measured)
        return SensorDepth(depth, pixels, faults, self._clouds)

    def _from_image(
        self,
        message: Image,
        camera: Header,
        shape: tuple[int, int],
        intrinsics: CameraIntrinsics | None,
        settings: SensorDepthSettings,
    ) -> np.ndarray:
        self._refuse_other_time(
            "image",
            message.header,
            camera,
            "sensor_depth.tolerance",
            settings.tolerance,
        )
        topic = self._topics["image"]
        height, width = shape
        try:
            return place_on_image(depth_from_image(message, topic), width, height)
        except DataError as error:
            raise DataError(f"'{topic}': {error}: register it to '{self._image_topic}'") from error

    def _from_points(self, message: Any, camera: Header, *rest: Any) -> np.ndarray:
        topic = self._topics["points"]
        if wrong_row_step(message):
            self._log.warn(
                f"'{topic}': row_step {message.row_step} contradicts the length of the data, which "
                "is read as packed points: correct its publisher"
            )
        return self._projected(
            "points", message, lambda: points_from_cloud(message, topic), camera, *rest
        )

    def _from_scan(self, message: Any, camera: Header, *rest: Any) -> np.ndarray:
        topic = self._topics["scan"]
        return self._projected(
            "scan", message, lambda: points_from_scan(message, topic), camera, *rest
        )

    def _projected(
        self,
        sensor: Sensor,
        message: Any,
        read: Callable[[], np.ndarray],
        camera: Header,
        shape: tuple[int, int],
        intrinsics: CameraIntrinsics | None,
        settings: SensorDepthSettings,
    ) -> np.ndarray:
        """Points of another sensor on the image's pixels."""
        if intrinsics is None:
            raise _UnusableError(
                f"'{self._topics[sensor]}' cannot be projected into a camera without calibration"
            )
        T_camera_sensor = self._extrinsic(sensor, message.header, camera, settings)  # noqa: N806
        points = read()
        self._clouds[sensor] = PlacedCloud(points, T_camera_sensor)
        return project_points(
            points,
            T_camera_sensor,
            intrinsics,
            min_range=settings.min_range,
            max_range=settings.max_range,
            hidden_window_px=round(settings.hidden_window * shape[1]),
            hidden_ratio=settings.hidden_ratio,
        )

    def _extrinsic(
        self, sensor: Sensor, header: Header, camera: Header, settings: SensorDepthSettings
    ) -> np.ndarray:
        """(4, 4) T_camera_sensor of a message; refuses messages of another time."""
        still = ("sensor_depth.tolerance", settings.tolerance)
        moved = ("sensor_depth.max_age", settings.max_age)
        given = getattr(settings, sensor).matrix
        if given is not None:
            self._refuse_other_time(sensor, header, camera, *still)
            return given
        # First by the larger limit: tf may have no transforms any more for an old message.
        self._refuse_other_time(sensor, header, camera, *max(still, moved, key=lambda x: x[1]))
        found = self._transforms.lookup(camera, header, settings.fixed_frame, TF_WAIT_S)
        self._refuse_other_time(sensor, header, camera, *(moved if found.follows_motion else still))
        return found.T_camera_sensor

    def _refuse_other_time(
        self, sensor: Sensor, header: Header, camera: Header, parameter: str, limit_s: float
    ) -> None:
        late_s = (stamp_ns(header) - stamp_ns(camera)) * 1e-9
        if abs(late_s) > limit_s:
            side = "after" if late_s > 0 else "before"
            raise _UnusableError(
                f"'{self._topics[sensor]}' is {abs(late_s):.2f} s {side} the image "
                f"({parameter} {limit_s:g} s)"
            )

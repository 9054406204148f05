"""One camera of a bag with its depth sensor, moment by moment: what training data is made from.

Nothing is decoded before it is asked for, because most images of a recording are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from d3_ros.data.bag.file import Moment, read_contents, read_moments
from d3_ros.data.bag.topics import CameraTopics, SensorKind, find_topics
from d3_ros.data.bag.transforms import TF_STATIC, StaticTransforms
from d3_ros.errors import DataError, MessageError
from d3_ros.geometry.extrinsics.depth_edges import depth_image_points
from d3_ros.geometry.sparse_depth import (
    MAX_RANGE_M,
    MIN_RANGE_M,
    place_on_image,
    project_points,
)
from d3_ros.imaging.image_file import decode_rgb
from d3_ros.imaging.picture_header import picture_kind
from d3_ros.messages.camera_info import intrinsics_from_camera_info, why_uncalibrated
from d3_ros.messages.compressed import depth_from_any, is_compressed, rgb_from_any
from d3_ros.messages.points import points_from_cloud
from d3_ros.messages.scans import points_from_scan
from d3_ros.types import CameraIntrinsics


@dataclass(frozen=True)
class BagCameraOptions:
    """Which camera and which depth sensor of a bag to read, and how.

    image, info, sensor, kind: topics and the kind of sensor; None: found by name, or because there
        is only one.
    intrinsics: (fx, fy, cx, cy) in pixels, instead of the bag's camera_info.
    rectified: the images are rectified: P of camera_info holds instead of K and D.
    T_camera_sensor: maps the sensor's points into the optical frame, instead of /tf_static.
    tolerance_s: largest difference between the stamps of image and measurement, seconds.
    min_depth_m, max_depth_m: z-depth outside is not measured.
    min_range_m, max_range_m: distance from the sensor; points of clouds and scans outside are not
        measured, as in the node (`sensor_depth.min_range`, `sensor_depth.max_range`).
    """

    path: Path
    image: str | None = None
    info: str | None = None
    sensor: str | None = None
    kind: SensorKind | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    rectified: bool = False
    T_camera_sensor: np.ndarray | None = None
    tolerance_s: float = 0.02
    min_depth_m: float = 0.1
    max_depth_m: float = 65.0
    min_range_m: float = MIN_RANGE_M
    max_range_m: float = MAX_RANGE_M


class BagCamera:
    """The moments of one camera, in order; may be iterated again.

    `topics`: that are read. `cut`: names of files of the bag that were cut off.
    """

    def __init__(self, options: BagCameraOptions) -> None:
        """Read what topics and static transforms there are.

        Raises:
            DataError: not a readable bag, or a topic is missing, of another type or ambiguous.
        """
        self.options = options
        contents = read_contents(options.path)
        self.topics: CameraTopics = find_topics(
            contents,
            options.path,
            image=options.image,
            info=options.info,
            sensor=options.sensor,
            kind=options.kind,
        )
        if not self.topics.info and options.intrinsics is None:
            raise DataError(
                f"{options.path}: no camera_info beside {self.topics.image}: name its topic or "
                "give the intrinsics fx fy cx cy"
            )
        self.cut = contents.cut
        self._length = contents.topics[self.topics.image][1]
        self._extrinsics: dict[tuple[str, str], np.ndarray] = {}

    @cached_property
    def _transforms(self) -> StaticTransforms:
        """Read where they are needed: a bag without use for them may have damaged ones."""
        return StaticTransforms(self.options.path)

    def __len__(self) -> int:
        """Number of images."""
        return self._length

    def __iter__(self) -> Iterator[CameraMoment]:
        tolerances = {self.topics.sensor: round(self.options.tolerance_s * 1e9)}
        moments = read_moments(self.options.path, self.topics.image, self.topics.info, tolerances)
        for moment in moments:
            yield CameraMoment(self, moment)

    def extrinsics(self, camera: str, sensor: str) -> np.ndarray:
        """T_camera_sensor (4, 4) of two frames.

        Raises:
            DataError: neither given nor recorded.
        """
        if self.options.T_camera_sensor is not None:
            return self.options.T_camera_sensor
        known = self._extrinsics.get((camera, sensor))
        if known is None:
            known = self._transforms.find(camera, sensor)
            if known is None:
                frames = ", ".join(self._transforms.frames) or "none"
                raise DataError(
                    f"{self.options.path}: {TF_STATIC} does not connect the sensor's frame "
                    f"'{sensor}' with the camera's '{camera}' (frames: {frames}): give "
                    "the extrinsics x y z qx qy qz qw"
                )
            self._extrinsics[camera, sensor] = known
        return known

    def refuse_unregistered(self, camera: str, sensor: str) -> None:
        """Refuse a depth image that, as the bag itself says, was taken from another place."""
        transform = None if camera == sensor else self._transforms.find(camera, sensor)
        if transform is not None and not np.allclose(transform, np.eye(4), atol=1e-3):
            raise DataError(
                f"{self.options.path}: {self.topics.sensor} is not registered to "
                f"{self.topics.image}: frame '{sensor}' is not at '{camera}' in {TF_STATIC}; "
                "record the aligned depth, or its points and name those"
            )


class CameraMoment:
    """One image; everything else about it is decoded when it is first asked for.

    `stamp`: seconds of the image's header. `measured`: whether the sensor has a message for it.
    """

    def __init__(self, camera: BagCamera, moment: Moment) -> None:
        self._camera = camera
        self._moment = moment
        self.stamp = moment.stamp_ns / 1e9
        self.measured = bool(moment.others)

    @cached_property
    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8.

        Raises:
            MessageError: the image cannot be decoded.
        """
        return rgb_from_any(self._moment.image, self._camera.topics.image)

    @property
    def jpeg(self) -> bytes | None:
        """The message's JPEG file, if an ordinary decoder makes `rgb` of it; else None.

        The two differ if the message's `format` says that the picture is a Bayer mosaic, or that
        its channels are in the order RGB.

        Raises:
            MessageError: the image cannot be decoded.
        """
        message = self._moment.image
        if not is_compressed(message):
            return None
        data = np.asarray(message.data, np.uint8).tobytes()
        is_jpeg = picture_kind(data) == "JPEG"
        return data if is_jpeg and np.array_equal(decode_rgb(data), self.rgb) else None

    @cached_property
    def intrinsics(self) -> CameraIntrinsics:
        """The camera of the image at the image's own size, with the lens distortion.

        Raises:
            MessageError: there are none, or they do not fit the image.
        """
        options, topics = self._camera.options, self._camera.topics
        height, width = self.rgb.shape[:2]
        if options.intrinsics is not None:
            return CameraIntrinsics(width, height, *options.intrinsics)
        info = self._moment.info
        known = info and intrinsics_from_camera_info(
            info,
            width,
            height,
            topic=topics.info,
            image_topic=topics.image,
            rectified=options.rectified,
        )
        if not known:
            why = f"no camera_info had come before an image of {topics.image}"
            if info is not None:
                why = why_uncalibrated(info, topics.info, rectified=options.rectified)
            raise MessageError(f"{why}; or give --intrinsics fx fy cx cy")
        return known

    @cached_property
    def depth(self) -> np.ndarray:
        """(H, W) float32 z-depth in metres, NaN where not measured; of the image's size.

        Raises:
            DataError, MessageError: the measurement cannot be decoded or placed.
        """
        options = self._camera.options
        if self._camera.topics.kind == "depth":
            height, width = self.rgb.shape[:2]
            depth = place_on_image(self._depth_image, width, height)
        else:
            points, T_camera_sensor = self._cloud  # noqa: N806
            depth = project_points(
                points,
                T_camera_sensor,
                self.intrinsics,
                min_range=options.min_range_m,
                max_range=options.max_range_m,
            )
        within = (depth >= options.min_depth_m) & (depth <= options.max_depth_m)
        return np.where(within, depth, np.float32(np.nan))

    @property
    def sensor_points(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) float32 points in the sensor's frame, metres, and (4, 4) T_camera_sensor.

        Of a registered depth image they are in the optical frame. All points of a cloud are given,
        also those that the camera cannot see.

        Raises:
            DataError, MessageError: as `depth`.
        """
        if self._camera.topics.kind == "depth":
            depth = self._depth_image
            camera = self.intrinsics.resized(depth.shape[1], depth.shape[0])
            return depth_image_points(depth, camera), np.eye(4)
        points, T_camera_sensor = self._cloud  # noqa: N806
        options = self._camera.options
        squared = np.einsum("ij,ij->i", points, points)
        within = (squared >= options.min_range_m**2) & (squared <= options.max_range_m**2)
        return points[within], T_camera_sensor

    @cached_property
    def _depth_image(self) -> np.ndarray:
        """The registered depth image at its own size, (h, w) float32 metres."""
        message = self._measurement
        self._camera.refuse_unregistered(self._frame, message.header.frame_id)
        return depth_from_any(message, self._camera.topics.sensor)

    @cached_property
    def _cloud(self) -> tuple[np.ndarray, np.ndarray]:
        """Points of a cloud or scan in the sensor's frame, and (4, 4) T_camera_sensor."""
        topics, message = self._camera.topics, self._measurement
        decode = points_from_cloud if topics.kind == "points" else points_from_scan
        points = decode(message, topics.sensor)
        return points, self._camera.extrinsics(self._frame, message.header.frame_id)

    @property
    def _measurement(self) -> Any:
        return self._moment.others[self._camera.topics.sensor]

    @property
    def _frame(self) -> str:
        """Name of the camera's optical frame."""
        return str(self._moment.image.header.frame_id)

"""Camera frames from a bag for the demo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from d3_ros.data.bag.file import IMAGE, Moment, read_contents, read_moments
from d3_ros.data.bag.topics import camera_of, find_image, listed
from d3_ros.data.held_out_points import split_depth
from d3_ros.data.played_frame import PlayedFrame, SourceOptions, pinhole
from d3_ros.errors import DataError
from d3_ros.messages.camera_info import intrinsics_from_camera_info
from d3_ros.messages.compressed import rgb_from_any
from d3_ros.messages.images import depth_from_image
from d3_ros.types import CameraIntrinsics

# Depth and colour of one camera are triggered together, but not all drivers stamp them alike.
SENSOR_TOLERANCE_NS = 20_000_000


class BagSource:
    """Frames of one camera in a bag.

    The image topic is `options.image_topic` or the only colour topic of the bag; `camera_info`,
    `sensor_depth/image` and `truth/depth` beside it are found by name. Sensor depth belongs to
    the image that is nearest in time within 20 ms, truth to the image with the very same stamp.
    Without a truth the sensor depth is split: some pixels for the node, the rest to score.
    """

    def __init__(self, options: SourceOptions) -> None:
        """Read what topics there are.

        Raises:
            DataError: not a readable bag, or a topic is missing, of another type, or ambiguous.
        """
        self._options = options
        self._path = options.path
        contents = read_contents(self._path)
        topics, duration_s = contents.topics, contents.duration_s
        self._image = find_image(contents, self._path, options.image_topic)
        camera = camera_of(self._image)
        self._info = _if_there(f"{camera}/camera_info", topics)
        self._sensor = self._find_depth(
            options.sensor_topic, f"{camera}/sensor_depth/image", topics
        )
        self._truth = self._find_depth(options.truth_topic, f"{camera}/truth/depth", topics)
        self._length = topics[self._image][1]
        if self._length == 0:
            raise DataError(f"{self._path}: no messages on {self._image}")
        self.rate_hz: float | None = (
            (self._length - 1) / duration_s if self._length > 1 and duration_s > 0 else None
        )
        self.warnings = self._warnings(topics, contents.cut)
        rate = "" if self.rate_hz is None else f", {self.rate_hz:.3g} Hz"
        self.title = f"{self._path} (bag, {self._image}, {self._length} frames{rate})"

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PlayedFrame]:
        tolerances = {self._sensor: SENSOR_TOLERANCE_NS, self._truth: 0}
        moments = read_moments(self._path, self._image, self._info, tolerances)
        for index, moment in enumerate(moments):
            yield self._frame(index, moment)

    def _frame(self, index: int, moment: Moment) -> PlayedFrame:
        rgb = rgb_from_any(moment.image, self._image)
        stamp_ns = moment.stamp_ns
        sensor = self._depth(self._sensor, rgb, moment.others.get(self._sensor))
        truth = self._depth(self._truth, rgb, moment.others.get(self._truth))
        sensor, truth = split_depth(
            sensor, truth, self._options.points, seed=self._options.seed + index
        )
        return PlayedFrame(
            index=index,
            name=f"{stamp_ns / 1e9:.3f} s",
            stamp=stamp_ns / 1e9,
            rgb=rgb,
            intrinsics=self._intrinsics(moment.info, rgb),
            sensor=sensor,
            truth=truth,
        )

    def _intrinsics(self, info: Any, rgb: np.ndarray) -> CameraIntrinsics | None:
        """The user's intrinsics before the bag's."""
        if self._options.intrinsics is not None or info is None:
            return pinhole(self._options.intrinsics, rgb)
        return intrinsics_from_camera_info(
            info, rgb.shape[1], rgb.shape[0], topic=self._info, image_topic=self._image
        )

    def _depth(self, topic: str, rgb: np.ndarray, message: Any) -> np.ndarray | None:
        if message is None:
            return None
        depth = depth_from_image(message, topic)
        if depth.shape != rgb.shape[:2]:
            raise DataError(
                f"{self._path}: {topic} is {depth.shape[1]} x {depth.shape[0]}, but {self._image} "
                f"is {rgb.shape[1]} x {rgb.shape[0]}: depth must be registered to the image"
            )
        return depth

    def _find_depth(self, asked: str | None, usual: str, topics: dict[str, tuple[str, int]]) -> str:
        """The topic, or an empty name where there is none."""
        if asked is None:
            return _if_there(usual, topics)
        if topics.get(asked, ("", 0))[0] != IMAGE:
            images = sorted(name for name, (kind, _) in topics.items() if kind == IMAGE)
            raise DataError(
                f"{self._path}: no depth images on '{asked}' in it; images are on {listed(images)}"
            )
        return asked

    def _warnings(self, topics: dict[str, tuple[str, int]], cut: Sequence[str]) -> tuple[str, ...]:
        warnings = [f"{self._path}: {file} was cut off" for file in cut]
        if not self._info and self._options.intrinsics is None:
            warnings.append(f"{self._path}: no camera_info beside {self._image}: no cloud")
        if not self._sensor:
            hints = sorted(
                name for name, (kind, _) in topics.items() if kind == IMAGE and "depth" in name
            )
            hint = f"; is it {listed(hints)}? Say --sensor-topic" if hints else ""
            warnings.append(f"{self._path}: no sensor depth, so depth stays relative{hint}")
        return tuple(warnings)


def _if_there(topic: str, topics: dict[str, tuple[str, int]]) -> str:
    return topic if topic in topics else ""

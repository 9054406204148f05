"""A camera whose resolution changes in flight: the outputs follow with the very next frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers.ros_harness import SCALE, SHIFT, Robot, StandIn, ros_context
from sensor_msgs.msg import CameraInfo, Image

from d3_ros.messages.compressed import depth_from_any
from d3_ros.messages.images import ImageBuffer, depth_from_image
from d3_ros.ros.topics import (
    DEPTH,
    DEPTH_COLOR,
    DEPTH_COMPRESSED,
    DEPTH_INFO,
    NAV_POINTS,
    NORMALS,
    POINTS,
    RELATIVE,
    RGB,
    RGB_INFO,
    TOPICS,
)
from d3_ros.types import D3Prediction, Task

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

IMAGES = (RELATIVE, DEPTH, RGB, NORMALS, DEPTH_COLOR)
# As drivers change: halved, another shape, larger, upright; each in pixels, width x height.
SIZES = [(64, 48), (32, 24), (80, 45), (128, 96), (48, 64), (64, 48)]


class AnySize(StandIn):
    """The ramp of whatever size it sees."""

    def __call__(self, rgb: np.ndarray, tasks: tuple[Task, ...] | None = None) -> D3Prediction:
        height, width = rgb.shape[:2]
        self.relative = ramp(width, height)
        self.normals = np.tile(np.float32([0.0, 0.0, -1.0]), (height, width, 1))
        return super().__call__(rgb, tasks)


def ramp(width: int, height: int) -> np.ndarray:
    """(H, W) relative depth; its scale depends on the size by a little, as the network's does."""
    column = np.linspace(0.9, 0.1, height, dtype=np.float32) * np.float32(1.0 - width / 4000)
    return np.repeat(column[:, None], width, axis=1)


def frame_of(robot: Robot, width: int, height: int) -> tuple[Image, CameraInfo, Image]:
    """An image of this size, its calibration and its sensor depth."""
    header = robot.new_image().header
    image = ImageBuffer().fill(header, np.full((height, width, 3), 90, np.uint8), "rgb8")
    info = CameraInfo(header=header, width=width, height=height)
    info.k = [0.8 * width, 0.0, width / 2, 0.0, 0.8 * width, height / 2, 0.0, 0.0, 1.0]
    millimetres = np.zeros((height, width), np.uint16)
    millimetres[::4, ::4] = np.rint((SCALE * ramp(width, height) + SHIFT) * 1000)[::4, ::4]
    return image, info, ImageBuffer().fill(header, millimetres, "16UC1")


@pytest.fixture
def robot() -> Iterator[Robot]:
    parameters = {"input.wait": 0.5, "color.max_rate": 100.0}
    with Robot(AnySize(), parameters=parameters) as robot:
        yield robot


def test_every_output_follows_a_change_of_size_within_the_frame(robot: Robot) -> None:
    for width, height in SIZES:
        image, info, sensor = frame_of(robot, width, height)
        header = robot.show(image, camera_info=info, sensor=sensor).header
        for topic in IMAGES:
            message = robot.wait_for(topic, header)
            assert (message.width, message.height) == (width, height), topic
            assert message.step * height == len(message.data), topic
        depth = depth_from_image(robot.wait_for(DEPTH, header), DEPTH)
        np.testing.assert_allclose(depth, SCALE * ramp(width, height) + SHIFT, rtol=5e-3)
        compressed = depth_from_any(robot.wait_for(DEPTH_COMPRESSED, header), DEPTH_COMPRESSED)
        np.testing.assert_allclose(compressed, depth, atol=3e-3)
        for topic in (DEPTH_INFO, RGB_INFO):
            answer = robot.wait_for(topic, header)
            assert (answer.width, answer.height) == (width, height)
            assert answer.k.tolist() == info.k.tolist()
        cloud = robot.wait_for(POINTS, header)
        assert (cloud.width, cloud.height) == (width, height)
        points = np.frombuffer(cloud.data, "<f4").reshape(height, width, -1)
        np.testing.assert_array_equal(points[..., 2], depth)
        u = points[..., 0] / points[..., 2] * info.k[0] + info.k[2]
        np.testing.assert_allclose(u, np.tile(np.arange(width), (height, 1)), atol=1e-3)
        assert robot.wait_for(NAV_POINTS, header).width > 0
    assert robot.settle(len(SIZES)).refused == 0


def test_a_held_scale_follows_a_change_of_size(robot: Robot) -> None:
    """The first frame of a new size comes without sensor depth, which the driver sends later."""
    image, info, sensor = frame_of(robot, 64, 48)
    robot.wait_for(DEPTH, robot.show(image, camera_info=info, sensor=sensor).header)
    image, info, _ = frame_of(robot, 32, 24)
    header = robot.show(image, camera_info=info, sensor=None).header
    depth = depth_from_image(robot.wait_for(DEPTH, header), DEPTH)
    np.testing.assert_allclose(depth, SCALE * ramp(32, 24) + SHIFT, rtol=0.02)


def test_a_calibration_that_lags_behind_is_told_and_costs_the_cloud_only(robot: Robot) -> None:
    """Depth goes on; nothing is published that pairs it with the calibration of another size."""
    image, info, sensor = frame_of(robot, 64, 48)
    robot.wait_for(POINTS, robot.show(image, camera_info=info, sensor=sensor).header)
    image, info, sensor = frame_of(robot, 32, 24)
    header = robot.show(image, camera_info=None, sensor=sensor).header
    assert robot.wait_for(DEPTH, header).width == 32
    line = robot.wait_for_line("describes 64 x 48 images")
    assert "is 32 x 24: publish the calibration of this image size" in line
    for topic in (DEPTH_INFO, RGB_INFO, POINTS, NAV_POINTS):
        assert not robot.answers(topic, header), topic
    image, info, sensor = frame_of(robot, 32, 24)
    header = robot.show(image, camera_info=info, sensor=sensor).header
    assert robot.wait_for(POINTS, header).width == 32
    assert set(IMAGES) <= set(TOPICS)

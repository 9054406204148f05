"""Streams as broken drivers and networks make them, over real DDS: docs/reliability.md's table.

After each fault, the next good frame is answered, and every image has been counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.ros_harness import HEIGHT, WIDTH, Robot, dealt_with, ros_context
from helpers.waiting import wait_until
from rclpy.executors import ExternalShutdownException
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.diagnostics.diagnostics import ERROR, OK, WARN
from d3_ros.ros.node.diagnostics.scale_report import STATES
from d3_ros.ros.node.predictor_node import PredictorNode
from d3_ros.ros.node.process import spin
from d3_ros.ros.termination import Termination
from d3_ros.ros.topics import DEPTH, POINTS, RELATIVE, SCALE

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)


@pytest.fixture
def robot(ros: None) -> Iterator[Robot]:
    with Robot(topics=(RELATIVE, DEPTH, POINTS, SCALE), parameters={"input.wait": 0.3}) as robot:
        yield robot


def measured(robot: Robot) -> Any:
    """A good frame is answered with metres of this frame; its depth image."""
    image = robot.new_image()
    robot.sense("image", robot.new_sensor_depth(image))
    calibrate(robot, robot.new_camera_info(image))
    header = robot.show(image, camera_info=None, sensor=None).header
    return robot.wait_for(DEPTH, header)


def calibrate(robot: Robot, info: CameraInfo) -> None:
    """Publish a calibration, and wait until the node has it."""
    robot.camera_info.publish(info)
    stored = robot.node._session.cameras[""].inputs._camera_infos
    wait_until(lambda: any(one == info for one in stored), "the node has the calibration")


def every_image_is_counted(robot: Robot) -> None:
    def balance() -> bool:
        now = robot.statistics.snapshot()
        return now.received == dealt_with(now)

    wait_until(balance, "every received image is published, dropped, refused or idle")


def image_of(header: Any, height: int, width: int, encoding: str = "rgb8") -> Image:
    shape = (height, width, 3) if encoding == "rgb8" else (height, width)
    if encoding == "rgb8":
        return ImageBuffer().fill(header, np.full(shape, 90, np.uint8), encoding)
    message = Image(header=header, height=height, width=width, encoding=encoding, step=width)
    message.data = np.full(shape, 90, np.uint8).tobytes()
    return message


def test_a_stream_that_stops_and_comes_back(robot: Robot) -> None:
    robot.node.set_parameters([Parameter("diagnostics.input_timeout", value=0.5)])
    measured(robot)
    robot.wait_for_status(ERROR, "no image for", "that sends nothing")
    measured(robot)
    every_image_is_counted(robot)


def test_the_same_image_twice(robot: Robot) -> None:
    """Both are answered, and the scale is not disturbed."""
    image = robot.new_image()
    robot.sense("image", robot.new_sensor_depth(image))
    for count in (1, 2):
        robot.show(image, sensor=None)
        assert robot.settle(count).published == count
    measured(robot)
    every_image_is_counted(robot)


def test_images_out_of_order(robot: Robot) -> None:
    """A little back in time is disorder of the transport: no new beginning, no warning."""
    first, second, third = (robot.new_image() for _ in range(3))
    for image in (first, third, second):
        robot.sense("image", robot.new_sensor_depth(image))
        robot.show(image, sensor=None)
        depth = robot.wait_for(DEPTH, image.header)
        assert depth.header == image.header
    assert not robot.said("jumped back")
    every_image_is_counted(robot)


def test_a_jump_forward_in_time(robot: Robot) -> None:
    """A camera's clock that is set: the scale of an hour ago is not held."""
    measured(robot)
    robot._stamp += 36_000  # an hour
    image = robot.new_image()
    message = robot.scale_after(lambda: robot.show(image, sensor=None))
    assert STATES[int(message.data[0])] == "relative"
    assert not robot.answers(DEPTH, image.header)
    measured(robot)
    every_image_is_counted(robot)


def test_a_clock_that_stands_still(robot: Robot) -> None:
    """A driver without time: every stamp is 0. Depth is still of its own image."""
    for grey in (10, 200):
        image = robot.new_image()
        image.header.stamp.sec = image.header.stamp.nanosec = 0
        image.data[:] = type(image.data)("B", [grey] * len(image.data))
        before = len(robot.received[RELATIVE])
        robot.show(image)
        wait_until(lambda before=before: len(robot.received[RELATIVE]) > before, "an answer")
    measured(robot)
    every_image_is_counted(robot)


@pytest.mark.parametrize("size", [(HEIGHT // 2, WIDTH // 2), (HEIGHT, WIDTH // 2), (2, 3)])
def test_the_size_changes_under_way(robot: Robot, size: tuple[int, int]) -> None:
    measured(robot)
    other = image_of(robot.new_image().header, *size)
    info = robot.new_camera_info(other)
    info.width, info.height = size[1], size[0]
    robot.network.relative = np.ascontiguousarray(robot.network.relative[: size[0], : size[1]])
    robot.network.normals = np.ascontiguousarray(robot.network.normals[: size[0], : size[1]])
    robot.show(other, camera_info=info, sensor=None)
    answer = robot.wait_for(RELATIVE, other.header)
    assert (answer.height, answer.width) == size
    every_image_is_counted(robot)


def test_the_encoding_changes_under_way(robot: Robot) -> None:
    measured(robot)
    for encoding in ("mono8", "rgb8"):
        image = image_of(robot.new_image().header, HEIGHT, WIDTH, encoding)
        robot.wait_for(RELATIVE, robot.show(image).header)
    measured(robot)
    every_image_is_counted(robot)


def test_the_frame_changes_under_way(robot: Robot) -> None:
    """Outputs repeat each image's own frame_id, also an empty one."""
    for frame in ("left_optical", "", "right_optical"):
        image = robot.new_image()
        image.header.frame_id = frame
        robot.sense("image", robot.new_sensor_depth(image))
        answer = robot.wait_for(DEPTH, robot.show(image, sensor=None).header)
        assert answer.header.frame_id == frame


def test_a_calibration_that_comes_late(robot: Robot) -> None:
    image = robot.show(camera_info=None)
    robot.wait_for(RELATIVE, image.header)
    assert not robot.answers(POINTS, image.header)
    robot.wait_for_line("no camera_info on")
    header = measured(robot).header
    robot.wait_for(POINTS, header)


def test_a_calibration_that_changes(robot: Robot) -> None:
    """The cloud is always by the calibration of its own stamp."""
    spread = []
    for focal in (50.0, 100.0):
        image = robot.new_image()
        info = robot.new_camera_info(image)
        info.k = [focal, 0.0, 32.0, 0.0, focal, 24.0, 0.0, 0.0, 1.0]
        calibrate(robot, info)
        robot.sense("image", robot.new_sensor_depth(image))
        robot.show(image, camera_info=None, sensor=None)
        cloud = robot.wait_for(POINTS, image.header)
        columns = np.frombuffer(cloud.data, np.float32).reshape(HEIGHT, WIDTH, -1)[10]
        spread.append(columns[-2, 0] / columns[-2, 2])
    assert spread[0] == pytest.approx(2 * spread[1], rel=1e-4)


def test_sensor_depth_that_is_stale(robot: Robot) -> None:
    """A sensor that froze: its last message is not used for later images; the status says so."""
    measured(robot)
    robot._stamp += 20  # 2 s: longer than a scale is held
    image = robot.new_image()
    message = robot.scale_after(lambda: robot.show(image, sensor=None))
    assert STATES[int(message.data[0])] == "relative"
    robot.wait_for_status(WARN, "no metric scale", "sensor_depth/image' is", "before the image")
    measured(robot)


def test_sensor_depth_that_is_all_outliers(robot: Robot) -> None:
    """Random metres have nothing in common with the image: refused, or of an uncertainty to match.

    They must never pass for a good measurement.
    """
    rng = np.random.default_rng(0)
    image = robot.new_image()
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[::4, ::4] = rng.integers(300, 20_000, depth[::4, ::4].shape)
    robot.sense("image", ImageBuffer().fill(image.header, depth, "16UC1"))
    message = robot.scale_after(lambda: robot.show(image, sensor=None))
    values = dict(zip(message.layout.dim[0].label.split(), message.data, strict=True))
    state = STATES[int(values["state"])]
    assert state == "relative" or values["abs_rel"] > 0.25
    robot.wait_for_status(WARN)
    for _ in range(5):
        measured(robot)
    robot.wait_for_status(OK, "measured by image")


def test_sensor_depth_without_a_single_measurement(robot: Robot) -> None:
    image = robot.new_image()
    empty = ImageBuffer().fill(image.header, np.zeros((HEIGHT, WIDTH), np.uint16), "16UC1")
    robot.sense("image", empty)
    robot.scale_after(lambda: robot.show(image, sensor=None))
    assert not robot.answers(DEPTH, image.header)
    robot.wait_for_status(WARN, "measures nothing that the camera sees")
    measured(robot)


def test_transforms_that_are_missing(robot: Robot) -> None:
    """A LiDAR that tf does not connect to the camera: relative depth goes on, one line says why."""
    image = robot.new_image()
    cloud = PointCloud2(header=image.header, height=1, width=0, point_step=12, is_dense=True)
    cloud.header.frame_id = "lidar"
    robot.sense("points", cloud)
    robot.wait_for(RELATIVE, robot.show(image, sensor=None).header)
    robot.wait_for_status(WARN, "no metric scale, metric topics are silent")
    measured(robot)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_sensor_depth_that_is_no_number(robot: Robot, value: float) -> None:
    image = robot.new_image()
    depth = np.full((HEIGHT, WIDTH), value, np.float32)
    robot.sense("image", ImageBuffer().fill(image.header, depth, "32FC1"))
    robot.scale_after(lambda: robot.show(image, sensor=None))
    assert not robot.answers(DEPTH, image.header)
    measured(robot)


def test_an_exception_in_a_callback_is_told_and_survived(robot: Robot) -> None:
    """The process goes on spinning, and the diagnostics show the fault for a while."""
    node = PredictorNode(load=lambda settings, say: robot.network, namespace="/spins")
    calls: list[int] = []

    def callback() -> None:
        calls.append(len(calls))
        raise KeyError("x") if len(calls) == 1 else ExternalShutdownException

    node.create_timer(0.01, callback)
    spin(node, Termination())
    assert calls == [0, 1], "it went on after the first"
    assert node._node_faults() == ["unexpected in a callback: KeyError: 'x'"]
    node.destroy_node()
    robot.node.report_fault("Traceback (most recent call last):\nKeyError: 'x'")
    robot.wait_for_status(ERROR, "unexpected in a callback: KeyError: 'x'")
    measured(robot)


def test_every_image_of_a_storm_is_counted(robot: Robot) -> None:
    """Good, broken, doubled and late images in any order."""
    rng = np.random.default_rng(1)
    spoil: list[Callable[[Image], None]] = [
        lambda image: None,
        lambda image: setattr(image, "encoding", "nonsense"),
        lambda image: setattr(image, "step", 1),
        lambda image: setattr(image, "width", 0),
        lambda image: image.header.stamp.__setattr__("sec", int(rng.integers(0, 2**31))),
    ]
    for _ in range(60):
        image = robot.new_image()
        spoil[rng.integers(len(spoil))](image)
        robot.show(image)
    every_image_is_counted(robot)
    robot._stamp = 10**6
    measured(robot)

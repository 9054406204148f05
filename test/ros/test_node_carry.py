"""The node carries sensor points from image to image by the camera's motion in tf."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import TransformStamped
from helpers import stand_in_tf2
from helpers.ros_harness import HEIGHT, WIDTH, Robot, StandIn, ros_context
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from d3_ros.errors import TransformError
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.inputs.camera_view import ViewReader
from d3_ros.ros.topics import DEPTH
from d3_ros.types import CameraIntrinsics

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)
LEFT, RIGHT = slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH)
CAMERA = CameraIntrinsics(WIDTH, HEIGHT, 50.0, 50.0, 32.0, 24.0)


def sensor(image: Image, left_m: float, right_m: float) -> Image:
    """Every fourth pixel of two walls; 0 m: not measured."""
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[::4, LEFT][:, ::4] = round(1000 * left_m)
    depth[::4, RIGHT][:, ::4] = round(1000 * right_m)
    return ImageBuffer().fill(image.header, depth, "16UC1")


@pytest.mark.parametrize("carry, left_m", [(True, 2.0), (False, 1.0)])
def test_what_the_sensor_saw_before_the_robot_moved_is_still_measured(
    monkeypatch: pytest.MonkeyPatch, carry: bool, left_m: float
) -> None:
    """The robot drives 1 m towards walls at 3 and 2 m; then its sensor sees the right one only."""
    tf2 = stand_in_tf2.install(monkeypatch)
    network = StandIn()
    network.relative = np.full((HEIGHT, WIDTH), 0.6, np.float32)
    network.relative[:, RIGHT] = 0.4
    parameters = {"sensor_depth.carry": carry}
    with Robot(network, topics=(DEPTH,), parameters=parameters) as robot:
        image = robot.new_image()
        robot.show(image, sensor=sensor(image, 3.0, 2.0))  # the node begins to listen to tf
        robot.wait_for(DEPTH, image.header)
        for forward, walls in ((0.0, (3.0, 2.0)), (1.0, (0.0, 1.0))):
            image = robot.new_image()
            pose = TransformStamped(child_frame_id="camera_optical_frame")
            pose.header.frame_id, pose.header.stamp = "odom", image.header.stamp
            pose.transform.translation.z = forward
            for buffer in tf2.TransformListener.buffers:
                buffer.set_transform(pose, "test")
            robot.show(image, sensor=sensor(image, *walls))
            depth = np.frombuffer(robot.wait_for(DEPTH, image.header).data, np.float32)
    depth = depth.reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(np.median(depth[:, :16]), left_m, rtol=0.05)
    np.testing.assert_allclose(np.median(depth[:, RIGHT]), 1.0, rtol=0.05)


class Transforms:
    """Knows one pose, or none."""

    settling = False

    def __init__(self, pose: np.ndarray | None) -> None:
        self.answer = pose
        self.asked: list[tuple[str, float]] = []

    def pose(self, camera: Header, frame: str, timeout_s: float, remedy: str) -> np.ndarray:
        self.asked.append((frame, timeout_s))
        if self.answer is None:
            raise TransformError(f"no transform: publish it, or {remedy}")
        return self.answer


def frame(*, carry: bool = True, fixed: str = "odom", rectified: bool = False, **request: Any):
    """What the reader looks at of a frame."""
    info = CameraInfo()
    info.r = [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0]
    seen = {"sparse": np.ones((HEIGHT, WIDTH)), "intrinsics": CAMERA, **request}
    return SimpleNamespace(
        header=Header(),
        camera_info=info,
        request=SimpleNamespace(**seen),
        settings=SimpleNamespace(
            sensor_depth=SimpleNamespace(carry=carry, fixed_frame=fixed),
            output=SimpleNamespace(rectified=rectified),
            image=SimpleNamespace(rectified=False),
        ),
    )


def test_tf_is_asked_without_waiting_and_only_where_points_are_carried() -> None:
    transforms, lines = Transforms(np.eye(4)), SimpleNamespace(warn=pytest.fail)
    read = ViewReader(transforms, lines)
    for unused in (frame(carry=False), frame(fixed=""), frame(sparse=None), frame(intrinsics=None)):
        assert read(unused) is None
    assert transforms.asked == []
    view = read(frame())
    assert view is not None
    assert view.intrinsics == CAMERA
    np.testing.assert_array_equal(view.T_fixed_camera, np.eye(4))
    assert transforms.asked == [("odom", 0.0)]


def test_a_rectified_camera_looks_along_its_own_axes() -> None:
    view = ViewReader(Transforms(np.eye(4)), SimpleNamespace(warn=pytest.fail))(
        frame(rectified=True)
    )
    # R turns the raw camera's x axis into the rectified -z axis: R @ x = -z.
    np.testing.assert_allclose(view.T_fixed_camera[:3, :3] @ [0, 0, -1], [1, 0, 0])


def test_a_missing_transform_is_told_and_the_frame_goes_on() -> None:
    lines: list[str] = []
    assert ViewReader(Transforms(None), SimpleNamespace(warn=lines.append))(frame()) is None
    (line,) = lines
    assert line.startswith("sensor points of earlier images are not used")
    assert "sensor_depth.carry" in line

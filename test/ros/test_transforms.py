"""Where sensors are: from tf2, the real one where a ROS installation has it; robots that move."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from helpers import stand_in_tf2
from helpers.ros_harness import ros_context
from rclpy.node import Node
from std_msgs.msg import Header

from d3_ros.errors import TransformError
from d3_ros.geometry.rigid import rigid_transform
from d3_ros.ros.node.inputs.mounting import MountingReader
from d3_ros.ros.node.inputs.transforms import Transforms
from d3_ros.ros.parameters.metric_settings import GroundSettings

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)
# From a body-type frame (x forward, y left, z up) to an optical one (x right, y down, z forward).
OPTICAL = (-0.5, 0.5, -0.5, 0.5)
UNTURNED = (0.0, 0.0, 0.0, 1.0)
IS_REAL = importlib.util.find_spec("tf2_ros") is not None


@pytest.fixture(params=["stand-in", "real"])
def tf2(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if request.param == "stand-in":
        return stand_in_tf2.install(monkeypatch)
    return pytest.importorskip("tf2_ros", reason="tf2_ros comes with a ROS installation")


def at(seconds: float, frame: str) -> Header:
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
    return header


def transform(
    parent: str,
    child: str,
    translation: tuple[float, float, float],
    quaternion: tuple[float, ...] = UNTURNED,
    seconds: float = 0.0,
) -> TransformStamped:
    message = TransformStamped(header=at(seconds, parent), child_frame_id=child)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = translation
    q.x, q.y, q.z, q.w = quaternion
    return message


class Rig:
    """Transforms whose buffer the test fills, and what they said."""

    def __init__(self, tf2: ModuleType) -> None:
        self.node = Node("asks")
        self.said: list[str] = []
        self.transforms = Transforms(self.node, self.said.append)
        with pytest.raises(TransformError, match="no transform from 'lidar' to 'camera'"):
            self.transforms.lookup(at(1.0, "camera"), at(1.0, "lidar"), "", 0.0)
        self.buffer = self.transforms._buffer
        self.transforms._since = 0.0  # nothing is on its way any more

    def knows(self, *static: TransformStamped) -> None:
        for one in static:
            self.buffer.set_transform_static(one, "test")

    def drives(self, *poses: tuple[float, float]) -> None:
        """base_link in odom: x at a time."""
        for seconds, x in poses:
            self.buffer.set_transform(
                transform("odom", "base_link", (x, 0.0, 0.0), seconds=seconds), "test"
            )


@pytest.fixture
def rig(tf2: ModuleType) -> Iterator[Rig]:
    rig = Rig(tf2)
    rig.knows(
        transform("base_link", "lidar", (0.0, 0.0, 1.0)),
        transform("base_link", "camera", (0.2, 0.0, 0.5), OPTICAL),
    )
    yield rig
    rig.transforms.close()
    rig.node.destroy_node()


def test_a_rigid_sensor_by_hand(rig: Rig) -> None:
    found = rig.transforms.lookup(at(1.0, "camera"), at(1.0, "lidar"), "", 0.0)
    assert not found.follows_motion
    # 3 m ahead of the LiDAR, which is 0.2 m behind and 0.5 m above the camera.
    point = found.T_camera_sensor @ [3.0, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(point[:3], [0.0, -0.5, 2.8], atol=1e-9)
    left = found.T_camera_sensor @ [3.0, 1.0, 0.0, 1.0]
    np.testing.assert_allclose(left[:3], [-1.0, -0.5, 2.8], atol=1e-9)


def test_the_robot_s_motion_between_the_stamps_is_undone(rig: Rig) -> None:
    rig.drives((1.0, 0.0), (2.0, 2.0))
    # Seen at 1.2 s from x = 0.4; at the image's 1.5 s the robot is at x = 1.0, 0.6 m nearer.
    found = rig.transforms.lookup(at(1.5, "camera"), at(1.2, "lidar"), "odom", 0.0)
    assert found.follows_motion
    point = found.T_camera_sensor @ [3.0, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(point[:3], [0.0, -0.5, 2.8 - 0.6], atol=1e-6)
    assert rig.said == []


def test_without_the_fixed_frame_the_robot_is_taken_to_stand_still(rig: Rig) -> None:
    found = rig.transforms.lookup(at(1.5, "camera"), at(1.2, "lidar"), "odom", 0.0)
    assert not found.follows_motion
    np.testing.assert_allclose(found.T_camera_sensor[:3, 3], [0.0, -0.5, -0.2], atol=1e-9)
    (line,) = rig.said
    assert "no transform from 'odom' to 'camera'" in line
    assert "sensor_depth.fixed_frame" in line


def test_odometry_that_has_ended_does_not_silence_a_sensor_that_is_fixed(rig: Rig) -> None:
    rig.drives((1.0, 0.0), (2.0, 2.0))
    found = rig.transforms.lookup(at(5.0, "camera"), at(4.9, "lidar"), "odom", 0.0)
    assert not found.follows_motion
    np.testing.assert_allclose(found.T_camera_sensor[:3, 3], [0.0, -0.5, -0.2], atol=1e-9)
    (line,) = rig.said
    assert "'odom' to 'camera' does not reach the stamps" in line
    assert "as if the robot stood still" in line


def test_a_time_that_tf_does_not_know_is_an_error(rig: Rig) -> None:
    """A sensor whose own place changes."""
    rig.drives((1.0, 0.0), (2.0, 2.0))
    for seconds in (1.0, 2.0):
        turning = transform("base_link", "turret", (0.0, 0.0, 1.0), seconds=seconds)
        rig.buffer.set_transform(turning, "test")
    with pytest.raises(TransformError, match="no transform from 'turret' to 'camera'") as told:
        rig.transforms.lookup(at(5.0, "camera"), at(1.2, "turret"), "odom", 0.0)
    assert "T_camera_sensor" in str(told.value)
    assert "\n" not in str(told.value)


def test_after_a_jump_back_in_time_the_new_transforms_hold_and_the_static_stay(rig: Rig) -> None:
    rig.drives((100.0, 50.0), (101.0, 60.0))
    rig.transforms.forget()
    rig.drives((1.0, 0.0), (2.0, 2.0))  # 98 s older: tf2 keeps 10 s and refuses what is before
    found = rig.transforms.lookup(at(1.5, "camera"), at(1.2, "lidar"), "odom", 0.0)
    assert found.follows_motion
    np.testing.assert_allclose(found.T_camera_sensor[:3, 3], [0.0, -0.5, -0.2 - 0.6], atol=1e-6)
    before = rig.transforms.lookup(at(100.5, "camera"), at(100.2, "lidar"), "odom", 0.0)
    assert not before.follows_motion


def test_an_empty_frame_id_is_told(rig: Rig) -> None:
    with pytest.raises(TransformError, match="the sensor's frame_id is empty"):
        rig.transforms.lookup(at(1.0, "camera"), at(1.0, ""), "", 0.0)
    with pytest.raises(TransformError, match="the image's frame_id is empty"):
        rig.transforms.pose(at(1.0, ""), "base_link", 0.0, "help")


def test_the_camera_s_pose(rig: Rig) -> None:
    pose = rig.transforms.pose(at(1.0, "camera"), "base_link", 0.0, "help")
    np.testing.assert_allclose(pose, rigid_transform((0.2, 0.0, 0.5), OPTICAL), atol=1e-9)
    with pytest.raises(TransformError, match=r"to 'nowhere' .* or help"):
        rig.transforms.pose(at(1.0, "camera"), "nowhere", 0.0, "help")


def test_closing_forgets_and_may_be_repeated(rig: Rig) -> None:
    rig.transforms.close()
    rig.transforms.close()
    with pytest.raises(TransformError):
        rig.transforms.lookup(at(1.0, "camera"), at(1.0, "lidar"), "", 0.0)


@pytest.mark.skipif(IS_REAL, reason="this ROS installation has tf2_ros")
def test_without_tf2_the_parameter_is_named() -> None:
    transforms = Transforms(Node("alone"), print)
    with pytest.raises(TransformError, match=r"tf2_ros cannot be imported .* T_camera_sensor"):
        transforms.lookup(at(1.0, "camera"), at(1.0, "lidar"), "", 0.0)
    transforms.close()


def test_the_mounting_of_the_camera_comes_from_tf_or_parameters(rig: Rig) -> None:
    tell = Tell()
    read = MountingReader(rig.transforms, tell)
    camera = at(1.0, "camera")
    assert read(camera, GroundSettings()) is None
    from_tf = read(camera, GroundSettings(frame="base_link", camera_height=9.0))
    assert from_tf is not None
    assert from_tf.height_m == pytest.approx(0.5)
    np.testing.assert_allclose(from_tf.up, [0, -1, 0], atol=1e-9)
    tilted = read(camera, GroundSettings(camera_height=1.5, camera_tilt=np.pi / 6))
    assert tilted is not None
    assert tilted.height_m == 1.5
    np.testing.assert_allclose(tilted.up, [0, -0.8660254, -0.5], atol=1e-6)
    assert tell.lines == []
    assert read(camera, GroundSettings(frame="nowhere")) is None
    assert "no transform from 'camera' to 'nowhere'" in tell.lines[0]
    rig.knows(transform("base_link", "ceiling", (0.0, 0.0, 3.0)))
    assert read(camera, GroundSettings(frame="ceiling")) is None
    assert "'ground.frame' is ceiling, but the camera is at height -2.50 m" in tell.lines[1]


class Tell:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, line: str) -> None:
        self.lines.append(line)

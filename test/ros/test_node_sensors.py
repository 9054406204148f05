"""Metres from whatever the robot has, over real DDS: depth image, LiDAR, scan, floor."""

from __future__ import annotations

import array
from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from helpers import stand_in_tf2
from helpers.ros_harness import (
    HEIGHT,
    SCALE,
    SHIFT,
    WIDTH,
    Robot,
    StandIn,
    ramp,
    ros_context,
    wait_until,
)
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from d3_ros.geometry.camera import ray_map
from d3_ros.geometry.rigid import rigid_transform
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.diagnostics.scale_report import STATES, read_scale_message
from d3_ros.ros.topics import DEPTH, NORMALS, RELATIVE
from d3_ros.ros.topics import SCALE as SCALE_TOPIC
from d3_ros.types import CameraIntrinsics

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

CAMERA = CameraIntrinsics(WIDTH, HEIGHT, 50.0, 50.0, 32.0, 24.0)  # as Robot's camera_info
# A LiDAR 0.3 m behind and 0.2 m above the camera, x forward, z up.
EXTRINSIC = "0 -0.2 -0.3 0.5 -0.5 0.5 0.5"
FROM_LIDAR = rigid_transform((0.0, -0.2, -0.3), (0.5, -0.5, 0.5, 0.5))
IMAGE, POINTS, SCAN = 1, 2, 4
OUTPUTS = (RELATIVE, DEPTH, SCALE_TOPIC)


def columns_ramp() -> np.ndarray:
    """Relative depth that grows from left to right, as a planar scan can tell it apart."""
    return np.tile(np.linspace(0.1, 0.9, WIDTH, dtype=np.float32), (HEIGHT, 1))


def truth(relative: np.ndarray) -> np.ndarray:
    return SCALE * relative + SHIFT


def in_lidar_frame(relative: np.ndarray, step: int = 4) -> np.ndarray:
    """(N, 3) points of every `step`th pixel of the true surface."""
    points = (ray_map(CAMERA) * truth(relative)[..., None])[::step, ::step].reshape(-1, 3)
    return (points - FROM_LIDAR[:3, 3]) @ FROM_LIDAR[:3, :3]


def cloud(header: Header, points: np.ndarray, frame: str = "lidar") -> PointCloud2:
    message = PointCloud2(height=1, width=len(points), point_step=16, row_step=16 * len(points))
    message.header = Header(stamp=header.stamp, frame_id=frame)
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(("x", "y", "z", "intensity"))
    ]
    rows = np.zeros((len(points), 4), np.float32)
    rows[:, :3] = points
    message.data = array.array("B", rows.tobytes())
    return message


def scan_of_row(header: Header, relative: np.ndarray) -> LaserScan:
    """The scan of a scanner in the camera's own place, along the optical axis' row."""
    scan = LaserScan(angle_min=-0.5, angle_increment=0.01, range_min=0.1, range_max=30.0)
    scan.header = Header(stamp=header.stamp, frame_id="scanner")
    angles = -0.5 + 0.01 * np.arange(101)
    columns = CAMERA.cx - CAMERA.fx * np.tan(angles)  # y left is -x right
    z = np.interp(columns, np.arange(WIDTH), truth(relative)[24])
    scan.ranges = array.array("f", z / np.cos(angles))
    return scan


def told(robot: Robot, header: Header) -> dict[str, float]:
    """The scale that was published for the frame with this header, once its depth is there."""
    robot.wait_for(RELATIVE, header)
    count = len(robot.received[RELATIVE])
    wait_until(lambda: len(robot.received[SCALE_TOPIC]) >= count, "its scale")
    return read_scale_message(robot.received[SCALE_TOPIC][count - 1])


def metres(robot: Robot, header: Header) -> np.ndarray:
    message = robot.wait_for(DEPTH, header)
    return np.frombuffer(message.data, np.float32).reshape(HEIGHT, WIDTH)


@pytest.fixture
def robot(ros: None) -> Iterator[Robot]:
    parameters = {
        "sensor_depth.points.T_camera_sensor": EXTRINSIC,
        "sensor_depth.scan.T_camera_sensor": "0 0 0 0.5 -0.5 0.5 0.5",
        "input.wait": 0.5,
        "scale.hold_s": 0.25,
    }
    with Robot(topics=OUTPUTS, parameters=parameters) as robot:
        yield robot


def test_a_lidar_gives_metres(robot: Robot) -> None:
    image = robot.new_image()
    robot.sense("points", cloud(image.header, in_lidar_frame(ramp())))
    robot.show(image, sensor=None)
    row = told(robot, image.header)
    assert (STATES[int(row["state"])], row["sources"]) == ("measured", POINTS)
    assert row["scale"] == pytest.approx(SCALE, rel=0.02)
    np.testing.assert_allclose(metres(robot, image.header), truth(ramp()), rtol=0.02)


def test_an_organised_cloud_with_a_wrong_row_step_gives_metres(robot: Robot) -> None:
    image = robot.new_image()
    organised = cloud(image.header, in_lidar_frame(ramp()))
    organised.height, organised.width = 12, organised.width // 12
    organised.row_step = 0
    robot.sense("points", organised)
    robot.show(image, sensor=None)
    row = told(robot, image.header)
    assert (STATES[int(row["state"])], row["sources"]) == ("measured", POINTS)
    robot.wait_for_line("row_step 0 contradicts the length of the data")


def test_a_planar_scan_gives_metres(robot: Robot) -> None:
    robot.network.relative = columns_ramp()
    image = robot.new_image()
    robot.sense("scan", scan_of_row(image.header, columns_ramp()))
    robot.show(image, sensor=None)
    row = told(robot, image.header)
    assert (STATES[int(row["state"])], row["sources"]) == ("measured", SCAN)
    # In the columns it reaches. Of the readings on one pixel the nearest wins, so a point is off by
    # up to half a pixel, which is 2.5 cm on this ramp.
    seen = (24, slice(6, 59))
    np.testing.assert_allclose(
        metres(robot, image.header)[seen], truth(columns_ramp())[seen], atol=0.026, rtol=0.01
    )


def test_several_sensors_work_together_and_are_named(robot: Robot) -> None:
    image = robot.new_image()
    robot.sense("points", cloud(image.header, in_lidar_frame(ramp(), step=3)))
    robot.sense("image", robot.new_sensor_depth(image))
    robot.show(image, sensor=None)
    row = told(robot, image.header)
    assert (STATES[int(row["state"])], row["sources"]) == ("measured", IMAGE + POINTS)
    arrays: list[DiagnosticArray] = []
    robot.peer.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 5)

    def named() -> bool:
        return any(
            "measured by image and points" in status.message
            for array_ in arrays
            for status in array_.status
        )

    wait_until(named, "the sensors in the diagnostics")


def test_a_sensor_that_stops_and_returns(robot: Robot) -> None:
    """measured, held for as long as scale.hold_s says (images are 0.1 s apart), relative, back."""
    states = []
    for sensor_works in (True, False, False, False, False, True):
        image = robot.new_image()
        if sensor_works:
            robot.sense("points", cloud(image.header, in_lidar_frame(ramp())))
        robot.show(image, sensor=None)
        row = told(robot, image.header)
        states.append(STATES[int(row["state"])])
        if states[-1] == "held":
            assert row["expires_s"] == pytest.approx(0.25 - row["age_s"])
        assert bool(robot.answers(DEPTH, image.header)) == (states[-1] != "relative")
    assert states == ["measured", "held", "held", "relative", "relative", "measured"]


def test_the_status_says_how_late_a_sensor_is() -> None:
    with Robot(topics=OUTPUTS) as robot:
        arrays: list[DiagnosticArray] = []
        robot.peer.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 5)
        early = robot.new_image()
        robot.sense("image", robot.new_sensor_depth(early))
        for _ in range(2):
            image = robot.new_image()
        robot.show(image, sensor=None)
        assert STATES[int(told(robot, image.header)["state"])] == "relative"
        words = f"'{robot.namespace}/sensor_depth/image' is 0.20 s before the image"

        def said() -> bool:
            return any(words in s.message for array_ in arrays for s in array_.status)

        wait_until(said, f"{words} in the diagnostics")


def test_a_bad_cloud_is_told_and_survived(robot: Robot) -> None:
    image = robot.new_image()
    bad = cloud(image.header, in_lidar_frame(ramp()))
    bad.fields = bad.fields[:2]
    robot.sense("points", bad)
    robot.show(image, sensor=None)
    assert told(robot, image.header)["sources"] == 0
    robot.wait_for_line(f"'{robot.namespace}/sensor_depth/points' has no field z")
    image = robot.new_image()
    robot.sense("points", cloud(image.header, in_lidar_frame(ramp())))
    robot.show(image, sensor=None)
    robot.wait_for(DEPTH, image.header)


def test_points_need_a_calibrated_camera(robot: Robot) -> None:
    arrays: list[DiagnosticArray] = []
    robot.peer.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 5)
    image = robot.new_image()
    robot.sense("points", cloud(image.header, in_lidar_frame(ramp())))
    robot.show(image, sensor=None, camera_info=None)
    assert STATES[int(told(robot, image.header)["state"])] == "relative"
    wait_until(
        lambda: any("without calibration" in s.message for array_ in arrays for s in array_.status),
        "the reason in the diagnostics",
    )


def test_extrinsics_come_from_tf(monkeypatch: pytest.MonkeyPatch) -> None:
    tf2 = stand_in_tf2.install(monkeypatch)
    with Robot(topics=OUTPUTS, parameters={"input.wait": 0.5}) as robot:
        image = robot.new_image()
        robot.sense("points", cloud(image.header, in_lidar_frame(ramp())))
        robot.show(image, sensor=None)
        assert STATES[int(told(robot, image.header)["state"])] == "relative", "tf knows nothing yet"
        (buffer,) = tf2.TransformListener.buffers
        known = TransformStamped(child_frame_id="lidar")
        known.header.frame_id = "camera_optical_frame"
        t, q = known.transform.translation, known.transform.rotation
        t.x, t.y, t.z = 0.0, -0.2, -0.3
        q.x, q.y, q.z, q.w = 0.5, -0.5, 0.5, 0.5
        buffer.set_transform_static(known, "test")
        image = robot.new_image()
        robot.sense("points", cloud(image.header, in_lidar_frame(ramp())))
        robot.show(image, sensor=None)
        assert STATES[int(told(robot, image.header)["state"])] == "measured"
        np.testing.assert_allclose(metres(robot, image.header), truth(ramp()), rtol=0.02)
        assert robot.change("deactivate")
        assert robot.change("cleanup")
        assert tf2.TransformListener.buffers == [], "tf is listened to no more"


def floor_scene(height_m: float) -> tuple[StandIn, np.ndarray]:
    """A level camera over a floor that ends at a wall: the network, and the true z-depth."""
    down = ray_map(CAMERA)[..., 1]
    depth = np.minimum(height_m / np.maximum(down, 1e-6), 4.0).astype(np.float32)
    network = StandIn()
    network.relative = ((depth - 0.5) / 4.0).astype(np.float32)
    on_floor = height_m / np.maximum(down, 1e-6) < 4.0
    network.normals = np.where(
        on_floor[..., None], np.float32([0, -1, 0]), np.float32([0, 0, -1])
    ).astype(np.float32)
    return network, depth


def test_a_camera_alone_takes_its_scale_from_the_floor() -> None:
    network, depth = floor_scene(0.5)
    parameters = {"ground.camera_height": 0.5, "scale.hold_s": 0.15}
    with Robot(network, topics=OUTPUTS, parameters=parameters) as robot:
        header = robot.show(sensor=None).header
        row = told(robot, header)
        assert (STATES[int(row["state"])], row["sources"]) == ("ground", 0)
        np.testing.assert_allclose(metres(robot, header), depth, rtol=0.01)
        # Where a sensor measures it goes before, and holds for a while.
        states = []
        for sensor in (depth, None, None):
            image = robot.new_image()
            if sensor is not None:
                millimetres = np.rint(sensor * 1000).astype(np.uint16)
                robot.sense("image", ImageBuffer().fill(image.header, millimetres, "16UC1"))
            robot.show(image, sensor=None)
            states.append(STATES[int(told(robot, image.header)["state"])])
        assert states == ["measured", "held", "ground"]
        # A camera that looks up sees no floor.
        network.normals = np.tile(np.float32([0, 0, -1]), (HEIGHT, WIDTH, 1))
        for _ in range(3):
            header = robot.show(sensor=None).header
            row = told(robot, header)
        assert STATES[int(row["state"])] == "relative"
        assert not robot.answers(DEPTH, header)


def test_the_floor_needs_normals_and_says_so() -> None:
    network, _ = floor_scene(0.5)
    network.tasks = ("depth",)
    with Robot(network, topics=OUTPUTS, parameters={"ground.camera_height": 0.5}) as robot:
        arrays: list[DiagnosticArray] = []
        robot.peer.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 5)
        assert STATES[int(told(robot, robot.show(sensor=None).header)["state"])] == "relative"
        words = "no sensor depth; floor: the model predicts no normals"
        wait_until(
            lambda: any(words in s.message for array_ in arrays for s in array_.status), words
        )


def test_the_floor_costs_no_normals_while_a_sensor_measures() -> None:
    network, _ = floor_scene(0.5)
    network.relative = ramp()
    with Robot(network, topics=OUTPUTS, parameters={"ground.camera_height": 0.5}) as robot:
        for _ in range(2):
            told(robot, robot.show().header)
        assert network.asked == [("depth",), ("depth",)]
        robot.listen(NORMALS)
        robot.wait_until_connected()
        robot.wait_for(NORMALS, robot.show().header)
        assert network.asked[-1] == ("depth", "normals")


def test_measured_pixels_pass_through_where_they_agree() -> None:
    with Robot(topics=OUTPUTS, parameters={"fusion.enabled": True}) as robot:
        depth = np.zeros((HEIGHT, WIDTH), np.float32)
        depth[::4, ::4] = truth(ramp())[::4, ::4] * 1.01  # 1 % off what the fit can follow
        depth[::8, ::8] = truth(ramp())[::8, ::8]
        depth[4, 4] *= 3.0
        image = robot.new_image()
        message = Image(height=HEIGHT, width=WIDTH, encoding="32FC1", step=4 * WIDTH)
        message.header, message.data = image.header, array.array("B", depth.tobytes())
        robot.sense("image", message)
        robot.show(image, sensor=None)
        row = told(robot, image.header)
        published = metres(robot, image.header)
        agrees = depth > 0
        agrees[4, 4] = False
        np.testing.assert_array_equal(published[agrees], depth[agrees])
        assert abs(published[4, 4] / truth(ramp())[4, 4] - 1) < 0.05
        assert (row["fused_pixels"], row["disagreeing_pixels"]) == (agrees.sum(), 1)
        assert robot.node.set_parameters([Parameter("fusion.enabled", value=False)])[0].successful
        header = robot.show().header
        assert told(robot, header)["fused_pixels"] == 0

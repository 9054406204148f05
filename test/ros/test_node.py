"""Images in, messages out, over real DDS: every output, only what is wanted, the newest first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from helpers.ros_harness import (
    HEIGHT,
    SCALE,
    SHIFT,
    WIDTH,
    Robot,
    StandIn,
    ramp,
    ros_context,
)
from helpers.waiting import PATIENCE_S, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from d3_ros.ros.node.diagnostics.scale_report import STATES
from d3_ros.ros.topics import (
    DEPTH,
    DEPTH_COLOR,
    DEPTH_INFO,
    NORMALS,
    NORMALS_COLOR,
    POINTS,
    RELATIVE,
    TOPICS,
)

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)


def pixels(message: object, dtype: str, channels: int = 1) -> np.ndarray:
    shape = (message.height, message.width) + ((channels,) if channels > 1 else ())
    return np.frombuffer(message.data, dtype).reshape(shape)


@pytest.fixture(scope="module")
def robot(ros: None) -> Iterator[Robot]:
    with Robot(parameters={"color.max_rate": 100.0, "input.wait": 0.5}) as robot:
        yield robot


def test_every_output_has_the_image_s_header_size_and_encoding(robot: Robot) -> None:
    time.sleep(0.02)  # color.max_rate is 100 Hz
    header = robot.show().header
    encodings = {
        RELATIVE: ("32FC1", 4),
        DEPTH: ("32FC1", 4),
        NORMALS: ("32FC3", 12),
        DEPTH_COLOR: ("rgb8", 3),
        NORMALS_COLOR: ("rgb8", 3),
    }
    for topic, (encoding, pixel_size) in encodings.items():
        message = robot.wait_for(topic, header)
        assert (message.width, message.height) == (WIDTH, HEIGHT), topic
        assert (message.encoding, message.step) == (encoding, WIDTH * pixel_size), topic
        assert len(message.data) == message.step * HEIGHT, topic
    wall = pixels(robot.wait_for(NORMALS_COLOR, header), "u1", 3)
    assert wall[5, 5].tolist() == [128, 128, 255]
    info = robot.wait_for(DEPTH_INFO, header)
    assert (info.width, info.height, list(info.k)[:3]) == (WIDTH, HEIGHT, [50.0, 0.0, 32.0])
    cloud = robot.wait_for(POINTS, header)
    assert (cloud.width, cloud.height, cloud.point_step) == (WIDTH, HEIGHT, 16)


def test_the_values_are_those_of_the_network_at_the_sensor_s_scale(robot: Robot) -> None:
    header = robot.show().header
    relative = pixels(robot.wait_for(RELATIVE, header), "<f4")
    np.testing.assert_array_equal(relative, ramp())
    metric = pixels(robot.wait_for(DEPTH, header), "<f4")
    np.testing.assert_allclose(metric, SCALE * ramp() + SHIFT, rtol=0.01)
    normals = pixels(robot.wait_for(NORMALS, header), "<f4", 3)
    assert np.array_equal(normals[10, 10], [0, 0, -1])
    points = np.frombuffer(robot.wait_for(POINTS, header).data, "<f4").reshape(HEIGHT, WIDTH, 4)
    u = np.arange(WIDTH)
    np.testing.assert_array_equal(points[..., 2], metric)
    np.testing.assert_allclose(points[..., 0], (u - 32.0) / 50.0 * metric, rtol=1e-5, atol=1e-6)
    assert points[0, 0, 3:].tobytes() == bytes([50, 100, 200, 0])


def test_the_scale_is_told(robot: Robot) -> None:
    message = robot.scale_after(robot.show)
    row = dict(zip(message.layout.dim[0].label.split(), message.data, strict=True))
    assert STATES[int(row["state"])] == "measured"
    assert row["scale"] == pytest.approx(SCALE, rel=0.02)
    assert 0 < row["abs_rel"] < 0.03


@pytest.mark.parametrize("reliability", list(ReliabilityPolicy)[1:3])
def test_consumers_with_either_reliability_are_served(
    robot: Robot, reliability: ReliabilityPolicy
) -> None:
    offered = [
        info.qos_profile
        for topic in (DEPTH, POINTS, RELATIVE)
        for info in robot.peer.get_publishers_info_by_topic(
            topic.replace("~", f"{robot.namespace}/predictor")
        )
    ]
    assert [qos.reliability for qos in offered] == [ReliabilityPolicy.RELIABLE] * 3
    subscription = robot.listen(DEPTH, QoSProfile(depth=5, reliability=reliability))
    wait_until(lambda: subscription.get_publisher_count(), "the two find each other")
    before = len(robot.received[DEPTH])
    header = robot.show().header
    robot.wait_for(DEPTH, header)
    wait_until(lambda: len(robot.received[DEPTH]) >= before + 2, "both subscriptions got it")
    robot.peer.destroy_subscription(subscription)


def test_inputs_are_best_effort_and_keep_one(robot: Robot) -> None:
    for topic in ("image", "camera_info", "sensor_depth/image"):
        (info,) = robot.peer.get_subscriptions_info_by_topic(f"{robot.namespace}/{topic}")
        assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert info.qos_profile.durability == DurabilityPolicy.VOLATILE


def test_a_late_sensor_depth_is_waited_for(robot: Robot) -> None:
    def show_late() -> None:
        image = robot.show(sensor=None)
        robot.sensor.publish(robot.new_sensor_depth(image))

    robot.scale_after(robot.show)  # sensor depth has been seen: there is something to wait for
    message = robot.scale_after(show_late)
    assert STATES[int(message.data[0])] == "measured"


def test_resetting_the_scale_forgets_it(robot: Robot) -> None:
    robot.wait_for(DEPTH, robot.show().header)

    image = robot.new_image()

    def reset_and_show() -> None:
        assert robot._call(Trigger, "reset_scale", Trigger.Request()).success
        robot.show(image, sensor=None)

    message = robot.scale_after(reset_and_show)
    assert STATES[int(message.data[0])] == "relative"
    assert not robot.answers(DEPTH, image.header)


def test_parameters_are_followed_while_running(robot: Robot) -> None:
    from rclpy.parameter import Parameter

    change = robot.node.set_parameters_atomically(
        [Parameter("depth.encoding", value="16UC1"), Parameter("points.normals", value=True)]
    )
    assert change.successful, change.reason
    header = robot.show().header
    depth = robot.wait_for(DEPTH, header)
    assert depth.encoding == "16UC1"
    middle = pixels(depth, "<u2")[24, 32] / 1000.0
    assert middle == pytest.approx(SCALE * ramp()[24, 32] + SHIFT, rel=0.02)
    cloud = robot.wait_for(POINTS, header)
    assert (cloud.point_step, cloud.fields[4].name) == (32, "normal_x")
    robot.node.set_parameters(
        [Parameter("depth.encoding", value="32FC1"), Parameter("points.normals", value=False)]
    )


def test_without_sensor_depth_metric_topics_are_silent() -> None:
    with Robot(topics=(RELATIVE, DEPTH, DEPTH_INFO, POINTS, NORMALS)) as robot:
        for _ in range(3):
            header = robot.show(sensor=None).header
            robot.wait_for(NORMALS, header)
        assert len(robot.received[RELATIVE]) == 3
        for topic in (DEPTH, DEPTH_INFO, POINTS):
            assert not robot.received[topic]


def test_a_model_without_normals_gets_them_from_depth() -> None:
    with Robot(StandIn(tasks=("depth",)), topics=(NORMALS, POINTS)) as robot:
        normals = pixels(robot.wait_for(NORMALS, robot.show().header), "<f4", 3)
        assert robot.network.asked == [("depth",)]
        inner = normals[10:-10, 10:-10].reshape(-1, 3)
        np.testing.assert_allclose(np.linalg.norm(inner, axis=1), 1.0, rtol=1e-4)
        # The ramp is a floor that rises towards the far end: up is -y, and it faces the camera.
        assert (inner[:, 1] < 0).all()
        assert (inner[:, 2] < 0).all()


def test_nothing_is_computed_that_nobody_subscribes_to() -> None:
    with Robot(topics=()) as robot:
        for count in range(3):
            robot.show()
            snapshot = robot.settle(count + 1)
        assert (snapshot.idle, robot.network.asked) == (3, [])
        subscription = robot.listen(RELATIVE)
        robot.wait_until_connected()
        robot.wait_for(RELATIVE, robot.show().header)
        assert robot.network.asked == [("depth",)]
        robot.listen(NORMALS)
        robot.wait_until_connected()
        robot.wait_for(NORMALS, robot.show().header)
        assert robot.network.asked == [("depth",), ("depth", "normals")]
        assert set(robot.received) == {RELATIVE, NORMALS}
        robot.peer.destroy_subscription(subscription)


def test_colour_images_are_capped() -> None:
    with Robot(topics=(DEPTH_COLOR, RELATIVE), parameters={"color.max_rate": 0.1}) as robot:
        for _ in range(4):
            robot.wait_for(RELATIVE, robot.show().header)
        assert len(robot.received[DEPTH_COLOR]) == 1
        assert len(robot.received[RELATIVE]) == 4


def test_the_newest_frame_wins_and_every_frame_is_counted() -> None:
    network = StandIn()
    go_on = threading.Event()
    network.before = lambda: go_on.wait(PATIENCE_S) and None
    with Robot(network, topics=(RELATIVE,)) as robot:
        first = robot.show()
        wait_until(lambda: network.asked, "the first image is in the network")
        for count in range(5):
            last = robot.show()
            wait_until(lambda n=count: robot.statistics.snapshot().received == n + 2, "reception")
        go_on.set()
        robot.wait_for(RELATIVE, last.header)
        snapshot = robot.settle(6)
        assert (snapshot.received, snapshot.published, snapshot.dropped) == (6, 2, 4)
        stamps = [message.header for message in robot.received[RELATIVE]]
        assert stamps == [first.header, last.header]


def test_diagnostics_come_once_a_second_and_status_is_latched() -> None:
    with Robot(topics=(RELATIVE,)) as robot:
        arrays: list[DiagnosticArray] = []
        statuses: list[DiagnosticStatus] = []
        name = f"{robot.namespace[1:]}/predictor"

        def keep_own(array: DiagnosticArray) -> None:
            if array.status[0].name.startswith(name):
                arrays.append(array)

        robot.peer.create_subscription(DiagnosticArray, "/diagnostics", keep_own, 5)
        header = robot.show().header
        robot.wait_for(RELATIVE, header)
        wait_until(lambda: arrays and b"\0" in [s.level for s in arrays[-1].status], "OK")
        seen = len(arrays)
        wait_until(lambda: len(arrays) >= seen + 2, "one a second")
        assert (arrays[-1].header.stamp.sec - arrays[-2].header.stamp.sec) in (0, 1, 2)
        frames, scale, network = arrays[-1].status
        tasks = [f"{name}: {task}" for task in ("frames", "scale", "network")]
        assert [frames.name, scale.name, network.name] == tasks
        assert network.message == f"fp32, {HEIGHT}x{WIDTH} pixels"
        assert frames.hardware_id == "d3_nano"
        values = {entry.key: entry.value for entry in frames.values}
        assert (values["received (frames)"], values["published (frames)"]) == ("1", "1")
        assert float(values["latency from reception p50 (ms)"]) > 0
        assert float(values["network p50 (ms)"]) >= 0
        assert {entry.key: entry.value for entry in scale.values}["state"] == "measured"
        # Latched: who comes later hears it, too.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        robot.peer.create_subscription(
            DiagnosticStatus, "predictor/status", statuses.append, latched
        )
        wait_until(lambda: statuses, "the latched status")
        assert (statuses[-1].name, statuses[-1].hardware_id) == (name, "d3_nano")
        assert "; " in statuses[-1].message, "the flow of frames and the scale, both"


def test_topics_of_the_design_are_all_there() -> None:
    assert set(TOPICS) == {
        "~/depth/image",
        "~/depth/image/compressedDepth",
        "~/depth/camera_info",
        "~/depth/uncertainty",
        "~/depth/relative",
        "~/rgb/image",
        "~/rgb/camera_info",
        "~/normals/image",
        "~/points",
        "~/points/nav",
        "~/depth/color",
        "~/depth/color/compressed",
        "~/normals/color",
        "~/normals/color/compressed",
        "~/scale",
    }

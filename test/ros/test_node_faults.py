"""Whatever comes in, the node lives, says what is wrong in one clear line, and goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from helpers.ros_harness import HEIGHT, WIDTH, Robot, StandIn, ros_context, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from d3_ros.errors import NonFiniteError
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.topics import DEPTH, DEPTH_INFO, NORMALS, POINTS, RELATIVE

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

OUTPUTS = (RELATIVE, DEPTH, DEPTH_INFO, POINTS, NORMALS)


@pytest.fixture
def robot(ros: None) -> Iterator[Robot]:
    with Robot(topics=OUTPUTS) as robot:
        yield robot


def depth_image(pixels: np.ndarray, encoding: str = "16UC1") -> Image:
    return ImageBuffer().fill(Image().header, pixels, encoding)


def is_alive(robot: Robot) -> None:
    """The next good frame is answered on every topic."""
    header = robot.show().header
    for topic in OUTPUTS:
        robot.wait_for(topic, header)


def spoil_encoding(image: Image) -> None:
    image.encoding = "16UC1"


def spoil_data(image: Image) -> None:
    del image.data[-10:]


def spoil_step(image: Image) -> None:
    image.step = 3


def spoil_size(image: Image) -> None:
    image.width = 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_encoding, ["16UC1", "depth image"]),
        (spoil_data, ["needs 9216 bytes of data, got 9206"]),
        (spoil_step, ["step of at least 192 bytes, got 3"]),
        (spoil_size, ["empty image"]),
    ],
)
def test_a_bad_image_is_refused(
    robot: Robot, spoil: Callable[[Image], None], words: list[str]
) -> None:
    for count in range(3):
        image = robot.new_image()
        spoil(image)
        robot.show(image)
        robot.settle(count + 1)
    line = robot.wait_for_line(f"'{robot.namespace}/image'", *words)
    assert robot.said(*words) == [line], "said more than once"
    snapshot = robot.statistics.snapshot()
    assert (snapshot.refused, snapshot.published, robot.network.asked) == (3, 0, [])
    assert words[0] in snapshot.fault
    is_alive(robot)
    assert robot.statistics.snapshot().fault == ""


def test_without_camera_info_there_is_depth_and_no_cloud(robot: Robot) -> None:
    for _ in range(2):
        header = robot.show(camera_info=None).header
        robot.wait_for(DEPTH, header)
        robot.wait_for(NORMALS, header)
    robot.wait_for_line("no camera_info on", f"'{robot.namespace}/camera_info'")
    assert len(robot.said("no camera_info on")) == 1
    assert not robot.received[POINTS]
    assert not robot.received[DEPTH_INFO]
    is_alive(robot)


def test_an_uncalibrated_camera_has_no_cloud(robot: Robot) -> None:
    for _ in range(2):
        image = robot.new_image()
        info = CameraInfo(header=image.header, width=WIDTH, height=HEIGHT)
        robot.show(image, camera_info=info)
        robot.wait_for(DEPTH, image.header)
    robot.wait_for_line("uncalibrated", "K[0] = 0", f"'{robot.namespace}/camera_info'")
    assert len(robot.said("uncalibrated")) == 1
    assert not robot.received[POINTS]
    is_alive(robot)


def test_a_camera_info_of_another_size_is_told_with_both_sizes(robot: Robot) -> None:
    image = robot.new_image()
    info = robot.new_camera_info(image)
    info.width, info.height = 640, 480
    robot.show(image, camera_info=info)
    robot.wait_for(DEPTH, image.header)
    robot.wait_for_line(f"'{robot.namespace}/camera_info'", "640 x 480", "64 x 48")
    assert not robot.received[POINTS]
    is_alive(robot)


@pytest.mark.parametrize(
    ("sensor", "words"),
    [
        (depth_image(np.ones((30, 30), np.uint16)), ["30 x 30", "64 x 48", "aspect"]),
        (depth_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb8"), ["'rgb8'", "not depth"]),
    ],
)
def test_bad_sensor_depth_is_not_used(robot: Robot, sensor: Image, words: list[str]) -> None:
    image = robot.new_image()
    sensor.header = image.header
    robot.show(image, sensor=sensor)
    robot.wait_for(RELATIVE, image.header)
    robot.wait_for_line(f"'{robot.namespace}/sensor_depth/image'", *words)
    assert not robot.received[DEPTH]
    is_alive(robot)


def test_sensor_depth_of_another_resolution_is_used(robot: Robot) -> None:
    image = robot.new_image()
    fine = robot.new_sensor_depth(image)
    pixels = np.frombuffer(fine.data, np.uint16).reshape(HEIGHT, WIDTH)
    coarse = ImageBuffer().fill(image.header, np.ascontiguousarray(pixels[::2, ::2]), "16UC1")
    robot.show(image, sensor=coarse)
    robot.wait_for(DEPTH, image.header)


def test_sensor_depth_of_another_time_is_not_used(robot: Robot) -> None:
    image = robot.new_image()
    late = robot.new_sensor_depth(robot.new_image())  # 0.1 s later, the tolerance is 0.05 s
    robot.show(image, sensor=late)
    robot.wait_for(RELATIVE, image.header)
    assert not robot.received[DEPTH]


def test_of_a_non_finite_network_nothing_is_published(robot: Robot) -> None:
    def fail() -> None:
        raise NonFiniteError("the network's depth is not finite in fp16: use dtype bf16 or fp32")

    robot.network.before = fail
    arrays: list[DiagnosticArray] = []
    robot.peer.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 5)
    for count in range(2):
        robot.show()
        robot.settle(count + 1)
    robot.wait_for_line("not finite in fp16")
    assert len(robot.said("not finite")) == 1
    assert not any(robot.received.values())

    def is_error() -> bool:
        return any(
            status.level == b"\2" and "not finite" in status.message
            for array in arrays
            for status in array.status
        )

    robot.show()
    wait_until(is_error, "ERROR in the diagnostics")
    robot.network.before = lambda: None
    is_alive(robot)


def test_a_crash_in_the_work_is_logged_and_survived(robot: Robot) -> None:
    robot.network.before = lambda: 1 / 0
    robot.show()
    wait_until(lambda: robot.said("ZeroDivisionError", "Traceback"), "the traceback")
    assert robot.settle(1).refused == 1
    robot.network.before = lambda: None
    is_alive(robot)


# What rclpy's own callback for the peer's side does on Kilted.
rclpy_warns = pytest.mark.filterwarnings("ignore:Deprecated in favor of:DeprecationWarning")


@rclpy_warns
def test_a_publisher_that_offers_too_little_is_told_in_plain_words() -> None:
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    with Robot(
        topics=(RELATIVE,),
        parameters={"input.reliability": "reliable"},
        camera_qos=best_effort,
        start=False,
    ) as robot:
        assert robot.change("configure")
        assert robot.change("activate")
        robot.wait_for_line(
            f"a publisher of '{robot.namespace}/image' offers less reliability",
            "set the parameter input.reliability to best_effort",
        )


@rclpy_warns
def test_a_subscriber_that_asks_for_too_much_is_told_in_plain_words(robot: Robot) -> None:
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.listen(DEPTH, latched)
    robot.wait_for_line(
        f"a subscriber of '{robot.namespace}/predictor/depth/image' asks for more durability"
    )
    is_alive(robot)


def test_no_image_is_an_error_in_the_diagnostics() -> None:
    with Robot(
        StandIn(), topics=(RELATIVE,), parameters={"diagnostics.input_timeout": 0.1}
    ) as robot:
        arrays: list[DiagnosticArray] = []
        robot.peer.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 5)
        wait_until(
            lambda: any(
                status.level == b"\2" and status.message.startswith("no image for")
                for array in arrays
                for status in array.status
                if status.name.startswith(robot.namespace[1:])
            ),
            "ERROR: no image",
        )

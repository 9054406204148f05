"""Whatever comes in, the node lives, says what is wrong in one clear line, and goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from helpers.ros_harness import HEIGHT, WIDTH, Robot, StandIn, ros_context, wait_until
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from d3_ros.errors import DeviceError, NonFiniteError
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node import predictor_node
from d3_ros.ros.node.diagnostics.diagnostics import ERROR, OK
from d3_ros.ros.node.frame import ReceivedImage
from d3_ros.ros.node.graph import namesakes
from d3_ros.ros.node.predictor_node import PredictorNode
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


def test_a_network_that_cannot_be_loaded_again_is_told_and_tried_again() -> None:
    """Whatever loading raises, the inference thread lives and the diagnostics show the error."""
    broken = StandIn()
    broken.before = lambda: (_ for _ in ()).throw(DeviceError("too little free memory"))
    loads = []

    def load(settings: object, say: object) -> StandIn:
        loads.append(settings)
        if len(loads) == 2:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")
        return broken if len(loads) == 1 else StandIn()

    with Robot(topics=(RELATIVE,), load=load) as robot:
        robot.show()
        assert robot.settle(1).refused == 1
        robot.wait_for_line("cannot step down: RuntimeError: CUBLAS_STATUS_ALLOC_FAILED")
        robot.wait_for_status(ERROR, "too little free memory")
        robot.wait_for(RELATIVE, robot.show().header)
        robot.wait_for_status(OK, "running")


def test_a_mistake_in_the_inference_thread_is_told_and_survived(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one outside of everything that catches: no thread dies in silence."""
    processor = robot.node._session.cameras[""].processor

    def fail(image: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(processor, "prepare", fail)
    robot.show()
    robot.wait_for_status(ERROR, "unexpected in the inference thread: KeyError: 'a mistake'")
    monkeypatch.undo()
    robot.wait_for(RELATIVE, robot.show().header)
    robot.wait_for_status(OK, "running")


def test_a_frame_that_takes_too_long_is_an_error_until_it_is_done() -> None:
    network = StandIn()
    go_on = threading.Event()
    network.before = lambda: go_on.wait(20.0) and None
    with Robot(
        network, topics=(RELATIVE,), parameters={"diagnostics.max_frame_time": 0.1}
    ) as robot:
        image = robot.show()
        message = robot.wait_for_status(ERROR, "a frame has been in work for").message
        assert "at 'network', above 0.1 s (parameter diagnostics.max_frame_time)" in message
        go_on.set()
        robot.wait_for(RELATIVE, image.header)
        robot.wait_for(RELATIVE, robot.show().header)
        robot.wait_for_status(OK, "running")


def test_the_status_does_not_go_stale(robot: Robot) -> None:
    """Who subscribes late gets a latched status whose figures are those of now."""

    def received() -> int:
        values = {
            entry.key: entry.value for status in robot.statuses[-1:] for entry in status.values
        }
        return int(values.get("received (frames)", -1))

    for count in range(1, 4):
        robot.wait_for(RELATIVE, robot.show().header)
        wait_until(lambda count=count: received() == count, f"{count} in the status")
    messages = {status.message for status in robot.statuses[-2:]}
    assert len(messages) == 1, "the text is the same, the values are new"


def test_a_second_node_of_the_same_name_is_told(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at once: DDS announces a killed node for a while, and its successor is alone."""
    line = f"2 nodes are called '{robot.namespace}/predictor' and publish to the same topics"
    second = Node("predictor", namespace=robot.namespace)
    wait_until(lambda: namesakes(robot.node) == 1, "the second node is seen")
    assert not robot.node._node_faults()
    monkeypatch.setattr(predictor_node, "NAMESAKE_SEEN_S", 0.0)
    robot.wait_for_status(ERROR, line)
    robot.wait_for_line(line)
    second.destroy_node()
    robot.show()
    robot.wait_for_status(OK, "running")


def test_failed_configures_leave_no_publishers() -> None:
    """`image` is remapped to a topic of compressed images: raw is refused, compressed works."""
    with Robot(topics=(), start=False) as robot:
        own = f"{robot.namespace}/predictor/points"
        arguments = ["--ros-args", "-r", "image:=/cam/image/compressed"]
        node = PredictorNode(
            load=lambda settings, say: StandIn(), namespace="/remapped", cli_args=arguments
        )
        points = "/remapped/predictor/points"
        assert own != points
        for _ in range(2):
            assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
            assert node._session is None
        assert len(list(node.publishers)) == len(list(robot.node.publishers))
        node.set_parameters([Parameter("image.transport", value="compressed")])
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        (publisher,) = (p for p in node.publishers if p.topic_name == points)
        assert publisher.get_subscription_count() == 0
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert len(list(node.publishers)) == len(list(robot.node.publishers))
        node.destroy_node()


def test_publishers_of_a_camera_go_when_the_next_one_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameters = {"cameras": ["front", "rear"]}
    with Robot(topics=(), parameters=parameters, start=False) as robot:
        before = len(list(robot.node.publishers))
        create = robot.node.create_lifecycle_publisher

        def fail(kind: type, name: str, *rest: object, **more: object) -> object:
            if name == "~/rear/depth/image":
                raise RuntimeError("no more")
            return create(kind, name, *rest, **more)

        monkeypatch.setattr(robot.node, "create_lifecycle_publisher", fail)
        assert not robot.change("configure")
        assert len(list(robot.node.publishers)) == before
        monkeypatch.undo()
        assert robot.change("configure")


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


def test_ros_that_ends_in_the_middle_of_an_image_is_no_fault(
    ros: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """As at Ctrl-C, when rclpy's own handler ends the context under the node's thread."""
    with Robot(topics=(RELATIVE,)) as robot:
        robot.wait_for(RELATIVE, robot.show().header)
        processor = robot.node._session.cameras[""].processor
        robot.stop_spinning()
        rclpy.shutdown()
        try:
            assert processor.prepare(ReceivedImage(robot.new_image(), time.monotonic())) is None
        finally:
            rclpy.init()  # for the other tests
    assert "unexpected" not in capfd.readouterr().err

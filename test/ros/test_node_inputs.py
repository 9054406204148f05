"""Images as they come, over real DDS: compressed, rare encodings, a bag that starts again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from helpers import pictures
from helpers.image_messages import compressed
from helpers.ros_harness import HEIGHT, WIDTH, Robot, StandIn, ros_context, wait_until
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from d3_ros.ros.node.diagnostics.diagnostics import ERROR
from d3_ros.ros.node.diagnostics.scale_report import STATES
from d3_ros.ros.node.inputs.input_topics import resolve_input_topics
from d3_ros.ros.node.inputs.matched_inputs import stamp_ns
from d3_ros.ros.parameters.parameter_row import ParameterError
from d3_ros.ros.topics import DEPTH, DEPTH_INFO, POINTS, RELATIVE, RGB, SCALE
from d3_ros.types import D3Prediction

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

HALVES = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
HALVES[:, : WIDTH // 2] = (200, 30, 60)
HALVES[:, WIDTH // 2 :] = (20, 120, 220)


class Watching(StandIn):
    """A network that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[np.ndarray] = []

    def __call__(self, rgb: np.ndarray, tasks: Any = None) -> D3Prediction:
        self.shown.append(rgb.copy())
        return super().__call__(rgb, tasks)


class CompressedRobot(Robot):
    """A robot whose camera publishes compressed images only."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(Watching(), parameters={"image.transport": "compressed"}, **rest)

    def wait_until_connected(self) -> None:
        self.image = self.peer.create_publisher(CompressedImage, "image/compressed", 5)
        super().wait_until_connected()

    def show_encoded(self, data: bytes, text: str) -> Any:
        """Publish a frame whose image is this."""
        raw = self.new_image()
        message = compressed(data, text)
        message.header = raw.header
        self.camera_info.publish(self.new_camera_info(raw))
        self.sensor.publish(self.new_sensor_depth(raw))
        self.image.publish(message)
        return raw.header


@pytest.fixture(scope="module")
def robot(ros: None) -> Iterator[CompressedRobot]:
    with CompressedRobot(topics=(RELATIVE, DEPTH, DEPTH_INFO, RGB, POINTS)) as robot:
        yield robot


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("jpg", "rgb8; jpeg compressed bgr8"),
        ("jpg", "jpeg"),
        ("png", "bgr8; png compressed bgr8"),
    ],
)
def test_compressed_images_are_predicted_like_raw_ones(
    robot: CompressedRobot, kind: str, text: str
) -> None:
    data = cv2.imencode(f".{kind}", HALVES[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    header = robot.show_encoded(data.tobytes(), text)
    depth = robot.wait_for(DEPTH, header)
    assert (depth.width, depth.height) == (WIDTH, HEIGHT)
    robot.wait_for(POINTS, header)
    robot.wait_for(DEPTH_INFO, header)
    shown = robot.network.shown[-1].astype(int)
    middles = shown[HEIGHT // 2, [WIDTH // 4, 3 * WIDTH // 4]]
    assert np.abs(middles - [(200, 30, 60), (20, 120, 220)]).max() <= 4
    rgb = np.frombuffer(robot.wait_for(RGB, header).data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    assert np.array_equal(rgb, shown)


def test_a_cut_jpeg_is_one_line_and_the_next_frame_is_fine(robot: CompressedRobot) -> None:
    data = cv2.imencode(".jpg", HALVES)[1].tobytes()
    before = robot.settle(robot.statistics.snapshot().received)
    robot.show_encoded(data[: len(data) // 2], "jpeg")
    line = robot.wait_for_line("cut short")
    assert f"'{robot.namespace}/image/compressed'" in line
    robot.wait_for(RELATIVE, robot.show_encoded(data, "jpeg"))
    now = robot.settle(before.received + 2)
    assert (now.refused - before.refused, now.published - before.published) == (1, 1)


def test_a_jpeg_that_declares_gigabytes_is_one_line_and_the_next_frame_is_fine(
    robot: CompressedRobot,
) -> None:
    robot.show_encoded(pictures.jpeg_of_declared_size(12_000, 12_000), "jpeg")
    robot.wait_for_line("is 12000 x 12000 pixels, more than the limit of 64 megapixels")
    data = cv2.imencode(".jpg", HALVES)[1].tobytes()
    robot.wait_for(RELATIVE, robot.show_encoded(data, "jpeg"))


def test_raw_images_are_not_subscribed_to(robot: CompressedRobot) -> None:
    assert robot.peer.get_subscriptions_info_by_topic(f"{robot.namespace}/image") == []
    robot.wait_for_line("active, waiting for", "/image/compressed'")


@pytest.mark.parametrize(
    ("remapping", "compressed_topic"),
    [
        ([], "/bot/image/compressed"),
        (["image:=/camera/image_raw"], "/camera/image_raw/compressed"),
        (["image:=/camera/image_raw/compressed"], "/camera/image_raw/compressed"),
        (["image/compressed:=/camera/jpeg"], "/camera/jpeg"),
    ],
)
def test_the_compressed_topic_follows_the_remapping_of_either(
    remapping: list[str], compressed_topic: str
) -> None:
    arguments = ["--ros-args"] + [word for rule in remapping for word in ("-r", rule)]
    node = Node("maps", namespace="/bot", cli_args=arguments)
    topics = resolve_input_topics(node, "compressed")
    assert (topics.image_type, topics.image) == (CompressedImage, compressed_topic)
    if "image:=/camera/image_raw/compressed" in remapping:
        with pytest.raises(ParameterError, match=r"set the parameter image\.transport"):
            resolve_input_topics(node, "raw")
    else:
        raw = "/camera/image_raw" if "image:=/camera/image_raw" in remapping else "/bot/image"
        topics = resolve_input_topics(node, "raw")
        assert (topics.image_type, topics.image) == (Image, raw)
    node.destroy_node()


def test_two_cameras_may_be_swapped_by_remappings() -> None:
    """A full name is not remapped a second time, which would swap them back."""
    rules = ("left/image:=/bot/right/image", "right/image:=/bot/left/image")
    arguments = ["--ros-args"] + [word for rule in rules for word in ("-r", rule)]
    node = Node("maps", namespace="/bot", cli_args=arguments)
    for camera, other in (("left", "right"), ("right", "left")):
        topics = resolve_input_topics(node, "raw", camera)
        assert topics.image == f"/bot/{other}/image"
        subscription = node.create_subscription(Image, topics.asked[topics.image], print, 1)
        assert subscription.topic_name == topics.image
    node.destroy_node()


def test_one_of_several_cameras_has_its_own_compressed_topic() -> None:
    arguments = ["--ros-args", "-r", "rear/image:=/usb/image_raw"]
    node = Node("maps", namespace="/bot", cli_args=arguments)
    for camera, raw in (("front", "/bot/front/image"), ("rear", "/usb/image_raw")):
        assert resolve_input_topics(node, "raw", camera).image == raw
        topics = resolve_input_topics(node, "compressed", camera)
        assert topics.image == f"{raw}/compressed"
        assert topics.camera_info == f"/bot/{camera}/camera_info"
        assert topics.sensors["scan"] == f"/bot/{camera}/sensor_depth/scan"
    node.destroy_node()


def test_a_topic_of_another_type_is_named_in_status_and_log() -> None:
    """`image` remapped to a topic of CompressedImage whose name does not tell."""
    with Robot(topics=(), start=False, parameters={"diagnostics.input_timeout": 0.5}) as robot:
        robot.peer.destroy_publisher(robot.image)
        robot.peer.destroy_publisher(robot.scan)
        # A participant of its own: one participant cannot have two types on one topic.
        context = rclpy.Context()
        rclpy.init(context=context)
        driver = Node("driver", namespace=robot.namespace, context=context)
        driver.create_publisher(CompressedImage, "image", 5)
        driver.create_publisher(PointCloud2, "sensor_depth/scan", 5)
        robot.node.start()
        topic = f"'{robot.namespace}/image'"
        line = (
            f"{topic} carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image: set the "
            "parameter image.transport to compressed"
        )
        robot.wait_for_status(ERROR, "no image for", line)
        robot.wait_for_line(line)
        robot.wait_for_line(
            f"'{robot.namespace}/sensor_depth/scan' carries sensor_msgs/msg/PointCloud2, not "
            "sensor_msgs/msg/LaserScan: remap"
        )
        driver.destroy_node()
        rclpy.shutdown(context=context)


def test_a_topic_that_nobody_publishes_is_told_with_those_that_are_there() -> None:
    with Robot(topics=(), start=False, parameters={"diagnostics.input_timeout": 0.5}) as robot:
        robot.peer.destroy_publisher(robot.image)
        other = f"{robot.namespace}/color/image_raw"
        robot.peer.create_publisher(Image, other, 5)
        robot.node.start()
        robot.wait_for_status(ERROR, f"nobody publishes '{robot.namespace}/image'", other)
        own = f"{robot.namespace}/predictor/depth/image"
        assert own not in robot.statuses[-1].message, "the node's outputs are no inputs"
        robot.image = robot.peer.create_publisher(Image, "image", 5)
        robot.wait_for_status(ERROR, "has a publisher (peer) that sends nothing")


def test_a_calibration_that_was_published_once_before_the_node_is_heard() -> None:
    """As drivers with TRANSIENT_LOCAL do: neither the node's start nor a new start loses it."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with Robot(topics=(POINTS,), start=False) as robot:
        robot.peer.destroy_publisher(robot.camera_info)
        robot.camera_info = robot.peer.create_publisher(CameraInfo, "camera_info", latched)
        robot.camera_info.publish(robot.new_camera_info(robot.new_image()))
        robot.node.start()
        robot.wait_until_connected()
        for _ in range(2):
            inputs = robot.node._session.cameras[""].inputs
            wait_until(lambda inputs=inputs: inputs._camera_infos, "the calibration")
            header = robot.show(camera_info=None).header
            robot.wait_for(POINTS, header)
            assert robot.change("deactivate")
            assert robot.change("activate")
            robot.wait_until_connected()
        assert not robot.said("offers less")


def test_a_bayer_camera() -> None:
    with Robot(Watching(), topics=(RELATIVE,)) as robot:
        image = robot.new_image()
        mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
        mosaic[::2, ::2], mosaic[1::2, 1::2] = 250, 40  # red first, no green
        image.encoding, image.step = "bayer_rggb8", WIDTH
        del image.data[WIDTH * HEIGHT :]
        image.data[:] = type(image.data)("B", mosaic.tobytes())
        robot.wait_for(RELATIVE, robot.show(image).header)
        assert (robot.network.shown[0] == (250, 0, 40)).all()


def test_a_bag_that_starts_again() -> None:
    """Stamps jump back: no scale, sensor depth or age of the first pass reaches into the next."""
    parameters = {"input.wait": 0.3, "scale.hold_s": 60.0, "sensor_depth.tolerance": 1.0}
    with Robot(topics=(RELATIVE, DEPTH, SCALE), parameters=parameters) as robot:
        for _ in range(20):
            robot.wait_for(DEPTH, robot.show().header)
        robot._stamp = 10  # 1 s, after 12 s
        stored = robot.node._session.cameras[""].inputs._sensors["image"]
        assert len(stored) == 16
        image = robot.new_image()
        message = robot.scale_after(lambda: robot.show(image, sensor=None))
        assert STATES[int(message.data[0])] == "relative"
        assert not robot.answers(DEPTH, image.header)
        assert not robot.node._session.cameras[""].inputs._sensors["image"]
        line = robot.wait_for_line("jumped back by 10.9 s")
        assert f"'{robot.namespace}/image'" in line
        assert robot.statistics.snapshot().age_ms[0] > 0
        # The second pass goes on like the first.
        for _ in range(3):
            message = robot.scale_after(robot.show)
            assert STATES[int(message.data[0])] == "measured"
        assert len(robot.said("jumped back")) == 1
        snapshot = robot.settle(24)
        assert (snapshot.received, snapshot.published, snapshot.refused) == (24, 24, 0)


def test_simulated_time_that_starts_again() -> None:
    """Ages are by /clock, and a /clock that jumps back stops nothing."""
    with Robot(topics=(DEPTH,), parameters={"use_sim_time": True, "input.wait": 0.3}) as robot:
        clock = robot.peer.create_publisher(Clock, "/clock", 10)
        wait_until(clock.get_subscription_count, "the node listens to /clock")

        def show_at(seconds: int) -> None:
            """A frame that arrives 0.2 s after its stamp."""
            robot._stamp = 10 * seconds - 1
            image = robot.new_image()
            arrival = stamp_ns(image.header) + 200_000_000
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(arrival, 1_000_000_000)
            clock.publish(message)
            wait_until(
                lambda: robot.node.get_clock().now().nanoseconds == arrival, "the clock arrives"
            )
            robot.wait_for(DEPTH, robot.show(image).header)

        for first, second in ((50, 51), (20, 21)):
            show_at(first)
            show_at(second)
            robot.settle(robot.statistics.snapshot().received)
            assert robot.statistics.snapshot().age_ms[1] == pytest.approx(200.0, abs=1.0)
        robot.wait_for_line("jumped back by 31.0 s")

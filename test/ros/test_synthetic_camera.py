"""The node `synthetic_camera` over real DDS, and a whole robot of three processes with it."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.ros_harness import ros_context, wait_until
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from d3_ros.geometry.camera import project
from d3_ros.geometry.rigid import rigid_transform
from d3_ros.messages.camera_info import intrinsics_from_camera_info
from d3_ros.messages.points import points_from_cloud
from d3_ros.messages.scans import points_from_scan
from d3_ros.ros.parameters.parameter_row import ParameterError
from d3_ros.ros.synthetic import robot_messages as synthetic_messages
from d3_ros.ros.synthetic import synthetic_camera
from d3_ros.ros.synthetic.robot_settings import PARAMETERS
from d3_ros.ros.synthetic.synthetic_camera import SyntheticCamera
from d3_ros.synthetic.room.scene import RoomScene
from d3_ros.synthetic.room.sensors import T_BASE_LIDAR, T_BASE_SCANNER, camera_pose

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

KINDS = {
    "image": Image,
    "camera_info": CameraInfo,
    "truth/depth": Image,
    "truth/normals": Image,
    "sensor_depth/image": Image,
    "sensor_depth/scan": LaserScan,
    "sensor_depth/points": PointCloud2,
    "odom": Odometry,
}
SMALL: dict[str, Any] = {"width": 128, "height": 96, "noise": 0.0, "image_rate": 20.0}
RELIABLE = QoSProfile(depth=1000)


class Listener:
    """Nodes that spin in a thread each, and the messages of the topics listened to.

    A message may be lost on a busy machine: a test waits for any that will do, never for one.
    """

    def __init__(self, namespace: str, *nodes: Node) -> None:
        self.node = Node("listener", namespace=namespace)
        self.got: dict[str, list[Any]] = defaultdict(list)
        self._closing = threading.Event()
        self._executors = []
        for node in (self.node, *nodes):
            self._executors.append(SingleThreadedExecutor())
            self._executors[-1].add_node(node)
        self._threads = [
            threading.Thread(target=self._spin, args=(executor,)) for executor in self._executors
        ]
        for thread in self._threads:
            thread.start()

    def listen(self, kind: type, topic: str, qos: QoSProfile = RELIABLE) -> None:
        self.node.create_subscription(kind, topic, self.got[topic].append, qos)

    def together(self, *topics: str) -> list[Any]:
        """The messages of these topics with one stamp, as soon as there are some."""

        def find() -> list[Any] | None:
            by_stamp = [{nanoseconds(m): m for m in list(self.got[topic])} for topic in topics]
            common = set.intersection(*(set(messages) for messages in by_stamp))
            return [messages[max(common)] for messages in by_stamp] if common else None

        wait_until(find, f"messages of one stamp on {', '.join(topics)}")
        return find() or []

    def _spin(self, executor: SingleThreadedExecutor) -> None:
        while not self._closing.is_set():
            executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        self._closing.set()
        for thread, executor in zip(self._threads, self._executors, strict=True):
            thread.join()
            executor.shutdown()
        self.node.destroy_node()


@lru_cache
def furnished() -> RoomScene:
    """One room for all: to furnish it takes a second or two."""
    return RoomScene(seed=1)


def make(namespace: str, **parameters: Any) -> SyntheticCamera:
    return SyntheticCamera(
        furnished(),
        namespace=namespace,
        parameter_overrides=[Parameter(n, value=v) for n, v in {**SMALL, **parameters}.items()],
    )


@pytest.fixture(scope="module")
def robot(ros: None) -> Iterator[SimpleNamespace]:
    node = make("/room", seed=1, distortion="-0.05 0.01 0 0")
    listener = Listener("/room", node)
    for topic, kind in KINDS.items():
        listener.listen(kind, topic)
    wait_until(lambda: all(len(listener.got[topic]) > 2 for topic in KINDS), "every topic")
    yield SimpleNamespace(node=node, got=listener.got, together=listener.together)
    listener.close()
    node.destroy_node()


def nanoseconds(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def apart(first: Any, last: Any) -> int:
    """Nanoseconds from the first stamp to the last."""
    return nanoseconds(last) - nanoseconds(first)


def pixels(message: Image) -> np.ndarray:
    kind, channels = {
        "rgb8": (np.uint8, 3),
        "32FC1": (np.float32, 1),
        "32FC3": (np.float32, 3),
        "16UC1": (np.uint16, 1),
    }[message.encoding]
    return np.frombuffer(message.data, kind).reshape(message.height, message.width, channels)


def in_odom(odometry: Odometry) -> np.ndarray:
    """(4, 4) pose of base_link in odom."""
    p, q = odometry.pose.pose.position, odometry.pose.pose.orientation
    return rigid_transform((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def test_the_images_belong_together(robot: SimpleNamespace) -> None:
    image, info, truth, normals, sensor = robot.together(
        "image", "camera_info", "truth/depth", "truth/normals", "sensor_depth/image"
    )
    assert (image.encoding, image.width, image.height) == ("rgb8", 128, 96)
    assert image.header.frame_id == "camera_optical_frame"
    assert pixels(image).std() > 10
    camera = intrinsics_from_camera_info(info, 128, 96, topic="a", image_topic="b")
    assert camera is not None
    # 64 pixels from the middle are 0.6 rad.
    assert camera.fx == pytest.approx(64 / math.tan(0.6))
    assert (camera.cx, camera.cy) == (63.5, 47.5)
    assert camera.distortion_model == "plumb_bob"
    depth = pixels(truth)[..., 0]
    assert np.isfinite(depth).all()
    assert 0.3 < depth.min() < depth.max() < 10.0
    np.testing.assert_allclose(np.linalg.norm(pixels(normals), axis=2), 1.0, atol=1e-5)
    millimetres = pixels(sensor)[..., 0]
    measured = millimetres > 0
    assert 0 < measured.sum() <= round(0.005 * 128 * 96)
    np.testing.assert_allclose(millimetres[measured] / 1000, depth[measured], atol=0.00051)


@pytest.mark.parametrize("sensor", ["scan", "points"])
def test_range_sensors_hit_what_the_camera_sees(robot: SimpleNamespace, sensor: str) -> None:
    """Taken from its frame to odom and into a picture, a reading lies on the surface there."""
    message, at_message = robot.together(f"sensor_depth/{sensor}", "odom")
    image, at_image = robot.together("truth/depth", "odom")
    if sensor == "scan":
        assert message.header.frame_id == "scanner"
        assert message.angle_max == pytest.approx(math.pi - message.angle_increment, abs=1e-4)
        points, place = points_from_scan(message, "scan"), T_BASE_SCANNER
    else:
        assert message.header.frame_id == "lidar"
        assert (message.height, message.is_dense) == (1, True)
        points, place = points_from_cloud(message, "points"), T_BASE_LIDAR
    assert len(points) > 500
    seen = in_odom(at_message) @ place @ np.c_[points, np.ones(len(points))].T
    T_odom_camera = in_odom(at_image) @ camera_pose(0.5, 0.1)  # noqa: N806
    in_camera = (np.linalg.inv(T_odom_camera) @ seen)[:3].T
    info = robot.got["camera_info"][0]
    camera = intrinsics_from_camera_info(info, 128, 96, topic="a", image_topic="b")
    with np.errstate(invalid="ignore"):
        uv = project(in_camera, camera)
        inside = ((uv > 0) & (uv < (127, 95))).all(axis=1)
    assert inside.sum() > 40
    u, v = np.rint(uv[inside]).astype(int).T
    ratio = in_camera[inside, 2] / pixels(image)[v, u, 0]
    # Pixels are coarse, and scanner and LiDAR look past what hides things from the camera.
    assert np.median(np.abs(ratio - 1)) < 0.01
    assert np.mean(np.abs(ratio - 1) < 0.05) > 0.8


def test_odometry_tells_the_motion_in_the_robots_own_frame(robot: SimpleNamespace) -> None:
    wait_until(
        lambda: nanoseconds(robot.got["odom"][-1]) > nanoseconds(robot.got["odom"][0]) + 5e8,
        "half a second of odometry",
    )
    odometry = list(robot.got["odom"])
    stamps = [nanoseconds(message) for message in odometry]
    assert stamps == sorted(stamps)
    # Far enough apart for the division, near enough for the way between them to be straight.
    first, last = min(
        ((a, b) for a in odometry[:50] for b in odometry[:50] if apart(a, b) > 1e7),
        key=lambda pair: apart(*pair),
    )
    assert (first.header.frame_id, first.child_frame_id) == ("odom", "base_link")
    assert first.twist.twist.linear.x == pytest.approx(0.4)
    assert first.twist.twist.angular.z > 0, "anticlockwise"
    p, q = first.pose.pose.position, last.pose.pose.position
    speed = math.hypot(q.x - p.x, q.y - p.y) / (apart(first, last) * 1e-9)
    assert speed == pytest.approx(0.4, rel=0.02)


def test_odometry_goes_on_while_a_picture_is_rendered() -> None:
    """A slow picture must not silence what SLAM and Nav2 look transforms up in."""
    node = make("/slow")
    released, rendering = threading.Event(), threading.Event()

    def look(*_: Any) -> Any:
        rendering.set()
        assert released.wait(60)
        return RoomScene.look(furnished(), *_)

    node._scene = SimpleNamespace(look=look, colours=furnished().colours)  # type: ignore[assignment]
    listener = Listener("/slow", node)
    listener.listen(Odometry, "odom")
    listener.listen(Image, "image")
    try:
        wait_until(rendering.is_set, "a picture is begun")
        before = len(listener.got["odom"])
        wait_until(lambda: len(listener.got["odom"]) > before + 5, "odometry goes on")
        assert not listener.got["image"]
        released.set()
        wait_until(lambda: listener.got["image"], "the picture")
    finally:
        released.set()
        listener.close()
        node.destroy_node()


def test_what_the_renderer_raises_is_not_lost() -> None:
    node = make("/broken")
    node._scene = None  # type: ignore[assignment]
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    listener = Listener("/broken")
    listener.listen(Image, "image")
    try:
        with pytest.raises(AttributeError, match="look"):
            executor.spin()
    finally:
        executor.shutdown()
        listener.close()
        node.destroy_node()


def test_parameters_are_described_checked_and_heard(robot: SimpleNamespace) -> None:
    for name, row in PARAMETERS.items():
        descriptor = robot.node.describe_parameter(name)
        assert row.setting.text in descriptor.description
        assert descriptor.read_only == (row.setting.when == "start")
    (refused,) = robot.node.set_parameters([Parameter("noise", value=0.9)])
    assert not refused.successful
    (fixed,) = robot.node.set_parameters([Parameter("width", value=64)])
    assert not fixed.successful
    assert robot.node.set_parameters([Parameter("points_rate", value=0.0)])[0].successful
    wait_until(
        lambda: apart(robot.got["sensor_depth/points"][-1], robot.got["image"][-1]) > 3e8,
        "images go on, the cloud does not",
    )
    last = robot.got["sensor_depth/points"][-1]
    assert robot.node.set_parameters([Parameter("points_rate", value=20.0)])[0].successful
    wait_until(lambda: robot.got["sensor_depth/points"][-1] is not last, "the cloud again")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"width": 3}, "parameter 'width' must be in"),
        ({"distortion": "1 2 3"}, "parameter 'distortion' is '1 2 3'"),
        ({"distortion": "a b c d"}, "parameter 'distortion' is 'a b c d'"),
    ],
)
def test_a_bad_start_value_is_one_line(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as error:
        make("/bad", **parameters)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_rendered_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    node = make("/alone")
    monkeypatch.setattr(node, "_scene", None)  # to look at it would raise
    listener = Listener("/alone", node)
    listener.listen(CameraInfo, "camera_info")
    listener.listen(Odometry, "odom")
    try:
        wait_until(lambda: len(listener.got["camera_info"]) > 3, "camera_info needs no picture")
    finally:
        listener.close()
        node.destroy_node()


class StandInTf:
    """tf2_msgs/TFMessage for machines without it: what is published is noted."""

    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms


def test_transforms_span_odom_base_and_the_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    if synthetic_messages.tf_message_type() is not None:
        pytest.skip("the real tf2_msgs is here; test_transforms_over_dds looks at it")
    sent: dict[str, list[Any]] = defaultdict(list)
    create = SyntheticCamera.create_publisher

    def create_publisher(self: Node, kind: type, topic: str, *rest: Any, **more: Any) -> Any:
        if kind is StandInTf:
            return SimpleNamespace(publish=lambda m: sent[topic].extend(m.transforms))
        return create(self, kind, topic, *rest, **more)

    monkeypatch.setattr(SyntheticCamera, "create_publisher", create_publisher)
    monkeypatch.setattr(synthetic_camera, "tf_message_type", lambda: StandInTf)
    node = make("/tf_robot")
    listener = Listener("/tf_robot", node)
    try:
        wait_until(lambda: len(sent["/tf"]) > 3, "odom to base_link")
    finally:
        listener.close()
        node.destroy_node()
    check_transforms(sent["/tf_static"], sent["/tf"])


def test_transforms_over_dds() -> None:
    tf_type = synthetic_messages.tf_message_type()
    if tf_type is None:
        pytest.skip("tf2_msgs comes with a ROS installation")
    node = make("/tf_robot")
    listener = Listener("/tf_robot", node)
    listener.listen(tf_type, "/tf_static", synthetic_camera.LATCHED)
    listener.listen(tf_type, "/tf")
    try:
        wait_until(lambda: len(listener.got["/tf"]) > 3 and listener.got["/tf_static"], "tf")
    finally:
        listener.close()
        node.destroy_node()
    check_transforms(
        *(
            [t for message in listener.got[topic] for t in message.transforms]
            for topic in ("/tf_static", "/tf")
        )
    )


def check_transforms(fixed: list[Any], moving: list[Any]) -> None:
    parents = {t.child_frame_id: t.header.frame_id for t in fixed}
    assert parents == dict.fromkeys(("camera_optical_frame", "lidar", "scanner"), "base_link")
    assert {(t.header.frame_id, t.child_frame_id) for t in moving} == {("odom", "base_link")}
    (camera,) = (t.transform for t in fixed if t.child_frame_id == "camera_optical_frame")
    t, q = camera.translation, camera.rotation
    pose = rigid_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
    # Down by 0.1 rad: z (ahead) is (cos, 0, -sin), x (right) is -y, y (down) is (-sin, 0, -cos).
    c, s = math.cos(0.1), math.sin(0.1)
    np.testing.assert_allclose(pose[:3, :3].T, [(0, -1, 0), (-s, 0, -c), (c, 0, -s)], atol=1e-9)
    np.testing.assert_allclose(pose[:3, 3], (0.15, 0.0, 0.5))

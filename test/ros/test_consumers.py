"""What consumers read of the outputs, over real DDS: a test for each row of docs/consumers.md.

Each reader here does what the consumer's own source does with a message (fields by offset, sizes,
encodings, frames, stamps, quality of service), and is checked against a scene known by hand.
"""

from __future__ import annotations

import ast
import math
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.ros_harness import HEIGHT, SCALE, SHIFT, WIDTH, Robot, StandIn, ros_context, wait_until
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from d3_ros.messages.images import ImageBuffer, rgb_from_image
from d3_ros.ros.topics import (
    DEPTH,
    DEPTH_COLOR,
    DEPTH_COMPRESSED,
    DEPTH_INFO,
    DEPTH_JPEG,
    NAV_POINTS,
    POINTS,
    RGB,
    RGB_INFO,
    UNCERTAINTY,
)

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

SENSOR_DATA = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
CAMERA_HEIGHT = 0.4
OBSTACLE_MAX_RANGE, CLEAR_RANGE = 2.5, 2.8
# The scene: a level floor, a box 1.2 m ahead of the camera, 0.24 m wide, and a wall 4.2 m ahead.
BOX_Z, BOX_TOP, WALL_Z = 1.2, 0.68, 4.2
BOX = slice(27, 38)  # its columns
K = (50.0, 50.0, 32.0, 24.0)


def scene() -> np.ndarray:
    """(H, W) true z-depth in metres."""
    _, fy, _, cy = K
    v = np.arange(HEIGHT, dtype=np.float32)[:, None]
    depth = np.full((HEIGHT, WIDTH), WALL_Z, np.float32)
    with np.errstate(divide="ignore"):
        floor = np.where(v > cy, CAMERA_HEIGHT * fy / (v - cy), np.inf)
    depth = np.minimum(depth, floor).astype(np.float32)
    # From the floor at 1.2 m (row 40) up to 0.3 m above the camera's height.
    depth[12:41, BOX] = np.minimum(depth[12:41, BOX], BOX_Z)
    return depth


@pytest.fixture(scope="module")
def robot(ros: None) -> Iterator[Robot]:
    network = StandIn()
    network.relative = (scene() - SHIFT) / SCALE
    parameters = {
        "input.wait": 0.5,
        "color.max_rate": 100.0,
        "points.nav.stride": 2,
        "points.nav.voxel_size": 0.0,
        "points.nav.max_range": OBSTACLE_MAX_RANGE,
        "points.nav.clear_range": CLEAR_RANGE,
        "scale.local_correction": False,
    }
    with Robot(network, topics=(), parameters=parameters) as robot:
        yield robot


@pytest.fixture
def receive(robot: Robot) -> Iterator[Callable[..., list[Any]]]:
    """Subscribe to topics with a quality of service; what comes of the next frame."""
    subscriptions = []

    def receive(qos: QoSProfile, *topics: str) -> list[Any]:
        subscriptions.extend(robot.listen(topic, qos) for topic in topics)
        robot.wait_until_connected()
        wait_until(lambda: all(s.get_publisher_count() for s in subscriptions), "they match")
        image = robot.new_image()
        millimetres = np.zeros((HEIGHT, WIDTH), np.uint16)
        millimetres[::3, ::3] = np.rint(scene() * 1000)[::3, ::3]
        sensor = ImageBuffer().fill(image.header, millimetres, "16UC1")
        header = robot.show(image, sensor=sensor).header
        return [robot.wait_for(topic, header) for topic in topics]

    yield receive
    for subscription in subscriptions:
        robot.peer.destroy_subscription(subscription)
    outputs = robot.node._session.cameras[""].publishers._publishers.values()
    # Else the next test would take them for its own.
    wait_until(lambda: not any(p.get_subscription_count() for p in outputs), "the node knows")
    robot.received.clear()


def iterator(cloud: PointCloud2, name: str) -> list[float]:
    """sensor_msgs::PointCloud2ConstIterator<float>: by the field's offset, point after point."""
    (field,) = [field for field in cloud.fields if field.name == name]
    assert (field.datatype, field.count) == (PointField.FLOAT32, 1)
    data, order = bytes(cloud.data), ">" if cloud.is_bigendian else "<"
    assert cloud.row_step == cloud.width * cloud.point_step
    assert len(data) == cloud.height * cloud.row_step
    return np.ndarray(
        (cloud.width * cloud.height,), f"{order}f4", data, field.offset, (cloud.point_step,)
    ).tolist()


def in_base_frame(cloud: PointCloud2) -> list[tuple[float, float, float]]:
    """Points with the robot's axes, on the floor below the camera: x forward, y left, z up."""
    columns = (iterator(cloud, name) for name in "xyz")
    return [(z, -x, CAMERA_HEIGHT - y) for x, y, z in zip(*columns, strict=True)]


def box_in_base_frame(point: tuple[float, ...]) -> bool:
    fx, _, cx, _ = K
    left, right = (-(u - cx) / fx * BOX_Z for u in (BOX.start - 0.5, BOX.stop - 0.5))
    return abs(point[0] - BOX_Z) < 0.03 and right <= point[1] <= left


@pytest.mark.parametrize("topic", [NAV_POINTS, POINTS])
def test_nav2_obstacle_layer(receive: Callable[..., list[Any]], topic: str) -> None:
    """Marks what is in the height band and nearer than obstacle_max_range; raytraces to the rest.

    Its observation buffer drops points outside the band, NaN included, before either.
    """
    (cloud,) = receive(SENSOR_DATA, topic)
    assert cloud.header.frame_id == "camera_optical_frame"
    points = in_base_frame(cloud)
    in_band = [point for point in points if 0.08 <= point[2] <= 2.0]
    origin = (0.0, 0.0, CAMERA_HEIGHT)
    marked = [point for point in in_band if math.dist(point, origin) < OBSTACLE_MAX_RANGE]
    assert len(marked) > 20
    assert all(box_in_base_frame(point) for point in marked), "only the box is an obstacle"
    rays_to = [point for point in in_band if math.dist(point, origin) >= OBSTACLE_MAX_RANGE]
    assert rays_to, "left and right of the box the view is free"
    if topic == NAV_POINTS:
        distances = [math.dist(point, origin) for point in rays_to]
        assert distances == pytest.approx([CLEAR_RANGE] * len(distances), abs=1e-5)
        # No cleared ray goes through the box; those over its top go first, then it is marked.
        for x, y, z in rays_to:
            if box_in_base_frame((BOX_Z, y * BOX_Z / x)):
                assert CAMERA_HEIGHT + (z - CAMERA_HEIGHT) * BOX_Z / x > BOX_TOP
        assert len(points) < 1000


def test_nav2_voxel_layer(receive: Callable[..., list[Any]]) -> None:
    """Marks columns of voxels: the box stands from the floor to above the camera."""
    (cloud,) = receive(SENSOR_DATA, NAV_POINTS)
    heights = [z for x, y, z in in_base_frame(cloud) if box_in_base_frame((x, y))]
    layers = {math.floor(z / 0.05) for z in heights if z > 0.05}
    assert layers >= set(range(2, 13)), "no gap of a voxel of 5 cm between 0.1 m and 0.65 m"


def test_nav2_collision_monitor(robot: Robot, receive: Callable[..., list[Any]]) -> None:
    """Takes the stamp for the time of measurement, and points of every height band it is given."""
    (cloud,) = receive(SENSOR_DATA, NAV_POINTS)
    stamp = cloud.header.stamp
    assert (stamp.sec * 10 + stamp.nanosec // 100_000_000) == robot._stamp, "acquisition time"
    assert cloud.is_dense
    assert np.isfinite([iterator(cloud, name) for name in "xyz"]).all()
    in_zone = [p for p in in_base_frame(cloud) if p[0] < 1.5 and abs(p[1]) < 0.3 and 0.1 < p[2] < 1]
    assert len(in_zone) >= 4  # min_points of a stop zone
    assert all(box_in_base_frame(point) for point in in_zone)


def test_rtabmap(receive: Callable[..., list[Any]]) -> None:
    """CommonDataSubscriber's checks of colour, depth and camera_info, default and 16UC1."""
    rgb, info, depth = receive(RELIABLE, RGB, RGB_INFO, DEPTH)
    assert rgb.encoding in ("rgb8", "bgr8", "mono8")
    assert depth.encoding in ("32FC1", "16UC1", "mono16")
    assert rgb.width % depth.width == 0
    assert rgb.height % depth.height == 0
    assert rgb.width // depth.width == rgb.height // depth.height
    assert (info.width, info.height) == (rgb.width, rgb.height)
    assert rgb.header == info.header == depth.header, "10 ms apart would be warned of"
    assert rgb.step == 3 * rgb.width
    assert np.array_equal(info.k.reshape(3, 3)[:2, :2], info.p.reshape(3, 4)[:2, :2])


def nvblox_depth(message: Image) -> np.ndarray:
    """Its copy of a depth image: `step` is not looked at, 16 bit is signed millimetres."""
    if message.encoding == "32FC1":
        return np.frombuffer(message.data, "<f4").reshape(message.height, message.width)
    assert message.encoding == "16UC1"
    millimetres = np.frombuffer(message.data, "<i2").reshape(message.height, message.width)
    return millimetres / 1000.0


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_nvblox(robot: Robot, receive: Callable[..., list[Any]], encoding: str) -> None:
    """Exact-time synchronised image and camera_info; K and the size are all it takes from that."""
    from rclpy.parameter import Parameter

    robot.node.set_parameters([Parameter("depth.encoding", value=encoding)])
    try:
        depth, info = receive(SENSOR_DATA, DEPTH, DEPTH_INFO)
    finally:
        robot.node.set_parameters([Parameter("depth.encoding", value="32FC1")])
    assert depth.encoding == encoding
    assert (depth.header.stamp, depth.header.frame_id) == (info.header.stamp, info.header.frame_id)
    assert (info.width, info.height) == (depth.width, depth.height)
    assert (info.k[0], info.k[4], info.k[2], info.k[5]) == K
    np.testing.assert_allclose(nvblox_depth(depth), scene(), rtol=0.01)


def test_depthimage_to_laserscan(receive: Callable[..., list[Any]]) -> None:
    """The rows around cy, ranges in the plane of the scan; a NaN pixel gives no range."""
    depth, info = receive(RELIABLE, DEPTH, DEPTH_INFO)
    assert depth.encoding in ("32FC1", "16UC1")
    fx, cx, cy = info.k[0], info.k[2], info.k[5]
    assert not any(info.d), "it rectifies by D once more"
    row = np.frombuffer(depth.data, "<f4").reshape(depth.height, depth.width)[round(cy)]
    ranges = {u: math.hypot((u - cx) / fx * z, z) for u, z in enumerate(row.tolist())}
    expected = {
        u: math.hypot(1.0, (u - 32.0) / 50.0) * (BOX_Z if u in range(27, 38) else WALL_Z)
        for u in ranges
    }
    assert ranges == pytest.approx(expected, rel=0.01)


def test_octomap_server(receive: Callable[..., list[Any]]) -> None:
    """pcl::fromROSMsg to PointXYZRGB: `rgb` is packed 0x00RRGGBB; NaN points are dropped."""
    (cloud,) = receive(SENSOR_DATA, POINTS)
    (field,) = [field for field in cloud.fields if field.name == "rgb"]
    data = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
    packed = data[:, field.offset : field.offset + 4].copy().view("<u4")[:, 0]
    assert set(zip(packed >> 16 & 255, packed >> 8 & 255, packed & 255, strict=True)) == (
        {(200, 100, 50)}
    )
    points = [p for p in in_base_frame(cloud) if math.isfinite(sum(p))]
    occupied = {tuple(math.floor(c / 0.1) for c in point) for point in points}
    assert (math.floor(BOX_Z / 0.1), 0, 5) in occupied
    assert not any(z < -1 for _, _, z in occupied), "nothing is below the floor"


def depth_image_proc_points(depth: Image, info: CameraInfo) -> np.ndarray:
    """convertDepth of depth_image_proc: (u - cx) z / fx with the K of its model, P."""
    fx, fy, cx, cy = info.p[0], info.p[5], info.p[2], info.p[6]
    z = np.frombuffer(depth.data, "<f4").reshape(depth.height, depth.step // 4)
    v, u = np.mgrid[: depth.height, : depth.width]
    return np.stack([(u - cx) * z / fx, (v - cy) * z / fy, z], axis=-1)


def test_depth_image_proc(receive: Callable[..., list[Any]]) -> None:
    """point_cloud_xyzrgb asks for reliable, equal sizes and frames; its cloud is ours."""
    rgb, depth, info, cloud = receive(RELIABLE, RGB, DEPTH, RGB_INFO, POINTS)
    assert rgb.header.frame_id == depth.header.frame_id
    assert (rgb.width, rgb.height) == (depth.width, depth.height) == (info.width, info.height)
    ours = np.stack([iterator(cloud, name) for name in "xyz"], axis=-1)
    assert (cloud.width, cloud.height) == (WIDTH, HEIGHT)
    theirs = depth_image_proc_points(depth, info).reshape(-1, 3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_rviz(receive: Callable[..., list[Any]]) -> None:
    """Displays ask for reliable, depth 5, and show rgb8 and 32FC1 images and xyzrgb clouds."""
    depth, sigma, color, cloud = receive(RELIABLE, DEPTH, UNCERTAINTY, DEPTH_COLOR, POINTS)
    assert (depth.encoding, sigma.encoding, color.encoding) == ("32FC1", "32FC1", "rgb8")
    assert color.step == 3 * color.width
    names = [field.name for field in cloud.fields]
    assert names[:4] == ["x", "y", "z", "rgb"]


def test_image_transport(receive: Callable[..., list[Any]]) -> None:
    """rqt_image_view, web bridges: format "rgb8; jpeg compressed bgr8", decoded by OpenCV."""
    jpeg, color = receive(SENSOR_DATA, DEPTH_JPEG, DEPTH_COLOR)
    encoding, _, how = jpeg.format.partition("; ")
    assert (encoding, how) == ("rgb8", "jpeg compressed bgr8")
    bgr = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_UNCHANGED)
    difference = bgr[..., ::-1].astype(int) - rgb_from_image(color, "color")
    assert np.abs(difference).mean() < 8


def test_compressed_depth_image_transport(receive: Callable[..., list[Any]]) -> None:
    """image_transport's `compressedDepth` on the far side: header, PNG, inverse depth."""
    compressed, depth = receive(SENSOR_DATA, DEPTH_COMPRESSED, DEPTH)
    encoding, _, how = compressed.format.partition("; ")
    assert (encoding, how) == ("32FC1", "compressedDepth png")
    data = bytes(compressed.data)
    _, a, b = struct.unpack("=iff", data[:12])
    inverse = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
    assert (inverse > 0).all()
    metres = np.frombuffer(depth.data, "<f4").reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(a / (inverse - b), metres, atol=4.2**2 / 10000)


def test_sensor_msgs_py(receive: Callable[..., list[Any]]) -> None:
    """Python users: read_points of either cloud."""
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS installation"
    )
    for topic in (POINTS, NAV_POINTS):
        (cloud,) = receive(SENSOR_DATA, topic)
        read = point_cloud2.read_points(cloud, ("x", "y", "z"))
        for name in "xyz":
            np.testing.assert_array_equal(read[name].ravel(), iterator(cloud, name))


PAGE = ROOT / "docs" / "consumers.md"


def test_every_row_of_the_page_names_its_test_and_every_test_has_a_row() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    here = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert named == here - {"test_every_row_of_the_page_names_its_test_and_every_test_has_a_row"}

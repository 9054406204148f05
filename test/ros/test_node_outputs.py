"""Clouds, pairs, previews and caps over real DDS; and no work that nobody asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.ros_harness import (
    HEIGHT,
    WIDTH,
    Robot,
    changed_settings,
    ros_context,
    wait_until,
)
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from d3_ros.geometry.camera import project, ray_map
from d3_ros.messages.compressed import depth_from_any, rgb_from_compressed
from d3_ros.messages.images import ImageBuffer, depth_from_image, rgb_from_image
from d3_ros.ros.node.outputs import frame_messages
from d3_ros.ros.topics import (
    CAPPED,
    DEPTH,
    DEPTH_COLOR,
    DEPTH_COMPRESSED,
    DEPTH_INFO,
    DEPTH_JPEG,
    NAV_POINTS,
    NORMALS,
    NORMALS_COLOR,
    NORMALS_JPEG,
    POINTS,
    RELATIVE,
    RGB,
    RGB_INFO,
    SCALE,
    TOPICS,
    UNCERTAINTY,
)
from d3_ros.types import CameraIntrinsics, DepthFit

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)
COLOR_PERIOD_S = 0.02  # and a bit: color.max_rate is 100 Hz


def xyz(cloud: PointCloud2) -> np.ndarray:
    """(N, 3) points, found by their fields' offsets."""
    offsets = {field.name: field.offset for field in cloud.fields}
    data = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
    columns = [data[:, offsets[n] : offsets[n] + 4].copy().view("<f4")[:, 0] for n in "xyz"]
    return np.stack(columns, axis=-1)


@pytest.fixture(scope="module")
def robot(ros: None) -> Iterator[Robot]:
    with Robot(parameters={"color.max_rate": 100.0, "input.wait": 0.5}) as robot:
        yield robot


@pytest.fixture(autouse=True)
def previews_are_due() -> None:
    """The test before has had its own a moment ago."""
    time.sleep(COLOR_PERIOD_S)


@pytest.fixture
def setting(robot: Robot) -> Iterator[Callable[..., None]]:
    yield from changed_settings(robot)


def test_the_light_cloud_is_dense_small_and_on_the_depth_image(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(points__nav__stride=4, points__nav__voxel_size=0.0, points__nav__max_range=3.0)
    header = robot.show().header
    cloud = robot.wait_for(NAV_POINTS, header)
    depth = np.frombuffer(robot.wait_for(DEPTH, header).data, "<f4").reshape(HEIGHT, WIDTH)
    assert (cloud.height, cloud.is_dense, cloud.is_bigendian) == (1, True, False)
    assert [field.name for field in cloud.fields] == ["x", "y", "z"]
    assert cloud.row_step == cloud.width * cloud.point_step == len(cloud.data)
    points = xyz(cloud)
    assert 50 < len(points) < WIDTH * HEIGHT / 16
    assert np.isfinite(points).all()
    assert np.linalg.norm(points, axis=1).max() <= 3.0
    u, v = np.rint(points[:, :2] / points[:, 2:] * 50 + (32, 24)).astype(int).T
    assert np.array_equal(depth[v, u], points[:, 2])


def test_free_rays_end_beyond_the_range_of_the_light_cloud(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(points__nav__max_range=2.0, points__nav__clear_range=2.5)
    distance = np.linalg.norm(xyz(robot.wait_for(NAV_POINTS, robot.show().header)), axis=1)
    assert ((distance <= 2.0) | np.isclose(distance, 2.5)).all()
    assert (distance <= 2.0).any()
    assert np.isclose(distance, 2.5).any(), "the ramp's far end is 4 m away"
    refused = robot.node.set_parameters([Parameter("points.nav.clear_range", value=1.0)])[0]
    assert not refused.successful
    assert "clear_range 1.0 must be 0 or at least max_range 2.0" in refused.reason


def test_a_stride_and_a_range_make_the_organised_cloud_smaller(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(points__stride=3, points__max_range=2.0, points__min_range=1.0)
    cloud = robot.wait_for(POINTS, robot.show().header)
    assert (cloud.width, cloud.height) == (-(-WIDTH // 3), -(-HEIGHT // 3))
    assert (cloud.is_dense, len(cloud.data)) == (False, cloud.width * cloud.height * 16)
    points = xyz(cloud)
    known = np.isfinite(points).all(axis=1)
    assert 0 < known.sum() < len(points)
    assert np.isnan(points[~known]).all(), "an unknown point is NaN in x, y and z"
    distance = np.linalg.norm(points[known], axis=1)
    assert distance.min() >= 1.0 and distance.max() <= 2.0


def test_flying_pixels_go_from_both_clouds_and_stay_in_depth(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(points__remove_flying=True, points__nav__stride=1, points__nav__voxel_size=0.0)
    before = robot.network.relative
    edge = np.full((HEIGHT, WIDTH), 0.2, np.float32)
    edge[:, 32:] = 0.8
    edge[:, 31:33] = [0.4, 0.6]
    robot.network.relative = edge
    millimetres = np.zeros((HEIGHT, WIDTH), np.uint16)
    millimetres[::4, ::5] = np.rint((4.0 * edge + 0.5) * 1000)[::4, ::5]
    try:
        image = robot.new_image()
        sensor = ImageBuffer().fill(image.header, millimetres, "16UC1")
        header = robot.show(image, sensor=sensor).header
        clouds = [robot.wait_for(topic, header) for topic in (POINTS, NAV_POINTS)]
        depth = np.frombuffer(robot.wait_for(DEPTH, header).data, "<f4").reshape(HEIGHT, WIDTH)
    finally:
        robot.network.relative = before
    assert np.isfinite(depth).all()
    organised = xyz(clouds[0]).reshape(HEIGHT, WIDTH, 3)[..., 2]
    assert np.isnan(organised[:, 31:33]).all()
    assert np.isfinite(organised[:, :31]).all()
    assert np.isfinite(organised[:, 33:]).all()
    assert clouds[1].width == HEIGHT * (WIDTH - 2)


def test_colour_and_depth_are_a_pair_of_the_same_stamp_size_and_calibration(robot: Robot) -> None:
    header = robot.show().header
    rgb, depth = robot.wait_for(RGB, header), robot.wait_for(DEPTH, header)
    assert rgb.encoding == "rgb8"
    assert (rgb.width, rgb.height, rgb.header) == (depth.width, depth.height, depth.header)
    assert np.frombuffer(rgb.data, np.uint8).reshape(-1, 3).tolist() == (
        [[200, 100, 50]] * (WIDTH * HEIGHT)
    )
    assert robot.wait_for(RGB_INFO, header) == robot.wait_for(DEPTH_INFO, header)
    # Without a scale there is no depth, and so no pair.
    robot.node._session.cameras[""].processor.reset_scale()
    header = robot.show(sensor=None).header
    robot.wait_for(RELATIVE, header)
    robot.scale_after(robot.show)
    assert not robot.answers(RGB, header)
    assert not robot.answers(RGB_INFO, header)


@pytest.mark.parametrize(
    ("raw", "compressed"), [(DEPTH_COLOR, DEPTH_JPEG), (NORMALS_COLOR, NORMALS_JPEG)]
)
def test_previews_come_as_jpeg_too(robot: Robot, raw: str, compressed: str) -> None:
    header = robot.show().header
    jpeg = robot.wait_for(compressed, header)
    assert jpeg.format == "rgb8; jpeg compressed bgr8"
    assert compressed == f"{raw}/compressed", "image_transport looks for it there"
    picture = rgb_from_image(robot.wait_for(raw, header), raw)
    decoded = rgb_from_compressed(jpeg, compressed)
    assert np.abs(decoded.astype(int) - picture).mean() < 6
    assert len(jpeg.data) < picture.nbytes / 3


def test_the_quality_of_the_previews(robot: Robot, setting: Callable[..., None]) -> None:
    fine = len(robot.wait_for(DEPTH_JPEG, robot.show().header).data)
    setting(color__jpeg_quality=5)
    time.sleep(COLOR_PERIOD_S)
    assert len(robot.wait_for(DEPTH_JPEG, robot.show().header).data) < fine


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_depth_comes_compressed_too(
    robot: Robot, setting: Callable[..., None], encoding: str
) -> None:
    setting(depth__encoding=encoding, depth__compressed__depth_max=3.0)
    header = robot.show().header
    compressed = robot.wait_for(DEPTH_COMPRESSED, header)
    assert compressed.format == f"{encoding}; compressedDepth png"
    assert f"{DEPTH}/compressedDepth" == DEPTH_COMPRESSED, "image_transport looks for it there"
    depth = depth_from_image(robot.wait_for(DEPTH, header), DEPTH)
    decoded = depth_from_any(compressed, DEPTH_COMPRESSED)
    near = depth < 3.0
    assert 0 < near.sum() < near.size
    assert np.isnan(decoded[~near]).all()
    np.testing.assert_allclose(decoded[near], depth[near], atol=1.1e-3)


def test_without_a_scale_there_is_no_compressed_depth() -> None:
    with Robot(topics=(RELATIVE, DEPTH_COMPRESSED)) as robot:
        header = robot.show(sensor=None).header
        robot.wait_for(RELATIVE, header)
        assert not robot.answers(DEPTH_COMPRESSED, header)
        image = robot.new_image()
        robot.sense("image", robot.new_sensor_depth(image))
        robot.wait_for(DEPTH_COMPRESSED, robot.show(image, sensor=None).header)


LENS = CameraIntrinsics(WIDTH, HEIGHT, 50.0, 50.0, 32.0, 24.0, "plumb_bob", (-0.3, 0.1, 0, 0, 0))


def lens_info(robot: Robot, image: Image) -> CameraInfo:
    info = robot.new_camera_info(image)
    info.distortion_model, info.d = "plumb_bob", list(LENS.distortion)
    info.r = np.eye(3).ravel().tolist()
    info.p = [40.0, 0.0, 31.0, 0.0, 0.0, 41.0, 23.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def test_rectified_outputs_are_a_pinhole_camera_s(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(output__rectified=True)
    image = robot.new_image()
    # Beside the middle of the raw image a blue spot, 3 m away.
    pixels = rgb_from_image(image, "image").copy()
    pixels[8:11, 8:11] = (0, 0, 255)
    image = ImageBuffer().fill(image.header, pixels, "rgb8")
    header = robot.show(image, camera_info=lens_info(robot, image)).header
    info = robot.wait_for(DEPTH_INFO, header)
    assert (info.k.tolist(), set(info.d)) == ([40, 0, 31, 0, 41, 23, 0, 0, 1], {0.0})
    assert info.r.tolist() == np.eye(3).ravel().tolist()
    ((u, v),) = project(ray_map(LENS)[9:10, 9], CameraIntrinsics(WIDTH, HEIGHT, 40, 41, 31, 23))
    rgb = rgb_from_image(robot.wait_for(RGB, header), "rgb")
    blue = np.argwhere(rgb[..., 2] > 200).mean(axis=0)
    assert np.abs(blue - (v, u)).max() < 0.7
    # K is wider than the lens: what the raw image does not show is not predicted.
    depth = np.frombuffer(robot.wait_for(DEPTH, header).data, "<f4").reshape(HEIGHT, WIDTH)
    unseen = (rgb == 0).all(axis=2)
    assert 0 < unseen.sum() < WIDTH * HEIGHT / 2
    assert np.isnan(depth[unseen]).all()
    assert np.isfinite(depth[~unseen]).mean() > 0.95
    for topic in (RELATIVE, NORMALS):
        values = np.frombuffer(robot.wait_for(topic, header).data, "<f4")
        assert np.isnan(values.reshape(HEIGHT, WIDTH, -1)[unseen]).all()
    # A reader that knows only K finds every point of the cloud on its pixel.
    points = xyz(robot.wait_for(POINTS, header)).reshape(HEIGHT, WIDTH, 3)
    known = np.isfinite(points[..., 2])
    back = cv2.projectPoints(
        points[known], np.zeros(3), np.zeros(3), info.k.reshape(3, 3), np.array(info.d)
    )[0]
    v, u = np.nonzero(known)
    np.testing.assert_allclose(back[:, 0], np.stack([u, v], axis=1), atol=1e-3)


def test_without_calibration_nothing_is_rectified(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(output__rectified=True)
    image = robot.new_image()
    uncalibrated = CameraInfo(header=image.header, width=WIDTH, height=HEIGHT)
    robot.show(image, camera_info=uncalibrated)
    robot.wait_for_line("output.rectified needs a calibrated camera_info")
    assert not robot.answers(RELATIVE, image.header)


COUNTED = (
    *("colour_depth", "colour_normals", "pack_cloud", "light_cloud", "flying_pixels"),
    *("far_pixels", "clearing_points", "jpeg_message", "output_camera_info"),
    "depth_message",
)
# What each topic alone makes the node do, once a frame.
WORK: dict[str, set[str]] = {
    RELATIVE: set(),
    DEPTH: set(),
    DEPTH_INFO: {"output_camera_info"},
    DEPTH_COMPRESSED: {"depth_message"},
    UNCERTAINTY: {"sigma"},
    RGB: set(),
    RGB_INFO: {"output_camera_info"},
    NORMALS: set(),
    POINTS: {"pack_cloud", "flying_pixels", "sigma"},
    NAV_POINTS: {"light_cloud", "flying_pixels", "far_pixels", "clearing_points", "sigma"},
    DEPTH_COLOR: {"colour_depth"},
    DEPTH_JPEG: {"colour_depth", "jpeg_message"},
    NORMALS_COLOR: {"colour_normals"},
    NORMALS_JPEG: {"colour_normals", "jpeg_message"},
    SCALE: set(),
}
EVERYTHING_ON = {
    "points.remove_flying": True,
    "points.sigma": True,
    "points.nav.clear_range": 12.0,
    "color.max_rate": 100.0,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each costly function was called."""
    counts: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    for name in COUNTED:
        monkeypatch.setattr(frame_messages, name, counted(name, getattr(frame_messages, name)))
    monkeypatch.setattr(DepthFit, "sigma", counted("sigma", DepthFit.sigma))
    return counts


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_costs_its_own_work_and_no_other(topic: str, calls: Counter[str]) -> None:
    with Robot(topics=(topic,), parameters=EVERYTHING_ON) as robot:
        if topic == SCALE:
            robot.scale_after(robot.show)
        else:
            robot.wait_for(topic, robot.show().header)
        assert calls == Counter(WORK[topic])
        normals = {NORMALS, NORMALS_COLOR, NORMALS_JPEG}
        assert robot.network.asked == [("depth", "normals") if topic in normals else ("depth",)]


def test_what_two_topics_share_is_made_once(calls: Counter[str]) -> None:
    with Robot(parameters=EVERYTHING_ON) as robot:
        robot.wait_for(NORMALS_JPEG, robot.show().header)
        assert calls == {
            **dict.fromkeys((*COUNTED, "sigma"), 1),
            "jpeg_message": 2,
            "output_camera_info": 2,
        }


def test_every_topic_is_in_one_group_of_caps() -> None:
    assert sorted(topic for topics in CAPPED.values() for topic in topics) == sorted(TOPICS)


CAPS = {
    "depth.max_rate": (DEPTH, DEPTH_INFO, DEPTH_COMPRESSED, UNCERTAINTY, RGB, RGB_INFO),
    "relative.max_rate": (RELATIVE,),
    "normals.max_rate": (NORMALS,),
    "points.max_rate": (POINTS,),
    "points.nav.max_rate": (NAV_POINTS,),
    "color.max_rate": (DEPTH_COLOR, DEPTH_JPEG, NORMALS_COLOR, NORMALS_JPEG),
}


@pytest.mark.parametrize("parameter", CAPS)
def test_a_capped_output_comes_once_and_costs_once(parameter: str, calls: Counter[str]) -> None:
    quick = {"color.max_rate": 100.0, "points.remove_flying": True, "points.nav.clear_range": 12.0}
    with Robot(parameters={**quick, parameter: 0.01 if parameter != "color.max_rate" else 0.1}) as (
        robot
    ):
        other = SCALE if parameter == "relative.max_rate" else RELATIVE
        for count in range(3):
            robot.show()
            robot.settle(count + 1)
        wait_until(lambda: len(robot.received[other]) == 3, "the outputs without a cap")
        wait_until(lambda: all(robot.received[t] for t in CAPS[parameter]), "the capped ones")
        for topic in CAPS[parameter]:
            assert len(robot.received[topic]) == 1, topic
        if parameter.startswith("points"):
            assert calls["pack_cloud" if parameter == "points.max_rate" else "light_cloud"] == 1
        if parameter == "color.max_rate":
            assert calls["colour_depth"] == calls["colour_normals"] == 1


def test_where_only_a_capped_output_is_wanted_the_network_rests() -> None:
    with Robot(topics=(POINTS,), parameters={"points.max_rate": 0.01}) as robot:
        for count in range(3):
            robot.show()
            snapshot = robot.settle(count + 1)
        assert (snapshot.published, snapshot.idle) == (1, 2)
        assert robot.network.asked == [("depth",)]

"""points.region: both clouds hold that part of the image, and its points are those of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.cameras import CAMERAS
from helpers.ros_harness import HEIGHT, WIDTH, Robot, changed_settings, ros_context
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, RegionOfInterest

from d3_ros.geometry.camera import project
from d3_ros.imaging.image_region import Rectangle
from d3_ros.messages.images import depth_from_image
from d3_ros.pipeline import FrameRequest
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport
from d3_ros.ros.node.frame import NodeFrame, ReceivedImage
from d3_ros.ros.node.outputs.frame_messages import Buffers, FrameMessages
from d3_ros.ros.parameters.node_settings import settings_from
from d3_ros.ros.topics import DEPTH, NAV_POINTS, NORMALS, POINTS, RELATIVE
from d3_ros.types import CameraIntrinsics, DepthFit, DepthFrame

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

REGION = Rectangle(8, 16, 40, 24)
ROWS, COLUMNS = slice(16, 40), slice(8, 48)


def points(cloud: PointCloud2) -> np.ndarray:
    """(H, W, fields) float32."""
    return np.frombuffer(cloud.data, "<f4").reshape(cloud.height, cloud.width, -1)


# Without a node: the messages of one frame


def clouds(
    camera: CameraIntrinsics, region: Rectangle | None, **parameters: Any
) -> dict[str, np.ndarray]:
    """Both clouds of an uneven scene with holes, a step of depth and a saturated sky."""
    noise = np.random.default_rng(0)
    size = (camera.height, camera.width)
    metric = noise.uniform(2.0, 3.0, size).astype(np.float32)
    metric[:, 30:] += 4.0
    metric[noise.random(size) < 0.1] = np.nan
    relative = np.full(size, 0.5, np.float32)
    # What lies just before the saturation is far, and above the region.
    relative[:8], metric[:8] = 0.97, 20.0
    relative[16:24], metric[16:24] = 1.0, np.nan
    normals = noise.normal(size=(*size, 3)).astype(np.float32)
    rgb = noise.integers(0, 256, (*size, 3), np.uint8)
    fit = DepthFit(ok=True, state="measured", scale=1.0, shift=0.0)
    frame = NodeFrame(
        image=ReceivedImage(Image(), 0.0),
        request=FrameRequest(rgb, 0.0, camera),
        tasks=("depth", "normals"),
        topics=frozenset({POINTS, NAV_POINTS}),
        settings=settings_from({name.replace("__", "."): v for name, v in parameters.items()}),
        camera_info=None,
        rectified=False,
        cloud_region=region,
        sensor_pixels={},
        preparation_ms=0.0,
    )
    depth = DepthFrame(relative, metric, normals, fit, uncertainty=0.05 * metric)
    messages = FrameMessages(frame, depth, ScaleReport(fit), Buffers())
    return {topic: points(messages.make(topic)) for topic in (POINTS, NAV_POINTS)}


@pytest.mark.parametrize("camera", [CAMERAS["pinhole"], CAMERAS["plumb_bob"]])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("more", [False, True])
def test_the_organised_cloud_is_that_part_of_the_whole_one(
    camera: CameraIntrinsics, stride: int, more: bool
) -> None:
    settings = {"points__normals": more, "points__sigma": more, "points__remove_flying": True}
    settings |= {"points__min_range": 2.1, "points__max_range": 7.0}
    whole = clouds(camera, None, **settings)[POINTS]
    part = clouds(camera, REGION, **settings, points__stride=stride)[POINTS]
    assert part.shape == (-(-24 // stride), -(-40 // stride), 9 if more else 4)
    expected = whole[ROWS, COLUMNS][::stride, ::stride]
    np.testing.assert_allclose(part, expected, rtol=1e-6, atol=1e-6)
    assert np.array_equal(part[..., 3].view("u4"), expected[..., 3].view("u4")), "the same colours"
    assert np.isfinite(part[..., 2]).any()
    assert np.isnan(part[..., 2]).any()


@pytest.mark.parametrize("camera", [CAMERAS["pinhole"], CAMERAS["plumb_bob"]])
def test_the_light_cloud_is_that_part_of_the_whole_one(camera: CameraIntrinsics) -> None:
    settings = {
        "points__remove_flying": True,
        "points__nav__stride": 4,
        "points__nav__voxel_size": 0.0,
        "points__nav__min_range": 2.1,
        "points__nav__max_range": 9.0,
        "points__nav__clear_range": 10.0,
    }
    whole = clouds(camera, None, **settings)[NAV_POINTS][0]
    part = clouds(camera, REGION, **settings)[NAV_POINTS][0]
    u, v = np.rint(project(whole, camera)).astype(int).T
    inside = (u >= 8) & (u < 48) & (v >= 16) & (v < 40)
    assert 0 < inside.sum() < len(whole)
    np.testing.assert_allclose(part, whole[inside], rtol=1e-6, atol=1e-6)
    cleared = np.isclose(np.linalg.norm(part, axis=1), 10.0)
    assert cleared.sum() == 2 * 10, "one for each block of the saturated rows"


def test_a_region_smaller_than_a_block_of_the_light_cloud() -> None:
    settings = {"points__nav__stride": 8, "points__nav__clear_range": 10.0}
    part = clouds(CAMERAS["pinhole"], Rectangle(20, 30, 3, 2), **settings)
    assert part[POINTS].shape == (2, 3, 4)
    assert part[NAV_POINTS].shape == (1, 1, 3)


# Over DDS


@pytest.fixture(scope="module")
def robot(ros: None) -> Iterator[Robot]:
    topics = (DEPTH, NORMALS, POINTS, NAV_POINTS)
    with Robot(topics=topics, parameters={"input.wait": 0.5}) as robot:
        yield robot


@pytest.fixture
def setting(robot: Robot) -> Iterator[Callable[..., None]]:
    yield from changed_settings(robot)


def binned_lower_half(image: Image) -> CameraInfo:
    """Of an image of rows H to 2 H of a sensor of 2 W x 2 H pixels, binned 2 x 1."""
    info = CameraInfo(header=image.header, width=2 * WIDTH, height=2 * HEIGHT, binning_x=2)
    info.roi = RegionOfInterest(x_offset=0, y_offset=HEIGHT, width=2 * WIDTH, height=HEIGHT)
    info.k = [100.0, 0.0, 64.0, 0.0, 50.0, 24.0 + HEIGHT, 0.0, 0.0, 1.0]
    return info


@pytest.mark.parametrize(
    ("region", "binned"),
    [("8 16 40 24", False), (f"16 {HEIGHT + 16} 80 24", True)],
    ids=["whole sensor", "region of interest and binning"],
)
def test_clouds_follow_the_region_while_active(
    robot: Robot, setting: Callable[..., None], region: str, binned: bool
) -> None:
    setting(points__region=region, points__nav__stride=1, points__nav__voxel_size=0.0)
    image = robot.new_image()
    info = binned_lower_half(image) if binned else robot.new_camera_info(image)
    header = robot.show(image, camera_info=info).header
    depth = depth_from_image(robot.wait_for(DEPTH, header), "depth")
    assert depth.shape == (HEIGHT, WIDTH)
    assert np.isfinite(depth).all(), "the depth image is whole"
    assert robot.wait_for(NORMALS, header).width == WIDTH
    cloud = robot.wait_for(POINTS, header)
    assert (cloud.width, cloud.height, cloud.row_step) == (40, 24, 40 * 16)
    xyz = points(cloud)[..., :3]
    assert np.array_equal(xyz[..., 2], depth[ROWS, COLUMNS])
    v, u = np.mgrid[ROWS, COLUMNS]
    np.testing.assert_allclose(xyz[..., 0], (u - 32) / 50 * xyz[..., 2], rtol=1e-6)
    np.testing.assert_allclose(xyz[..., 1], (v - 24) / 50 * xyz[..., 2], rtol=1e-6)
    light = points(robot.wait_for(NAV_POINTS, header))[0]
    np.testing.assert_allclose(light, xyz.reshape(-1, 3), rtol=1e-6)


def test_a_bad_region_is_refused_and_the_old_one_stays(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(points__region="0 0 8 8")
    refused = robot.node.set_parameters([Parameter("points.region", value="0 0 0 8")])[0]
    assert not refused.successful
    assert refused.reason.endswith(
        "points.region '0 0 0 8' must have x, y >= 0 and width, height >= 1"
    )
    assert robot.wait_for(POINTS, robot.show().header).width == 8


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (f"0 40 {WIDTH} 10", f"reaches to column {WIDTH} and row 50, the full image is {WIDTH} x"),
        ("0 0 128 20", "is not in the image, which shows columns 0 to 127 and rows 48 to 95"),
    ],
)
def test_a_region_that_does_not_fit_the_image_leaves_out_the_clouds_alone(
    robot: Robot, setting: Callable[..., None], region: str, words: str
) -> None:
    setting(points__region=region)
    image = robot.new_image()
    binned = binned_lower_half(image) if "128" in region else "its own"
    header = robot.show(image, camera_info=binned).header
    robot.wait_for(DEPTH, header)
    line = robot.wait_for_line(words)
    assert f"points.region '{region}'" in line
    assert "give x y width height within" in line
    setting(points__region="")
    robot.wait_for(POINTS, robot.show().header)
    assert not robot.answers(POINTS, header)
    assert not robot.answers(NAV_POINTS, header)


def test_where_clouds_alone_are_asked_for_such_a_frame_is_refused() -> None:
    parameters = {"points.region": "0 40 10 10", "input.wait": 0.5}
    with Robot(topics=(POINTS,), parameters=parameters) as robot:
        robot.show()
        assert robot.settle(1).refused == 1
        assert "points.region '0 40 10 10'" in robot.settle(1).fault
        assert robot.network.asked == []


def test_a_bad_region_fails_configure_in_one_line() -> None:
    parameters = {"points.region": "1 2 3"}
    with Robot(topics=(RELATIVE,), parameters=parameters, start=False) as robot:
        assert not robot.change("configure")
        assert "points.region '1 2 3' must be whole pixels" in robot.wait_for_line(
            "configure failed"
        )
        robot.node.set_parameters([Parameter("points.region", value="")])
        assert robot.change("configure")

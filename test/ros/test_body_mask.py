"""image.mask over DDS: NaN in every output, no sensor point in the fit, one line where it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.ros_harness import HEIGHT, SCALE, SHIFT, WIDTH, Robot, ros_context, sensor_millimetres
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from d3_ros.messages.compressed import depth_from_any
from d3_ros.messages.images import ImageBuffer, depth_from_image
from d3_ros.ros.topics import (
    DEPTH,
    DEPTH_COMPRESSED,
    NAV_POINTS,
    NORMALS,
    POINTS,
    RELATIVE,
)

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

OUTPUTS = (DEPTH, DEPTH_COMPRESSED, RELATIVE, NORMALS, POINTS, NAV_POINTS)
# The robot's bumper: the lowest quarter of the image.
BUMPER_ROW = 36
BUMPER = f"0 {BUMPER_ROW} {WIDTH} {HEIGHT - BUMPER_ROW}"


@pytest.fixture
def bumper_png(tmp_path: Path) -> str:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[BUMPER_ROW:] = 255
    path = tmp_path / "bumper.png"
    cv2.imwrite(str(path), pixels)
    return str(path)


@pytest.fixture(params=["rectangle", "picture"])
def masked(request: pytest.FixtureRequest, bumper_png: str) -> Iterator[Robot]:
    mask = BUMPER if request.param == "rectangle" else bumper_png
    parameters = {"image.mask": mask, "input.wait": 0.5, "points.nav.voxel_size": 0.0}
    with Robot(topics=OUTPUTS, parameters=parameters) as robot:
        yield robot


def planes_of(robot: Robot, header: object) -> dict[str, np.ndarray]:
    """(H, W, C) of every output that is an image or organised."""
    planes = {
        topic: np.frombuffer(robot.wait_for(topic, header).data, "<f4").reshape(HEIGHT, WIDTH, -1)
        for topic in (DEPTH, RELATIVE, NORMALS, POINTS)
    }
    planes[POINTS] = planes[POINTS][..., :3]
    compressed = depth_from_any(robot.wait_for(DEPTH_COMPRESSED, header), "depth")
    return {**planes, DEPTH_COMPRESSED: compressed[..., None]}


def test_the_robot_s_body_is_nan_in_every_output(masked: Robot) -> None:
    header = masked.show().header
    for topic, plane in planes_of(masked, header).items():
        assert np.isnan(plane[BUMPER_ROW:]).all(), topic
        assert np.isfinite(plane[:BUMPER_ROW]).all(), topic
    cloud = masked.wait_for(NAV_POINTS, header)
    points = np.frombuffer(cloud.data, np.uint8).reshape(cloud.width, cloud.point_step)
    xyz = points[:, :12].copy().view("<f4")
    rows = 50 * xyz[:, 1] / xyz[:, 2] + 24
    assert len(rows) > 0
    assert rows.max() < BUMPER_ROW


def test_sensor_points_on_the_robot_s_body_do_not_enter_the_fit(masked: Robot) -> None:
    """The sensor sees the bumper at 0.2 m, the network's ramp has it at 0.9 to 1.6 m."""
    image = masked.new_image()
    millimetres = sensor_millimetres()
    millimetres[BUMPER_ROW:][millimetres[BUMPER_ROW:] > 0] = 200
    sensor = ImageBuffer().fill(image.header, millimetres, "16UC1")
    header = masked.show(image, sensor=sensor).header
    depth = depth_from_image(masked.wait_for(DEPTH, header), "depth")
    truth = SCALE * masked.network.relative + SHIFT
    np.testing.assert_allclose(depth[:BUMPER_ROW], truth[:BUMPER_ROW], rtol=2e-3)


def test_without_the_mask_those_points_would_enter() -> None:
    with Robot(topics=(DEPTH,)) as robot:
        image = robot.new_image()
        millimetres = sensor_millimetres()
        millimetres[BUMPER_ROW:][millimetres[BUMPER_ROW:] > 0] = 200
        sensor = ImageBuffer().fill(image.header, millimetres, "16UC1")
        header = robot.show(image, sensor=sensor).header
        depth = depth_from_image(robot.wait_for(DEPTH, header), "depth")
        truth = SCALE * robot.network.relative + SHIFT
        assert np.nanmax(np.abs(depth / truth - 1)) > 0.1


def test_sensor_depth_on_the_body_alone_gives_no_scale(masked: Robot) -> None:
    image = masked.new_image()
    millimetres = sensor_millimetres()
    millimetres[:BUMPER_ROW] = 0
    sensor = ImageBuffer().fill(image.header, millimetres, "16UC1")
    header = masked.show(image, sensor=sensor).header
    masked.wait_for(RELATIVE, header)
    assert not masked.answers(DEPTH, header)


def cropped(robot: Robot) -> tuple[Image, CameraInfo]:
    """An image and its calibration: the lower half of a sensor twice the size, binned 2 x 1.

    The sensor's full image is 2 W x 2 H, the image shows its rows H to 2 H.
    """
    image = robot.new_image()
    info = CameraInfo(header=image.header, width=2 * WIDTH, height=2 * HEIGHT, binning_x=2)
    info.roi = RegionOfInterest(x_offset=0, y_offset=HEIGHT, width=2 * WIDTH, height=HEIGHT)
    info.k = [100.0, 0.0, 64.0, 0.0, 50.0, 24.0 + HEIGHT, 0.0, 0.0, 1.0]
    return image, info


@pytest.mark.parametrize("kind", ["rectangle", "picture", "small picture"])
def test_the_mask_belongs_to_the_full_image(kind: str, tmp_path: Path) -> None:
    first = HEIGHT + BUMPER_ROW  # row of the full image
    full = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
    full[first:] = 1
    path = tmp_path / "full.png"
    cv2.imwrite(str(path), full if kind == "picture" else full[::2, ::2])
    mask = f"0 {first} {2 * WIDTH} {2 * HEIGHT - first}" if kind == "rectangle" else str(path)
    with Robot(topics=(DEPTH,), parameters={"image.mask": mask, "input.wait": 0.5}) as robot:
        image, info = cropped(robot)
        header = robot.show(image, camera_info=info).header
        depth = depth_from_image(robot.wait_for(DEPTH, header), "depth")
        assert np.isnan(depth[BUMPER_ROW:]).all()
        assert np.isfinite(depth[:BUMPER_ROW]).all()


def test_rectified_outputs_leave_the_body_out(bumper_png: str) -> None:
    parameters = {"image.mask": bumper_png, "output.rectified": True, "input.wait": 0.5}
    with Robot(topics=(DEPTH, RELATIVE), parameters=parameters) as robot:
        image = robot.new_image()
        info = robot.new_camera_info(image)
        # The rectified camera looks 10 pixels higher: the body begins 10 rows lower.
        info.p[6] += 10.0
        header = robot.show(image, camera_info=info).header
        depth = depth_from_image(robot.wait_for(DEPTH, header), "depth")
        relative = depth_from_image(robot.wait_for(RELATIVE, header), "relative")
        for plane in (depth, relative):
            assert np.isnan(plane[: 10 - 1]).all(), "the camera saw nothing there"
            assert np.isfinite(plane[11 : BUMPER_ROW + 9, 1:-1]).all()
            assert np.isnan(plane[BUMPER_ROW + 10 :]).all()


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ("/no/such/body.png", "image.mask: /no/such/body.png cannot be read"),
        ("0 0 0 10", "image.mask '0 0 0 10' must have x, y >= 0 and width, height >= 1"),
    ],
)
def test_a_bad_mask_fails_configure_in_one_line(mask: str, words: str) -> None:
    def load(settings: object, say: object) -> object:
        raise AssertionError("the network is loaded, which takes long, before the mask is checked")

    with Robot(topics=(), parameters={"image.mask": mask}, load=load, start=False) as robot:
        assert not robot.change("configure")
        assert words in robot.wait_for_line("configure failed")
        assert robot.state() == "unconfigured"
        robot.node.set_parameters([Parameter("image.mask", value="")])


def test_a_mask_of_another_size_is_told_at_the_first_image() -> None:
    with Robot(topics=(RELATIVE,), parameters={"image.mask": f"0 40 {WIDTH} 10"}) as robot:
        header = robot.show().header
        line = robot.wait_for_line("is not masked")
        assert f"reaches to column {WIDTH} and row 50, the full image is {WIDTH} x {HEIGHT}" in line
        assert not robot.answers(RELATIVE, header)
        assert robot.settle(1).refused == 1

"""The expected error of every metre over real DDS, and what the node does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.ros_harness import (
    HEIGHT,
    WIDTH,
    Robot,
    changed_settings,
    ros_context,
    sensor_millimetres,
)
from sensor_msgs.msg import Image, PointCloud2

from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.diagnostics.diagnostics import OK
from d3_ros.ros.topics import DEPTH, NAV_POINTS, POINTS, RELATIVE, UNCERTAINTY

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)
OUTPUTS = (RELATIVE, DEPTH, UNCERTAINTY, POINTS, NAV_POINTS)
SATURATED = slice(0, 3)  # rows


def plane(message: Image) -> np.ndarray:
    """(H, W) float32 of an image."""
    assert (message.encoding, message.height, message.width) == ("32FC1", HEIGHT, WIDTH)
    assert (message.step, message.is_bigendian) == (4 * WIDTH, 0)
    return np.frombuffer(message.data, "<f4").reshape(HEIGHT, WIDTH)


def points(cloud: PointCloud2) -> np.ndarray:
    """(N, fields) float32."""
    return np.frombuffer(cloud.data, "<f4").reshape(-1, cloud.point_step // 4)


@pytest.fixture(scope="module")
def robot(ros: None) -> Iterator[Robot]:
    with Robot(topics=OUTPUTS, parameters={"input.wait": 0.5}) as robot:
        robot.network.relative[SATURATED] = 1.0
        yield robot


@pytest.fixture
def setting(robot: Robot) -> Iterator[Callable[..., None]]:
    yield from changed_settings(robot)


def show_lower_half(robot: Robot) -> Any:
    """A frame of which a sensor measures the lower half; its header."""
    image = robot.new_image()
    millimetres = sensor_millimetres()
    millimetres[: HEIGHT // 2] = 0
    return robot.show(image, sensor=ImageBuffer().fill(image.header, millimetres, "16UC1")).header


def test_every_metre_has_its_expected_error(robot: Robot) -> None:
    header = show_lower_half(robot)
    depth, message = robot.wait_for(DEPTH, header), robot.wait_for(UNCERTAINTY, header)
    assert message.header == header
    metres, sigma = plane(depth), plane(message)
    np.testing.assert_array_equal(np.isnan(sigma), np.isnan(metres))
    assert np.isnan(sigma[SATURATED]).all()
    assert np.isfinite(sigma[3:]).all() and (sigma[3:] > 0).all()
    share = sigma / metres
    assert np.median(share[3:8]) > 1.5 * np.median(share[30:]), "it grows away from the points"


def test_without_a_scale_nothing_is_said_about_its_error(robot: Robot) -> None:
    robot.node._session.cameras[""].processor.reset_scale()
    silent = robot.show(sensor=None).header
    robot.wait_for(RELATIVE, silent)
    robot.wait_for(UNCERTAINTY, robot.show().header)
    assert not robot.answers(UNCERTAINTY, silent)


def test_what_is_too_unsure_is_unknown_in_depth_and_in_both_clouds(
    robot: Robot, setting: Callable[..., None]
) -> None:
    setting(points__nav__stride=1, points__nav__voxel_size=0.0)
    header = show_lower_half(robot)
    share = plane(robot.wait_for(UNCERTAINTY, header)) / plane(robot.wait_for(DEPTH, header))
    limit = float(np.nanmedian(share))
    setting(depth__max_relative_sigma=limit)
    header = show_lower_half(robot)
    metres, sigma = (plane(robot.wait_for(topic, header)) for topic in (DEPTH, UNCERTAINTY))
    known = np.isfinite(metres)
    assert 0.3 < known.mean() < 0.7
    assert (sigma[known] <= limit * metres[known] * 1.0001).all()
    assert np.isnan(sigma[~known]).all()
    z = points(robot.wait_for(POINTS, header))[:, 2].reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(z, metres)
    assert len(points(robot.wait_for(NAV_POINTS, header))) == known.sum()


def test_points_may_have_their_expected_error(robot: Robot, setting: Callable[..., None]) -> None:
    setting(points__sigma=True)
    for normals, step in ((False, 20), (True, 36)):
        setting(points__normals=normals)
        header = show_lower_half(robot)
        cloud = robot.wait_for(POINTS, header)
        assert (cloud.point_step, cloud.fields[-1].name) == (step, "sigma")
        assert cloud.fields[-1].offset == step - 4
        sigma = points(cloud)[:, -1].reshape(HEIGHT, WIDTH)
        np.testing.assert_array_equal(sigma, plane(robot.wait_for(UNCERTAINTY, header)))


def test_a_ray_is_free_only_as_far_as_the_depth_is_sure(
    robot: Robot, setting: Callable[..., None]
) -> None:
    clear, stride = 3.2, 4
    setting(points__nav__stride=stride, points__nav__max_range=2.0, points__nav__clear_range=clear)
    header = show_lower_half(robot)
    cloud = points(robot.wait_for(NAV_POINTS, header))
    ends = cloud[np.isclose(np.linalg.norm(cloud, axis=1), clear)]
    u, v = np.rint(ends[:, :2] / ends[:, 2:] * 50 + (32, 24)).astype(int).T
    cleared = np.zeros((HEIGHT // stride, WIDTH // stride), bool)
    cleared[v // stride, u // stride] = True
    cleared = cleared.repeat(stride, axis=0).repeat(stride, axis=1)
    metres, sigma = (plane(robot.wait_for(topic, header)) for topic in (DEPTH, UNCERTAINTY))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    ray = np.sqrt(1 + ((columns - 32) / 50) ** 2 + ((rows - 24) / 50) ** 2)
    known = np.isfinite(metres)
    assert ((metres - sigma) * ray > clear * 0.9999)[cleared & known].all()
    assert (known & (metres * ray > 1.05 * clear) & ~cleared).sum() > 4 * stride**2


def test_the_status_says_what_limits_a_measured_scale(robot: Robot) -> None:
    """Before a wall the metres are right, but what is elsewhere is a guess."""
    image = robot.new_image()
    wall = np.zeros((HEIGHT, WIDTH), np.uint16)
    wall[::4, ::4] = 2000
    sensor = ImageBuffer().fill(image.header, wall, "16UC1")
    robot.show(image, sensor=sensor)
    status = robot.wait_for_status(OK, "measured by image", "all sensor points lie near 2.00 m")
    values = {value.key: value.value for value in status.values}
    assert "all sensor points lie near 2.00 m" in values["reason"]

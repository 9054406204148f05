"""Camera model: rays, projection, distortion, range and z-depth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.cameras import CAMERAS
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.errors import DataError
from d3_ros.geometry.camera import (
    is_distorted,
    lens_distortion,
    project,
    ray_map,
    z_to_range,
)
from d3_ros.types import CameraIntrinsics


def pixel_grid(camera: CameraIntrinsics) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), -1)


def test_pinhole_rays_by_hand():
    camera = CameraIntrinsics(5, 3, 2.0, 4.0, 2.0, 1.0)
    rays = ray_map(camera)
    assert rays.shape == (3, 5, 3) and rays.dtype == np.float32
    np.testing.assert_allclose(rays[1, 2], (0, 0, 1))  # principal point
    np.testing.assert_allclose(rays[0, 4], (1.0, -0.25, 1))  # (4 - 2) / 2, (0 - 1) / 4


@pytest.mark.parametrize("name", CAMERAS)
def test_every_ray_reprojects_to_its_pixel(name):
    camera = CAMERAS[name]
    rays = ray_map(camera)
    assert np.isfinite(rays).all()
    pixels = project(rays.reshape(-1, 3) * 3.7, camera).reshape(camera.height, camera.width, 2)
    assert np.abs(pixels - pixel_grid(camera)).max() < 0.01


@pytest.mark.parametrize("name", CAMERAS)
def test_a_cropped_camera_has_the_rays_of_its_pixels(name):
    camera = CAMERAS[name]
    part = camera.cropped(10, 20, 30, 15)
    assert (part.width, part.height) == (30, 15)
    np.testing.assert_allclose(ray_map(part), ray_map(camera)[20:35, 10:40], rtol=1e-6, atol=1e-7)


PRISM = (0.1, -0.05, 0.001, -0.002, 0.02, 0.12, -0.04, 0.01, 0.02, -0.01, -0.015, 0.008)
TILTED = (*PRISM, 0.06, -0.09)
LENSES = {
    "plumb_bob": CAMERAS["plumb_bob"],
    "rational": CAMERAS["rational"],
    "thin prism": CameraIntrinsics(64, 48, 60, 62, 31, 24, "rational_polynomial", PRISM),
    "tilted": CameraIntrinsics(64, 48, 60, 62, 31, 24, "rational_polynomial", TILTED),
}


@pytest.mark.parametrize("name", LENSES)
def test_projection_is_opencvs(name):
    camera = LENSES[name]
    points = np.random.default_rng(0).uniform((-0.5, -0.4, 1), (0.5, 0.4, 2), (50, 3))
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion)
    )
    np.testing.assert_allclose(project(points, camera), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["thin prism", "tilted"])
def test_rays_of_a_prism_and_a_tilted_sensor_reproject_to_their_pixels(name):
    camera = LENSES[name]
    rays = ray_map(camera)
    assert np.isfinite(rays).all()
    pixels = project(rays.reshape(-1, 3) * 3.7, camera).reshape(camera.height, camera.width, 2)
    assert np.abs(pixels - pixel_grid(camera)).max() < 0.01


FIVE, EIGHT = (0.1, 0.2, 0.01, 0.02, 0.3), (0.1, 0.2, 0.01, 0.02, 0.3, 0.4, 0.5, 0.6)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("plumb_bob", (*FIVE, 0, 0, 0), ("plumb_bob", FIVE)),
        ("plumb_bob", (0.1, 0.2, 0, 0, 0), ("plumb_bob", (0.1, 0.2, 0, 0))),
        ("Plumb Bob", FIVE, ("plumb_bob", FIVE)),
        ("radtan", FIVE[:4], ("plumb_bob", FIVE[:4])),
        ("equidistant", (0.1, 0.2, 0.3, 0.4, 0), ("equidistant", (0.1, 0.2, 0.3, 0.4))),
        ("fisheye", (0, 0, 0, 0), ("equidistant", ())),
        ("Kannala-Brandt4", (0.1, 0, 0, 0), ("equidistant", (0.1, 0, 0, 0))),
        ("rational_polynomial", FIVE, ("rational_polynomial", FIVE)),
        ("rational_polynomial", (*EIGHT, *[0] * 6), ("rational_polynomial", EIGHT)),
        ("rational_polynomial", PRISM, ("rational_polynomial", PRISM)),
        ("rational_polynomial", (*PRISM, 0, 0), ("rational_polynomial", PRISM)),
        ("", (0, 0, 0, 0, 0), ("none", ())),
        ("", (), ("none", ())),
        ("none", (), ("none", ())),
    ],
)
def test_what_calibrations_of_real_drivers_mean(name, given, expected):
    assert lens_distortion(name, given) == expected
    is_distorted(CameraIntrinsics(8, 8, 5.0, 5.0, 4.0, 4.0, *expected))  # the model takes them


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("plumb_bob", EIGHT, "takes 4 or 5 coefficients, got 8"),
        ("plumb_bob", (0.1, 0.2), "takes 4 or 5 coefficients, got 2"),
        ("equidistant", FIVE, "takes 4 coefficients, got 5"),
        ("rational_polynomial", (*PRISM, 0.1), "takes 4 or 5 or 8 or 12 or 14 .*, got 13"),
        ("", FIVE, "unknown distortion model ''"),
        ("none", FIVE, "takes no coefficients, got 5"),
    ],
)
def test_distortion_that_means_nothing_is_told(name, given, says):
    with pytest.raises(DataError, match=says):
        lens_distortion(name, given)


def test_fisheye_projection_is_opencvs():
    camera = CAMERAS["fisheye"]
    points = np.random.default_rng(0).uniform((-2, -2, 1), (2, 2, 2), (50, 3))
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion)
    )
    np.testing.assert_allclose(project(points, camera), expected[:, 0], atol=1e-6)


def test_equidistant_without_coefficients_is_proportional_to_the_angle():
    camera = CameraIntrinsics(101, 101, 40.0, 40.0, 50.0, 50.0, "equidistant")
    # 45 degrees off axis: f * pi / 4 pixels from the centre.
    np.testing.assert_allclose(
        project(np.array([[1.0, 0.0, 1.0]]), camera), [[50 + 10 * np.pi, 50]], atol=1e-9
    )
    np.testing.assert_allclose(ray_map(camera)[50, 70], (np.tan(0.5), 0, 1), atol=1e-5)


def test_beyond_a_fisheyes_quarter_turn_there_is_no_ray():
    camera = CameraIntrinsics(101, 101, 20.0, 20.0, 50.0, 50.0, "equidistant")
    rays = ray_map(camera)
    assert np.isnan(rays[50, 50 + 32]).all()  # 32 / 20 = 1.6 rad > pi / 2
    assert np.isfinite(rays[50, 50 + 30]).all()


def test_barrel_polynomial_does_not_fold_far_points_into_the_image():
    # r (1 - 0.3 r^2) turns around at r = 1 / sqrt(0.9) = 1.054; at r = 1.8 it is 0.05 again.
    camera = CameraIntrinsics(101, 101, 40.0, 40.0, 50.0, 50.0, "plumb_bob", (-0.3, 0, 0, 0, 0))
    pixels = project(np.array([[1.0, 0, 1], [1.8, 0, 1]]), camera)
    np.testing.assert_allclose(pixels[0], (50 + 40 * 0.7, 50))
    assert np.isnan(pixels[1]).all()
    # The largest distorted radius is 0.7027: 28.1 pixels. Beyond it no ray exists.
    rays = ray_map(camera)
    assert np.isfinite(rays[50, 78]).all() and np.isnan(rays[50, 79]).all()


def test_points_behind_the_camera_have_no_pixel():
    pixels = project(np.array([[0.1, 0.1, -1.0], [0, 0, 0], [np.nan, 0, 1]]), CAMERAS["pinhole"])
    assert np.isnan(pixels[:2]).all() and np.isnan(pixels[2, 0])


def test_ray_map_is_shared_and_read_only():
    first = ray_map(CAMERAS["plumb_bob"])
    assert ray_map(CAMERAS["plumb_bob"]) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 1


@pytest.mark.parametrize("model, count", [("plumb_bob", 3), ("equidistant", 5), ("none", 1)])
def test_wrong_number_of_coefficients_is_told(model, count):
    camera = CameraIntrinsics(8, 8, 5.0, 5.0, 4.0, 4.0, model, (0.1,) * count)
    with pytest.raises(DataError, match=f"'{model}' takes .* got {count}"):
        ray_map(camera)


def test_range_of_a_3_4_5_triangle():
    camera = CameraIntrinsics(3, 1, 4.0, 4.0, 0.0, 0.0)  # column 0: on axis; 2: x = 1/2
    depth = np.full((1, 3), 4.0, np.float32)
    distance = z_to_range(depth, camera)
    np.testing.assert_allclose(distance[0], 4 * np.sqrt((1, 1 + 1 / 16, 1 + 1 / 4)), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    f=st.floats(60, 200),
    cx=st.floats(20, 44),
    k1=st.floats(-0.3, 0.3),
    k2=st.floats(-0.1, 0.1),
    p1=st.floats(-0.005, 0.005),
)
def test_whatever_the_lens_a_ray_is_right_or_nan(f, cx, k1, k2, p1):
    camera = CameraIntrinsics(64, 48, f, f, cx, 24.0, "plumb_bob", (k1, k2, p1, 0.0, 0.0))
    rays = ray_map(camera)
    known = np.isfinite(rays).all(axis=2)
    assert np.isnan(rays[~known]).all()
    pixels = project(rays[known], camera)
    assert np.abs(pixels - pixel_grid(camera)[known]).max(initial=0) < 0.01

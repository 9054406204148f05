"""Rectification: the pinhole image of what a bending lens saw, and measured depth moved with it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.cameras import CAMERAS

from d3_ros.geometry.camera import project, ray_map
from d3_ros.geometry.rectification import IDENTITY, rectification
from d3_ros.types import CameraIntrinsics

PINHOLE = CAMERAS["pinhole"]
BENT = [CAMERAS[name] for name in ("plumb_bob", "rational", "fisheye")]
TURN = cv2.Rodrigues(np.array([0.02, -0.05, 0.03]))[0]


def pattern(rays: np.ndarray) -> np.ndarray:
    """A smooth picture on the sky: the colour that is seen along a ray (z = 1)."""
    x, y = rays[..., 0], rays[..., 1]
    return np.stack(
        [128 + 100 * np.sin(4 * x), 128 + 100 * np.cos(3 * y), 60 + 40 * x + 30 * y], -1
    )


def seen_by(camera: CameraIntrinsics) -> np.ndarray:
    return np.rint(pattern(ray_map(camera))).astype(np.uint8)


@pytest.mark.parametrize("raw", BENT, ids=lambda camera: camera.distortion_model)
def test_a_rectified_image_shows_what_a_pinhole_camera_sees(raw: CameraIntrinsics) -> None:
    found = rectification(raw, PINHOLE)
    assert found.camera == PINHOLE
    rectified = found.image(seen_by(raw))
    difference = np.abs(rectified.astype(int) - seen_by(PINHOLE).astype(int)).max(axis=2)
    assert found.inside.mean() > 0.5
    assert difference[found.inside].max() <= 6  # of bilinear interpolation in a coarse picture
    assert not rectified[~found.inside].any()


def test_it_is_opencv_s() -> None:
    raw = CAMERAS["plumb_bob"]
    maps = cv2.initUndistortRectifyMap(
        raw.matrix, np.array(raw.distortion), TURN, PINHOLE.matrix, (64, 48), cv2.CV_32FC1
    )
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    image = cv2.GaussianBlur(image, (5, 5), 0)
    theirs = cv2.remap(image, *maps, cv2.INTER_LINEAR)
    found = rectification(raw, PINHOLE, tuple(TURN.ravel()))
    ours = found.image(image)
    assert found.inside.mean() > 0.8
    assert np.abs(ours.astype(int) - theirs.astype(int))[found.inside].max() <= 4


@pytest.mark.parametrize("rotation", [IDENTITY, tuple(TURN.ravel())], ids=["R = I", "R"])
@pytest.mark.parametrize("raw", BENT, ids=lambda camera: camera.distortion_model)
def test_measured_depth_lands_on_the_pixels_of_its_points(
    raw: CameraIntrinsics, rotation: tuple[float, ...]
) -> None:
    depth = np.full((48, 64), np.nan, np.float32)
    measured = [(18, 26), (24, 32), (30, 38), (24, 20)]
    for at, (v, u) in enumerate(measured):
        depth[v, u] = 2.0 + at
    before = depth.copy()
    rectified = rectification(raw, PINHOLE, rotation).depth(depth)
    assert np.array_equal(depth, before, equal_nan=True)
    expected = np.full((48, 64), np.nan, np.float32)
    for v, u in measured:
        point = np.array(rotation).reshape(3, 3) @ (ray_map(raw)[v, u] * depth[v, u])
        ((to_u, to_v),) = np.rint(project(point[None], PINHOLE)).astype(int)
        expected[to_v, to_u] = point[2]
    np.testing.assert_allclose(rectified, expected, rtol=1e-5)
    assert np.isfinite(rectified).sum() == 4


def test_of_several_measurements_on_a_pixel_the_nearest_stays() -> None:
    small = CameraIntrinsics(64, 48, 5.0, 5.0, 31.5, 23.5)  # all of the image on a few pixels
    depth = np.random.default_rng(1).uniform(2, 9, (48, 64)).astype(np.float32)
    depth[0, 0], depth[10, 10], depth[30, 30] = 0.0, np.inf, 1.0
    rectified = rectification(CAMERAS["plumb_bob"], small).depth(depth)
    assert np.nanmin(rectified) == 1.0
    assert 0 < np.isfinite(rectified).sum() < 200
    assert np.nanmax(rectified) < 9


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"64 x 48 cannot be rectified to 32 x 24"):
        rectification(CAMERAS["plumb_bob"], PINHOLE.resized(32, 24))

"""Flying pixels: what hangs between two surfaces goes, and surfaces stay, however steep."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.geometry.camera import ray_map
from d3_ros.geometry.flying_pixels import flying_pixels
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(640, 480, 525.0, 525.0, 319.5, 239.5)


def plane(normal: tuple[float, float, float], distance: float) -> np.ndarray:
    """(H, W) z-depth of the plane normal . p = distance; NaN where it is not seen."""
    with np.errstate(divide="ignore"):
        depth = distance / (ray_map(CAMERA) @ np.float32(normal))
    return np.where((depth > 0) & (depth < 60), depth, np.float32(np.nan)).astype(np.float32)


def blurred_step(near: float, far: float, blur: int) -> tuple[np.ndarray, slice]:
    """A wall whose left half is nearer, with the edge blurred over `blur` columns; and those."""
    row = np.full(640, near, np.float32)
    row[320:] = far
    edge = slice(320 - blur // 2, 320 - blur // 2 + blur)
    row[edge] = np.linspace(near, far, blur + 2, dtype=np.float32)[1:-1]
    return np.tile(row, (480, 1)), edge


@pytest.mark.parametrize("blur", [2, 4, 6])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_blurred_edge_goes_and_both_walls_stay(blur: int, transposed: bool) -> None:
    depth, edge = blurred_step(1.0, 3.0, blur)
    flying = flying_pixels(np.ascontiguousarray(depth.T)).T if transposed else flying_pixels(depth)
    expected = np.zeros(640, bool)
    expected[edge] = True
    assert np.array_equal(flying, np.tile(expected, (480, 1)))


def test_a_sharp_edge_has_none() -> None:
    depth, _ = blurred_step(1.0, 3.0, 0)
    assert not flying_pixels(depth).any()


@given(
    st.floats(-0.98, 0.98),
    st.floats(-0.98, 0.98),
    st.floats(0.3, 10.0),
)
@settings(max_examples=30, deadline=None)
def test_no_plane_is_touched(x: float, y: float, distance: float) -> None:
    """Not even a floor seen at its horizon, where depth doubles from row to row."""
    assert not flying_pixels(plane((x, y, 0.2), distance)).any()


def test_a_room_s_corners_and_its_floor_stay() -> None:
    floor, wall, side = plane((0, 1, 0), 0.4), plane((0, 0, 1), 4.0), plane((1, 0, 0.2), 1.5)
    room = np.fmin(np.fmin(floor, wall), side)
    assert np.isfinite(room).all()
    assert not flying_pixels(room).any()


def test_noise_of_a_few_per_mille_is_not_taken_for_flying() -> None:
    noise = np.random.default_rng(0).normal(1.0, 0.005, (480, 640)).astype(np.float32)
    noisy = plane((0.5, 0.7, 0.5), 1.0) * cv2.GaussianBlur(noise, (5, 5), 0)
    assert flying_pixels(noisy).mean() < 0.001


def test_next_to_unknown_depth_nothing_goes() -> None:
    depth, edge = blurred_step(1.0, 3.0, 4)
    depth[:, 300:310] = np.nan
    before = depth.copy()
    flying = flying_pixels(depth)
    assert not flying[np.isnan(depth)].any()
    assert np.array_equal(depth, before, equal_nan=True)
    assert flying[:, edge].any() == (edge.start - 2 * 6 > 310)


def test_a_small_image_has_no_surfaces_beside_the_pixel() -> None:
    assert not flying_pixels(np.ones((4, 5), np.float32)).any()

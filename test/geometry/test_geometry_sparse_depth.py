"""LiDAR points and scans on the image, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.geometry.sparse_depth import project_points, remove_hidden, scan_to_points
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(101, 81, 50.0, 50.0, 50.0, 40.0)
# x forward, y left, z up (REP 103 body) into x right, y down, z forward (optical).
BODY_TO_OPTICAL = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def measured(depth: np.ndarray) -> dict[tuple[int, int], float]:
    rows, columns = np.nonzero(np.isfinite(depth))
    return {(int(u), int(v)): float(depth[v, u]) for v, u in zip(rows, columns, strict=True)}


def test_a_body_frame_point_lands_by_hand():
    # 2 m ahead, 1 m left, 0.4 m up: u = 50 - 50 * 1 / 2, v = 40 - 50 * 0.4 / 2.
    depth = project_points(np.array([[2.0, 1.0, 0.4]]), BODY_TO_OPTICAL, CAMERA)
    assert depth.shape == (81, 101) and depth.dtype == np.float32
    assert measured(depth) == {(25, 30): 2.0}  # z-depth, not the range of 2.27 m


def test_translation_and_range_limits():
    transform = BODY_TO_OPTICAL.copy()
    transform[:3, 3] = (0.51, 0.0, -0.1)  # the sensor is right of the camera and behind it
    points = np.array([[2.1, 0.0, 0.0], [0.2, 0.0, 0.0], [30.0, 0.0, 0.0]])
    before = points.copy()
    depth = project_points(points, transform, CAMERA, min_range=0.5, max_range=20.0)
    assert measured(depth) == {(63, 40): 2.0}  # 50 + 50 * 0.51 / 2 = 62.75
    np.testing.assert_array_equal(points, before)


def test_nearest_wins_whatever_the_order():
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        points = np.array([[3.0, 0, 0], [2.0, 0, 0], [5.0, 0, 0]])[order]
        assert measured(project_points(points, BODY_TO_OPTICAL, CAMERA)) == {(50, 40): 2.0}


def test_behind_outside_and_non_finite_points_vanish():
    points = np.array([[-2.0, 0, 0], [1.0, 5.0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 0]])
    assert measured(project_points(points, BODY_TO_OPTICAL, CAMERA)) == {}
    assert measured(project_points(np.empty((0, 3)), BODY_TO_OPTICAL, CAMERA)) == {}


def test_the_raw_images_distortion_is_applied():
    camera = CameraIntrinsics(101, 81, 50.0, 50.0, 50.0, 40.0, "plumb_bob", (-0.4, 0, 0, 0, 0))
    # x = 0.5: 0.5 * (1 - 0.4 * 0.25) = 0.45, times 50 is 22.5 -> 27.5 from the left: pixel 28.
    depth = project_points(np.array([[2.0, 1.0, 0.0]]), BODY_TO_OPTICAL, camera)
    assert list(measured(depth)) == [(28, 40)]


def wall_and_box() -> np.ndarray:
    """A box at 2 m before a wall at 6 m, sampled every third pixel."""
    depth = np.full((81, 101), np.nan, np.float32)
    depth[::3, ::3] = 6.0
    depth[21:60:3, 30:69:3] = 2.0
    return depth


def test_points_seen_through_the_foreground_are_removed():
    depth = wall_and_box()
    depth[40, 50] = 6.0  # a wall point that shines through the middle of the box
    cleaned = remove_hidden(depth, window_px=6)
    assert np.isnan(cleaned[40, 50])
    depth[40, 50] = np.nan
    np.testing.assert_array_equal(cleaned, depth)  # and nothing else is: not even beside the box


def test_a_slanted_floor_is_not_hidden_behind_itself():
    depth = np.full((81, 101), np.nan, np.float32)
    rows = np.arange(44, 81, 4)
    depth[rows, ::3] = (50.0 * 0.5 / (rows - 40))[:, None]  # half a metre under the camera
    np.testing.assert_array_equal(remove_hidden(depth, window_px=8), depth)


def test_scan_by_hand():
    ranges = np.array([1.0, np.inf, 2.0, np.nan, 0.05, 30.0, -np.inf], np.float32)
    points = scan_to_points(ranges, -np.pi / 2, np.pi / 2, range_min=0.1, range_max=20.0)
    np.testing.assert_allclose(points, [[0, -1, 0], [0, 2, 0]], atol=1e-6)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="4 x 4"):
        project_points(np.zeros((3, 3)), np.eye(3), CAMERA)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.2, 50), st.floats(-20, 20), st.floats(-20, 20)),
        min_size=0,
        max_size=30,
    )
)
def test_every_depth_is_that_of_a_point(points):
    array = np.array(points, np.float64).reshape(-1, 3)
    depth = project_points(array, BODY_TO_OPTICAL, CAMERA, hidden_window_px=0)
    values = depth[np.isfinite(depth)]
    assert len(values) <= len(array)
    assert np.isin(values, array[:, 0].astype(np.float32)).all()


def test_nearest_wins_among_many_points_of_one_pixel_in_single_precision():
    rng = np.random.default_rng(0)
    z = rng.uniform(1, 50, 5000).astype(np.float32)
    # A bundle of rays through 25 pixels: many points share one.
    u, v = rng.integers(40, 45, 5000), rng.integers(30, 35, 5000)
    points = np.column_stack([(u - 50) / 50 * z, (v - 40) / 50 * z, z]).astype(np.float32)
    depth = project_points(points, np.eye(4), CAMERA, hidden_window_px=0)
    assert np.isfinite(depth).sum() == 25
    for column, row in zip(u[:50], v[:50], strict=True):
        assert depth[row, column] == z[(u == column) & (v == row)].min()

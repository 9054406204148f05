"""Normals from depth on planes whose normal is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.geometry.camera import ray_map
from d3_ros.geometry.normals import normals_from_depth
from d3_ros.types import CameraIntrinsics

PINHOLE = CameraIntrinsics(80, 60, 70.0, 75.0, 39.5, 29.5)
LENSES = {
    "pinhole": PINHOLE,
    "plumb_bob": CameraIntrinsics(
        80, 60, 70.0, 75.0, 39.5, 29.5, "plumb_bob", (-0.2, 0.03, 0.001, 0.001, 0.0)
    ),
    "fisheye": CameraIntrinsics(
        80, 60, 50.0, 50.0, 39.5, 29.5, "equidistant", (0.01, 0.0, 0.0, 0.0)
    ),
}


def plane_depth(camera: CameraIntrinsics, normal, distance: float) -> np.ndarray:
    """z-depth of the plane n . P = -distance (camera on its front); NaN where it is not seen."""
    with np.errstate(divide="ignore"):
        z = -distance / (ray_map(camera).astype(np.float64) @ np.asarray(normal, np.float64))
    return np.where(z > 0, z, np.nan).astype(np.float32)


def angle_deg(normals: np.ndarray, normal) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(normals @ np.asarray(normal), -1, 1)))


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize(
    "normal",
    [
        (0, 0, -1),  # wall seen head-on
        (0, -1, 0),  # floor: y points down, so up is -y
        (0, 1, 0),  # ceiling
        (np.sqrt(0.5), 0, -np.sqrt(0.5)),  # wall on the left, turned 45 degrees to the right
        (0, -0.6, -0.8),  # a ramp
    ],
)
def test_planes(lens, normal):
    camera = LENSES[lens]
    depth = plane_depth(camera, normal, 1.5)
    normals = normals_from_depth(depth, camera)
    assert normals.dtype == np.float32 and normals.shape == (60, 80, 3)
    known = np.isfinite(normals).all(axis=2)
    assert known.sum() > 0.9 * np.isfinite(depth).sum()
    np.testing.assert_allclose(np.linalg.norm(normals[known], axis=1), 1, atol=1e-5)
    # A plane cut by the corners of a fisheye is sampled too coarsely to be exact.
    limit = 0.1 if lens == "pinhole" else 0.6
    assert np.quantile(angle_deg(normals[known], normal), 0.99) < limit


def test_floor_is_minus_y_even_at_grazing_angles():
    depth = plane_depth(PINHOLE, (0, -1, 0), 0.3)  # 22 m at the row under the horizon
    normals = normals_from_depth(depth, PINHOLE)
    assert angle_deg(normals[40:], (0, -1, 0)).max() < 0.1


def test_a_depth_edge_is_not_smeared():
    depth = np.full((60, 80), 3.0, np.float32)
    depth[:, 40:] = 1.0
    normals = normals_from_depth(depth, PINHOLE)
    assert angle_deg(normals.reshape(-1, 3), (0, 0, -1)).max() < 0.1  # not one slanted pixel


def test_unknown_stays_unknown_and_does_not_spread():
    depth = np.full((60, 80), 2.0, np.float32)
    depth[20:30, 30:40] = np.nan
    depth[0, 0], depth[0, 1], depth[0, 2] = 0.0, np.inf, -1.0
    before = depth.copy()
    normals = normals_from_depth(depth, PINHOLE)
    np.testing.assert_array_equal(np.isnan(normals[..., 0]), ~((before > 0) & (before < np.inf)))
    np.testing.assert_array_equal(depth, before)


def test_size_must_fit():
    with pytest.raises(ValueError, match="camera"):
        normals_from_depth(np.ones((10, 10), np.float32), PINHOLE)


@settings(max_examples=50, deadline=None)
@given(tilt=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)), distance=st.floats(0.2, 20))
def test_any_plane_faces_the_camera_at_its_angle(tilt, distance):
    normal = np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
    depth = plane_depth(PINHOLE, normal, distance)
    normals = normals_from_depth(depth, PINHOLE)
    known = np.isfinite(normals).all(axis=2)
    assert known.any()
    assert (np.sum(normals[known] * ray_map(PINHOLE)[known], axis=1) < 0).all()
    assert angle_deg(normals[known], normal).max() < 0.2

"""Floor depth from the height of the camera."""

from __future__ import annotations

import numpy as np
import pytest

from d3_ros.geometry.camera import ray_map
from d3_ros.geometry.ground import floor_depth, mounting_from_pose, mounting_from_tilt
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(80, 60, 60.0, 60.0, 39.5, 29.5)


def room(pitch_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normals of a floor in the lower half and a wall above it, the floor's normal and mask."""
    tilt = np.deg2rad(pitch_deg)
    up = np.array([0.0, -np.cos(tilt), -np.sin(tilt)], np.float32)
    floor = -(ray_map(CAMERA) @ up) > 0.15
    normals = np.where(floor[..., None], up, np.float32([0, 0, -1])).astype(np.float32)
    return normals, up, floor


@pytest.mark.parametrize("pitch_deg", [0.0, 10.0])
def test_depth_of_the_floor_by_the_plane_equation(pitch_deg):
    normals, up, floor = room(pitch_deg)
    result = floor_depth(normals, CAMERA, camera_height_m=0.4)
    assert result.reason == "" and result.depth is not None
    np.testing.assert_allclose(result.normal, up, atol=1e-3)
    np.testing.assert_array_equal(np.isfinite(result.depth), floor)
    points = ray_map(CAMERA) * result.depth[..., None]
    np.testing.assert_allclose((points @ up)[floor], -0.4, atol=1e-4)


def test_bottom_row_by_hand():
    normals, _, _ = room()
    depth = floor_depth(normals, CAMERA, camera_height_m=0.5).depth
    assert depth is not None
    # Row 59 is 29.5 pixels under the axis: y = 29.5 / 60 per metre of depth.
    assert depth[59, 40] == pytest.approx(0.5 * 60 / 29.5, rel=1e-4)


def test_no_floor_no_depth():
    normals = np.zeros((60, 80, 3), np.float32)
    normals[..., 2] = -1.0
    result = floor_depth(normals, CAMERA, camera_height_m=0.4)
    assert result.depth is None and "0.0% of the image is floor" in result.reason
    assert floor_depth(np.full_like(normals, np.nan), CAMERA, 0.4).depth is None


def test_arguments_are_checked():
    normals, _, _ = room()
    with pytest.raises(ValueError, match="camera_height_m"):
        floor_depth(normals, CAMERA, camera_height_m=0.0)
    with pytest.raises(ValueError, match="size"):
        floor_depth(normals[:-1], CAMERA, camera_height_m=0.4)


def test_mounting_by_tilt_and_by_pose_agree():
    """Looking 30 degrees down from 1.2 m."""
    tilt = np.deg2rad(30.0)
    mounting = mounting_from_tilt(1.2, tilt)
    np.testing.assert_allclose(mounting.up, [0.0, -0.8660254, -0.5], atol=1e-6)
    # The optical frame in one with z up and x ahead: x right is -y, z forward dips by 30 degrees.
    forward = np.array([np.cos(tilt), 0.0, -np.sin(tilt)])
    right = np.array([0.0, -1.0, 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = [0.3, 0.1, 1.2]
    posed = mounting_from_pose(pose)
    assert posed.height_m == pytest.approx(1.2)
    np.testing.assert_allclose(posed.up, mounting.up, atol=1e-9)
    with pytest.raises(ValueError, match="above the floor"):
        mounting_from_pose(np.eye(4))


def test_floor_of_rendered_rooms_is_where_the_renderer_has_it():
    pytest.importorskip("embreex", reason="rendering needs the training requirements")
    from d3_ros.synthetic.dataset import render_walk
    from d3_ros.synthetic.mesh.rig import Rig

    for seed in range(3):
        (photo,) = render_walk(seed, 1, Rig((160, 120)))
        pose, truth = photo.frame.T_world_camera, photo.frame.depth
        # The world's z is up, its floor at 0. A camera knows its attitude to a few degrees.
        up = pose[:3, :3].T @ [0.03, -0.03, 1.0]
        floor = floor_depth(photo.frame.normals, photo.camera, float(pose[2, 3]), up=up)
        assert floor.depth is not None
        points = (ray_map(photo.camera) * truth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
        on_floor = (truth > 0) & (np.abs(points[..., 2]) < 0.01)
        found = np.isfinite(floor.depth)
        assert (found & on_floor).sum() > 0.6 * on_floor.sum()
        error = np.abs(floor.depth / truth - 1)[found & on_floor]
        assert np.quantile(error, 0.95) < 0.02

"""Images of any size: one pixel, a line, 2 x 3000, wider than 16 bits. None may end a frame."""

from __future__ import annotations

import numpy as np
import pytest

from d3_ros.errors import DataError
from d3_ros.geometry.flying_pixels import flying_pixels
from d3_ros.geometry.light_cloud import clearing_points, far_pixels, light_cloud
from d3_ros.geometry.normals import median_angle_to_depth, normals_from_depth
from d3_ros.geometry.point_cloud import pack_cloud
from d3_ros.geometry.rectification import rectification
from d3_ros.geometry.sparse_depth import place_on_image, remove_hidden
from d3_ros.types import CameraIntrinsics

SIZES = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (5, 3), (7, 9), (2, 3000), (3000, 2), (33_000, 2)]
LENSES = {"none": (), "plumb_bob": (-0.2, 0.05, 0.0, 0.0), "equidistant": ()}


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_everything_answers_at_its_size(width: int, height: int, lens: str) -> None:
    focal = float(max(width, height))
    centre = (width / 2 - 0.5, height / 2 - 0.5)
    camera = CameraIntrinsics(width, height, focal, focal, *centre, lens, LENSES[lens])
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 5, (height, width)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.2] = np.nan
    relative = rng.random(depth.shape).astype(np.float32)
    rgb = rng.integers(0, 255, (height, width, 3), np.uint8)
    facing = np.zeros((height, width, 3), np.float32)
    facing[..., 2] = -1

    normals = normals_from_depth(depth, camera)
    assert normals.shape == (height, width, 3)
    known = np.isfinite(normals).all(axis=2)
    np.testing.assert_allclose(np.linalg.norm(normals[known], axis=1), 1, atol=1e-4)
    median_angle_to_depth(facing, depth, camera)
    assert pack_cloud(depth, rgb, facing, camera).shape == (height, width, 8)
    pack_cloud(depth, rgb, None, camera, stride=3, min_range=1.0, max_range=3.0)
    light_cloud(depth, camera, stride=4, voxel_size=0.1)
    clearing_points(far_pixels(depth, relative, camera, 3.0), camera, stride=4, range_m=3.0)
    assert flying_pixels(depth).shape == depth.shape
    assert remove_hidden(depth, max(2, width // 64)).shape == depth.shape
    assert place_on_image(depth, width, height) is depth


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_rectification_answers_or_tells_its_limit(width: int, height: int, lens: str) -> None:
    focal = float(max(width, height))
    raw = CameraIntrinsics(width, height, focal, focal, 0.0, 0.0, lens, LENSES[lens])
    pinhole = CameraIntrinsics(width, height, focal, focal, 0.0, 0.0)
    if width > 32_766:
        with pytest.raises(DataError, match="32766 pixels is the limit of a side"):
            rectification(raw, pinhole)
        return
    found = rectification(raw, pinhole)
    assert found.image(np.zeros((height, width, 3), np.uint8)).shape == (height, width, 3)
    assert found.depth(np.ones((height, width), np.float32)).shape == (height, width)

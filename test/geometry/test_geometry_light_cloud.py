"""The light cloud: no obstacle is lost, few points, and free rays only where it is free."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from d3_ros.geometry.camera import project, ray_map, z_to_range
from d3_ros.geometry.light_cloud import clearing_points, far_pixels, light_cloud
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(10, 7, 5.0, 4.0, 4.5, 3.0)
LENS = CameraIntrinsics(64, 48, 50.0, 50.0, 31.5, 23.5, "plumb_bob", (-0.2, 0.05, 1e-3, 0, 0))
ROOM = CameraIntrinsics(64, 48, 50.0, 50.0, 31.5, 23.5)


def by_hand(depth: np.ndarray, stride: int) -> list[tuple[float, ...]]:
    """The nearest valid point of each block, one after the other."""
    points = []
    for top in range(0, depth.shape[0], stride):
        for left in range(0, depth.shape[1], stride):
            best = None
            for v in range(top, min(top + stride, depth.shape[0])):
                for u in range(left, min(left + stride, depth.shape[1])):
                    z = float(depth[v, u])
                    if 0 < z < np.inf and (best is None or z < best[2]):
                        best = ((u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z)
            points += [best] if best else []
    return points


@given(
    arrays(
        np.float32,
        (7, 10),
        elements=st.one_of(
            st.floats(0.25, 8.0, width=32), st.sampled_from([np.nan, np.inf, 0.0, -1.0])
        ),
    ),
    st.integers(1, 12),
)
def test_every_block_gives_its_nearest_point(depth: np.ndarray, stride: int) -> None:
    cloud = light_cloud(depth, CAMERA, stride=stride)
    assert cloud.dtype == np.float32
    expected = np.array(by_hand(depth, stride)).reshape(-1, 3)
    np.testing.assert_allclose(cloud, expected, rtol=1e-6, atol=1e-7)


def test_a_pole_of_one_pixel_is_not_lost() -> None:
    depth = np.full((48, 64), 5.0, np.float32)
    depth[:, 29] = 2.0
    cloud = light_cloud(depth, ROOM, stride=8)
    assert (cloud[:, 2] == 2.0).sum() == 6  # a column of blocks


def test_points_are_on_the_rays_of_their_pixels_through_a_lens() -> None:
    depth = np.random.default_rng(0).uniform(1, 3, (48, 64)).astype(np.float32)
    cloud = light_cloud(depth, LENS, stride=4)
    pixels = project(cloud.astype(np.float64), LENS)
    u, v = np.rint(pixels).astype(int).T
    assert np.abs(pixels - np.rint(pixels)).max() < 0.01
    np.testing.assert_allclose(depth[v, u], cloud[:, 2], rtol=1e-6)


def test_the_range_is_the_distance_from_the_camera() -> None:
    depth = np.linspace(0.5, 6.0, 48 * 64, dtype=np.float32).reshape(48, 64)
    cloud = light_cloud(depth, ROOM, stride=1, min_range=1.0, max_range=4.0)
    distance = np.linalg.norm(cloud, axis=1)
    true = z_to_range(depth, ROOM)
    assert distance.min() >= 1.0 and distance.max() <= 4.0
    assert len(cloud) == ((true >= 1.0) & (true <= 4.0)).sum()


def test_what_is_too_near_hides_nothing_behind_it() -> None:
    depth = np.full((48, 64), 2.0, np.float32)
    depth[::4, ::4] = 0.1  # the robot's own cage
    cloud = light_cloud(depth, ROOM, stride=8, min_range=0.3)
    assert len(cloud) == 48
    assert (cloud[:, 2] == 2.0).all()


def test_a_pixel_without_a_ray_hides_nothing_behind_it() -> None:
    fisheye = CameraIntrinsics(64, 48, 9.0, 9.0, 31.5, 23.5, "equidistant", (-0.03, 0.0, 0.0, 0.0))
    rays = ray_map(fisheye)
    without = ~np.isfinite(rays[..., 0])
    blocks = without.reshape(6, 8, 8, 8).any(axis=(1, 3)) & ~without.reshape(6, 8, 8, 8).all(
        axis=(1, 3)
    )
    assert blocks.any(), "blocks that the edge of the lens goes through"
    depth = np.where(without, 0.5, 2.0).astype(np.float32)
    cloud = light_cloud(depth, fisheye, stride=8)
    assert len(cloud) == (~without).reshape(6, 8, 8, 8).any(axis=(1, 3)).sum()
    assert (cloud[:, 2] == 2.0).all()


def test_one_point_a_voxel() -> None:
    depth = np.random.default_rng(3).uniform(1.0, 3.0, (48, 64)).astype(np.float32)
    every = light_cloud(depth, ROOM, stride=2)
    thin = light_cloud(depth, ROOM, stride=2, voxel_size=0.5)

    def cells(points: np.ndarray) -> list[tuple[int, ...]]:
        return [tuple(math.floor(c / 0.5) for c in point) for point in points.tolist()]

    assert 10 < len(thin) < len(every) / 3
    assert len(set(cells(thin))) == len(thin)
    assert set(cells(thin)) == set(cells(every))
    assert {tuple(point) for point in thin.tolist()} <= {tuple(p) for p in every.tolist()}


def test_nothing_known_is_no_point() -> None:
    nothing = np.full((48, 64), np.nan, np.float32)
    for voxel_size in (0.0, 0.1):
        assert light_cloud(nothing, ROOM, stride=8, voxel_size=voxel_size).shape == (0, 3)
    far = far_pixels(nothing, np.zeros((48, 64), np.float32), ROOM, 3.0)
    assert clearing_points(far, ROOM, stride=8, range_m=3.0).shape == (0, 3)


def hall() -> tuple[np.ndarray, np.ndarray]:
    """(depth, relative) of a hall: 1 m on the left, rising to 8 m, saturated on the right."""
    relative = np.tile(np.linspace(0.0, 1.2, 64, dtype=np.float32).clip(0, 1), (48, 1))
    depth = 1.0 + 7.0 * relative
    depth[(relative <= 0) | (relative >= 1)] = np.nan
    return depth, relative


def test_far_is_what_is_measured_far_or_saturated_beyond_it() -> None:
    depth, relative = hall()
    far = far_pixels(depth, relative, ROOM, 5.0)
    measured = z_to_range(depth, ROOM) > 5.0
    assert np.array_equal(far, measured | (relative >= 1))
    assert far[:, -1].all()
    assert not far[:, 0].any(), "what is saturated near may be very near"


def test_a_measured_obstacle_before_a_saturated_background_is_not_far() -> None:
    """The sensor saw it at 3 m where the network's answer ends: no ray is cleared through it."""
    depth, relative = hall()
    depth[10:20, -8:] = 3.0
    assert (relative[10:20, -8:] >= 1).all()
    far = far_pixels(depth, relative, ROOM, 5.0)
    assert not far[10:20, -8:].any()
    assert far[30, -8:].all()


def test_a_narrow_room_s_far_end_is_not_far() -> None:
    """Relative depth is saturated there too, but it is 1.5 m away."""
    _, relative = hall()
    depth = 1.0 + 0.5 * relative
    depth[(relative <= 0) | (relative >= 1)] = np.nan
    assert not far_pixels(depth, relative, ROOM, 2.0).any()
    # Nor is it where nothing just before the saturation tells.
    depth, relative = hall()
    depth[relative > 0.9] = np.nan
    assert not far_pixels(depth, relative, ROOM, 5.0)[relative >= 1].any()


def test_rays_are_cleared_only_through_blocks_that_are_far_all_over() -> None:
    far = np.zeros((48, 64), bool)
    far[8:40, 16:48] = True
    far[20, 20] = False  # a wire
    points = clearing_points(far, ROOM, stride=8, range_m=6.0)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 6.0, rtol=1e-6)
    u, v = np.rint(project(points.astype(np.float64), ROOM)).astype(int).T
    blocks = {(row, column) for row, column in zip(v // 8, u // 8, strict=True)}
    inside = {(row, column) for row in range(1, 5) for column in range(2, 6)}
    assert blocks == inside - {(2, 2)}
    assert far[v, u].all()
    np.testing.assert_allclose(points[0] / points[0, 2], ray_map(ROOM)[v[0], u[0]], rtol=1e-5)

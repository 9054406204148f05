"""The synthetic room against values worked out by hand: depth, normals, scan, LiDAR, the walk."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.geometry.camera import project, ray_map
from d3_ros.synthetic.room.furniture import Body
from d3_ros.synthetic.room.room_textures import Texture
from d3_ros.synthetic.room.scene import RoomScene
from d3_ros.synthetic.room.sensors import (
    T_BASE_LIDAR,
    T_BASE_SCANNER,
    RangeLimits,
    camera_pose,
    lidar_rays,
    scan_angles,
    scan_ranges,
    sparse_depth,
)
from d3_ros.synthetic.room.shapes import Box, Cylinder, Sphere
from d3_ros.synthetic.room.walk import Loop, Motion
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(64, 48, 50.0, 50.0, 32.0, 24.0)
AT_ORIGIN = Motion(x=0.0, y=0.0, yaw=0.0, speed=0.0, turn_rate=0.0).T_world_base
# 1 m above the room's middle, looking along +x; the wall there is 4 m away, floor to 2.6 m.
LEVEL = AT_ORIGIN @ camera_pose(1.0, 0.0)
LEVEL[:3, 3] = (0.0, 0.0, 1.0)


def grey() -> Texture:
    return Texture(np.full((4, 4, 3), 0.5, np.float32), 0.1)


@lru_cache
def room_of(seed: int) -> RoomScene:
    """Furnished once: it takes a second or two. Hypothesis takes no fixture, so this is none."""
    return RoomScene(seed)


@pytest.fixture(scope="module")
def room() -> RoomScene:
    return room_of(0)


@pytest.fixture(scope="module")
def bare() -> RoomScene:
    return RoomScene(bodies=[])


def test_the_wall_ahead_is_at_its_distance_everywhere(bare: RoomScene) -> None:
    view = bare.look(CAMERA, LEVEL)
    # z-depth, not range: the same in the middle and where the ray is slanted.
    assert view.depth[24, 32] == pytest.approx(4.0, abs=1e-5)
    assert view.depth[24, 60] == pytest.approx(4.0, abs=1e-5)  # 28/50 * 4 = 2.24 m aside: in 3 m
    # The floor, 1 m below: z = 1 / tan = 50 / 23 in the last row.
    assert view.depth[47, 32] == pytest.approx(50 / 23, abs=1e-5)
    # The ceiling, 1.6 m above, in the first row: 1.6 * 50 / 24 = 3.33 m.
    assert view.depth[0, 32] == pytest.approx(1.6 * 50 / 24, abs=1e-5)


def test_normals_are_in_the_optical_frame_and_face_the_camera(bare: RoomScene) -> None:
    normals = bare.normals(bare.look(CAMERA, LEVEL))
    np.testing.assert_allclose(normals[24, 32], (0, 0, -1), atol=1e-6)
    np.testing.assert_allclose(normals[47, 32], (0, -1, 0), atol=1e-6)
    np.testing.assert_allclose(normals[0, 32], (0, 1, 0), atol=1e-6)
    # Looking 0.5 rad to the left: right is (s, -c, 0) then, ahead is (c, s, 0).
    c, s = np.cos(0.5), np.sin(0.5)
    turned = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ LEVEL
    np.testing.assert_allclose(
        bare.normals(bare.look(CAMERA, turned))[24, 32], (-s, 0, -c), atol=1e-6
    )


@pytest.mark.parametrize(
    ("shape", "depth", "normal"),
    [
        (Box((2.0, 0.0, 1.0), (1.0, 0.6, 0.6)), 1.5, (0, 0, -1)),
        # On its edge: half a diagonal nearer than its middle; a face at 45 degrees beside it.
        (Box((2.0, 0.0, 1.0), (0.5, 0.5, 0.6), yaw=np.pi / 4), 2 - 0.25 * np.sqrt(2), None),
        (Sphere((2.0, 0.0, 1.0), 0.4), 1.6, (0, 0, -1)),
        (Cylinder((2.0, 0.0, 1.0), 0.3, 0.8), 1.7, (0, 0, -1)),
    ],
    ids=["box", "turned box", "sphere", "cylinder"],
)
def test_a_body_ahead(shape: Box | Sphere | Cylinder, depth: float, normal: tuple | None) -> None:
    scene = RoomScene(bodies=[Body(shape, grey())])
    view = scene.look(CAMERA, LEVEL)
    assert view.depth[24, 32] == pytest.approx(depth, abs=1e-5)
    assert view.body[24, 32] == 0
    assert view.depth[24, 2] == pytest.approx(4.0, abs=1e-5), "beside it is the wall"
    if normal is not None:
        np.testing.assert_allclose(scene.normals(view)[24, 32], normal, atol=1e-5)


def test_the_top_of_a_cylinder_from_above() -> None:
    scene = RoomScene(bodies=[Body(Cylinder((2.0, 0.0, 0.25), 0.4, 0.5), grey())])
    view = scene.look(CAMERA, LEVEL)
    # 0.5 m below the camera: row 24 + 50 * 0.5 / 2 = 36.5 sees its middle; row 37 at z = 25 / 13.
    assert view.depth[37, 32] == pytest.approx(25 / 13, abs=1e-5)
    np.testing.assert_allclose(scene.normals(view)[37, 32], (0, -1, 0), atol=1e-6)


def brute_force(scene: RoomScene, camera: CameraIntrinsics, pose: np.ndarray) -> np.ndarray:
    """Every ray at every body, without the windows that `look` saves work with."""
    rays = ray_map(camera).reshape(-1, 3).T
    cast = scene.cast(pose[:3, 3], pose[:3, :3].astype(np.float32) @ rays)
    return cast.reshape(camera.height, camera.width)


@settings(max_examples=25, deadline=None)
@given(way=st.floats(0.0, 1.0), pitch=st.floats(-0.6, 0.6), turn=st.floats(-np.pi, np.pi))
def test_no_body_is_left_out_of_a_picture(way: float, pitch: float, turn: float) -> None:
    """Also not those that reach behind the camera."""
    scene = room_of(1)
    motion = Loop(2.2, 1.4, start=way).at(0.0, 0.0)
    motion = Motion(motion.x, motion.y, motion.yaw + turn, 0.0, 0.0)
    pose = motion.T_world_base @ camera_pose(0.5, pitch)
    np.testing.assert_array_equal(scene.look(CAMERA, pose).depth, brute_force(scene, CAMERA, pose))


def test_a_distorted_picture_shows_the_same_room(room: RoomScene) -> None:
    """A pixel of the bent picture and its ray's pixel in the straight one see the same depth."""
    bent = CameraIntrinsics(
        96, 72, 60.0, 60.0, 47.5, 35.5, "plumb_bob", (-0.2, 0.03, 0.001, -0.002, 0.0)
    )
    pose = Loop(2.2, 1.4).at(0.0, 1.0).T_world_base @ camera_pose(0.5, 0.1)
    depth = room.look(bent, pose).depth
    np.testing.assert_array_equal(depth, brute_force(room, bent, pose))
    straight = CameraIntrinsics(960, 720, 600.0, 600.0, 479.5, 359.5)
    pixels = project(ray_map(bent).reshape(-1, 3), straight)
    inside = ((pixels > 1) & (pixels < (958, 718))).all(axis=1)
    assert inside.mean() > 0.5
    u, v = np.rint(pixels[inside]).astype(int).T
    ratio = depth.ravel()[inside] / room.look(straight, pose).depth[v, u]
    assert np.mean(np.abs(ratio - 1) < 0.01) > 0.98, "but for pixels at an edge"


def test_scan_and_camera_measure_the_same_room(room: RoomScene) -> None:
    """A camera in the scanner's place: range = z / cos of the angle, at each reading's ray."""
    base = Loop(2.2, 1.4, start=0.3).at(0.0, 1.0).T_world_base
    ranges, angles = scan_ranges(room, base @ T_BASE_SCANNER, 720), scan_angles(720)
    assert angles[0] == pytest.approx(-np.pi)
    assert np.diff(angles) == pytest.approx(np.deg2rad(0.5), abs=1e-5)
    ahead = np.abs(angles) < 0.5
    pose = base @ T_BASE_SCANNER @ camera_pose(0.0, 0.0)
    pose[:3, 3] = (base @ T_BASE_SCANNER)[:3, 3]
    # A camera of one row whose columns are the readings: y left is -x right.
    columns = [
        CameraIntrinsics(1, 1, 1.0, 1.0, float(np.tan(angle)), 0.0) for angle in angles[ahead]
    ]
    depth = np.array([room.look(column, pose).depth[0, 0] for column in columns])
    np.testing.assert_allclose(ranges[ahead], depth / np.cos(angles[ahead]), rtol=1e-4)


def test_lidar_points_lie_on_the_depth_image(room: RoomScene) -> None:
    base = Loop(2.2, 1.4, start=0.6).at(0.0, 1.0).T_world_base
    camera = CameraIntrinsics(640, 480, 480.0, 480.0, 319.5, 239.5)
    T_base_camera = camera_pose(0.5, 0.1)  # noqa: N806
    view = room.look(camera, base @ T_base_camera)
    lidar = base @ T_BASE_LIDAR
    rays, rings = lidar_rays(16)
    assert rings.tolist() == sorted(rings)
    assert np.linalg.norm(rays, axis=0) == pytest.approx(1.0, abs=1e-6)
    points = (rays * room.cast(lidar[:3, 3], lidar[:3, :3] @ rays)).T
    in_camera = points @ lidar[:3, :3].T + lidar[:3, 3]
    pose = base @ T_base_camera
    in_camera = (in_camera - pose[:3, 3]) @ pose[:3, :3]
    pixels = project(in_camera, camera)
    with np.errstate(invalid="ignore"):
        inside = ((pixels > 0) & (pixels < (639, 479))).all(axis=1)
    assert inside.sum() > 500
    u, v = np.rint(pixels[inside]).astype(int).T
    ratio = in_camera[inside, 2] / view.depth[v, u]
    # From 0.3 m above it the LiDAR sees some surfaces that the camera does not, and never others
    # nearer than what the camera sees, but for the half pixel at an edge.
    assert np.mean(np.abs(ratio - 1) < 0.01) > 0.85
    assert np.mean(ratio < 0.97) < 0.02


def test_readings_follow_rep_117() -> None:
    limits = RangeLimits(0.5, 4.0)
    read = limits.read(np.float32([0.4, 0.5, 3.9, 4.1]), np.random.default_rng(0))
    np.testing.assert_array_equal(read, np.float32([-np.inf, 0.5, 3.9, np.inf]))


def test_noise_is_of_the_size_that_was_asked_for() -> None:
    limits = RangeLimits(0.1, 100.0, noise=0.02)
    read = limits.read(np.full(20_000, 5.0, np.float32), np.random.default_rng(0))
    assert read.std() == pytest.approx(0.1, rel=0.05)
    assert read.mean() == pytest.approx(5.0, abs=0.01)


def test_sparse_depth_is_a_share_of_the_pixels() -> None:
    depth = np.linspace(1.0, 9.0, 10_000, dtype=np.float32).reshape(100, 100)
    sparse = sparse_depth(depth, 0.1, RangeLimits(0.1, 5.0), np.random.default_rng(0))
    measured = np.isfinite(sparse)
    np.testing.assert_array_equal(sparse[measured], depth[measured])
    assert sparse[measured].max() <= 5.0
    assert measured.sum() == pytest.approx(1000 * 0.5, rel=0.1)  # half of the depths are in reach


def test_the_walk_is_closed_and_its_speed_is_as_told() -> None:
    loop = Loop(2.2, 1.4)
    first, last = loop.at(0.0, 0.5), loop.at(loop.length / 0.5, 0.5)
    assert (first.x, first.y) == pytest.approx((2.2, 0.0), abs=1e-6)
    assert first.yaw == pytest.approx(np.pi / 2, abs=1e-3)
    assert (last.x, last.y) == pytest.approx((first.x, first.y), abs=1e-3)
    step = 0.01
    for seconds in np.linspace(0.0, 30.0, 13):
        now, then = loop.at(seconds, 0.5), loop.at(seconds + step, 0.5)
        way = np.array([then.x - now.x, then.y - now.y])
        assert np.hypot(*way) / step == pytest.approx(0.5, rel=0.01)
        assert np.cos(np.arctan2(way[1], way[0]) - now.yaw) > 0.999, "it looks where it goes"
        turned = (then.yaw - now.yaw + np.pi) % (2 * np.pi) - np.pi
        assert turned / step == pytest.approx(now.turn_rate, rel=0.02)


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_stands_in_the_way(seed: int) -> None:
    scene, loop = room_of(seed), Loop(2.2, 1.4)
    for way in np.linspace(0.0, 1.0, 60, endpoint=False):
        pose = Loop(2.2, 1.4, start=way).at(0.0, 1.0).T_world_base @ T_BASE_SCANNER
        assert scan_ranges(scene, pose, 180).min() > 0.3, f"at {way * loop.length:.1f} m"


def test_the_picture_is_made_of_the_seed() -> None:
    pose = Loop(2.2, 1.4).at(0.0, 1.0).T_world_base @ camera_pose(0.5, 0.1)
    pictures = [
        scene.colours(scene.look(CAMERA, pose)) for scene in (room_of(1), RoomScene(1), room_of(0))
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()
    assert pictures[0].dtype == np.uint8
    assert 60 < pictures[0].mean() < 200, "neither black nor white"
    assert pictures[0].std() > 15, "there is something to see"


def test_a_texture_is_averaged_where_a_pixel_covers_more_than_it_can_show() -> None:
    board = np.indices((8, 8)).sum(axis=0) % 2
    texture = Texture(np.repeat(board[..., None], 3, axis=2).astype(np.float32), 0.01)
    at = np.float32([[0.005, 0.005], [0.015, 0.005], [0.085, 0.005]])

    def red(footprint: float) -> list[int]:
        packed = texture.look_up(at, np.full(3, footprint, np.float32))
        return packed.view(np.uint8).reshape(-1, 4)[:, 0].tolist()

    assert red(0.002) == [0, 255, 0], "black, white, and black again after 8 cm"
    assert red(0.5) == [128, 128, 128]

"""Rendered scenes: exact geometry by hand, determinism, folder and bag layouts, error lines."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import SAMPLE_WALK

from d3_ros.__main__ import main
from d3_ros.errors import D3Error, DataError
from d3_ros.geometry.camera import ray_map
from d3_ros.types import CameraIntrinsics

pytest.importorskip("embreex", reason="the optional package embreex is not installed")

from d3_ros.data import plain_folder
from d3_ros.data.bag.camera import BagCamera, BagCameraOptions
from d3_ros.synthetic import bag as render_bag
from d3_ros.synthetic import dataset as render_dataset
from d3_ros.synthetic.mesh import kinds as mesh_kinds
from d3_ros.synthetic.mesh import random_textures
from d3_ros.synthetic.mesh.mesh import Mesh, ball, box, capsule, cylinder, join, quad
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.obstacles import tube
from d3_ros.synthetic.mesh.photo import photograph
from d3_ros.synthetic.mesh.ray_caster import RayCaster, RenderedFrame, look_at
from d3_ros.synthetic.mesh.rig import Mounting, Rig, make_rig, read_camera
from d3_ros.synthetic.mesh.scene import Light, MeshScene, Viewpoint
from d3_ros.synthetic.mesh.shapes import SHAPES
from d3_ros.synthetic.mesh.vehicles import car

CAMERA = CameraIntrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
LEVEL = Viewpoint(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))  # looks along +y, 1 m high
SAMPLE = SAMPLE_WALK
KINDS = tuple(mesh_kinds.KINDS)


def _render(
    parts: list[Mesh], view: Viewpoint = LEVEL, camera: CameraIntrinsics = CAMERA
) -> RenderedFrame:
    workshop = Workshop(np.random.default_rng(0))
    workshop.material("wall")
    lights = [Light(np.array([0.0, 0.0, 2.0]), 0.1, np.ones(3))]
    scene = MeshScene(join(parts), workshop, lights, lambda _: view, 0.5, np.ones(3))
    return RayCaster(scene).render(view, camera, np.random.default_rng(0))


def test_wall_head_on() -> None:
    frame = _render([quad((-9, 3, -9), (18, 0, 0), (0, 0, 18), 0)])
    np.testing.assert_allclose(frame.depth, 3.0, rtol=1e-5)  # z-depth, not range
    np.testing.assert_allclose(frame.normals, np.broadcast_to((0, 0, -1), (48, 64, 3)), atol=1e-5)


def test_floor_under_a_level_camera() -> None:
    frame = _render([quad((-99, -99, 0), (198, 0, 0), (0, 198, 0), 0)])
    # A pixel at row v sees the floor, 1 m below, at z = f h / (v - cy); above the horizon nothing.
    for row in (30, 40, 47):
        np.testing.assert_allclose(frame.depth[row], 60.0 / (row - 23.5), rtol=1e-4)
    np.testing.assert_allclose(frame.normals[40, 10], (0, -1, 0), atol=1e-5)
    assert (frame.depth[:23] == 0).all()
    assert (frame.normals[:23] == 0).all()


def test_world_right_is_image_right() -> None:
    near_right = quad((0.2, 1, -9), (9, 0, 0), (0, 0, 18), 0)
    frame = _render([quad((-9, 3, -9), (18, 0, 0), (0, 0, 18), 0), near_right])
    assert frame.depth[20, 63] == pytest.approx(1.0, rel=1e-5)
    assert frame.depth[20, 0] == pytest.approx(3.0, rel=1e-5)
    # The edge at x = 0.2 m, z = 1 m is at u = 60 * 0.2 + 31.5 = 43.5.
    np.testing.assert_array_equal(frame.depth[20] < 2, np.arange(64) > 43.5)


def test_faces_look_at_the_camera() -> None:
    """Whichever way a triangle is wound, its normal points against the ray."""
    for flip in (1, -1):
        frame = _render([quad((-9 * flip, 3, -9), (18 * flip, 0, 0), (0, 0, 18), 0)])
        np.testing.assert_allclose(frame.normals[24, 32], (0, 0, -1), atol=1e-5)


def test_pose_is_a_rotation_in_the_optical_frame() -> None:
    pose = look_at(Viewpoint(np.array([1.0, 2.0, 3.0]), np.array([4.0, 6.0, 2.0]), roll=0.2))
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    assert look_at(LEVEL)[:3, 1] == pytest.approx([0, 0, -1])  # y down
    np.testing.assert_allclose(pose[:3, 2], np.array([3, 4, -1]) / np.sqrt(26))


def test_points_reproject_between_two_views() -> None:
    """Depth, intrinsics and poses agree: what one view sees lies on the surface in another."""
    parts = [box((1, 1, 1), 0).moved(at=(0, 3, 0.5)), quad((-9, 5, -9), (18, 0, 0), (0, 0, 18), 0)]
    first = _render(parts)
    second = _render(parts, Viewpoint(np.array([0.3, 0.1, 1.2]), np.array([0.1, 3.0, 1.0]), 0.05))
    v, u = np.mgrid[8:40:4, 8:56:4]
    z = first.depth[v, u]
    points = np.stack([(u - 31.5) / 60 * z, (v - 23.5) / 60 * z, z, np.ones_like(z)], axis=-1)
    seen = points @ (np.linalg.inv(second.T_world_camera) @ first.T_world_camera).T
    uu = np.rint(seen[..., 0] / seen[..., 2] * 60 + 31.5).astype(int)
    vv = np.rint(seen[..., 1] / seen[..., 2] * 60 + 23.5).astype(int)
    error = np.abs(second.depth[vv.clip(0, 47), uu.clip(0, 63)] - seen[..., 2])
    assert np.median(error) < 0.01


@pytest.mark.parametrize(
    "mesh",
    [ball(0.5, 0), cylinder(0.3, 0.8, 0), box((1, 2, 3), 0), capsule((0, 0, 0), (0, 0, 1), 0.2, 0)],
    ids=["ball", "cylinder", "box", "capsule"],
)
def test_solids_are_closed_and_their_normals_point_out(mesh: Mesh) -> None:
    a, b, c = mesh.vertices.transpose(1, 0, 2)
    area = np.cross(b - a, c - a) / 2
    outward = np.sign(np.einsum("ij,ij->i", area, mesh.normals.mean(axis=1)))[:, None]
    np.testing.assert_allclose((area * outward).sum(axis=0), 0, atol=1e-9)  # closed
    centre = (mesh.vertices.min(axis=(0, 1)) + mesh.vertices.max(axis=(0, 1))) / 2
    from_centre = mesh.vertices.mean(axis=1) - centre
    assert (np.einsum("ij,ij->i", from_centre, mesh.normals.mean(axis=1)) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=-1), 1.0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_follows_from_its_seed(kind: str) -> None:
    small = Rig((48, 36))
    first, again = (list(render_dataset.render_scene(3, 1, 1, small, (kind,))) for _ in "ab")
    assert len(first) == len(again) == 1
    np.testing.assert_array_equal(first[0].rgb, again[0].rgb)
    np.testing.assert_array_equal(first[0].frame.depth, again[0].frame.depth)
    (other,) = render_dataset.render_scene(4, 1, 1, small, (kind,))
    assert not np.array_equal(first[0].frame.depth, other.frame.depth)
    lengths = np.linalg.norm(first[0].frame.normals, axis=-1)
    np.testing.assert_allclose(lengths[first[0].frame.depth > 0], 1.0, atol=1e-4)


def test_long_tables_are_seen_from_one_end_and_fill_the_picture() -> None:
    build = mesh_kinds.build
    rng = np.random.default_rng(5)
    views = [build("longtable", np.random.default_rng(seed)).draw_view(rng) for seed in range(20)]
    ahead = np.array([view.target - view.eye for view in views])
    along, across, up = abs(ahead[:, 0]), abs(ahead[:, 1]), ahead[:, 2]
    assert np.median(across / along) < 0.5  # the table's length is along x
    assert (up < 0).all()
    assert min(view.eye[:2].min() for view in views) >= 0.3  # within the room
    shares = []
    for seed in range(8):
        (shown,) = render_dataset.render_scene(seed, 1, 1, Rig((48, 36)), ("longtable",))
        upwards = shown.frame.normals @ shown.frame.T_world_camera[2, :3]
        shares.append(((upwards > 0.98) & (shown.frame.depth < 2.0)).mean())
    assert np.median(shares) > 0.6  # near and level: the table; 0.68, of the kind "table" 0.57


def test_low_cameras_stand_close_to_the_floor_before_something_near() -> None:
    heights, nearest = [], []
    for seed in range(8):
        (shown,) = render_dataset.render_scene(seed, 1, 1, Rig((48, 36)), ("lowcam",))
        heights.append(shown.frame.T_world_camera[2, 3])
        ahead = shown.frame.depth[12:24, 14:34]  # above the floor, in the middle
        nearest.append(np.quantile(ahead[ahead > 0], 0.1) if ahead.any() else 65.0)
        assert np.mean((shown.frame.depth > 0) & (shown.frame.depth < 6)) > 0.3
    assert min(heights) >= 0.05 and max(heights) <= 0.5
    assert np.median(nearest) < 1.6  # what stands there is 0.2 to 2 m away; of "room" 2.7 m


def test_views_from_above_look_down_or_along_shelves() -> None:
    down = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        view = mesh_kinds.build("above", rng).draw_view(rng)
        ahead = view.target - view.eye
        down.append(-ahead[2] / np.linalg.norm(ahead))
    assert np.mean(np.array(down) > 0.4) > 0.4
    assert max(down) < 0.999  # the picture's right is defined


def _heights(kind: str, count: int) -> list[float]:
    """Height of proposed cameras above the floor, metres."""
    heights = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scene = mesh_kinds.build(kind, rng)
        eyes = [scene.draw_view(rng).eye for _ in range(12)]
        heights += [float(eye[2]) - scene.floor_below(eye) for eye in eyes]
    return heights


def _frames(kind: str, seeds: int) -> list[RenderedFrame]:
    rig = Rig((48, 36))
    series = (render_dataset.render_scene(seed, 1, 1, rig, (kind,)) for seed in range(seeds))
    return [photo.frame for photos in series for photo in photos]


def test_a_forest_has_sky_between_its_trees_near_and_far_things() -> None:
    frames = _frames("forest", 6)
    assert len(frames) >= 5  # cameras are not inside of trunks
    assert 0.02 < np.median([(frame.depth == 0).mean() for frame in frames]) < 0.45
    assert np.median([frame.depth[30:].mean() for frame in frames]) < 4  # the ground before it
    assert np.median([np.quantile(frame.depth, 0.98) for frame in frames]) > 20
    heights = _heights("forest", 2)
    assert 0.1 <= min(heights) <= max(heights) <= 1.6


def test_the_floor_of_a_forest_is_its_ground() -> None:
    """Straight below a place the rays hit the ground at the height that the scene tells."""
    rng = np.random.default_rng(1)
    scene = mesh_kinds.build("forest", rng)
    places = np.column_stack([rng.uniform(-6, 6, (60, 2)), np.full(60, 40.0)])
    floors = np.array([scene.floor_below(place) for place in places])
    assert np.ptp(floors) > 0.2  # uneven
    caster = RayCaster(scene)
    starts = np.column_stack([places[:, :2], floors + 0.02])  # below leaves, trunks and stones
    down = np.array([[0.0], [0.0], [-1.0]])
    gaps = np.array([caster.ranges(start, down)[0] for start in starts])
    assert np.mean(np.abs(gaps - 0.02) < 0.015) > 0.8


def test_the_height_of_a_mounting_counts_from_uneven_ground() -> None:
    rig = Rig((48, 36), None, Mounting((0.4, 0.4), (10.0, 10.0)))
    floors = []
    for seed in range(2):
        rng = np.random.default_rng([seed, 0])
        rng.choice(["forest"], p=[1.0])
        scene = mesh_kinds.build("forest", rng)
        for photo in render_dataset.render_scene(seed, 0, 2, rig, ("forest",)):
            eye = photo.frame.T_world_camera[:3, 3]
            floors.append(scene.floor_below(eye))
            assert eye[2] - floors[-1] == pytest.approx(0.4)
    assert np.ptp(floors) > 0.02


def test_a_yard_is_seen_from_a_robots_height_with_sky_and_near_things() -> None:
    frames = _frames("yard", 6)
    assert len(frames) >= 5
    assert 0.01 < np.mean([(frame.depth == 0).mean() for frame in frames]) < 0.45
    assert np.median([np.quantile(frame.depth[frame.depth > 0], 0.05) for frame in frames]) < 2.5
    assert np.median([frame.depth.max() for frame in frames]) > 20
    heights = _heights("yard", 2)
    assert 0.05 <= min(heights) <= max(heights) <= 1.5


def test_a_hall_is_closed_and_deep() -> None:
    frames = _frames("hall", 6)
    assert len(frames) >= 5
    assert max((frame.depth == 0).mean() for frame in frames) < 0.02
    farthest = [frame.depth.max() for frame in frames]
    assert 15 < np.median(farthest) < 65  # of the halls of "lowcam" 9 m
    heights = _heights("hall", 2)
    assert 0.08 <= min(heights) <= max(heights) <= 1.8


def test_cars_have_the_size_of_cars_and_stand_on_their_wheels() -> None:
    for seed in range(8):
        corners = car(Workshop(np.random.default_rng(seed))).vertices.reshape(-1, 3)
        length, width, height = np.ptp(corners, axis=0)
        assert 3.5 < length < 5.5 and 1.6 < width < 2.4 and 1.35 < height < 2.4
        assert corners[:, 2].min() == pytest.approx(0, abs=1e-6)
        low = corners[corners[:, 2] < 0.05]  # four wheels: the body is higher
        assert {(x > 0, y > 0) for x, y, _ in low.tolist()} == {
            (front, left) for front in (True, False) for left in (True, False)
        }


def test_a_tube_that_tapers_leans_by_its_slope() -> None:
    path = np.array([(0, 0, 0), (0, 0, 0.5), (0, 0, 1)], np.float64)
    mesh = tube(path, np.array([0.2, 0.15, 0.1]), 0)
    distance = np.linalg.norm(mesh.vertices[..., :2], axis=-1)
    np.testing.assert_allclose(distance, 0.2 - 0.1 * mesh.vertices[..., 2], atol=1e-9)
    np.testing.assert_allclose(mesh.normals[..., 2], np.sin(np.arctan(0.1)), atol=1e-9)


def test_deep_shade_outdoors_is_not_black() -> None:
    """Below a roof that keeps the sun out, light of the sky arrives from the sides."""
    w = Workshop(np.random.default_rng(0))
    w.material("plain_light")
    parts = [
        quad((-99, -99, 0), (198, 0, 0), (0, 198, 0), 0),
        quad((-99, -99, 2), (198, 0, 0), (0, 198, 0), 0),
    ]
    sunlight = [Light(np.array([0.0, 0.0, 300.0]), 0.5, np.full(3, 9e4))]
    scene = MeshScene(join(parts), w, sunlight, lambda _: LEVEL, 0.5, np.ones(3))
    below = np.s_[40:]
    dark = RayCaster(scene).render(LEVEL, CAMERA, np.random.default_rng(0)).rgb[below]
    scene.least_light = 0.2
    shade = RayCaster(scene).render(LEVEL, CAMERA, np.random.default_rng(0)).rgb[below]
    assert not dark.any()
    # Albedo about 0.85, times the share of indirect light 0.5, times 0.2, times 0.25 to 1.
    assert 0.015 < shade.min() <= shade.max() < 0.1


def test_clouds_are_white_and_the_sky_between_them_is_not() -> None:
    scene = mesh_kinds.build("yard", np.random.default_rng(0))
    up, level = np.array([[0.0, 0.0, 2.0]]), np.array([[0.0, 3.0, 0.0]])
    scene.clouds = np.zeros((8, 8))
    np.testing.assert_allclose(scene.sky_colour(up)[0], scene.sky, rtol=1e-6)
    assert np.ptp(scene.sky_colour(level)[0]) == pytest.approx(0, abs=1e-6)  # haze
    scene.clouds = np.ones((8, 8))
    assert np.ptp(scene.sky_colour(up)[0]) == pytest.approx(0, abs=1e-6)
    scene.clouds = None
    np.testing.assert_array_equal(scene.sky_colour(up), scene.sky.astype(np.float32))


def test_a_tube_keeps_its_radius_around_bends() -> None:
    path = np.array([(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1)], np.float64)
    mesh = tube(path, 0.05, 0)
    centre = path[np.linalg.norm(mesh.vertices[..., None, :] - path, axis=-1).argmin(axis=-1)]
    out = mesh.vertices - centre
    np.testing.assert_allclose(np.linalg.norm(out, axis=-1), 0.05, atol=1e-9)
    np.testing.assert_allclose(mesh.normals * 0.05, out, atol=1e-9)


def test_another_role_takes_the_place_of_one() -> None:
    w = Workshop(np.random.default_rng(0), instead={"fabric": "dark"})
    w.material("fabric")
    assert w.textures[0].mean() < 0.25  # black leather; plain cloth is lighter


def test_encoding_of_normals_and_depth() -> None:
    normals = np.array([[(0, 0, -1), (1, 0, 0), (0, 0, 0)]], dtype=np.float32)
    np.testing.assert_array_equal(
        plain_folder.encode_normals(normals), [[(128, 128, 1), (255, 128, 128), (0, 0, 0)]]
    )
    depth = plain_folder.encode_depth(np.array([[1.2344, 0.0, 99.0]]))
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, [[1234, 0, 0]])  # too far is unknown, not near


def test_photograph_of_grey_is_a_picture() -> None:
    picture = photograph(np.full((30, 40, 3), 0.4), np.random.default_rng(1))
    assert picture.dtype == np.uint8
    assert 60 < picture.mean() < 250


def test_a_black_picture_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a closed table no lamp is seen; another view of the scene takes its place."""
    taken = []

    def first_in_the_dark(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        taken.append(photograph(rgb, rng))
        return taken[-1] if len(taken) > 1 else taken[-1] // 32

    monkeypatch.setattr(render_dataset, "photograph", first_in_the_dark)
    photos = list(render_dataset.render_scene(3, 1, 2, Rig((48, 36)), ("room",)))
    assert len(photos) == len(taken) - 1 == 2
    np.testing.assert_array_equal(photos[0].rgb, taken[1])
    taken.clear()
    monkeypatch.setattr(render_dataset, "LEAST_BRIGHT", 256)
    assert list(render_dataset.render_scene(3, 1, 2, Rig((48, 36)), ("room",))) == []
    assert len(taken) == 2 * render_dataset.MOST_DARK, "so many renderings, and no more"


def test_folder_layout(tmp_path: Path) -> None:
    out = tmp_path / "frames"
    arguments = ["render", "--output", str(out), "--frames", "2", "--size", "64x48"]
    assert main([*arguments, "--kind", "corridor", "--jobs", "1", "--seed", "2"]) == 0
    index = json.loads((out / "intrinsics.json").read_text())
    assert sorted(index) == ["000000_0", "000000_1"]
    for name, camera in index.items():
        assert cv2.imread(str(out / "rgb" / f"{name}.jpg")).shape == (48, 64, 3)
        depth = cv2.imread(str(out / "depth" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        assert (depth > 0).mean() > 0.9
        normals = cv2.imread(str(out / "normals" / f"{name}.png"))
        np.testing.assert_array_equal(normals.any(axis=-1), depth > 0)
        assert camera["width"] == 64
        assert camera["kind"] == "corridor"
        assert np.array(camera["T_world_camera"]).shape == (4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "moon"], "unknown kind of scene 'moon'"),
        (["--size", "320"], "--size 320"),
        (["--frames", "0"], "must be positive"),
        (["--seed=-1"], "--seed must be 0, 1, 2"),
        (["--rate", "nan"], "--rate must be positive"),
        (["--intrinsics", "inf", "5", "5", "5"], "fx and fy must be positive"),
        (["--height", "0.4"], "give both"),
        (["--height", "0.4:0.2", "--tilt", "3"], "camera height 0.4 to 0.2 must rise within"),
        (["--height", "0.4", "--tilt", "down"], "--tilt down: write one number"),
        (["--intrinsics", "0", "5", "5", "5"], "fx and fy must be positive"),
        (["--camera", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--walk", "--kind", "street"], "no walk through a street: choose room, table, corridor"),
        (["--walk", "--kind", "room,table"], "give one --kind"),
    ],
)
def test_wrong_options(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "--output", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_frames_are_those_of_the_users_camera(tmp_path: Path) -> None:
    """Intrinsics, height and tilt of the command line are those of every frame, and its poses."""
    out = tmp_path / "frames"
    options = ["--size", "64x48", "--intrinsics", "50", "52", "30", "20", "--height", "0.4:0.5"]
    options += ["--tilt", "20", "--frames", "3", "--kind", "room,shapes", "--jobs", "1"]
    assert main(["render", "--output", str(out), *options]) == 0
    for entry in json.loads((out / "intrinsics.json").read_text()).values():
        assert [entry[k] for k in ("fx", "fy", "cx", "cy")] == [50, 52, 30, 20]
        pose = np.array(entry["T_world_camera"])
        assert 0.4 <= pose[2, 3] <= 0.5
        assert np.degrees(np.arcsin(-pose[2, 2])) == pytest.approx(20, abs=1e-3)  # looks down
        assert abs(np.degrees(np.arcsin(pose[2, 0]))) < 4  # its x axis is level


def test_a_lens_bends_the_picture_and_not_the_world() -> None:
    """Depth of a slanted floor under a distorted camera: each pixel's own ray hits it there."""
    lens = CameraIntrinsics(
        64, 48, 60.0, 60.0, 31.5, 23.5, "plumb_bob", (-0.25, 0.05, 0.002, -0.001, 0.0)
    )
    parts = [quad((-99, -99, 0), (198, 0, 0), (0, 198, 0), 0)]
    frame = _render(parts, camera=lens)
    # 1 m below a level camera the ray (x, y, 1) meets the floor at z = 1 / y.
    y = ray_map(lens)[..., 1].astype(np.float64)
    below = y > 0.02
    np.testing.assert_allclose(frame.depth[below], 1 / y[below], rtol=1e-4)
    straight = _render(parts)
    assert np.abs(frame.depth - straight.depth)[below].max() > 0.05
    fisheye = CameraIntrinsics(64, 48, 18.0, 18.0, 31.5, 23.5, "equidistant", (0.0,) * 4)
    wide = _render(parts, camera=fisheye)
    blind = np.isnan(ray_map(fisheye)).any(axis=2)
    assert blind.any()
    assert not wide.depth[blind].any()
    assert not wide.rgb[blind].any()
    assert np.isfinite(wide.rgb).all()


def test_a_walk_is_the_same_in_several_processes() -> None:
    rig = Rig((48, 36), None, Mounting((0.8, 1.2), (5.0, 15.0)))
    alone, shared = (
        list(render_dataset.render_walk(5, 3, rig, "corridor", jobs)) for jobs in (1, 2)
    )
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.frame.T_world_camera, other.frame.T_world_camera)
    heights = {round(float(photo.frame.T_world_camera[2, 3]), 9) for photo in alone}
    assert len(heights) == 1, "the mount does not move"
    way = alone[2].frame.T_world_camera[:2, 3] - alone[0].frame.T_world_camera[:2, 3]
    assert np.linalg.norm(way) > 0.5


def test_random_solids_are_closed_and_face_out() -> None:
    for seed in range(12):
        for make in SHAPES:
            mesh = make(Workshop(np.random.default_rng(seed)), 0.5)
            a, b, c = mesh.vertices.transpose(1, 0, 2)
            across = np.cross(b - a, c - a) / 2
            normals = mesh.normals.mean(axis=1)
            outward = np.sign(np.einsum("ij,ij->i", across, normals))[:, None]
            np.testing.assert_allclose((across * outward).sum(axis=0), 0, atol=1e-6)
            # The divergence theorem: with normals that face out the volume is positive.
            assert np.einsum("ij,ij->", (a + b + c) / 9, across * outward) > 0.001
            assert mesh.vertices[..., 2].min() == pytest.approx(0, abs=1e-9)


def test_cameras_from_files(tmp_path: Path) -> None:
    calibration = tmp_path / "front.yaml"
    calibration.write_text(
        "image_width: 640\nimage_height: 480\ncamera_name: front\n"
        "camera_matrix:\n  rows: 3\n  cols: 3\n  data: [500, 0, 320, 0, 510, 240, 0, 0, 1]\n"
        "distortion_model: plumb_bob\n"
        "distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [-0.2, 0.1, 0, 0, 0]\n"
    )
    camera = read_camera(calibration)
    assert camera == CameraIntrinsics(
        640, 480, 500.0, 510.0, 320.0, 240.0, "plumb_bob", (-0.2, 0.1, 0.0, 0.0)
    )
    # Half-pixel centres: (320 + 0.5) / 2 - 0.5.
    half = make_rig((320, 240), camera, None).camera
    assert half is not None
    assert (half.fx, half.cx, half.cy) == (250.0, 159.75, 119.75)
    assert half.distortion == camera.distortion
    assert make_rig(None, camera, None).size == (640, 480)
    with pytest.raises(DataError, match="another aspect ratio"):
        make_rig((320, 320), camera, None)
    plain_folder.write_intrinsics(tmp_path, {"a": plain_folder.camera_entry(camera)})
    assert read_camera(tmp_path / "intrinsics.json") == camera
    calibration.write_text("image_width: 640\n")
    with pytest.raises(DataError, match="not a ROS camera calibration"):
        read_camera(calibration)


def test_a_mounting_that_no_scene_has_room_for_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lens that looks at the ceiling from right below it, and at nothing else."""
    options = ["--frames", "1", "--size", "64x48", "--height", "2.1", "--tilt=-80"]
    options += ["--intrinsics", "900", "900", "31.5", "23.5", "--kind", "corridor"]
    assert main(["render", "--output", str(tmp_path / "o"), *options, "--jobs", "1"]) == 1
    assert "found room and light in none of the scenes" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_frames_are_never_mixed_with_older_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb" / "old.jpg").touch()
    assert main(["render", "--output", str(tmp_path), "--frames", "1"]) == 1
    assert "already exists" in capsys.readouterr().err


def test_a_frame_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """As when the disk is full after an hour: no folder of frames with holes in it."""
    [photo] = render_dataset.render_walk(
        2, 1, Rig((48, 36), None, Mounting((0.8, 1.2), (5.0, 15.0))), "corridor", 1
    )
    with pytest.raises(DataError, match="cannot be written"):
        render_dataset._write(photo, tmp_path / "gone", "000000")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("full")]
)
def test_a_bag_on_a_full_disk_is_one_line_and_no_half_bag(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write(*_: object) -> None:
        raise error

    monkeypatch.setattr(render_bag.Writer, "write", write)
    options = ["--walk", "--frames", "1", "--size", "48x36", "--jobs", "1", "--kind", "corridor"]
    assert main(["render", "--bag", str(tmp_path / "walk"), *options]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "d3_ros render:" in line]
    assert len(told) == 1
    assert f"{tmp_path / 'walk'} cannot be written" in told[0]
    assert list(tmp_path.iterdir()) == []


def test_a_walk_with_a_lidar_is_consistent(tmp_path: Path) -> None:
    """Through /tf_static the LiDAR's points lie at the depth that the camera's truth has there."""
    bag = tmp_path / "walk"
    options = ["--walk", "--frames", "2", "--size", "96x72", "--lidar", "16", "--jobs", "1"]
    assert main(["render", "--bag", str(bag), *options]) == 0
    cloud = BagCamera(BagCameraOptions(bag, sensor="/lidar/points", kind="points"))
    truth = BagCamera(BagCameraOptions(bag, sensor="/camera/truth/depth", kind="depth"))
    for seen, exact in zip(cloud, truth, strict=True):
        measured, depth = seen.depth, exact.depth
        both = np.isfinite(measured) & np.isfinite(depth)
        assert both.sum() > 200
        # Within a pixel of an edge, and 0.5 % noise: the median is small, most are near.
        error = np.abs(measured[both] / depth[both] - 1)
        assert np.median(error) < 0.01
        assert (error < 0.05).mean() > 0.9


def test_a_lidar_needs_a_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--output", str(tmp_path / "data"), "--lidar", "16"]) == 1
    assert "--lidar" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--bag", "--output"])
def test_an_output_below_a_file_is_one_line(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    options = ["--walk", "--frames", "1", "--size", "48x36", "--jobs", "1", "--kind", "corridor"]
    assert main(["render", option, str(tmp_path / "file" / "out"), *options]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "d3_ros render:" in line]
    assert len(told) == 1
    assert str(tmp_path / "file") in told[0]
    assert (tmp_path / "file").read_text() == "mine"


def test_sample_bag_is_small_and_what_the_renderer_makes() -> None:
    """The bag in the repository can be made again: --walk --bag … --frames 30 --seed 7012."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 3_000_000
    messages: dict[str, list] = {}
    with AnyReader([SAMPLE], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection, stamp, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp
            messages.setdefault(connection.topic, []).append(message)
    assert {topic: len(found) for topic, found in messages.items()} == {
        "/camera/image/compressed": 30,
        "/camera/camera_info": 30,
        "/camera/sensor_depth/image": 30,
        "/camera/truth/depth": 30,
    }
    truth, sensor = (
        messages[topic][0].data.view("<u2").reshape(240, 320).astype(float)
        for topic in ("/camera/truth/depth", "/camera/sensor_depth/image")
    )
    measured = sensor > 0
    assert 500 < measured.sum() < 600
    assert np.abs(sensor - truth)[measured].max() < 0.03 * truth.max()
    photo = next(iter(render_dataset.render_walk(7012, 1, Rig((320, 240)))))
    difference = np.abs(photo.frame.depth * 1000 - truth)
    assert np.mean(difference > 1) < 0.01  # a ray may take the other side of an edge elsewhere


def test_letters_are_written_on_8_bits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV 5 refuses anything else; the versions that are tested here do not."""
    written = []

    def watched(image: np.ndarray, *arguments: object) -> np.ndarray:
        written.append(image.dtype)
        return real(image, *arguments)

    real = cv2.putText
    monkeypatch.setattr(cv2, "putText", watched)
    for seed in range(5):
        image, _ = random_textures.printed(np.random.default_rng(seed))
        assert image.dtype == np.float32
        assert 0 <= image.min() < image.max() <= 1
    assert set(written) == {np.dtype(np.uint8)}


def test_a_rendering_process_that_is_killed_is_one_line() -> None:
    said = "was killed, perhaps for lack of memory: give fewer --jobs"
    with (
        pytest.raises(D3Error, match=said),
        render_dataset._processes(1, render_dataset._start) as pool,
    ):
        pool.submit(os._exit, 1).result()

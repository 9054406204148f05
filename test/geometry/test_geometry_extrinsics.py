"""Depth edges by hand; planted errors of a calibration are told, and noise is not an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from helpers.room_lidar import CAMERA, FOCAL, T_CAMERA_LIDAR, RoomFrame, room_frames

from d3_ros.geometry.camera import project
from d3_ros.geometry.extrinsics.check import ExtrinsicsCheck, check_extrinsics
from d3_ros.geometry.extrinsics.depth_edges import depth_edges, depth_image_points
from d3_ros.geometry.extrinsics.edge_match import match_edges, small_motion
from d3_ros.geometry.extrinsics.image_edges import edge_strength
from d3_ros.geometry.extrinsics.words import verdict_line, verdict_lines

TURN = np.radians(2.0)
PLANTED = {
    "turn about x": (TURN, 0, 0, 0, 0, 0),
    "turn about -y": (0, -TURN, 0, 0, 0, 0),
    "turn about z": (0, 0, TURN, 0, 0, 0),
    "shift along x": (0, 0, 0, 0.05, 0, 0),
    "shift along -y": (0, 0, 0, 0, -0.05, 0),
}


@pytest.fixture(scope="module")
def frames() -> list[RoomFrame]:
    return list(room_frames(12))


def check(frames: Sequence[RoomFrame], error: Sequence[float] = (0.0,) * 6) -> ExtrinsicsCheck:
    wrong = small_motion(np.array(error, float)) @ T_CAMERA_LIDAR
    matches = [match_edges(frame.rgb, CAMERA, frame.points, wrong) for frame in frames]
    return check_extrinsics(matches, FOCAL)


def test_the_outline_of_a_box_before_a_wall() -> None:
    """A box from u = 40 to 60 at 1 m, a wall at 3 m: the edges lie half a pixel outside."""
    depth = np.full((240, 320), 3.0, np.float32)
    depth[100:140, 40:60] = 1.0
    points = depth_image_points(depth, CAMERA)
    edges = depth_edges(points, np.eye(3))
    pixels = project(edges.points, CAMERA)
    np.testing.assert_allclose(edges.points[:, 2], 1.0, rtol=1e-6)  # of the nearer surface
    step = 2  # 76,800 pixels are thinned to every second one of every second row
    rows = {round(float(v), 3) for u, v in pixels if 42 < u < 56}
    columns = {round(float(u), 3) for u, v in pixels if 102 < v < 136}
    assert rows == {100 - step / 2, 138 + step / 2}
    assert columns == {40 - step / 2, 58 + step / 2}
    # The step over the edge leads away from the box.
    outwards = np.einsum("ij,ij->i", edges.across[:, :2], pixels - (49.5, 119.5))
    assert (outwards > 0).all()


def test_a_floor_that_runs_away_is_no_edge() -> None:
    """Rows 1.6 m apart at 20 m, as of a LiDAR's rings, on a plane 1.7 m below."""
    v, u = np.mgrid[0:100, 0:320]
    down = 0.02 + v * 0.004
    points = np.stack([(u - 160) * 0.003, down, np.ones_like(down)], -1) * (1.7 / down)[..., None]
    assert len(depth_edges(points.reshape(-1, 3), np.eye(3))) == 0


def test_points_without_order_or_not_finite(frames: list[RoomFrame]) -> None:
    """A driver may send rings or columns first, NaN between, or points behind the camera."""
    points = frames[0].points
    turn = T_CAMERA_LIDAR[:3, :3]
    shuffled = np.random.default_rng(0).permutation(points)
    noisy = np.concatenate([shuffled, np.full((5, 3), np.nan, np.float32)])
    first, second = depth_edges(points, turn), depth_edges(noisy, turn)
    assert len(first) == len(second) > 50
    np.testing.assert_allclose(np.sort(first.points, axis=0), np.sort(second.points, axis=0))
    assert len(depth_edges(np.empty((0, 3)), turn)) == 0
    assert len(depth_edges(-points, turn)) < len(points)


def test_image_edges_are_where_brightness_changes() -> None:
    rgb = np.full((240, 320, 3), 60, np.uint8)
    rgb[:, 200:] = 160
    strength = edge_strength(rgb)
    assert strength[120, :, 0].argmax() in (199, 200)
    assert strength[..., 1].max() < 0.01 < 0.3 < strength[120, 200, 0]
    assert strength[120, :180].max() < 0.01


def test_the_right_calibration_passes(frames: list[RoomFrame]) -> None:
    found = check(frames)
    assert found.verdict == "right", found
    assert found.score > 0.9
    assert found.shift_deg < 0.4
    assert verdict_line(found).startswith("right, within about 0.")


@pytest.mark.parametrize("error", PLANTED.values(), ids=PLANTED)
def test_planted_errors_are_told(frames: list[RoomFrame], error: Sequence[float]) -> None:
    """2 degrees and 5 cm: the verdict, the size, and the correction that undoes the error."""
    found = check(frames, error)
    assert found.verdict == "off", found
    assert found.score < 0.85
    wrong = small_motion(np.array(error)) @ T_CAMERA_LIDAR
    seen = np.array([[-0.5, 0.2, 2.0], [0.6, -0.3, 3.0], [0.1, 0.4, 2.5]])  # optical frame
    back = found.corrected(wrong) @ np.linalg.inv(T_CAMERA_LIDAR)
    error_px = project(seen @ back[:3, :3].T + back[:3, 3], CAMERA) - project(seen, CAMERA)
    assert np.abs(error_px).max() < 0.5 * np.radians(1.5) * FOCAL


def test_the_direction_of_an_error_in_words(frames: list[RoomFrame]) -> None:
    turned = verdict_line(check(frames, PLANTED["turn about -y"]))
    assert turned.startswith("off by about "), turned
    assert "turned to the left" in turned
    assert abs(float(turned.split()[3]) - 2.0) < 0.3
    shifted = verdict_line(check(frames, PLANTED["shift along x"]))
    assert "cm (shifted to the right)" in shifted, shifted
    lines = verdict_lines(check(frames, PLANTED["turn about x"]), T_CAMERA_LIDAR)
    assert any("T_camera_sensor as x y z qx qy qz qw" in line for line in lines)


def test_noise_never_makes_a_decision(frames: list[RoomFrame]) -> None:
    """Depth edges on images of something else, and on noise: no error is claimed, none excluded."""
    rng = np.random.default_rng(5)
    other = list(room_frames(12, seed=7))
    for seed in range(2):
        order = rng.permutation(12)
        mixed = [
            RoomFrame(other[i].rgb, frame.points) for i, frame in zip(order, frames, strict=True)
        ]
        assert check(mixed).verdict == "unclear", seed
        noise = rng.integers(0, 255, (12, 240, 320, 3), dtype=np.uint8)
        dark = [RoomFrame(image, f.points) for image, f in zip(noise, frames, strict=True)]
        assert check(dark).verdict == "unclear", seed


def test_too_little_is_told_with_what_to_record(frames: list[RoomFrame]) -> None:
    one = check(frames[:1])
    assert one.verdict == "unclear"
    assert verdict_line(one).startswith("cannot tell: ")
    assert "record one or two minutes" in verdict_lines(one, T_CAMERA_LIDAR)[-1]
    wall = np.full((240, 320), 3.0, np.float32)
    flat = [RoomFrame(frame.rgb, depth_image_points(wall, CAMERA)) for frame in frames]
    matches = [match_edges(frame.rgb, CAMERA, frame.points, np.eye(4)) for frame in flat]
    assert verdict_line(check_extrinsics(matches, FOCAL)).startswith("cannot tell: 0 depth edges")


def test_a_planar_scan_is_checked_sideways_only(frames: list[RoomFrame]) -> None:
    """One ring says nothing about up and down, and the verdict says so."""

    def ring(frame: RoomFrame) -> RoomFrame:
        elevation = np.degrees(np.arctan2(frame.points[:, 2], np.hypot(*frame.points[:, :2].T)))
        return RoomFrame(frame.rgb, frame.points[np.abs(elevation + 6.7) < 0.2])

    many = [ring(frame) for frame in room_frames(60)]
    found = check(many)
    assert found.axes == (True, False)
    assert found.verdict == "right", found
    assert "too few edges to check up and down" in verdict_line(found)
    assert check(many, PLANTED["turn about -y"]).verdict == "off"

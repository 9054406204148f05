"""Sensor points carried from frame to frame by the camera's motion."""

from __future__ import annotations

import itertools
from functools import lru_cache

import cv2
import numpy as np
import pytest
from helpers.scenes import crossing_box

from d3_ros.data.held_out_points import draw_points
from d3_ros.geometry.alignment import AlignmentSettings, CameraView, ScaleAligner
from d3_ros.geometry.alignment.carried_points import CarriedPoints
from d3_ros.geometry.alignment.global_fit.domain import GlobalFit, level_fit
from d3_ros.geometry.alignment.global_fit.robust_fit import AffineFit
from d3_ros.geometry.alignment.points import Points
from d3_ros.synthetic.room.scene import RoomScene
from d3_ros.synthetic.room.sensors import camera_pose
from d3_ros.synthetic.room.walk import Loop
from d3_ros.types import CameraIntrinsics

SHAPE = (120, 160)
CAMERA = CameraIntrinsics(160, 120, 100.0, 100.0, 79.5, 59.5)
HALF = np.full(SHAPE, 0.5, np.float32)
LEVEL: GlobalFit = level_fit(np.full(8, 0.5), np.full(8, 2.0))


def view(x: float = 0.0, z: float = 0.0) -> CameraView:
    """A camera that has moved by so many metres to the right and forward."""
    pose = np.eye(4)
    pose[[0, 2], 3] = x, z
    return CameraView(pose, CAMERA)


def points(*rows: tuple[int, int, float]) -> Points:
    """Measured points: row, column, metres."""
    r, c, depth = np.array(rows).T
    return Points(r.astype(int), c.astype(int), np.full(len(r), 0.5), depth, np.ones(len(r)))


def carried(*rows: tuple[int, int, float]) -> CarriedPoints:
    """A memory of points that the camera at the origin measured at time 0."""
    memory = CarriedPoints(AlignmentSettings(carry_age_s=1.0))
    memory.remember(view(), points(*rows), LEVEL, 0.0)
    return memory


FAR_OFF = (2, 2, 2.0)


def test_a_point_moves_with_the_camera_and_loses_weight():
    seen = carried((60, 80, 2.0)).seen_from(view(x=0.2, z=0.4), HALF, points((2, 2, 1.6)), 0.5)
    # X = 0.5 px / 100 px * 2 m = 0.01 m; (0.01 - 0.2) / 1.6 * 100 + 79.5 = 67.6
    assert seen.columns.tolist() == [68]
    assert seen.rows.tolist() == [60]
    assert seen.depth.tolist() == pytest.approx([1.6])
    assert seen.weight.tolist() == pytest.approx([0.8])


@pytest.mark.parametrize(
    "motion, stamp",
    [(view(), 1.1), (view(), -1.1), (view(x=5.0), 0.1), (view(z=1.95), 0.1)],
    ids=["too old", "from the future", "out of the image", "too near"],
)
def test_what_the_camera_no_longer_sees_is_dropped(motion, stamp):
    memory = carried((60, 80, 2.0))
    assert len(memory.seen_from(motion, HALF, points(FAR_OFF), stamp)) == 0
    assert len(memory.seen_from(view(), HALF, points(FAR_OFF), 0.1)) == 0


@pytest.mark.parametrize("depth", [1.0, 4.0], ids=["hidden by something nearer", "moved away"])
def test_a_point_that_newer_ones_contradict_is_dropped(depth):
    others = [(row, column, 2.0) for row in (20, 50) for column in (20, 50, 80, 110)]
    memory = carried((100, 80, 2.0), *others)
    now = points((92, 80, depth), (108, 80, depth), (35, 35, 2.0), (35, 95, 2.0))
    seen = memory.seen_from(view(), HALF, now, 0.1)
    assert sorted(zip(seen.rows, seen.columns, strict=True)) == [other[:2] for other in others]


def test_a_measured_point_takes_the_place_of_a_carried_one():
    memory = carried((60, 80, 2.0), (20, 20, 2.0))
    seen = memory.seen_from(view(), HALF, points((61, 80, 2.01)), 0.1)
    assert seen.rows.tolist() == [20]


def test_a_point_is_dropped_where_the_network_sees_something_else():
    columns = range(10, 160, 20)
    slope = GlobalFit("log", AffineFit(1.0, 0.2, np.eye(2), np.zeros(8)))
    memory = CarriedPoints(AlignmentSettings())
    memory.remember(view(), points(*[(60, column, 2.0) for column in columns]), slope, 0.0)
    relative = HALF.copy()
    relative[50:70, 40:60] = 0.2
    seen = memory.seen_from(view(), relative, points(FAR_OFF), 0.1)
    assert seen.columns.tolist() == [column for column in columns if column != 50]


def test_a_jump_of_the_pose_drops_all_points():
    grid = [(row, column, 2.0 + row / 30) for row in (20, 60, 100) for column in (20, 70, 120)]
    memory = carried(*grid)
    now = points(*[(row + 8, column + 8, depth) for row, column, depth in grid])
    assert len(memory.seen_from(view(z=0.7), HALF, now, 0.1)) == 0


def test_as_many_points_are_kept_as_there_are_cells():
    memory = CarriedPoints(AlignmentSettings(carry_points=48))
    v, u = (axis.ravel() for axis in np.mgrid[: SHAPE[0] : 2, : SHAPE[1] : 2])
    many = points(*zip(v, u, np.full(len(v), 2.0), strict=True))
    memory.remember(view(), many, LEVEL, 0.0)
    seen = memory.seen_from(view(), HALF, points(FAR_OFF), 0.1)
    assert 40 <= len(seen) <= 63


@lru_cache(maxsize=1)
def walk() -> list[tuple[CameraView, np.ndarray, np.ndarray, np.ndarray]]:
    """A robot's walk at 30 Hz: (view, image, metres, relative depth with smooth errors)."""
    scene, loop, frames = RoomScene(0), Loop(2.2, 1.4), []
    bumps = cv2.GaussianBlur(np.random.default_rng(0).standard_normal(SHAPE), (0, 0), 8)
    for frame in range(14):
        pose = loop.at(frame / 30, 0.5).T_world_base @ camera_pose(0.5, 0.15)
        seen = scene.look(CAMERA, pose)
        depth, image = seen.depth, scene.colours(seen)
        relative = np.log(depth) / 3.0 + 0.25 + 0.03 * bumps / bumps.std()
        frames.append((CameraView(pose, CAMERA), image, depth, relative.astype(np.float32)))
    return frames


def jitter(points: int, carry: bool) -> tuple[float, float]:
    """Mean change of the log error between frames, and its mean size, of points drawn anew."""
    aligner, errors = ScaleAligner(carry_points=300), []
    for frame, (camera, image, depth, relative) in enumerate(walk()):
        sparse = draw_points(depth, points, seed=frame)
        known = camera if carry else None
        fit = aligner.update(relative, sparse, frame / 30, rgb=image, view=known)
        errors.append(np.log(fit.apply(relative) / depth))
    last = errors[5:]
    change = np.mean([np.nanmean(np.abs(b - a)) for a, b in itertools.pairwise(last)])
    return float(change), float(np.nanmean(np.abs(last)))


@pytest.mark.parametrize("count", [30, 100])
def test_carried_points_steady_points_that_are_drawn_anew_and_help(count):
    shaky, alone = jitter(count, carry=False)
    steady, error = jitter(count, carry=True)
    assert steady < 0.85 * shaky
    assert error < 0.85 * alone


V, U = np.mgrid[: SHAPE[0], : SHAPE[1]]
RELATIVE = (0.5 + 0.25 * np.sin(U / 34) + 0.2 * np.cos(V / 22)).astype(np.float32)
TRUTH = (1.0 + 5.0 * RELATIVE).astype(np.float32)


def standing(scenes: list[np.ndarray], count: int, carry: bool = True) -> list[np.ndarray]:
    """Log error of every frame of a camera that stands still."""
    aligner, errors = ScaleAligner(), []
    for frame, truth in enumerate(scenes):
        sparse = draw_points(truth, count, seed=frame)
        fit = aligner.update(RELATIVE, sparse, frame / 30, view=view() if carry else None)
        errors.append(np.log(fit.apply(RELATIVE) / truth))
    return errors


def test_a_step_of_30_percent_is_followed_within_3_frames():
    errors = standing([TRUTH] * 8 + [np.float32(1.3) * TRUTH] * 4, 100)
    assert np.abs(errors[10]).mean() < np.abs(errors[7]).mean() + 0.03


def test_nothing_is_dragged_behind_a_moving_object():
    """A box that the network does not see crosses the image at 12 pixels a frame."""
    scenes = crossing_box(TRUTH)
    left_behind = (slice(45, 75), slice(70, 110))
    carrying, alone = (standing(scenes, 600, carry)[-1][left_behind] for carry in (True, False))
    assert np.abs(carrying).mean() < np.abs(alone).mean() + 0.03


def test_a_view_must_fit_the_image():
    sparse = draw_points(TRUTH, 100, seed=0)
    wrong = CameraView(np.eye(4), CAMERA.resized(80, 60))
    with pytest.raises(ValueError, match="size"):
        ScaleAligner().update(RELATIVE, sparse, 0.0, view=wrong)
    with pytest.raises(ValueError, match="4, 4"):
        CameraView(np.eye(3), CAMERA)

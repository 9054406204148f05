"""The correction over time: steady where the points change, quick where the scene does."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from helpers.scenes import crossing_box

from d3_ros.data.held_out_points import draw_points
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.smoothing import CorrectionSmoother

SHAPE = (120, 160)
V, U = np.mgrid[: SHAPE[0], : SHAPE[1]]
RELATIVE = (0.5 + 0.25 * np.sin(U / 34) + 0.2 * np.cos(V / 22)).astype(np.float32)
BUMPS = cv2.GaussianBlur(np.random.default_rng(0).standard_normal(SHAPE), (0, 0), 6)
TRUTH = ((1.0 + 5.0 * RELATIVE) * np.exp(0.1 * BUMPS / BUMPS.std())).astype(np.float32)
IMAGE = np.full((*SHAPE, 3), 128, np.uint8)


def run(scenes: list[np.ndarray], points: int, smoothing: float, image: bool) -> list[np.ndarray]:
    """Log error of every frame, from points drawn anew each time."""
    aligner = ScaleAligner(smoothing=smoothing)
    errors = []
    for frame, truth in enumerate(scenes):
        sparse = draw_points(truth, points, seed=frame)
        fit = aligner.update(RELATIVE, sparse, frame / 30, rgb=IMAGE if image else None)
        errors.append(np.log(fit.apply(RELATIVE) / truth))
    return errors


@pytest.mark.parametrize("points, image", [(100, True), (300, True), (300, False)])
def test_points_drawn_anew_do_not_shake_the_correction(points, image):
    def jitter(smoothing: float) -> float:
        errors = run([TRUTH] * 10, points, smoothing, image)
        return float(np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(errors[4:])]))

    assert jitter(0.9) < 0.5 * jitter(0.0)


def test_a_scene_that_steps_by_30_percent_is_followed_within_3_frames():
    errors = run([TRUTH] * 8 + [1.3 * TRUTH] * 4, 300, 0.9, True)
    before, after = np.abs(errors[7]).mean(), np.abs(errors[10]).mean()
    assert after < before + 0.03


def test_nothing_is_dragged_behind_a_moving_object():
    """A box that the network does not see crosses the image at 12 pixels a frame."""
    scenes = crossing_box(TRUTH)
    smoothed, alone = (run(scenes, 600, smoothing, False)[-1] for smoothing in (0.9, 0.0))
    left_behind = (slice(45, 75), slice(70, 110))
    assert np.abs(smoothed[left_behind]).mean() < np.abs(alone[left_behind]).mean() + 0.03


def test_a_cell_keeps_its_past_only_while_depth_and_correction_are_alike():
    smoother = CorrectionSmoother(0.8)
    depth, zero = np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(smoother.update(depth, zero), zero)
    moved = np.array([[0.0, 0.0, 1.0]], np.float32)
    correction = np.array([[0.02, 2.0, 0.02]], np.float32)
    smoothed = smoother.update(moved, correction)
    np.testing.assert_allclose(smoothed, [[0.2 * 0.02, 2.0, 0.02]], atol=2e-4)
    other_size = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(smoother.update(other_size, other_size), other_size)

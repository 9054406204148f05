"""Metrics by hand."""

from __future__ import annotations

import numpy as np
import pytest

from d3_ros import metrics

TRUTH = np.array([[1.0, 2.0], [4.0, 0.0]])
VALID = TRUTH > 0


def test_affine_align_recovers_scale_and_shift() -> None:
    relative = (TRUTH - 0.5) / 5
    assert metrics.affine_align(relative, TRUTH, VALID) == pytest.approx((5.0, 0.5))


def test_constant_depth_is_aligned_to_the_mean() -> None:
    assert metrics.affine_align(np.full((2, 2), 0.3), TRUTH, VALID) == pytest.approx((0, 7 / 3))


def test_affine_align_needs_two_pixels() -> None:
    with pytest.raises(ValueError, match="at least 2 valid pixels, got 1"):
        metrics.affine_align(TRUTH, TRUTH, TRUTH == 1.0)


def test_scores_by_hand() -> None:
    predicted = np.array([[1.2, 1.5], [4.0, 9.0]])
    assert metrics.abs_rel(predicted, TRUTH, VALID) == pytest.approx((0.2 + 0.25 + 0) / 3)
    assert metrics.rmse(predicted, TRUTH, VALID) == pytest.approx(np.sqrt((0.04 + 0.25) / 3))
    assert metrics.delta(predicted, TRUTH, VALID) == pytest.approx(2 / 3)  # 2 / 1.5 > 1.25
    assert np.isnan(metrics.abs_rel(predicted, TRUTH, ~VALID & False))


def test_logarithmic_scores_by_hand() -> None:
    """Ratios to the truth of e, 1 and 1/e: squares 1, 0, 1, and no mean."""
    predicted = np.array([[np.e, 2.0], [4 / np.e, 9.0]])
    assert metrics.rmse_log(predicted, TRUTH, VALID) == pytest.approx(np.sqrt(2 / 3))
    assert metrics.si_log(predicted, TRUTH, VALID) == pytest.approx(np.sqrt(2 / 3))
    # A wrong scale is forgiven by one and not by the other.
    assert metrics.si_log(3 * TRUTH, TRUTH, VALID) == pytest.approx(0, abs=1e-12)
    assert metrics.rmse_log(3 * TRUTH, TRUTH, VALID) == pytest.approx(np.log(3))
    # What is behind the camera counts as 1 mm.
    behind = np.array([[-5.0, 2.0], [4.0, 0.0]])
    assert metrics.rmse_log(behind, TRUTH, VALID) == pytest.approx(np.log(1000) / np.sqrt(3))
    assert np.isnan(metrics.si_log(predicted, TRUTH, ~VALID & False))


def test_deltas_by_hand() -> None:
    predicted = np.array([[1.3, 2.0 / 1.6], [4.0 * 2.0, 0.0]])  # ratios 1.3, 1.6 and 2
    shares = [metrics.delta(predicted, TRUTH, VALID, power) for power in (1, 2, 3)]
    assert shares == pytest.approx([0, 1 / 3, 2 / 3])  # below 1.25, 1.5625, 1.953125


def test_normal_angles() -> None:
    truth = np.array([[(0, 0, -1.0), (0, -1.0, 0)]])
    predicted = np.array([[(0, 0, -1.0), (1.0, 0, 0)]])
    angles = metrics.normal_angles(predicted, truth, np.array([[True, True]]))
    assert angles == pytest.approx([0, 90])


def step_scene(column: int) -> np.ndarray:
    """(40, 60) metres: 1 m left of `column`, 2 m from it on."""
    return np.where(np.arange(60) < column, 1.0, 2.0) * np.ones((40, 1))


def test_holes_are_closed_up_to_eight_pixels() -> None:
    depth = np.full((20, 40), 3.0)
    depth[:, 5:] = 0.0
    closed = metrics.close_holes(depth)
    np.testing.assert_array_equal(closed[:, :13], 3.0)
    assert np.isnan(closed[:, 13:]).all()
    assert np.isnan(metrics.close_holes(np.zeros((3, 3)))).all()


def test_the_zone_around_a_step_is_five_pixels_wide_on_either_side() -> None:
    zone = metrics.near_steps(step_scene(30))
    # The pixels at either side of the jump, 29 and 30, and five more each.
    np.testing.assert_array_equal(np.flatnonzero(zone[20]), np.arange(24, 36))
    assert not metrics.near_steps(1.0 + 0.01 * np.arange(60) * np.ones((40, 1))).any()


def test_boundaries_match_within_three_pixels() -> None:
    truth = step_scene(30)
    assert metrics.boundary_f1(truth, truth) == (1.0, 1.0, 1.0)
    # Boundary pixels: half of the span, two, to either side of the jump. Shifted by 4 pixels, the
    # nearest of the other's are 1 to 4 away: three of four match.
    f1, precision, recall = metrics.boundary_f1(step_scene(34), truth)
    assert (precision, recall) == (0.75, 0.75)
    assert abs(f1 - 0.75) < 1e-12
    assert metrics.boundary_f1(step_scene(45), truth) == (0.0, 0.0, 0.0)
    assert metrics.boundary_f1(np.ones((40, 60)), truth) == (0.0, 0.0, 0.0)
    assert all(np.isnan(metrics.boundary_f1(truth, np.ones((40, 60)))))


def test_a_slanted_plane_has_no_boundary() -> None:
    plane = 1.0 / (0.2 + 0.005 * np.arange(60)) * np.ones((40, 1))
    assert all(np.isnan(metrics.boundary_f1(plane, plane)))


def wide_step(width: int) -> np.ndarray:
    """(50, 80) metres: 1 m on the left, 2 m on the right, `width` pixels of ramp in the middle."""
    ramp = np.clip((np.arange(80) - 39.5) / max(width, 1e-9) + 0.5, 0, 1)
    return (1.0 + ramp) * np.ones((50, 1))


def test_clean_steps_are_seen_with_a_third_of_their_contrast() -> None:
    truth = wide_step(0)
    share, width, count = metrics.clean_steps(truth, truth)
    assert (share, width, count) == (1.0, 1.0, 50)  # from the last pixel below to the first above
    # A ramp over 10 pixels: 10 % to 90 % is 8 pixels, 9 from the last below to the first above.
    assert metrics.clean_steps(wide_step(10), truth)[1] == pytest.approx(9.0)
    for contrast, seen in ((0.35, 1.0), (0.25, 0.0), (-1.0, 0.0)):
        share, _, _ = metrics.clean_steps(1.0 + contrast * (truth - 1.0), truth)
        assert share == seen


def test_only_steps_between_flat_known_sides_are_clean() -> None:
    slope = wide_step(0) + 0.05 * np.arange(80)  # sides rise by 0.85 m, over 0.35 of the step
    assert metrics.clean_steps(slope, slope)[2] == 0
    holes = wide_step(0)
    holes[:20, 25] = np.nan
    share, width, count = metrics.clean_steps(wide_step(0), holes)
    assert (share, width, count) == (1.0, 1.0, 30)
    nothing = metrics.clean_steps(np.ones((50, 80)), np.ones((50, 80)))
    assert np.isnan(nothing[:2]).all()
    assert nothing[2] == 0


def test_exact_boundaries_match_to_the_pixel_and_the_direction() -> None:
    truth = step_scene(30)
    assert metrics.boundary_f1_exact(truth, truth) == pytest.approx(1.0)
    assert metrics.boundary_f1_exact(step_scene(31), truth) == 0.0
    assert metrics.boundary_f1_exact(3.0 - truth, truth) == 0.0  # near and far exchanged
    # A jump of 17 %: found by the shares 5, 10 and 15 % of 5 to 25 %; 0.3 of the weights' 0.75.
    weak = np.where(truth > 1.5, 1.17, 1.0)
    assert metrics.boundary_f1_exact(weak, truth) == pytest.approx(0.4)
    unknown = np.where(np.arange(60) < 40, truth, np.nan)
    two = np.where(np.arange(60) < 50, truth, 4.0)  # another jump where nothing is known
    assert metrics.boundary_f1_exact(two, unknown) == pytest.approx(1.0)
    assert np.isnan(metrics.boundary_f1_exact(truth, np.ones((40, 60))))


def test_near_pixels_that_come_out_too_far() -> None:
    truth = np.where(np.arange(60) < 30, 0.8, 2.0) * np.ones((10, 1))
    guess = np.where(np.arange(60) < 10, 1.1, 0.99) * np.ones((10, 1))  # 1.25 x 0.8 = 1
    known = truth > 0
    assert metrics.near_too_far(guess, truth, known) == pytest.approx(1 / 3)
    assert metrics.near_too_far(guess, truth, known & (np.arange(60) < 20)) == pytest.approx(1 / 2)
    assert np.isnan(metrics.near_too_far(guess, truth, known & (np.arange(60) < 9)))

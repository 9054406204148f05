"""The expected error: calibrated, larger where nothing was measured, and honest when it is old."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from d3_ros.data.held_out_points import draw_points
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.uncertainty import LeftOut
from d3_ros.types import DepthFit

SHAPE = (240, 320)
V, U = np.mgrid[: SHAPE[0], : SHAPE[1]]


def rough(seed: int, size: float) -> np.ndarray:
    """A random smooth field with standard deviation 1."""
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    field = cv2.GaussianBlur(noise, (0, 0), size)
    return field / field.std()


RELATIVE = np.clip(0.5 + 0.15 * rough(0, 40), 0.05, 0.95).astype(np.float32)
# What the network misses: smooth bumps and a box.
TRUTH = ((1.0 + 5.0 * RELATIVE) * np.exp(0.08 * rough(1, 12))).astype(np.float32)
TRUTH[60:140, 180:260] = 1.5


@pytest.mark.parametrize(
    "points, pattern",
    [(20, "random"), (100, "random"), (500, "random"), (100, "line"), (200, "lower")],
)
def test_most_errors_are_within_one_sigma_and_nearly_all_within_two(points, pattern):
    within = []
    for seed in range(4):
        fit = ScaleAligner().update(
            RELATIVE, draw_points(TRUTH, points, pattern=pattern, seed=seed), 0.0
        )
        error = np.abs(fit.apply(RELATIVE) - TRUTH)
        sigma = fit.sigma(RELATIVE)
        assert sigma.dtype == np.float32 and sigma.shape == SHAPE
        within.append([np.mean(error < sigma), np.mean(error < 2 * sigma)])
    one, two = np.mean(within, axis=0)
    assert 0.5 < one < 0.95 and two > 0.85


@pytest.mark.parametrize(
    "points, pattern",
    [(20, "random"), (100, "random"), (500, "random"), (100, "line"), (200, "lower")],
)
def test_the_reported_error_is_that_of_the_whole_image(points, pattern):
    """One scan line predicts itself well, and says little about the rest of the image."""
    ratio, held_out = [], []
    for seed in range(6):
        sparse = draw_points(TRUTH, points, pattern=pattern, seed=seed)
        fit = ScaleAligner().update(RELATIVE, sparse, 0.0)
        actual = np.nanmean(np.abs(fit.apply(RELATIVE) / TRUTH - 1))
        ratio.append(fit.abs_rel / actual)
        held_out.append(fit.held_out_abs_rel / actual)
    assert 0.6 < np.median(ratio) < 2.2
    # A few points may all miss the box.
    assert np.mean(np.array(ratio) < 0.5) < (0.4 if points == 20 else 0.2)
    if pattern == "line":
        assert np.median(held_out) < 0.5 * np.median(ratio)


def test_sigma_is_larger_where_left_out_points_are_far_off():
    """Two halves alike but for a roughness that neither the network nor the points resolve."""
    rough_half = np.where(U < 160, np.exp(0.2 * rough(2, 3)), 1.0)
    truth = ((1.0 + 5.0 * RELATIVE) * rough_half).astype(np.float32)
    fit = ScaleAligner().update(RELATIVE, draw_points(truth, 300, seed=0), 0.0)
    share = fit.sigma(RELATIVE) / fit.apply(RELATIVE)
    assert np.median(share[:, :140]) > 3 * np.median(share[:, 180:])


def test_an_outlier_s_own_error_makes_its_surroundings_no_less_sure():
    sparse = draw_points(TRUTH, 300, seed=0)
    clean = ScaleAligner().update(RELATIVE, sparse, 0.0)
    rows, columns = np.nonzero(np.isfinite(sparse))
    sparse[rows[::30], columns[::30]] *= 4.0
    fit = ScaleAligner().update(RELATIVE, sparse, 0.0)
    assert fit.abs_rel < 1.5 * clean.abs_rel


def test_sigma_grows_away_from_the_points():
    sparse = draw_points(TRUTH, 200, pattern="lower", seed=0)
    fit = ScaleAligner().update(RELATIVE, sparse, 0.0)
    relative_sigma = fit.sigma(RELATIVE) / fit.apply(RELATIVE)
    rows = relative_sigma.mean(axis=1)
    assert rows[20] > 1.5 * rows[100] > 1.5 * rows[180]


def test_metres_that_are_known_may_be_given():
    fit = ScaleAligner().update(RELATIVE, draw_points(TRUTH, 200, seed=0), 0.0)
    metric = fit.apply(RELATIVE)
    np.testing.assert_array_equal(fit.sigma(RELATIVE, metric), fit.sigma(RELATIVE))
    saturated = RELATIVE.copy()
    saturated[:9] = 1.0
    assert np.isnan(fit.sigma(saturated)[:9]).all() and np.isfinite(fit.sigma(saturated)[9:]).all()


def test_a_held_fit_is_less_sure():
    aligner = ScaleAligner()
    measured = aligner.update(RELATIVE, draw_points(TRUTH, 200, seed=0), 0.0).sigma(RELATIVE)
    soon, later = (aligner.update(RELATIVE, None, stamp).sigma(RELATIVE) for stamp in (0.1, 1.5))
    assert np.mean(soon) > np.mean(measured) and np.mean(later) > 1.2 * np.mean(soon)


def test_away_from_a_scanner_that_sees_one_depth_sigma_holds_the_error():
    truth = (1.0 + 3.0 * RELATIVE).astype(np.float32)
    sparse = np.full(SHAPE, np.nan, np.float32)
    noise = np.random.default_rng(0).standard_normal(SHAPE[1])
    sparse[120] = 2.51 * (1 + 0.002 * noise)
    fit = ScaleAligner().update(RELATIVE, sparse, 0.0)
    assert fit.state == "measured" and "2.51 m" in fit.reason
    error, sigma = np.abs(fit.apply(RELATIVE) - truth), fit.sigma(RELATIVE)
    far = np.abs(V - 120) > 40
    assert np.mean(error[far] < 2 * sigma[far]) > 0.9
    assert np.median(sigma[far] / 2.51) > 0.3
    assert np.median(sigma[120]) < 0.25


def test_without_a_model_of_the_error_it_is_unknown_and_without_a_scale_refused():
    fit = ScaleAligner().update(RELATIVE, draw_points(TRUTH, 200, seed=0), 0.0)
    assert np.isnan(replace(fit, relative_error=None).sigma(RELATIVE)).all()
    with pytest.raises(ValueError, match="no metric scale"):
        DepthFit(ok=False, state="relative").sigma(RELATIVE)


def test_a_scene_that_is_predicted_better_than_usual_has_smaller_errors_everywhere():
    """The left-out points calibrate the frame, not only their surroundings."""
    points = draw_points(TRUTH, 200, seed=0)
    model = ScaleAligner().update(RELATIVE, points, 0.0).relative_error
    rows, columns = np.nonzero(np.isfinite(points))
    depth, alike = points[rows, columns], np.full(len(rows), 0.05)
    good = np.full(len(rows), 1e-4)

    def log_factor(error, weight, given=100):
        judges = LeftOut(rows, columns, depth, error, weight)
        return model.calibrated(judges, alike, max(SHAPE), given).log_factor

    believed = np.ones(len(rows))
    assert log_factor(good, believed) < log_factor(100 * good, believed) - 0.5
    few_wrong = np.where(np.arange(len(rows)) % 3 == 0, 1.0, 100 * good)
    as_outliers = log_factor(few_wrong, np.where(few_wrong == 1.0, 0.01, 1.0))
    assert abs(as_outliers - log_factor(100 * good, believed)) < 0.2
    assert log_factor(good, 0 * believed) == model.log_factor
    usual = log_factor(good, believed)
    assert log_factor(good, believed, 20) == usual, "few points are as a hundred"
    assert log_factor(good, believed, 500) == pytest.approx(usual + 0.06 * np.log(5))
    assert log_factor(good, believed, 50_000) == log_factor(good, believed, 2000)

"""Scale alignment: what it fits, what it refuses, and how long it holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.geometry.alignment import AlignmentSettings, ScaleAligner
from d3_ros.geometry.alignment.numerics import median

NAN = np.float32(np.nan)


def scene(scale=4.0, shift=0.5, points=300, seed=0, shape=(60, 80)):
    """A smooth relative depth in (0.05, 0.95), its metric truth, and points measured exactly."""
    v, u = np.mgrid[: shape[0], : shape[1]]
    relative = 0.5 + 0.25 * np.sin(u / 17) + 0.2 * np.cos(v / 11)
    relative = relative.astype(np.float32)
    truth = (scale * relative + shift).astype(np.float32)
    sparse = np.full(shape, NAN)
    chosen = np.random.default_rng(seed).choice(relative.size, points, replace=False)
    sparse.flat[chosen] = truth.flat[chosen]
    return relative, truth, sparse


def refused(reason: str, relative, sparse, **settings_) -> None:
    fit = ScaleAligner(**settings_).update(relative, sparse, stamp=0.0)
    assert not fit.ok and fit.state == "relative"
    assert reason in fit.reason and "\n" not in fit.reason
    assert np.isnan(fit.scale) and np.isnan(fit.abs_rel)
    with pytest.raises(ValueError, match="no metric scale"):
        fit.apply(relative)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_median_is_numpys(values):
    given_values = np.array(values)
    assert median(given_values) == pytest.approx(float(np.median(given_values)), rel=1e-12)
    np.testing.assert_array_equal(given_values, values)


def test_exact_points_give_exact_metres():
    relative, truth, sparse = scene()
    copies = relative.copy(), sparse.copy()
    fit = ScaleAligner().update(relative, sparse, stamp=1.0)
    assert fit.ok and fit.state == "measured" and fit.reason == ""
    assert fit.scale == pytest.approx(4.0, rel=1e-4) and fit.shift == pytest.approx(0.5, abs=1e-3)
    assert fit.inlier_ratio == 1.0 and fit.held_out_abs_rel < 1e-4 and fit.points == 300
    metric = fit.apply(relative)
    assert metric.dtype == np.float32
    np.testing.assert_allclose(metric, truth, rtol=1e-3)
    np.testing.assert_array_equal(relative, copies[0])
    np.testing.assert_array_equal(sparse, copies[1])


def test_a_third_of_gross_outliers_does_not_move_the_fit():
    relative, truth, sparse = scene(points=300)
    measured = np.flatnonzero(np.isfinite(sparse))
    rng = np.random.default_rng(3)
    wrong = rng.choice(measured, 100, replace=False)
    sparse.flat[wrong] = rng.uniform(0.5, 10, 100)
    fit = ScaleAligner().update(relative, sparse, stamp=0.0)
    assert fit.ok
    assert np.abs(fit.apply(relative) / truth - 1).mean() < 0.01


def test_the_same_frame_gives_the_same_fit():
    relative, _, sparse = scene()
    fits = [ScaleAligner().update(relative, sparse, stamp=0.0) for _ in range(2)]
    np.testing.assert_array_equal(*[fit.apply(relative) for fit in fits])


def test_saturated_and_non_finite_pixels_take_no_part_and_get_no_metres():
    relative, truth, sparse = scene()
    relative[:10] = 1.0
    relative[-10:] = 0.0
    relative[30] = NAN
    sparse[:10, ::5] = 0.5  # would wreck the fit
    fit = ScaleAligner().update(relative, sparse, stamp=0.0)
    metric = fit.apply(relative)
    assert (
        np.isnan(metric[:10]).all() and np.isnan(metric[-10:]).all() and np.isnan(metric[30]).all()
    )
    np.testing.assert_allclose(metric[10:30], truth[10:30], rtol=1e-3)


def test_metres_are_nan_where_the_map_would_go_behind_the_camera():
    relative, _, sparse = scene(scale=4.0, shift=-1.0)
    sparse[sparse <= 0.1] = NAN
    metric = ScaleAligner().update(relative, sparse, stamp=0.0).apply(relative)
    assert np.isnan(metric[relative < 0.2]).all() and not (metric <= 0).any()


def test_refuses_no_sensor_depth():
    refused("no sensor depth", scene()[0], None)


@pytest.mark.parametrize("points", [0, 1, 7])
def test_refuses_too_few_points(points):
    relative, _, sparse = scene(points=points)
    refused(f"{points} sensor points in range, 8 needed", relative, sparse)


def test_refuses_points_out_of_range():
    relative, _, sparse = scene(points=100)
    refused("0 sensor points in range", relative, sparse * 100)
    refused("0 sensor points in range", relative, np.zeros_like(sparse))


@pytest.mark.parametrize("points", [40, 1000])
def test_a_network_that_says_nothing_leaves_the_points(points):
    """A constant relative depth: the metres are those of the points, and the reason is told."""
    _, truth, sparse = scene(points=points)
    fit = ScaleAligner().update(np.full_like(truth, 0.5), sparse, stamp=0.0)
    assert fit.state == "measured" and "the same at all sensor points" in fit.reason
    error = np.abs(fit.apply(np.full_like(truth, 0.5)) / truth - 1).mean()
    assert error < (0.07 if points < 100 else 0.01)
    assert fit.scale == 0.0 and 0.5 < fit.shift < 4.5


def test_refuses_an_image_of_nan():
    relative, _, sparse = scene()
    refused("not finite", np.full_like(relative, NAN), sparse)


def test_refuses_a_saturated_image():
    relative, _, sparse = scene()
    refused("saturated", np.ones_like(relative), sparse)
    refused("saturated", np.zeros_like(relative), sparse)


def test_a_network_that_contradicts_good_points_leaves_the_points():
    relative, truth, sparse = scene(scale=-3.0, shift=5.0, points=1000)
    fit = ScaleAligner().update(relative, sparse, stamp=0.0)
    assert fit.state == "measured" and "negative scale" in fit.reason
    assert np.abs(fit.apply(relative) / truth - 1).mean() < 0.01
    assert 0.0 <= fit.scale < 0.2 and 2.5 < fit.shift < 4.5
    refused("negative scale", relative, sparse, local_correction=False)


@pytest.mark.parametrize("tilt", [0.02, -0.02, 0.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("local_correction", [True, False])
def test_a_wall_is_measured_whichever_way_it_is_turned(tilt, noise, local_correction):
    across = np.arange(320)
    relative = np.repeat((0.2 + 0.5 * across / 320)[None], 240, 0).astype(np.float32)
    wall = np.repeat((2 + tilt * (across / 160 - 1))[None], 240, 0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        sparse = np.full(wall.shape, NAN)
        chosen = rng.choice(wall.size, 500, replace=False)
        sparse.flat[chosen] = (wall * (1 + noise * rng.standard_normal(wall.shape))).flat[chosen]
        for measured in (sparse, sparse if noise else wall.astype(np.float32)):
            fit = ScaleAligner(local_correction=local_correction).update(relative, measured, 1.0)
            assert fit.state == "measured" and "near 2.0" in fit.reason
            np.testing.assert_allclose(fit.apply(relative), 2.0, rtol=0.06 if noise else 0.02)
            assert np.mean(np.abs(fit.apply(relative) / wall - 1)) < 0.01
            assert fit.scale >= 0.0 and fit.shift + 0.45 * fit.scale == pytest.approx(2.0, 0.02)


def test_a_view_from_above_that_the_network_does_not_understand_is_measured():
    v, u = np.mgrid[:120, :160]
    relative = (0.5 + 0.4 * np.sin(v / 9) * np.sin(u / 11)).astype(np.float32)
    truth = (2.0 + 0.5 * np.sin(u / 40 + 1) * np.cos(v / 30)).astype(np.float32)
    for points, most in ((100, 0.04), (300, 0.02)):
        for seed in range(3):
            sparse = np.full(truth.shape, NAN)
            chosen = np.random.default_rng(seed).choice(truth.size, points, replace=False)
            sparse.flat[chosen] = truth.flat[chosen]
            fit = ScaleAligner().update(relative, sparse, stamp=0.0)
            assert fit.state == "measured"
            assert np.abs(fit.apply(relative) / truth - 1).mean() < most


def test_a_scanner_before_a_wall_says_that_the_rest_is_a_guess():
    relative, truth, _ = scene(scale=3.0, shift=1.0)
    sparse = np.full(truth.shape, NAN)
    rng = np.random.default_rng(0)
    sparse[30] = 2.51 * (1 + 0.002 * rng.standard_normal(80))
    fit = ScaleAligner().update(relative, sparse, stamp=0.0)
    assert fit.state == "measured" and "all sensor points lie near 2.51 m" in fit.reason
    np.testing.assert_allclose(fit.apply(relative)[30], 2.51, rtol=0.02)


def test_few_points_in_a_rich_scene_are_not_refused_and_random_ones_are():
    rng = np.random.default_rng(0)
    relative, truth, _ = scene(shape=(120, 160))
    for points in (20, 50, 300):
        sparse = np.full(truth.shape, NAN)
        chosen = rng.choice(truth.size, points, replace=False)
        sparse.flat[chosen] = truth.flat[chosen] * np.exp(0.3 * rng.standard_normal(points))
        assert ScaleAligner().update(relative, sparse, stamp=0.0).ok
        if points < 50:  # so few may agree by chance
            continue
        sparse.flat[chosen] = rng.uniform(0.5, 10, points)
        refused("points agree with one scale", relative, sparse)


def test_refuses_two_planes_in_contradiction():
    relative, _, _ = scene()
    sparse = (4 * relative + 0.5).astype(np.float32)
    sparse[:, ::2] = (1.0 * relative + 0.2)[:, ::2]
    refused("points agree with one scale", relative, sparse)


def test_few_points_on_a_bent_curve_are_no_contradiction():
    """Twenty points before a real low camera, whose floor the network sees too flat."""
    r = [719, 523, 523, 375, 101, 587, 418, 105, 93, 95, 81, 138, 73, 64, 57, 51, 53, 55, 45, 47]
    z = [2884, 1717, 1344, 1335, 837, 1435, 1409, 839, 842, 853, 846, 1022, 847, 754, 477, 411]
    z += [423, 419, 327, 360]
    relative = np.repeat(np.repeat(np.array(r, np.float32).reshape(4, 5), 15, 0), 16, 1) / 1000
    sparse = np.full(relative.shape, NAN)
    sparse[7::15, 8::16] = np.array(z, np.float32).reshape(4, 5) / 1000
    fit = ScaleAligner().update(relative, sparse, 0.0)
    assert fit.state == "measured", fit.reason
    given = np.isfinite(sparse)
    assert np.median(np.abs(fit.apply(relative) / sparse - 1)[given]) < 0.1


def test_holds_then_lets_go():
    relative, _, sparse = scene()
    aligner = ScaleAligner(hold_s=2.0)
    measured = aligner.update(relative, sparse, stamp=10.0)
    held = aligner.update(relative, None, stamp=11.5)
    assert held.ok and held.state == "held" and held.reason == "no sensor depth"
    assert held.age_s == pytest.approx(1.5) and held.scale == measured.scale
    gone = aligner.update(relative, None, stamp=12.5)
    assert not gone.ok and gone.state == "relative" and "2.5 s old" in gone.reason
    back = aligner.update(relative, sparse, stamp=13.0)
    assert back.state == "measured" and back.age_s == 0.0


def test_reset_and_time_that_jumps_back_forget():
    relative, _, sparse = scene()
    aligner = ScaleAligner()
    aligner.update(relative, sparse, stamp=10.0)
    aligner.reset()
    assert aligner.update(relative, None, stamp=10.1).state == "relative"
    aligner.update(relative, sparse, stamp=11.0)
    assert aligner.update(relative, None, stamp=5.0).state == "relative"


def test_a_frame_that_is_late_is_held_and_forgets_nothing():
    relative, _, sparse = scene()
    aligner = ScaleAligner()
    aligner.update(relative, sparse, stamp=10.0)
    late = aligner.update(relative, None, stamp=9.8)
    assert (late.state, late.age_s) == ("held", 0.0)
    assert aligner.update(relative, None, stamp=10.5).age_s == pytest.approx(0.5)


def test_shapes_are_checked():
    relative, _, sparse = scene()
    with pytest.raises(ValueError, match="size"):
        ScaleAligner().update(relative, sparse[:-1], stamp=0.0)
    with pytest.raises(ValueError, match="H, W"):
        ScaleAligner().update(relative[..., None], None, stamp=0.0)


def test_settings_are_checked_and_documented():
    with pytest.raises(ValueError, match=r"hold_s must be in \[0, 3600\] s, got -1"):
        ScaleAligner(hold_s=-1)
    with pytest.raises(ValueError, match="below max_depth"):
        ScaleAligner(min_depth=5.0, max_depth=2.0)
    with pytest.raises(TypeError):
        ScaleAligner(no_such_setting=1)
    for entry in AlignmentSettings.__dataclass_fields__.values():
        described = entry.metadata["setting"]
        assert described.text
        assert entry.type == "bool" or described.low < described.high


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.5, 20),
    shift=st.floats(0.2, 5),
    points=st.integers(20, 400),
    seed=st.integers(0, 100),
)
def test_recovers_any_scale_and_shift(scale, shift, points, seed):
    relative, truth, sparse = scene(scale, shift, points, seed)
    fit = ScaleAligner().update(relative, sparse, stamp=0.0)
    assert fit.ok
    np.testing.assert_allclose(fit.apply(relative), truth, rtol=2e-3)

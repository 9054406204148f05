"""Domain choice, local correction, smoothing: what the aligner does beyond one affine fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve

from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.local.correction_field import (
    NODES,
    CorrectionField,
    evaluate_field,
    image_position,
)
from d3_ros.geometry.alignment.local.gaussian_process import ResidualModel
from d3_ros.geometry.alignment.local.prior import PRIORS, Features, kernel
from d3_ros.geometry.alignment.points import Points, thin
from d3_ros.geometry.alignment.smoothing import SteadyChoice

SHAPE = (120, 160)
MIDDLE = SHAPE[1] // 2
V, U = np.mgrid[: SHAPE[0], : SHAPE[1]]
LEFT = MIDDLE > U


def smooth_relative() -> np.ndarray:
    return (0.5 + 0.25 * np.sin(U / 34) + 0.2 * np.cos(V / 22)).astype(np.float32)


def sample(truth: np.ndarray, count: int, seed: int = 0, where=None) -> np.ndarray:
    sparse = np.full(truth.shape, np.nan, np.float32)
    candidates = np.flatnonzero(np.ones(truth.shape, bool) if where is None else where)
    chosen = np.random.default_rng(seed).choice(candidates, count, replace=False)
    sparse.flat[chosen] = truth.flat[chosen]
    return sparse


def abs_rel(metric: np.ndarray, truth: np.ndarray, where=...) -> float:
    assert np.isfinite(metric[where]).all()
    return float(np.mean(np.abs(metric / truth - 1)[where]))


@pytest.mark.parametrize("domain", ["depth", "disparity", "log"])
def test_finds_the_domain_in_which_the_network_is_affine(domain):
    relative = smooth_relative()
    truth = {
        "depth": 1.0 + 6.0 * relative,
        "disparity": 1.0 / (1.0 - 0.85 * relative),
        "log": np.exp(0.2 + 2.0 * relative),
    }[domain]
    fit = ScaleAligner(local_correction=False).update(relative, sample(truth, 200), stamp=0.0)
    assert fit.ok and fit.to_metres.fit.domain == domain
    assert abs_rel(fit.apply(relative), truth) < 1e-3


def test_the_domain_changes_only_when_another_is_clearly_better():
    choice: SteadyChoice[str] = SteadyChoice(hysteresis=0.1, memory=0.0)
    assert choice.choose({"depth": 0.100, "log": 0.110}) == "depth"
    assert choice.choose({"depth": 0.100, "log": 0.095}) == "depth"  # 5 % better: not enough
    assert choice.choose({"depth": 0.100, "log": 0.085}) == "log"
    assert choice.choose({"depth": 0.100}) == "depth"  # log no longer fits at all


def test_a_smooth_error_of_the_network_is_bent_back():
    relative = smooth_relative()
    bend = 1.0 + 0.2 * np.sin(2 * np.pi * U / SHAPE[1]) * np.cos(np.pi * V / SHAPE[0])
    truth = (1.0 + 5.0 * relative) * bend
    sparse = sample(truth, 200)
    plain = ScaleAligner(local_correction=False).update(relative, sparse, stamp=0.0)
    bent = ScaleAligner().update(relative, sparse, stamp=0.0)
    before, after = (abs_rel(fit.apply(relative), truth) for fit in (plain, bent))
    assert before > 0.05 and after < 0.01
    assert bent.held_out_abs_rel == pytest.approx(
        after, abs=0.01
    )  # the held-out points tell the truth


def test_correction_does_not_cross_a_depth_edge():
    # Left half near, right half far; only the near surface is measured as 20 % nearer than the
    # global fit, within a band beside the edge.
    relative = np.where(LEFT, 0.1, 0.8) + 0.05 * V / SHAPE[0]
    relative = relative.astype(np.float32)
    truth = 1.0 + 9.0 * relative
    bump = np.where(LEFT, 1 - 0.2 * np.exp(-(((V - 60) / 25) ** 2)), 1.0)
    truth = truth * bump
    fit = ScaleAligner().update(relative, sample(truth, 400), stamp=0.0)
    metric = fit.apply(relative)
    far_side = ~LEFT & (MIDDLE + 8 > U)
    near_side = LEFT & (MIDDLE - 8 <= U)
    assert np.abs(metric / truth - 1)[far_side].max() < 0.03
    assert np.abs(metric / truth - 1)[near_side].mean() < 0.03


def test_correction_is_bounded():
    relative = smooth_relative()
    truth = (1.0 + 5.0 * relative) * np.where(U > 120, 1.5, 1.0)
    for bound in (0.0, 0.1):
        fit = ScaleAligner(max_correction=bound).update(relative, sample(truth, 300), stamp=0.0)
        metric_map = fit.to_metres
        change = fit.apply(relative) / metric_map.fit.metres(relative)
        assert change.max() < (1 + bound) * 1.001 and change.min() > 1 / (1 + bound) * 0.999


def test_held_out_prediction_and_grid_are_the_textbook_regression():
    rng = np.random.default_rng(0)
    features = Features(rng.random((60, 2)) * (1, 0.75), rng.uniform(-0.5, 0.5, 60))
    residual = 0.1 * np.sin(5 * features.position[:, 0]) + 0.2 * features.log_depth
    equal = np.ones(len(residual))
    result = ResidualModel().regress(features, residual, equal, seen=50, join=True, rng=rng)
    assert result.noise < 0.02
    prior = result.prior
    noise = np.diag(np.full(50, result.noise**2))
    seen, hidden = features[:50], features[50:]
    weights = cho_solve(cho_factor(kernel(prior, seen, seen) + noise), residual[:50])
    np.testing.assert_allclose(result.held_out, kernel(prior, hidden, seen) @ weights, atol=5e-3)
    field = evaluate_field(result, 0.0, 64, 48, (-0.6, 0.6), bound=1.0)
    log_depth = rng.uniform(-0.5, 0.5, (48, 64)).astype(np.float32)
    v, u = np.mgrid[:48, :64]
    position = np.column_stack([u.ravel() + 0.5, v.ravel() + 0.5]) / 64
    exact = kernel(prior, Features(position, log_depth.ravel()), result.anchors) @ result.alpha
    error = np.abs(field.at(log_depth).ravel() - exact)
    assert error.mean() < 1e-3 and error.max() < 5e-3


def test_every_prior_is_a_covariance():
    rng = np.random.default_rng(1)
    features = Features(rng.random((80, 2)), rng.uniform(-1, 1, 80))
    for prior in PRIORS:
        eigenvalues = np.linalg.eigvalsh(kernel(prior, features, features))
        assert eigenvalues.min() > -1e-5


def test_thinning_keeps_depth_layers_and_drops_lone_outliers():
    rng = np.random.default_rng(2)
    rows, columns = rng.integers(0, 100, 5000), rng.integers(0, 100, 5000)
    relative = np.where(columns < 50, 0.2, 0.8) + 0.0
    depth = np.where(columns < 50, 1.0, 4.0)
    thinned, cell_of = thin(Points(rows, columns, relative, depth, np.ones(len(rows))), 300)
    assert 100 < len(thinned) <= 300
    assert set(np.round(thinned.depth, 6)) == {1.0, 4.0}  # no average of two surfaces
    np.testing.assert_allclose(thinned.relative, np.where(thinned.depth < 2, 0.2, 0.8))
    np.testing.assert_allclose(thinned.depth[cell_of], depth)


def scales(smoothing: float, points: int, frames: int = 60, step_at: int = 45) -> np.ndarray:
    """Published scale under 5 % noise, points drawn anew each frame, 30 % farther from `step_at`.

    The correction is off, which has no part in the published scale, so that this takes no time.
    """
    relative = smooth_relative()
    aligner = ScaleAligner(smoothing=smoothing, local_correction=False)
    rng = np.random.default_rng(7)
    published = []
    for t in range(frames):
        truth = (1.0 + 5.0 * relative) * (1.3 if t >= step_at else 1.0)
        noisy = truth * (1 + 0.05 * rng.standard_normal(SHAPE))
        published.append(aligner.update(relative, sample(noisy, points, seed=t), t * 0.1).scale)
    return np.array(published)


@pytest.mark.parametrize("points", [20, 100, 500])
def test_scale_is_steady_when_the_scene_is_and_quick_when_it_changes(points):
    raw, smooth = scales(0.0, points), scales(0.9, points)
    steady = slice(15, 45)
    assert np.diff(smooth[steady]).std() < np.diff(raw[steady]).std() / 3
    assert smooth[steady].std() < raw[steady].std() / 3
    before = smooth[steady].mean()
    assert smooth[47] / before == pytest.approx(1.3, abs=0.08)  # the third frame of the step


def test_refuses_two_scales_one_beside_the_other():
    relative = smooth_relative()
    truth = np.where(LEFT, 1 + 3 * relative, 0.2 + 1 * relative)
    fit = ScaleAligner().update(relative, sample(truth, 300), stamp=0.0)
    assert not fit.ok and "others with another" in fit.reason


def test_refuses_random_depth():
    relative = smooth_relative()
    noise = np.random.default_rng(0).uniform(0.5, 10, SHAPE)
    fit = ScaleAligner().update(relative, sample(noise, 300), stamp=0.0)
    assert not fit.ok and np.isnan(fit.scale)


def test_held_fits_lose_the_local_correction_before_they_expire():
    relative = smooth_relative()
    truth = (1.0 + 5.0 * relative) * (1 + 0.1 * np.sin(U / 20))
    aligner = ScaleAligner(hold_correction_s=0.2, hold_s=2.0)
    measured = aligner.update(relative, sample(truth, 300), stamp=0.0).apply(relative)
    soon = aligner.update(relative, None, stamp=0.1)
    later = aligner.update(relative, None, stamp=1.0)
    np.testing.assert_array_equal(soon.apply(relative), measured)
    assert later.state == "held" and later.to_metres.field is None
    assert np.abs(later.apply(relative) - measured).max() > 0.01


@pytest.mark.parametrize(
    "shape", [(3000, 2), (1000, 40), (3000, 64), (1000, 4), (2, 3000), (3000, 1), (1, 33000)]
)
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_narrow_image_is_aligned_in_bounded_time(shape, share):
    """Grids are bounded whatever the image's aspect: these once hung or raised in OpenCV."""
    v, u = np.mgrid[: shape[0], : shape[1]]
    relative = (0.5 + 0.2 * np.sin(v / 300) + 0.2 * np.sin(u / 300 + 1)).astype(np.float32)
    truth = 1.0 + 5.0 * relative
    count = max(40, int(share * relative.size))
    fit = ScaleAligner().update(relative, sample(truth, count), stamp=0.0)
    assert max(fit.to_metres.field.layers.shape[1:]) <= NODES
    assert abs_rel(fit.apply(relative), truth) < 0.01


def test_correction_grid_and_points_agree_whatever_the_aspect():
    rng = np.random.default_rng(0)
    layers = rng.random((3, 40, 7)).astype(np.float32)
    field = CorrectionField(layers, low=-0.5, step=0.5, extent=(100 / 610, 1.0))
    log_depth = rng.uniform(-0.5, 0.5, (610, 100)).astype(np.float32)
    v, u = (axis.ravel() for axis in np.mgrid[:610, :100])
    at_points = field.at_points(image_position(u, v, (610, 100)), log_depth.ravel())
    # OpenCV rounds positions to 1 / 32 of a node.
    assert np.abs(field.at(log_depth).ravel() - at_points).max() < 0.04


def test_thinning_to_few_points_ends_whatever_the_depths():
    depth = np.geomspace(0.1, 80.0, 2000)
    rows, columns = np.divmod(np.arange(2000), 50)
    thinned, cell_of = thin(Points(rows, columns, depth / 100, depth, np.ones(len(rows))), 10)
    assert 1 <= len(thinned) <= 10 and cell_of.max() == len(thinned) - 1

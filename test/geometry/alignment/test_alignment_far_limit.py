"""What is farther than every sensor point: held back as far as the fit is wrong at the points."""

from __future__ import annotations

import numpy as np
import pytest

from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.global_fit.domain import Domain, GlobalFit
from d3_ros.geometry.alignment.global_fit.far_limit import (
    ERROR_TIMES_REACH,
    FarLimit,
    SteadyFarLimit,
)
from d3_ros.geometry.alignment.global_fit.robust_fit import AffineFit
from d3_ros.geometry.alignment.metric_map import MetricMap

SHAPE = (120, 160)
FLOOR_M, WALL_M = (0.4, 2.0), 3.0


def floor_and_wall(flatness: float, wobble: float) -> tuple[np.ndarray, np.ndarray]:
    """Relative depth and metres of a floor (lower half) before a wall.

    `flatness` is by how much the network's floor is too flat, `wobble` its errors on it.
    """
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    down = np.clip((SHAPE[0] - 1 - rows) / (SHAPE[0] / 2), 0, 1)
    metres = np.where(rows >= SHAPE[0] // 2, FLOOR_M[0] + (FLOOR_M[1] - FLOOR_M[0]) * down, WALL_M)
    relative = 0.1 + 0.2 * metres
    floor = 0.1 + 0.2 * (FLOOR_M[0] + (metres - FLOOR_M[0]) / flatness)
    floor += 0.2 * wobble * metres * np.sin(columns / 5) / flatness
    relative = np.where(rows >= SHAPE[0] // 2, floor, relative)
    return relative.astype(np.float32), metres.astype(np.float32)


def points_below(metres: np.ndarray) -> np.ndarray:
    """100 points of the lower half."""
    sparse = np.full(SHAPE, np.nan, np.float32)
    below = np.arange(metres.size // 2, metres.size)
    chosen = np.random.default_rng(0).choice(below, 100, replace=False)
    sparse.flat[chosen] = metres.flat[chosen]
    return sparse


def test_a_floor_that_is_too_flat_does_not_put_the_wall_far_away() -> None:
    relative, metres = floor_and_wall(flatness=4.0, wobble=0.1)
    fit = ScaleAligner().update(relative, points_below(metres), 0.0)
    wall = fit.apply(relative)[: SHAPE[0] // 2]
    straight = fit.scale * relative[0, 0] + fit.shift
    assert straight > 2 * WALL_M, "what the line alone says"
    assert np.isfinite(wall).all()
    assert WALL_M < np.median(wall) < 1.5 * WALL_M


def test_a_network_that_is_right_at_the_points_is_believed_beyond_them() -> None:
    relative, metres = floor_and_wall(flatness=1.0, wobble=0.0)
    fit = ScaleAligner().update(relative, points_below(metres), 0.0)
    np.testing.assert_allclose(fit.apply(relative), metres, rtol=2e-3)


def test_the_published_scale_and_a_fit_without_correction_know_no_limit() -> None:
    relative, metres = floor_and_wall(flatness=4.0, wobble=0.1)
    sparse = points_below(metres)
    plain = ScaleAligner(local_correction=False).update(relative, sparse, 0.0)
    assert plain.apply(relative)[0, 0] == pytest.approx(
        plain.scale * relative[0, 0] + plain.shift, rel=1e-3
    )
    assert ScaleAligner().update(relative, sparse, 0.0).scale == pytest.approx(plain.scale)


def test_the_limit_by_hand() -> None:
    limit = FarLimit(log_depth=1.0, reach=0.5)
    at = np.array([-2.0, 1.0, 1.001, 1.5, 50.0, np.nan])
    expected = [-2.0, 1.0, 1.001, 1.0 + 0.5 * (1 - np.exp(-1.0)), 1.5, np.nan]
    np.testing.assert_allclose(limit.apply(at), expected, atol=2e-6)
    assert limit.apply(at.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("domain", "scale", "shift"),
    [("depth", 4.0, -0.6), ("log", 2.0, 0.1), ("disparity", -1.2, 0.9)],
)
def test_map_points_and_tensor_have_the_same_limit(
    domain: Domain, scale: float, shift: float
) -> None:
    fit = GlobalFit(domain, AffineFit(scale, shift, np.zeros((2, 2)), np.zeros(3)))
    fit = GlobalFit(domain, fit.affine, FarLimit(float(np.log(fit.metres(np.float64(0.5)))), 0.4))
    relative = np.random.default_rng(0).uniform(0.2, 0.95, (40, 60)).astype(np.float32)
    metric_map = MetricMap(fit, None, None, 0.0, 80.0)
    expected = fit.metres(relative.astype(np.float64))
    assert np.nanmax(expected) < fit.metres(np.float64(0.5)) * np.exp(0.4)
    np.testing.assert_allclose(metric_map(relative), expected, rtol=2e-5)
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    np.testing.assert_allclose(metric_map(torch.from_numpy(relative)), expected, rtol=2e-5)


def test_the_limit_is_steady_over_frames() -> None:
    steady = SteadyFarLimit(memory=0.9)
    assert steady.update(0.5, 0.1) == pytest.approx((0.5, ERROR_TIMES_REACH / 0.1))
    farthest, reach = steady.update(0.4, 0.2)
    assert farthest == pytest.approx(0.49), "a nearer farthest point takes over slowly"
    assert reach == pytest.approx(ERROR_TIMES_REACH / (0.1 * 2**0.1))
    assert steady.update(0.8, 0.2)[0] == 0.8, "a farther one counts at once"
    assert SteadyFarLimit(memory=0.0).update(0.3, 0.0)[1] == pytest.approx(ERROR_TIMES_REACH / 1e-4)

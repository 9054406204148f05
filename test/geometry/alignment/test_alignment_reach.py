"""The correction fades beyond the points: a row of a 2-D scanner does not bend the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.local.reach import LEAST_REACH, MARGIN, TIMES_EXTENT, Reach
from d3_ros.geometry.alignment.metric_map import MetricMap
from d3_ros.geometry.alignment.points import Points

SHAPE = (120, 160)
ROW = 30


def points(rows: np.ndarray, columns: np.ndarray) -> Points:
    ones = np.ones(len(rows))
    return Points(rows.astype(int), columns.astype(int), ones * 0.5, ones * 2.0, ones)


def test_points_all_over_the_image_reach_every_pixel() -> None:
    rng = np.random.default_rng(0)
    some = points(rng.integers(0, SHAPE[0], 400), rng.integers(0, SHAPE[1], 400))
    assert Reach.of(some, SHAPE) is None
    assert Reach.of(some[np.arange(0)], SHAPE) is None


def test_a_row_reaches_a_fifth_of_the_image_up_and_down() -> None:
    columns = np.arange(2, 158)
    reach = Reach.of(points(np.full(len(columns), ROW), columns), SHAPE)
    assert reach is not None
    np.testing.assert_array_equal(reach.columns, 1)
    margin, length = MARGIN * SHAPE[1], LEAST_REACH * SHAPE[1]
    assert reach.rows[int(ROW + margin)] == 1
    assert reach.rows[int(ROW + margin + length)] == pytest.approx(np.exp(-1), rel=1e-5)
    assert (np.diff(reach.rows[ROW:]) <= 0).all()
    assert reach.within(slice(ROW - 2, ROW + 2)) is None
    np.testing.assert_allclose(
        reach.within(slice(100, 103)), reach.rows[100:103, None] + [[0.0] * 160]
    )


def test_the_lower_half_reaches_farther_than_a_row_and_a_lone_point_does_not_count() -> None:
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(60, 120, 200), rng.integers(0, 160, 200)
    half = Reach.of(points(rows, columns), SHAPE)
    rows[0] = 0  # a reflection
    with_loner = Reach.of(points(rows, columns), SHAPE)
    assert half is not None
    assert with_loner is not None
    assert with_loner.rows[0] < 1
    low, high = np.quantile(rows, (0.02, 0.98))
    beyond = low / SHAPE[1] - MARGIN
    expected = np.exp(-beyond / (LEAST_REACH + TIMES_EXTENT * (high - low) / SHAPE[1]))
    assert with_loner.rows[0] == pytest.approx(expected, rel=1e-5)
    assert half.rows[0] > np.exp(-beyond / LEAST_REACH)


def scanned(offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative depth, metres, and sparse depth along one row, where the network is wrong.

    The network misses the metres of the row by up to `offset` (log depth), to both sides in turn.
    Elsewhere it is right.
    """
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    metres = 1.5 + 2.5 * columns / SHAPE[1] + 1.0 * rows / SHAPE[0]
    near_row = np.exp(-(((rows - ROW) / 6.0) ** 2))
    seen = metres * np.exp(offset * near_row * np.sin(columns / 12.0))
    sparse = np.full(SHAPE, np.nan, np.float32)
    sparse[ROW, ::2] = metres[ROW, ::2]
    return (0.1 + 0.15 * seen).astype(np.float32), metres.astype(np.float32), sparse


def test_what_a_row_corrects_stays_near_the_row() -> None:
    relative, metres, sparse = scanned(0.15)
    fit = ScaleAligner().update(relative, sparse, 0.0)
    error = np.abs(fit.apply(relative) / metres - 1)
    assert error[ROW].mean() < 0.01
    metric_map = fit.to_metres
    assert isinstance(metric_map, MetricMap)
    everywhere = np.abs(replace(metric_map, reach=None)(relative) / metres - 1)
    assert everywhere[90:].mean() > 0.03, "what the row's correction would do to the floor"
    assert error[90:].mean() < 0.6 * everywhere[90:].mean()
    np.testing.assert_array_equal(error[ROW], everywhere[ROW])


def test_a_tensor_gives_the_same_metres() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    relative, _, sparse = scanned(0.15)
    fit = ScaleAligner().update(relative, sparse, 0.0)
    assert isinstance(fit.to_metres, MetricMap)
    assert fit.to_metres.reach is not None
    np.testing.assert_allclose(
        fit.apply(torch.from_numpy(relative)).numpy(), fit.apply(relative), rtol=2e-5
    )

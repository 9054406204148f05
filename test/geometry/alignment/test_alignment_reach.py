"""The correction fades beyond the points: a row of a 2-D scanner does not bend the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.local.reach import (
    DEVIATIONS,
    LEAST_REACH,
    MARGIN,
    TIMES_EXTENT,
    Reach,
    SteadyReach,
)
from d3_ros.geometry.alignment.metric_map import MetricMap
from d3_ros.geometry.alignment.points import Points

SHAPE = (120, 160)
ROW = 30


def points(rows: np.ndarray, columns: np.ndarray) -> Points:
    ones = np.ones(len(rows))
    return Points(rows, columns, 0.5 * ones, 2.0 * ones, ones)


def reach_of(rows: np.ndarray, columns: np.ndarray) -> Reach:
    reach = SteadyReach(0.0).update(points(rows, columns), SHAPE)
    assert reach is not None
    return reach


def share_at(reach: Reach, row: int, column: int) -> float:
    shares = reach.within(0, *SHAPE)
    assert shares is not None
    return float(shares[row, column])


def test_points_all_over_the_image_reach_every_pixel() -> None:
    rows, columns = (axis.ravel() for axis in np.mgrid[2 : SHAPE[0] : 8, 2 : SHAPE[1] : 8])
    assert SteadyReach(0.0).update(points(rows, columns), SHAPE) is None
    assert SteadyReach(0.0).update(points(rows[:0], columns[:0]), SHAPE) is None


@pytest.mark.parametrize("upright", [False, True])
def test_a_line_reaches_a_fifth_of_the_image_to_either_side(upright: bool) -> None:
    """A row of a scanner, and a column: a line structured-light sensor."""
    along = np.arange(2, 118)
    across = np.full(len(along), ROW)
    reach = reach_of(along, across) if upright else reach_of(across, along)

    def share(away: int) -> float:
        return share_at(reach, 60, ROW + away) if upright else share_at(reach, ROW + away, 60)

    margin, length = MARGIN * SHAPE[1], LEAST_REACH * SHAPE[1]
    assert share(0) == 1
    assert share(int(margin)) > 0.9
    assert share(int(margin + length)) == pytest.approx(np.exp(-1), abs=0.06)
    shares = [share(away) for away in range(0, 80, 8)]
    assert shares == sorted(shares, reverse=True)


def test_bands_are_parts_of_the_whole() -> None:
    columns = np.arange(2, 158)
    reach = reach_of(np.full(len(columns), ROW), columns)
    whole = reach.within(0, *SHAPE)
    assert whole is not None
    assert reach.within(ROW - 6, 8, SHAPE[1]) is None
    for top, height in ((40, 16), (43, 9), (104, 16)):
        band = reach.within(top, height, SHAPE[1])
        assert band is not None
        np.testing.assert_allclose(band, whole[top : top + height], rtol=1e-5)


def test_an_area_reaches_farther_than_a_line() -> None:
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(60, 120, 400), rng.integers(0, 160, 400)
    half = reach_of(rows, columns)
    extent = DEVIATIONS * rows.std() / SHAPE[1]
    beyond = 60 / SHAPE[1] - MARGIN
    expected = np.exp(-beyond / (LEAST_REACH + TIMES_EXTENT * extent))
    assert share_at(half, 2, 80) == pytest.approx(expected, abs=0.03)
    assert share_at(half, 2, 80) > 1.5 * np.exp(-beyond / LEAST_REACH)


def test_how_far_it_reaches_is_steady() -> None:
    """A few points more or less on the floor below a row do not switch the floor over."""
    columns = np.arange(0, 160)
    steady, floor = SteadyReach(0.8), []
    for few in (5, 9, 5, 9, 5, 9):
        below = np.full(few, 110), np.linspace(10, 30, few).astype(int)
        rows = np.concatenate([np.full(160, ROW), below[0]])
        reach = steady.update(points(rows, np.concatenate([columns, below[1]])), SHAPE)
        assert reach is not None
        assert share_at(reach, 110, 20) == pytest.approx(1.0)
        floor.append(share_at(reach, 110, 140))
    assert np.abs(np.diff(floor)).max() < 0.05
    assert floor[0] < 0.95


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
    assert fit.held_out_abs_rel < 0.01
    metric_map = fit.to_metres
    assert isinstance(metric_map, MetricMap)
    everywhere = np.abs(replace(metric_map, reach=None)(relative) / metres - 1)
    assert everywhere[90:].mean() > 0.03, "what the row's correction would do to the floor"
    assert error[90:].mean() < 0.6 * everywhere[90:].mean()
    np.testing.assert_array_equal(error[ROW], everywhere[ROW])


def test_a_point_below_the_row_is_met_and_a_false_one_reaches_nothing() -> None:
    relative, metres, sparse = scanned(0.15)
    alone = ScaleAligner().update(relative, sparse, 0.0).apply(relative)
    sparse[110, 20:60:8] = metres[110, 20:60:8]
    error = np.abs(ScaleAligner().update(relative, sparse, 0.0).apply(relative) / metres - 1)
    assert error[110, 20:60:8].max() < 0.01
    sparse[110] = np.nan
    sparse[110, 20] = 0.4 * metres[110, 20]
    false = ScaleAligner().update(relative, sparse, 0.0).apply(relative)
    assert np.abs(false / metres - 1)[90:].mean() < 2 * np.abs(alone / metres - 1)[90:].mean()


def test_a_held_fit_of_another_size_has_no_reach() -> None:
    relative, _, sparse = scanned(0.15)
    aligner = ScaleAligner()
    aligner.update(relative, sparse, 0.0)
    half = relative[::2, ::2]
    held = aligner.update(half, None, 0.1)
    assert held.state == "held"
    assert isinstance(held.to_metres, MetricMap)
    assert held.to_metres.reach is None
    np.testing.assert_allclose(held.apply(half), held.to_metres.fit.metres(half), rtol=1e-5)


def test_a_tensor_gives_the_same_metres() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    relative, _, sparse = scanned(0.15)
    fit = ScaleAligner().update(relative, sparse, 0.0)
    assert isinstance(fit.to_metres, MetricMap)
    assert fit.to_metres.reach is not None
    np.testing.assert_allclose(
        fit.apply(torch.from_numpy(relative)).numpy(), fit.apply(relative), rtol=2e-5
    )

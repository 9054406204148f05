"""Detail from every sensor point: dense LiDAR, depth edges, outliers, and the tensor's twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from d3_ros.data.held_out_points import draw_points
from d3_ros.data.readers import frame_folders
from d3_ros.evaluation.scale import interpolate, table_rows
from d3_ros.evaluation.scale_frames import load_frames
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.local.detail import ALONE_SHARE, _plain
from d3_ros.geometry.alignment.local.local_correction import _trust_all_but_lone
from d3_ros.geometry.alignment.local.voronoi import Samples, diagram_of, insert

SHAPE = (120, 160)
V, U = np.mgrid[: SHAPE[0], : SHAPE[1]]
SMOOTH = (0.5 + 0.25 * np.sin(U / 34) + 0.2 * np.cos(V / 22)).astype(np.float32)
# Fine structure that neither the network nor a smooth field knows.
BUMPS = (1.0 + 0.1 * np.sin(U / 2.5) * np.sin(V / 2.5)).astype(np.float32)
TRUTH = (1.0 + 5.0 * SMOOTH) * BUMPS


def mean_error(metric: np.ndarray, truth: np.ndarray) -> float:
    return float(np.nanmean(np.abs(metric / truth - 1)))


def test_dense_points_bring_what_a_smooth_field_cannot():
    fit = ScaleAligner().update(SMOOTH, draw_points(TRUTH, 6000, seed=0), stamp=0.0)
    smooth = replace(fit.to_metres, detail=None)
    with_detail = mean_error(fit.apply(SMOOTH), TRUTH)
    assert mean_error(smooth(SMOOTH), TRUTH) > 0.03 and with_detail < 0.015
    assert fit.held_out_abs_rel == pytest.approx(with_detail, rel=0.6)  # some pixels are points


def test_detail_fades_to_the_smooth_field_away_from_points():
    sparse = draw_points(TRUTH, 6000, seed=0)
    sparse[:, 80:] = np.nan
    fit = ScaleAligner().update(SMOOTH, sparse, stamp=0.0)
    smooth = replace(fit.to_metres, detail=None)(SMOOTH)
    np.testing.assert_allclose(fit.apply(SMOOTH)[:, 100:], smooth[:, 100:], rtol=1e-5)
    assert np.abs(fit.apply(SMOOTH) / smooth - 1)[:, :75].mean() > 0.02


def test_detail_does_not_cross_a_depth_edge():
    near = U < 80
    relative = (np.where(near, 0.1, 0.8) + 0.05 * V / SHAPE[0]).astype(np.float32)
    truth = (1.0 + 9.0 * relative) * np.where(near, BUMPS, 1.0).astype(np.float32)
    sparse = draw_points(truth, 6000, seed=0)
    sparse[:, 80:90] = np.nan  # beside the edge only the near side is measured
    metric = ScaleAligner().update(relative, sparse, stamp=0.0).apply(relative)
    assert np.abs(metric / truth - 1)[:, 80:88].max() < 0.05


def test_lone_outliers_of_a_dense_sensor_leave_no_mark():
    sparse = draw_points(TRUTH, 6000, seed=0)
    clean = ScaleAligner().update(SMOOTH, sparse, stamp=0.0).apply(SMOOTH)
    rng = np.random.default_rng(1)
    wrong = rng.choice(np.flatnonzero(np.isfinite(sparse)), 100, replace=False)
    sparse.flat[wrong] *= rng.choice([0.2, 4.0], 100).astype(np.float32)
    metric = ScaleAligner().update(SMOOTH, sparse, stamp=0.0).apply(SMOOTH)
    assert mean_error(metric, TRUTH) < mean_error(clean, TRUTH) + 0.005


def test_noise_is_not_carried():
    truth = (1.0 + 5.0 * SMOOTH).astype(np.float32)
    sparse = draw_points(truth, 4000, pattern="noise", seed=0)
    metric = ScaleAligner().update(SMOOTH, sparse, stamp=0.0).apply(SMOOTH)
    assert mean_error(metric, truth) < 0.01  # the points themselves are off by 0.016


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", range(10))
def test_a_held_out_point_behind_the_fitted_camera_is_no_error(odd: int):
    """Nine points on a line that is negative where the tenth lies: whichever is held out."""
    relative = np.tile(np.linspace(0, 1, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))
    columns = np.linspace(60, 150, 10).astype(int)
    sparse = np.full(SHAPE, np.nan, np.float32)
    for index, column in enumerate(columns):
        row = 10 * index + 5
        sparse[row, column] = 10 * relative[row, column] - 2.5
        if index == odd:
            sparse[row, column] = np.nan
            sparse[row, 8] = 0.4
    fit = ScaleAligner().update(relative, sparse, stamp=0.0)
    assert fit.ok
    metric = fit.apply(relative)[:, 75:150]
    np.testing.assert_allclose(metric, 10 * relative[:, 75:150] - 2.5, rtol=0.2)
    assert 0 <= fit.held_out_abs_rel < 1


def test_inserted_samples_win_the_cells_that_are_nearest_to_them():
    rng = np.random.default_rng(0)
    cells = rng.choice(40 * 60, 150, replace=False)
    rows, columns = np.divmod(cells, 60)
    ones = np.ones(150)
    every = Samples(rows, columns, ones, ones, ones)
    diagram = insert(diagram_of(rows[:120], columns[:120], (40, 60)), every[120:], 120)
    v, u = np.mgrid[:40, :60]
    exact = np.hypot(v[..., None] - rows, u[..., None] - columns)
    taken = np.take_along_axis(exact, diagram.nearest[..., None], axis=2)[..., 0]
    # OpenCV's distances are good to a few percent of a cell.
    assert (taken - exact.min(axis=2)).max() < 0.5
    assert set(diagram.nearest[rows[120:], columns[120:]]) == set(range(120, 150))


def test_points_speak_without_the_network_as_far_as_it_misses_them():
    rows, columns = np.divmod(np.arange(40), 8)
    ones = np.ones(40)
    shares = []
    for missed in (0.0, 0.0005, 0.01):
        samples = Samples(rows, columns, ones - missed, ones, ones)
        shares.append(1.0 - _plain(samples).detail)
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(ALONE_SHARE / 2)
    assert ALONE_SHARE * 0.99 < shares[2] < ALONE_SHARE


@pytest.fixture(scope="module", autouse=True)
def _torch_has_computed_a_logarithm():
    """In its second thread, the first that a process asks PyTorch 2.13 for may be off by 4e-5."""
    torch.ones(100_000).log().exp()


@pytest.mark.parametrize("points", [60, 400, 6000])
@pytest.mark.parametrize("domain", ["depth", "disparity", "log"])
def test_a_tensor_gives_the_same_metres_on_its_device(points, domain):
    truth = {
        "depth": 1.0 + 6.0 * SMOOTH,
        "disparity": 1.0 / (1.0 - 0.85 * SMOOTH),
        "log": np.exp(0.2 + 2.0 * SMOOTH),
    }[domain] * BUMPS
    relative = SMOOTH.copy()
    relative[0, :4] = 0.0, 1.0, np.nan, 0.999
    fit = ScaleAligner().update(relative, draw_points(truth, points, seed=0), stamp=0.0)
    tensor = torch.from_numpy(relative)
    metric = fit.apply(tensor)
    assert metric.dtype == torch.float32 and metric.device == tensor.device
    np.testing.assert_allclose(metric.numpy(), fit.apply(relative), rtol=1e-5)
    assert np.isnan(metric.numpy()[0, :3]).all()
    plain = replace(fit, to_metres=None)
    np.testing.assert_allclose(plain.apply(tensor).numpy(), plain.apply(relative), rtol=1e-6)


def lidar_like_network(rgb: np.ndarray) -> np.ndarray:
    """A relative depth that knows no more than that lower is nearer."""
    height, width = rgb.shape[:2]
    rows = np.broadcast_to(np.linspace(0.98, 0.02, height)[:, None], (height, width))
    return np.ascontiguousarray(rows, np.float32)


def lone_trust(depths: list[float]) -> list[float]:
    """Trust of doubted samples of these log depths, alone among 1,200 samples at log depth 1."""
    rows, columns = (axis.ravel() for axis in np.mgrid[2:120:4, 2:160:4])
    truth, trust = np.ones(len(rows)), np.ones(len(rows))
    lone = np.arange(len(depths)) * (len(rows) // len(depths))
    truth[lone], trust[lone] = depths, 0.2
    samples = Samples(rows, columns, np.ones(len(rows)), truth, trust)
    _trust_all_but_lone(samples, SHAPE)
    assert np.all(np.delete(samples.trust, lone) == 1.0)
    return samples.trust[lone].tolist()


def test_few_lone_points_of_a_dense_sensor_are_small_objects_and_many_are_outliers():
    assert lone_trust([1.3, 0.7, 1.4]) == [1.0, 1.0, 1.0]
    assert lone_trust([1.3, 1.9, 0.1]) == [1.0, 0.0, 0.0]  # too far off for any object
    many = np.random.default_rng(0).uniform(0.4, 0.9, 240)
    assert np.median(lone_trust(many.tolist())) < 0.001


def test_every_other_point_of_a_lidar_is_predicted_as_well_as_by_interpolation(test_data):
    frames = list(load_frames(test_data / "kitti", lidar_like_network, limit=2))
    rmse = []
    for frame in frames:
        sparse, measured = frame.given["every_second"], np.isfinite(frame.truth)
        metric = ScaleAligner().update(frame.relative, sparse, stamp=0.0).apply(frame.relative)
        answers = metric, interpolate(sparse)
        known = measured & np.isfinite(metric)
        assert known.sum() > 0.97 * measured.sum()
        ours, alone = (np.abs(answer / frame.truth - 1)[known].mean() for answer in answers)
        assert ours <= alone
        rmse.append([np.sqrt(np.square(a - frame.truth)[known].mean()) for a in answers])
    ours, alone = np.mean(rmse, axis=0)
    assert ours <= alone


def test_the_kitti_row_is_in_the_table(test_data):
    folder = test_data / "kitti"
    assert frame_folders(test_data).count(folder) == 1
    frames = list(load_frames(folder, lidar_like_network, limit=1))
    (row,) = table_rows(frames, seeds=1, predicted=False)
    assert row[1] == "every_second" and row[2].answered == 1.0

"""The scale evaluation: how points are drawn, what interpolation alone does, the required table."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.training_configs import write_frames

from d3_ros.__main__ import main
from d3_ros.bench.alignment import timings
from d3_ros.data.held_out_points import draw_points
from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.data.readers import frame_folders
from d3_ros.errors import DataError
from d3_ros.evaluation.scale import ScaleFrame, interpolate, mean_score, score
from d3_ros.evaluation.scale_frames import load_frames
from d3_ros.geometry.alignment import ScaleAligner

V, U = np.mgrid[:60, :80]


def frame() -> ScaleFrame:
    relative = (0.5 + 0.25 * np.sin(U / 17) + 0.2 * np.cos(V / 11)).astype(np.float32)
    truth = (0.5 + 4 * relative).astype(np.float32)
    truth[:5] = np.nan
    return ScaleFrame("made", relative, truth, {})


def test_points_are_drawn_where_they_should_be():
    truth = frame().truth
    sparse = draw_points(truth, 50, seed=0)
    taken = np.isfinite(sparse)
    assert taken.sum() == 50
    np.testing.assert_array_equal(sparse[taken], truth[taken])
    assert len(set(np.nonzero(np.isfinite(draw_points(truth, 40, pattern="line", seed=0)))[0])) == 1
    assert np.nonzero(np.isfinite(draw_points(truth, 40, pattern="lower", seed=0)))[0].min() >= 30
    changed = np.isfinite(sparse) & (draw_points(truth, 50, pattern="outliers", seed=0) != truth)
    assert changed.sum() == 10
    ratio = draw_points(truth, 2000, pattern="noise", seed=0) / truth
    assert np.nanstd(ratio) == pytest.approx(0.02, rel=0.1)


def test_interpolation_is_exact_on_a_plane_and_nearest_beyond():
    plane = (2.0 + 0.01 * U).astype(np.float32)
    sparse = np.full(plane.shape, np.nan, np.float32)
    sparse[[10, 10, 50, 50], [10, 70, 10, 70]] = plane[[10, 10, 50, 50], [10, 70, 10, 70]]
    dense = interpolate(sparse)
    np.testing.assert_allclose(dense[10:51, 10:71], plane[10:51, 10:71], atol=1e-5)
    assert dense[0, 0] == plane[10, 10]
    one_row = np.full(plane.shape, np.nan, np.float32)
    one_row[30, ::10] = 3.0
    np.testing.assert_allclose(interpolate(one_row), 3.0)


def test_scores_of_an_exact_network_and_of_a_refusal():
    good = score(frame(), draw_points(frame().truth, 100, seed=0))
    assert good.aligned < 1e-3 and good.global_fit < 1e-3 and good.interpolated > 0.001
    assert good.coverage == 1.0 and good.answered == 1.0
    refused = score(frame(), np.full((60, 80), np.nan, np.float32))
    assert refused.answered == 0.0 and np.isnan(refused.aligned)


# AbsRel by the number of points, from a Gaussian-process residual written in 30 lines, less a
# margin.
REQUIRED = [
    (10, "random", 0.066),
    (50, "random", 0.0195),
    (100, "random", 0.0138),
    (500, "random", 0.0080),
    (2000, "random", 0.0050),
    (500, "outliers", 0.0090),
    (500, "noise", 0.0110),
]


@pytest.mark.parametrize("count, pattern, required", REQUIRED)
def test_a_large_networks_depth_becomes_accurate_metres(test_data, count, pattern, required):
    def no_network(rgb: np.ndarray) -> np.ndarray:
        raise AssertionError("predicted.npz holds the relative depth")

    frames = list(load_frames(test_data / "prediction", no_network, limit=1))

    def error(one: ScaleFrame, seed: int) -> float:
        fit = ScaleAligner().update(
            one.relative, draw_points(one.truth, count, pattern=pattern, seed=seed), 0.0
        )
        valid = np.isfinite(one.truth)
        return float(np.nanmean(np.abs(fit.apply(one.relative) / one.truth - 1)[valid]))

    assert np.mean([error(frames[0], seed) for seed in range(5)]) <= required


def test_the_aligner_s_answer_is_scored_at_steps_and_its_expected_error_too():
    truth = frame().truth.copy()
    truth[20:40, 30:50] = 0.6
    image = np.where(np.isfinite(truth) & (truth == 0.6), 200, 60).astype(np.uint8)
    one = ScaleFrame("made", frame().relative, truth, {}, np.repeat(image[..., None], 3, 2))
    scored = score(one, draw_points(truth, 300, seed=0))
    assert one.near_steps[20, 30] and not one.near_steps[55, 70]
    assert scored.at_steps > 2 * scored.aligned and 0.0 <= scored.boundary_f1 <= 1.0
    assert scored.within_1_sigma <= scored.within_2_sigma <= 1.0 and scored.reported > 0
    mostly_unknown = np.where(U < 60, np.nan, truth)
    assert ScaleFrame("made", one.relative, mostly_unknown, {}).boundary_truth is None


def test_mean_leaves_out_what_was_refused():
    empty = np.full((60, 80), np.nan, np.float32)
    given = [draw_points(frame().truth, 100, seed=0), empty]
    both = mean_score([frame()], lambda _, seed: given[seed], seeds=2)
    assert both.answered == 0.5 and both.aligned < 1e-3


def test_refusals_are_told_and_not_scored():
    refused = score(frame(), draw_points(frame().truth, 2, seed=0))
    assert refused.answered == 0.0 and "2 sensor points in range" in refused.refusal
    assert score(frame(), draw_points(frame().truth, 100, seed=0)).refusal == ""


def test_frame_folders_are_found_in_a_folder_of_them(tmp_path):
    names = (
        ("a", "depth/0.png"),
        ("b", "0_calib.txt"),
        ("empty", "notes.txt"),
        ("c/d", "depth/0.png"),
    )
    for name, file in names:
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).touch()
    assert [folder.name for folder in frame_folders(tmp_path)] == ["a", "b", "d"]
    assert frame_folders(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(DataError, match="--data"):
        frame_folders(tmp_path / "empty")


def test_the_bench_times_every_stage_of_both_point_counts():
    timed = list(timings(frames=2))
    stages = {"usable points", "thinning", "global fits", "regression", "field", "detail"}
    for count in (500, 20000):
        for image in (False, True):
            rows = {one.stage: one for one in timed if (one.points, one.image) == (count, image)}
            assert set(rows) == stages | {"apply", "total"}
            assert all(0 <= one.p50_ms <= one.p95_ms for one in rows.values())
            assert sum(one.p50_ms for stage, one in rows.items() if stage in stages) > 0


def test_time_needs_no_frames_and_data_is_asked_for(capsys, tmp_path):
    table = tmp_path / "times.json"
    with mock.patch("d3_ros.commands.evaluate.TIMED_FRAMES", 1):
        assert main(["evaluate", "--scale", "--time", "--json", str(table)]) == 0
    assert "20000   yes detail" in capsys.readouterr().out
    assert {row["stage"] for row in json.loads(table.read_text())} >= {"field", "total"}
    assert main(["evaluate"]) != 0
    assert "--data is missing" in capsys.readouterr().err


def test_the_picture_of_what_the_image_brings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """scripts/alignment_pictures.py: a row of four panels for each frame, of any number of them."""
    frames = write_frames(tmp_path / "wall", count=2)
    output = tmp_path / "edges.png"
    arguments = [str(output), str(frames), f"{frames}:1", "--points", "100"]
    monkeypatch.setattr("sys.argv", ["alignment_pictures.py", *arguments])
    runpy.run_path(str(ROOT / "scripts" / "alignment_pictures.py"), run_name="__main__")
    picture = cv2.imread(str(output))
    assert picture.shape[1] == pytest.approx(4 * 404, abs=8)
    first, second = np.split(picture, 2)
    assert first.shape == second.shape and first.std() > 10


@pytest.mark.parametrize(
    "content, frames, said",
    [
        (b"no zip", 1, "is damaged or has no 'relative'"),
        ({"other": np.ones((6, 8))}, 1, "is damaged or has no 'relative'"),
        ({"relative": np.arange(12.0).reshape(3, 4)}, 1, "the depth (6, 8)"),
        ({"relative": np.arange(48.0).reshape(6, 8)}, 2, "is of one frame, and the folder has 2"),
    ],
)
def test_a_predicted_depth_that_does_not_fit_is_one_line(tmp_path, content, frames, said):
    for kind in ("rgb", "depth"):
        (tmp_path / kind).mkdir()
    for index in range(frames):
        cv2.imwrite(str(tmp_path / f"rgb/{index}.png"), np.full((6, 8, 3), 9, np.uint8))
        cv2.imwrite(str(tmp_path / f"depth/{index}.png"), np.full((6, 8), 900, np.uint16))
    if isinstance(content, bytes):
        (tmp_path / "predicted.npz").write_bytes(content)
    else:
        np.savez(tmp_path / "predicted.npz", **content)
    with pytest.raises(DataError) as refused:
        list(load_frames(tmp_path, lambda rgb: rgb[..., 0], 9))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_relative_depth_is_resized_to_the_labels(tmp_path, monkeypatch):
    """As of the official layout, whose depth may have another size than the picture."""
    labelled = LabelledFrame(
        np.full((12, 16, 3), 9, np.uint8), np.ones((6, 8), np.float32), None, None
    )
    reader = mock.Mock(names=["a"], read=lambda name: labelled)
    monkeypatch.setattr("d3_ros.evaluation.scale_frames.open_readers", lambda folder: [reader])
    (one,) = load_frames(tmp_path, lambda rgb: np.ones(rgb.shape[:2], np.float32), 9)
    assert one.relative.shape == one.truth.shape == one.rgb.shape[:2] == (6, 8)

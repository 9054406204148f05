"""Evaluation: protocols by hand, folders with faults, comparison of bundles, reports."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT

from d3_ros.__main__ import main
from d3_ros.data.frame_set import FrameSet
from d3_ros.data.held_out_points import draw_points
from d3_ros.errors import D3Error, DataError
from d3_ros.evaluation import compare as comparison
from d3_ros.evaluation import scores
from d3_ros.evaluation.compare import compare
from d3_ros.evaluation.evaluate import FrameScores, evaluate, grouped_scores, mean_scores
from d3_ros.evaluation.report import Evaluated, ranked, verdict
from d3_ros.evaluation.run import evaluate_bundles
from d3_ros.types import D3Prediction

HEIGHT, WIDTH = 30, 40


def wavy(number: int) -> np.ndarray:
    """(HEIGHT, WIDTH) metres between 1 and 4."""
    v, u = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    return 2.5 + np.sin(3 * u + number) + 0.4 * np.cos(5 * v)


def folder(root: Path, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """Frames whose red says which they are; normals (0, 0, -1)."""
    for kind in ("rgb", "depth", "normals"):
        (root / kind).mkdir(parents=True)
    for i, name in enumerate(names):
        bgr = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        bgr[..., 2] = i
        cv2.imwrite(str(root / "rgb" / f"{name}.png"), bgr)
        millimetres = np.rint(wavy(i) * 1000).astype(np.uint16)
        millimetres[:3] = 0
        cv2.imwrite(str(root / "depth" / f"{name}.png"), millimetres)
        pixels = np.full((HEIGHT, WIDTH, 3), (1, 128, 128), np.uint8)
        cv2.imwrite(str(root / "normals" / f"{name}.png"), pixels)
    return root


class Knowing:
    """Knows the depth of every frame up to scale and shift, with an error of `off` of its range."""

    tasks = ("depth", "normals")

    def __init__(self, off: float = 0.0) -> None:
        self.off = off

    def __call__(self, rgb: np.ndarray, tasks: object = None) -> D3Prediction:
        relative = (wavy(int(rgb[0, 0, 0])) - 1) / 3.5
        noise = np.random.default_rng(int(rgb[0, 0, 0])).standard_normal(relative.shape)
        relative = np.clip(relative + self.off * noise, 0.001, 0.999).astype(np.float32)
        tilt = np.array([np.sin(self.off), 0, -np.cos(self.off)], np.float32)
        return D3Prediction(relative, np.tile(tilt, (HEIGHT, WIDTH, 1)))


# --------------------------------------------------------------------------------------- protocols


def test_depth_protocol_forgives_scale_and_shift() -> None:
    depth = np.where(wavy(0) > 1.5, wavy(0), 0)
    fitted = scores.affine_depth((wavy(0) - 0.7) / 9, depth)
    np.testing.assert_allclose(fitted[depth > 0], depth[depth > 0], rtol=1e-9)


def test_disparity_protocol_forgives_an_affine_change_of_inverse_depth() -> None:
    truth = np.array([[1.0, 2.0, 4.0, 0.0]])
    # Its inverse is 0.5 + 0.25 / z: 0.75, 0.625, 0.5625.
    bent = 1 / (0.5 + 0.25 / np.array([[1.0, 2.0, 4.0, 8.0]]))
    np.testing.assert_allclose(scores.affine_disparity(bent, truth)[0, :3], [1, 2, 4], rtol=1e-9)
    # In depth the same answer cannot be mended by a scale and a shift.
    assert np.abs(scores.affine_depth(bent, truth) - truth)[0, :3].max() > 0.1


def test_disparity_protocol_bounds_what_comes_too_near() -> None:
    """A fitted depth behind the camera counts as half the least true one."""
    truth = np.array([[1.0, 2.0, 4.0, 3.0]])
    behind, nearest = (
        scores.affine_disparity(np.array([[x, 2.0, 4.0, 3.0]]), truth) for x in (-3.0, 0.5)
    )
    np.testing.assert_array_equal(behind, nearest)
    assert np.isfinite(behind).all()
    assert (behind > 0).all()


def test_sparse_fit_is_scored_on_points_that_it_was_not_given() -> None:
    depth = wavy(1).astype(np.float32)
    given = draw_points(depth, 50, seed=3)
    assert np.isfinite(given).sum() == 50
    np.testing.assert_array_equal(given[np.isfinite(given)], depth[np.isfinite(given)])
    few = np.where(np.arange(depth.size).reshape(depth.shape) < 30, depth, 0)
    assert np.isfinite(draw_points(few, 50, seed=3)).sum() == 15, "half of what there is"
    found = scores.frame_scores(
        Knowing()(np.ones((1, 1, 3), np.uint8)), depth, None, points=50, seed=3
    )
    assert found["sparse_fit.abs_rel"] < 0.01
    assert found["sparse_fit.coverage"] > 0.95
    assert found["affine_depth.abs_rel"] < 0.01


def test_the_sparse_fit_follows_the_image_as_on_the_robot() -> None:
    """A box before a wall that the network does not see: the image shows where it ends."""
    box = np.zeros((96, 128), bool)
    box[30:70, 40:90] = True
    depth = np.where(box, 1.0, 2.0).astype(np.float32)
    blind = D3Prediction(np.full(depth.shape, 0.5, np.float32), None)
    rgb = np.where(box[..., None], (200, 40, 40), (60, 90, 120)).astype(np.uint8)
    without, with_image = (
        scores.frame_scores(blind, depth, None, points=200, seed=3, rgb=image)
        for image in (None, rgb)
    )
    assert with_image["sparse_fit.abs_rel"] < 0.5 * without["sparse_fit.abs_rel"]


def test_a_refused_fit_has_no_answer_and_no_coverage() -> None:
    """Measurements that contradict each other are refused."""
    relative = ((wavy(0) - 1) / 3.5).astype(np.float32)
    anything = np.random.default_rng(0).uniform(0.5, 20.0, relative.shape).astype(np.float32)
    found = scores.frame_scores(D3Prediction(relative, None), anything, None, points=50, seed=0)
    assert np.isnan(found["sparse_fit.abs_rel"])
    assert found["sparse_fit.coverage"] == 0.0
    rows = [FrameScores("f", "a", found), FrameScores("f", "b", {"sparse_fit.abs_rel": 0.5})]
    assert mean_scores(rows)["sparse_fit.abs_rel"] == 0.5, "over the frames that have an answer"


def test_a_network_that_says_the_opposite_leaves_the_points() -> None:
    """Relative depth that falls where the truth rises: the metres are those of the points."""
    depth = wavy(0).astype(np.float32)
    upside_down = D3Prediction(((4 - depth) / 4).astype(np.float32), None)
    found = scores.frame_scores(upside_down, depth, None, points=50, seed=0)
    assert found["sparse_fit.abs_rel"] < 0.05


def test_edges_are_scored_where_depth_is_dense() -> None:
    depth = (np.where(np.arange(80) < 40, 0.8, 2.0) * np.ones((60, 1))).astype(np.float32)
    blurred = cv2.blur(depth, (9, 9))
    sharp, soft = (
        scores.frame_scores(D3Prediction(guess / 3, None), depth, None, points=50, seed=0)
        for guess in (depth, blurred)
    )
    assert sharp["edges.boundary_f1"] == sharp["edges.boundary_f1_exact"] == 1.0
    assert sharp["edges.at_steps"] == pytest.approx(0, abs=1e-6)
    assert (sharp["edges.steps_seen"], sharp["edges.step_width_px"]) == (1.0, 1.0)
    assert soft["edges.step_width_px"] > 5
    assert soft["edges.at_steps"] > 2 * soft["affine_depth.abs_rel"]
    assert sharp["affine_depth.near_too_far"] == 0.0 < soft["affine_depth.near_too_far"]
    sky = np.where(np.arange(60)[:, None] < 9, np.float32(0), depth)  # unknown: 15 % of the picture
    upper = np.where(np.arange(60)[:, None] < 9, blurred, depth)
    seen = scores.frame_scores(D3Prediction(upper / 3, None), sky, None, points=50, seed=0)
    assert seen["edges.boundary_f1"] > 0.98, "what stands where nothing is known does not count"
    scan = np.where(np.arange(60)[:, None] % 20 == 0, depth, np.float32(0))
    found = scores.frame_scores(D3Prediction(depth / 3, None), scan, None, points=50, seed=0)
    assert not any(key.startswith("edges.") for key in found), "too sparse to see steps"


def test_the_mean_of_sets_counts_folders_alike() -> None:
    rows = [FrameScores("a", str(i), {"affine_depth.abs_rel": 0.1}) for i in range(3)]
    rows.append(FrameScores("b", "0", {"affine_depth.abs_rel": 0.5}))
    groups = grouped_scores(rows)
    assert [*groups] == ["a", "b", "all", "mean of sets"]
    assert groups["all"][1]["affine_depth.abs_rel"] == pytest.approx(0.2)
    assert groups["mean of sets"][1]["affine_depth.abs_rel"] == pytest.approx(0.3)
    assert [*grouped_scores(rows[:3])] == ["a"]


def test_normals_by_hand() -> None:
    truth = np.zeros((1, 4, 3))
    truth[0, :3] = (0, 0, -1)
    angles = np.radians([0, 20, 25, 80])
    predicted = np.stack([np.sin(angles), np.zeros(4), -np.cos(angles)], axis=-1)[None]
    found = scores.frame_scores(
        D3Prediction(None, predicted.astype(np.float32)), None, truth, points=5, seed=0
    )
    expected = {"mean_deg": 15, "median_deg": 20}
    expected |= {"within_11": 1 / 3, "within_22": 2 / 3, "within_30": 1}
    assert found == pytest.approx({f"normals.{k}": v for k, v in expected.items()}, abs=1e-3)


# ------------------------------------------------------------------------------------------ folders


def test_a_folder_is_scored_and_bad_frames_are_counted(tmp_path: Path) -> None:
    root = folder(tmp_path / "f")
    (root / "depth" / "b.png").unlink()
    frames = FrameSet(root)
    assert frames.names == ["a", "c"]
    assert "2 frames; 1 of 3 left out: 1 x no depth (b)" in frames.summary
    rows = evaluate(Knowing(), frames, points=60)
    assert [row.name for row in rows] == ["a", "c"]
    for row in rows:
        assert row.scores["affine_depth.abs_rel"] < 1e-3  # rounded to millimetres
        assert row.scores["affine_depth.delta1"] == 1.0
        assert row.scores["normals.mean_deg"] == pytest.approx(0, abs=0.1)
    assert rows == evaluate(Knowing(), frames, points=60), "the same points each time"


def test_normals_are_scored_against_measured_depth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A floor 1 m below a level camera: z = fy / (v - cy), its normal (0, -1, 0)."""
    for kind in ("rgb", "depth"):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / "rgb" / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    v = np.tile(np.arange(HEIGHT)[:, None], (1, WIDTH))
    millimetres = np.rint(1000 * 50 / (v + 5)).astype(np.uint16)  # fy 50, cy -5
    cv2.imwrite(str(tmp_path / "depth" / "a.png"), millimetres)

    class Tilted:
        tasks = ("normals",)

        def __call__(self, rgb: np.ndarray, tasks: object = None) -> D3Prediction:
            up = np.array([0, -np.cos(0.2), -np.sin(0.2)], np.float32)
            return D3Prediction(None, np.tile(up, (HEIGHT, WIDTH, 1)))

    frames = FrameSet(tmp_path, intrinsics=(50.0, 50.0, 19.5, -5.0))
    (row,) = evaluate(Tilted(), frames, points=60)
    assert row.scores["normals.mean_deg"] == pytest.approx(np.degrees(0.2), abs=0.2)
    (row,) = evaluate(Tilted(), FrameSet(tmp_path), points=60)
    assert "normals.mean_deg" not in row.scores
    options = ["--data", str(tmp_path), "--intrinsics", "0", "50", "1", "1"]
    assert main(["evaluate", *options]) == 1
    assert "fx and fy must be positive" in capsys.readouterr().err


def test_the_part_of_split_txt_is_scored(tmp_path: Path) -> None:
    root = folder(tmp_path / "f")
    (root / "split.txt").write_text("a train\nb train\nc test\n")
    assert FrameSet(root).names == ["c"]
    assert "(test part of split.txt)" in FrameSet(root).summary
    assert FrameSet(root, "train").names == ["a", "b"]
    assert FrameSet(root, "all").names == ["a", "b", "c"]
    (root / "split.txt").write_text("a train\n")
    with pytest.raises(DataError, match="no usable frame"):
        FrameSet(root)


def test_the_official_layout_is_scored_at_its_labels_size(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the optional package h5py is not installed")
    for kind in ("rgb", "depth_ori"):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / "rgb" / "ai_1.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with h5py.File(tmp_path / "depth_ori" / "ai_1.h5", "w") as file:
        file["depth"] = cv2.resize(wavy(0).astype(np.float32), (2 * WIDTH, 2 * HEIGHT))
    (tmp_path / "ai_1.json").write_text('{"caption": "waves"}')
    (row,) = evaluate(Knowing(), FrameSet(tmp_path), points=60)
    assert row.scores["affine_depth.abs_rel"] < 2e-3
    (tmp_path / "rgb" / "ai_1.png").rename(tmp_path / "rgb" / "x.png")
    with pytest.raises(DataError, match="names begin with ai, Scene, coco"):
        FrameSet(tmp_path)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures in it"):
        FrameSet(tmp_path)


# --------------------------------------------------------------------------------------- comparison


def rows_of(values: list[float], key: str = "affine_depth.abs_rel") -> list[FrameScores]:
    return [FrameScores("f", str(i), {key: value}) for i, value in enumerate(values)]


def test_paired_differences_find_what_unpaired_ones_would_not() -> None:
    """Frames differ by far more than the bundles do; the difference is the same in each."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0.05, 0.8, 40)
    second = first - 0.01 + rng.normal(0, 0.005, 40)
    (found,) = compare(rows_of(first.tolist()), rows_of(second.tolist()))
    assert found.frames == 40
    assert found.difference == pytest.approx(float(np.mean(second - first)))
    assert found.low < found.difference < found.high < 0
    # The interval of a mean of 40: about two standard errors to either side.
    error = float(np.std(second - first)) / np.sqrt(40)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert found.verdict == "better"
    (back,) = compare(rows_of(second.tolist()), rows_of(first.tolist()))
    assert back.verdict == "worse"
    (deltas,) = compare(
        rows_of(first.tolist(), "affine_depth.delta1"),
        rows_of(second.tolist(), "affine_depth.delta1"),
    )
    assert deltas.verdict == "worse", "less of it is worse"


def test_nothing_is_said_without_evidence() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, 30)
    (found,) = compare(rows_of([0.5] * 30), rows_of((0.5 + noise - noise.mean()).tolist()))
    assert found.verdict == "no difference shown"
    (same,) = compare(rows_of([0.5] * 3), rows_of([0.5] * 3))
    assert (same.low, same.high, same.verdict) == (0.0, 0.0, "no difference shown")
    (single,) = compare(rows_of([0.5]), rows_of([0.1]))
    assert np.isnan(single.low)
    assert single.verdict == "no difference shown"
    first, second = rows_of([0.5, 0.4, float("nan")]), rows_of([0.4, float("nan"), 0.1])
    assert compare(first, second)[0].frames == 1, "only frames that both answer"
    with pytest.raises(ValueError, match="same frames"):
        compare(first, second[:2])


def test_intervals_hold_what_they_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 experiments with a true difference of 0.1, about 95 % find it in their interval."""
    monkeypatch.setattr(comparison, "DRAWS", 1000)
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        difference = rng.normal(0.1, 0.3, 40)
        (found,) = compare(rows_of([0.0] * 40), rows_of(difference.tolist()))
        inside += found.low <= 0.1 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


# ------------------------------------------------------------------------------------------ reports


def test_a_report_of_one_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = folder(tmp_path / "f"), tmp_path / "deep" / "out"
    evaluate_bundles([("knowing", Knowing(0.02))], [root], part="test", points=60, output=out)
    printed = capsys.readouterr().out
    assert "affine_disparity" in printed
    assert "AbsRel" in printed
    with (out / "frames.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["frame"] for row in table] == ["a", "b", "c"]
    assert {row["bundle"] for row in table} == {"knowing"}
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    means = report["bundles"][0]["folders"][str(root)]["mean"]
    column = [float(row["affine_depth.abs_rel"]) for row in table]
    assert means["affine_depth.abs_rel"] == pytest.approx(np.mean(column))
    page = (out / "index.html").read_text(encoding="utf-8")
    for title in ("best frame", "median frame", "worst frame"):
        assert page.count(title) >= 1
    pictures = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert len(pictures) == 3 * 8
    assert pictures[:5] == [
        "camera, dots: depth given",
        "knowing: depth, fitted to the truth",
        "knowing: metric depth from the dots",
        "measured depth",
        "error of knowing: depth, fitted to the truth",
    ]
    assert 'src="http' not in page
    assert page.count("<img") == len(pictures)


def test_a_report_of_two_bundles(tmp_path: Path) -> None:
    roots = [folder(tmp_path / "f"), folder(tmp_path / "g", ("x", "y"))]
    bundles = [("noisy", Knowing(0.1)), ("exact", Knowing())]
    evaluated, differences = evaluate_bundles(
        bundles, roots, part="test", points=60, output=tmp_path / "out"
    )
    verdicts = {d.key: d.verdict for d in differences}
    assert verdicts["affine_depth.abs_rel"] == "better"
    assert verdicts["normals.mean_deg"] == "better"
    assert {d.key: d.frames for d in differences if d.frames != 5} == {
        "edges.boundary_f1": 3  # wavy depth has a boundary in the frames of one folder alone
    }
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [bundle["name"] for bundle in report["bundles"]] == ["noisy", "exact"]
    assert report["bundles"][1]["folders"]["all"]["frames"] == 5
    assert report["differences"][0]["verdict"] == "better"
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<h2>Comparison</h2>" in page
    assert "exact is" in page
    assert "most gained frame" in page
    told = verdict(evaluated, differences)
    assert told.startswith("exact is better than noisy: AbsRel (depth after an affine fit")
    assert "over 5 frames (95% interval of the difference -" in told
    assert page.index("class=verdict") < page.index("class=cards"), "the verdict first"
    assert f"All {len(differences)} scores" in page, "folded below the four that matter"
    # What gained most is what the noisy one was worst at.
    gains = [
        b.scores["affine_depth.abs_rel"] - a.scores["affine_depth.abs_rel"]
        for a, b in zip(evaluated[0].rows, evaluated[1].rows, strict=True)
    ]
    assert ranked(evaluated)[0][1] == int(np.argmin(gains))
    with pytest.raises(D3Error, match="one name"):
        evaluate_bundles([bundles[0]] * 2, roots, part="test", points=9, output=None)


def test_the_verdict_is_one_sentence() -> None:
    nan = float("nan")
    good, bad = (
        Evaluated(name, Knowing(), rows_of([v, v])) for name, v in (("a", 0.1), ("b", 0.3))
    )
    assert verdict([good], []) == (
        "a: AbsRel (depth after an affine fit to the truth, in depth) is 0.1 over 2 frames."
    )
    some = Evaluated("some", Knowing(), rows_of([0.1, nan, 0.1]))
    assert verdict([some], []).endswith(" is 0.1 over 2 frames.")
    assert "b is worse than a" in verdict([good, bad], compare(good.rows, bad.rows))
    same = compare(good.rows, good.rows)
    assert "No difference between a and a is shown" in verdict([good, good], same)
    assert verdict([Evaluated("x", Knowing(), rows_of([nan]))], []) == "No frame could be scored."


def test_frames_to_look_at_by_hand() -> None:
    def bundle(values: list[float]) -> Evaluated:
        return Evaluated("x", Knowing(), rows_of(values))

    nan = float("nan")
    assert [i for _, i in ranked([bundle([0.3, nan, 0.1, 0.2, 0.9])])] == [2, 0, 4]
    assert [i for _, i in ranked([bundle([0.3, 0.1])])] == [1, 0]
    assert ranked([bundle([nan])]) == []
    gained = ranked([bundle([0.3, 0.3, 0.3]), bundle([0.3, 0.5, 0.1])])
    assert [i for _, i in gained] == [2, 0, 1]
    assert gained[0][0].startswith("most gained frame: 2")


def test_the_command_line(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "f")
    options = ["evaluate", "--model", str(tiny_bundle), "--data", str(root), "--device", "cpu"]
    assert main([*options, "--output", str(tmp_path / "out"), "--points", "40"]) == 0
    assert (tmp_path / "out" / "index.html").is_file()
    assert main([*options, "--against", str(tiny_bundle)]) == 1
    assert "one name" in capsys.readouterr().err
    assert main([*options, "--points", "0"]) == 1


def test_the_shipped_bundle_scores_what_its_card_says(test_data: Path) -> None:
    """models/README.md: depth of the room, depth and normals of the table-tops."""
    from d3_ros.network import D3Predictor

    nano = D3Predictor.from_pretrained(ROOT / "models" / "d3_nano", device="cpu", dtype="fp32")
    means = mean_scores(evaluate(nano, FrameSet(test_data / "room"), points=100))
    assert means["affine_depth.abs_rel"] == pytest.approx(0.1795, abs=0.002)
    assert means["affine_depth.delta1"] == pytest.approx(0.7455, abs=0.004)
    assert means["sparse_fit.abs_rel"] < means["affine_depth.abs_rel"]
    tables = FrameSet(test_data / "osd", intrinsics=(525.0, 525.0, 319.5, 239.5))
    means = mean_scores(evaluate(nano, tables, points=100))
    assert means["affine_depth.abs_rel"] == pytest.approx(0.0357, abs=0.0005)
    assert means["normals.mean_deg"] == pytest.approx(9.36, abs=0.2)

"""The demo's numbers and pictures, against values worked out by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from d3_ros.data.played_frame import PlayedFrame
from d3_ros.demo.recording import (
    METRIC,
    NORMALS,
    POINTS,
    RELATIVE,
    SCALE,
    SIGMA,
    LogWriter,
    Received,
    Recording,
    Reported,
    Sent,
    SpreadChoice,
    evenly,
)
from d3_ros.demo.report import RunInfo, table, write_report
from d3_ros.demo.score import (
    DepthScore,
    scale_states,
    score_depth,
    score_points_alone,
    traffic,
)
from d3_ros.demo.verdict import next_steps, verdict, what_was_run

MS = 1_000_000
NAN = float("nan")
INFO = RunInfo(model="d3_test", device="cpu", rate="auto", log_file="node.log")


# --------------------------------------------------------------------------------------- numbers


def test_traffic_by_hand() -> None:
    sent = [Sent(index=i, stamp_ns=i * 100 * MS) for i in range(5)]
    received = [
        Received(RELATIVE, 0, 20 * MS),
        Received(METRIC, 0, 30 * MS),
        Received(RELATIVE, 200 * MS, 260 * MS),
        Received(METRIC, 200 * MS, 280 * MS),
        Received(RELATIVE, 400 * MS, 420 * MS),
        Received(METRIC, 400 * MS, 430 * MS),
        Received(RELATIVE, 7, 500 * MS),  # never sent: another camera
    ]
    numbers = traffic(sent, received)
    assert numbers.sent == 5
    assert [row.index for row in numbers.answered] == [0, 2, 4]
    assert numbers.dropped == 2
    assert numbers.depth_topic == METRIC
    assert numbers.depth_hz == pytest.approx(2 / 0.4), "two intervals in 430 - 30 ms"
    # Latencies 30, 80, 30 ms: the 95 % quantile lies 0.9 of the way from the 2nd to the 3rd.
    assert numbers.latency_ms == pytest.approx({"p50": 30.0, "p95": 75.0})
    assert numbers.topics[RELATIVE]["messages"] == 3


def test_traffic_without_metric_depth_and_without_anything() -> None:
    sent = [Sent(0, 0), Sent(1, 100 * MS)]
    relative_only = traffic(sent, [Received(RELATIVE, 100 * MS, 150 * MS)])
    assert relative_only.depth_topic == RELATIVE
    assert relative_only.depth_hz is None
    assert relative_only.latency_ms == {"p50": 50.0, "p95": 50.0}
    nothing = traffic(sent, [])
    assert nothing.dropped == 2
    assert nothing.latency_ms is None


def test_depth_score_by_hand() -> None:
    metric = np.array([[1.1, 2.0, 4.0, NAN, 3.0]], np.float32)
    truth = np.array([[1.0, 2.0, 2.0, 5.0, NAN]], np.float32)
    # Errors 0.1, 0 and 1 over three pixels; 4 / 2 is no inlier; one of four truths has no depth.
    score = score_depth(metric, truth)
    assert score is not None
    assert score.abs_rel == pytest.approx(1.1 / 3, abs=1e-6)
    assert score.delta1 == pytest.approx(2 / 3)
    assert score.coverage == pytest.approx(0.75)
    assert score.pixels == 3
    assert score_depth(np.full((1, 5), np.nan, np.float32), truth) is None
    with pytest.raises(ValueError, match="its truth"):
        score_depth(metric[:, :4], truth)


def test_perfect_depth() -> None:
    truth = np.array([[1.0, 2.0]], np.float32)
    assert score_depth(truth, truth) == DepthScore(abs_rel=0.0, delta1=1.0, coverage=1.0, pixels=2)


def test_points_alone_by_hand() -> None:
    """Four corners of a plane say all of it; the network is 10 % off."""
    v, u = np.mgrid[0:5, 0:5].astype(np.float32)
    truth = 1 + u + 2 * v
    sensor = np.full((5, 5), np.nan, np.float32)
    sensor[::4, ::4] = truth[::4, ::4]
    scores = score_points_alone(sensor, 1.1 * truth, truth)
    assert scores == pytest.approx((0.0, 0.1), abs=1e-6)
    assert score_points_alone(None, truth, truth) is None
    assert score_points_alone(truth, truth, truth) is None, "dense depth is not interpolated"
    assert score_points_alone(np.full((5, 5), np.nan), truth, truth) is None


def test_scale_states_go_to_their_frames_or_nowhere() -> None:
    sent = [Sent(0, 10), Sent(1, 20)]
    received = [Received(RELATIVE, 10, 15), Received(RELATIVE, 20, 25)]
    fits = [Reported(SCALE, 16, {"state": "measured"}), Reported(SCALE, 26, {"state": "held"})]
    status = Reported("status", 17, {"level": 0, "message": "fine"})
    assert scale_states(sent, received, [fits[0], status, fits[1]]) == {10: "measured", 20: "held"}
    assert scale_states(sent, received, fits[:1]) == {}


# -------------------------------------------------------------------------------------- recording


def test_logs_come_back_and_half_a_line_waits(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    assert recording.sent() == []
    sent = LogWriter(recording.sent_log)
    sent.write(Sent(3, 12345678901234567890))
    received = LogWriter(recording.received_log)
    received.write(Received(POINTS, 1, 2 * MS + 1))
    received.write(Reported("status", 5, {"level": 0}))
    with recording.received_log.open("a") as file:
        file.write('{"topic": "po')
    assert recording.sent() == [Sent(3, 12345678901234567890)]
    assert recording.received() == [Received(POINTS, 1, 2 * MS + 1)]
    assert recording.received()[0].latency_ms == 2.0
    assert recording.reported() == [Reported("status", 5, {"level": 0})]
    sent.close()
    received.close()


def test_arrays_are_kept_and_forgotten(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    recording.save_array(5, METRIC, array)
    recording.save_array(5, NORMALS, array)
    recording.forget(5, (NORMALS, POINTS))
    kept = recording.load_array(5, METRIC)
    assert kept is not None
    np.testing.assert_array_equal(kept, array)
    assert recording.load_array(5, NORMALS) is None


@pytest.mark.parametrize("length", [1, 2, 5, 11, 12, 100, 1000])
def test_frames_are_chosen_evenly_whatever_the_length(length: int) -> None:
    choice = SpreadChoice(6)
    held: set[int] = set()
    for stamp in range(length):
        keep, forgotten = choice.offer(stamp)
        held |= {stamp} if keep else set()
        held -= set(forgotten)
        assert held == set(choice.kept)
        assert len(held) < 12
    assert min(6, length) <= len(held)
    gaps = set(np.diff(sorted(held)).tolist())
    assert len(gaps) <= 1, "equal distances"
    assert 0 in held


def test_evenly() -> None:
    assert evenly([1, 2, 3], 6) == [1, 2, 3]
    assert evenly(list(range(11)), 3) == [0, 5, 10]


# ----------------------------------------------------------------------------------------- report


class ThreeFrames:
    """Frames of 4 x 6 whose truth is 1 m, 2 m and unknown."""

    title = "three <frames>"
    rate_hz = None
    warnings = ("a warning",)

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[PlayedFrame]:
        for index, metres in enumerate((1.0, 2.0, None)):
            truth = None if metres is None else np.full((4, 6), metres, np.float32)
            rgb = np.full((4, 6, 3), 40 * index, np.uint8)
            yield PlayedFrame(index=index, name=f"n{index}", stamp=NAN, rgb=rgb, truth=truth)


def record(folder: Path, *, metric: bool, lost_scale: bool = False) -> Recording:
    """Frames 0, 1, 2 and 0 again were sent; the second was dropped."""
    recording = Recording(folder)
    sent, received = LogWriter(recording.sent_log), LogWriter(recording.received_log)
    for place, index in enumerate((0, 1, 2, 0)):
        stamp = 1000 * MS * (place + 1)
        sent.write(Sent(index, stamp))
        if index == 1:
            continue
        received.write(Received(RELATIVE, stamp, stamp + 10 * MS))
        ramp = np.tile(np.linspace(0.1, 0.9, 6, dtype=np.float32), (4, 1))
        recording.save_array(stamp, RELATIVE, ramp)
        if metric:
            received.write(Received(METRIC, stamp, stamp + 20 * MS))
            recording.save_array(stamp, METRIC, np.full((4, 6), 1.1, np.float32))
            recording.save_array(stamp, SIGMA, np.full((4, 6), 0.11, np.float32))
            points = np.array([[[0, 0, 1, 10, 20, 30], [1, 0, 2, 40, 50, 60]]], np.float32)
            recording.save_array(stamp, POINTS, points)
        state = "measured" if metric else "relative"
        if lost_scale and place == 3:
            continue
        received.write(Reported(SCALE, stamp + 30 * MS, {"state": state}))
    received.write(
        Reported(
            "/diagnostics", 1, {"camera/predictor: scale": {"level": 0, "message": "no points"}}
        )
    )
    sent.close()
    received.close()
    return recording


def test_a_lost_scale_message_does_not_make_the_scale_unknown(tmp_path: Path) -> None:
    recording = record(tmp_path / "run", metric=True, lost_scale=True)
    (tmp_path / "out").mkdir()
    report = write_report(tmp_path / "out", recording, ThreeFrames(), INFO, pictures=1)
    assert report["scale_states"] == {"measured": 2}


def test_report_of_a_run(tmp_path: Path) -> None:
    recording = record(tmp_path / "run", metric=True)
    output = tmp_path / "out"
    output.mkdir()
    report = write_report(output, recording, ThreeFrames(), INFO, pictures=6)

    assert json.loads((output / "report.json").read_text()) == report
    assert report["frames"] == 3
    assert report["sent"] == 4
    assert report["dropped"] == 1
    assert report["model"] == "d3_test"
    assert report["latency_ms"] == pytest.approx({"p50": 20.0, "p95": 20.0})
    assert report["depth_hz"] == pytest.approx(2 / 3), "arrivals at 1.02, 3.02 and 4.02 s"
    assert report["abs_rel"] == pytest.approx(0.1, abs=1e-6), "1.1 m for 1 m, in both rounds"
    assert report["delta1"] == 1.0
    assert report["scale_states"] == {"measured": 3}
    assert "24 measured pixels of 1 frame " in report["abs_rel_note"], "one frame, played twice"
    assert report["source_frames"] == 3
    assert report["points_alone"] is None, "no points were given"
    assert [row["frame"] for row in report["per_frame"]] == [0, 2, 0]
    assert [row["pixels"] for row in report["per_frame"]] == [24, 0, 24]

    # Frame 0 came twice and is shown once; frame 2 has pictures but no truth.
    assert sorted(path.name for path in output.glob("frame_*_strip.png")) == [
        "frame_1_strip.png",
        "frame_2_strip.png",
    ]
    assert (output / "frame_1_measured.png").is_file()
    assert not (output / "frame_2_measured.png").exists()
    page = (output / "index.html").read_text(encoding="utf-8")
    assert page.count("expected error of depth") >= 2, "on the page, beside depth, of each frame"
    for name in ("colour", "depth", "expected_error", "cloud_above", "cloud_oblique"):
        picture = cv2.imread(str(output / f"frame_2_{name}.png"))
        assert picture is not None
    ply = (output / "cloud.ply").read_bytes()
    assert ply.startswith(b"ply\n")
    assert b"element vertex 2\n" in ply


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    recording = record(tmp_path / "run", metric=True)
    write_report(tmp_path, recording, ThreeFrames(), INFO, pictures=1)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)\s*=\s*["\']?([^"\'> ]{0,22})', page)
    assert len(sources) >= 4
    assert all(source.startswith("data:image/jpeg;base64") for source in sources)
    assert "http" not in page
    assert "three &lt;frames&gt;" in page
    assert "a warning" in page
    assert "Depth is off by 10 % of the distance on average." in page
    assert "canvas class=cloud" in page
    assert "dots: depth given" not in page, "the node was given no points"


def test_report_without_metric_depth_says_why(tmp_path: Path) -> None:
    recording = record(tmp_path / "run", metric=False)
    report = write_report(tmp_path, recording, ThreeFrames(), INFO, pictures=2)
    assert report["abs_rel"] is None
    assert report["delta1"] is None
    assert report["abs_rel_note"] == "the node published no metric depth (no points)"
    assert report["depth_topic"] == RELATIVE
    assert not (tmp_path / "cloud.ply").exists()
    assert "none: the node published no metric depth (no points)" in table(report)


def test_report_without_truth_and_without_answers(tmp_path: Path) -> None:
    class NoTruth(ThreeFrames):
        def __iter__(self) -> Iterator[PlayedFrame]:
            return (replace(frame, truth=None) for frame in super().__iter__())

    report = write_report(
        tmp_path, record(tmp_path / "run", metric=True), NoTruth(), INFO, pictures=2
    )
    assert report["abs_rel"] is None
    assert "no measured depth" in report["abs_rel_note"]

    silent = Recording(tmp_path / "silent")
    log = LogWriter(silent.sent_log)
    log.write(Sent(0, 5))
    log.close()
    report = write_report(tmp_path, silent, ThreeFrames(), INFO, pictures=2)
    assert report["frames"] == 0
    assert report["dropped"] == 1
    assert report["latency_ms"] is None
    assert "0 of 1 sent, 1 dropped" in table(report)


# ---------------------------------------------------------------------------------------- verdict


def in_words(**changes: object) -> dict[str, object]:
    """The part of a report that the verdict reads: 5 frames, played 8 times."""
    return {
        "frames": 40,
        "sent": 40,
        "source_frames": 5,
        "given_points": 500,
        "model": "d3_nano",
        "device": "cpu",
        "hardware": "a processor",
        "log": "node.log",
        "depth_topic": METRIC,
        "depth_hz": 5.0,
        "latency_ms": {"p50": 180.0, "p95": 200.0},
        "abs_rel": 0.05,
        "delta1": 0.95,
        "abs_rel_note": "100 measured pixels",
        "points_alone": {"abs_rel": 0.06, "d3_abs_rel": 0.05, "frames": 5},
        **changes,
    }


def test_frames_that_were_played_again_are_told_once() -> None:
    assert what_was_run(in_words()).startswith("5 frames, each played 8 times (40 images)")
    assert what_was_run(in_words(sent=3)).startswith("The first 3 of 5 frames")
    assert what_was_run(in_words(sent=5)).startswith("5 frames (5 images), published")


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (0.06, "has a larger error"),
        (0.04, "the points alone are enough"),
        (0.051, "about the same"),
    ],
)
def test_the_verdict_compares_with_the_points_alone(points: float, words: str) -> None:
    alone = {"abs_rel": points, "d3_abs_rel": 0.05, "frames": 5}
    report = in_words(points_alone=alone)
    headline, sentences = verdict(report)
    assert headline == "Depth is off by 5 % of the distance on average."
    assert any(words in sentence for sentence in sentences)
    assert ("Fewer points" in " ".join(next_steps(report))) == (points < 0.0526)


def test_the_verdict_without_metres_or_answers() -> None:
    headline, sentences = verdict(in_words(depth_topic=RELATIVE, abs_rel=None, points_alone=None))
    assert headline.startswith("Relative depth only")
    assert "No metric depth: 100 measured pixels." in sentences
    assert verdict(in_words(frames=0))[0] == "No depth came back."
    assert "nothing to compare" in verdict(in_words(abs_rel=None))[0]


def test_frames_are_shown_in_the_order_of_the_source(tmp_path: Path) -> None:
    """Frame 2 was first kept in the first round, frame 0 in the second."""
    recording = record(tmp_path / "run", metric=True)
    recording.array_path(1000 * MS, RELATIVE).unlink()
    write_report(tmp_path, recording, ThreeFrames(), INFO, pictures=6)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h3>(Frame \d)", page)
    assert titles == ["Frame 0", "Frame 2"]

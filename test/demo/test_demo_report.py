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
from d3_ros.demo.pictures import Cloud, frame_pictures
from d3_ros.demo.recording import (
    METRIC,
    NORMALS,
    POINTS,
    RELATIVE,
    SCALE,
    LogWriter,
    Received,
    Recording,
    Reported,
    Sent,
    SpreadChoice,
    evenly,
)
from d3_ros.demo.report import RunInfo, table, write_report
from d3_ros.demo.score import DepthScore, scale_states, score_depth, traffic
from d3_ros.imaging.cloud_view import view_from_above, view_oblique
from d3_ros.imaging.drawing import BACKGROUND, strip

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


# --------------------------------------------------------------------------------------- pictures


def brightest(picture: np.ndarray, channel: int) -> tuple[int, int]:
    """(u, v) of the middle of the pixels in which one channel is 255 and the others 0."""
    others = [c for c in range(3) if c != channel]
    hit = (picture[..., channel] == 255) & (picture[..., others] == 0).all(axis=2)
    v, u = np.nonzero(hit)
    assert len(u), "the point is not in the picture"
    return int(u.mean()), int(v.mean())


def test_from_above_right_is_right_and_forward_is_up() -> None:
    # Red ahead on the left, green ahead on the right, blue farther away in the middle.
    xyz = np.array([[-1, 0, 2], [1, 0, 2], [0, 0, 4]], np.float32)
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    picture = view_from_above(xyz, rgb, 320, 240)
    red, green, blue = (brightest(picture, channel) for channel in range(3))
    assert red[0] < blue[0] < green[0]
    assert red[1] == green[1]
    assert blue[1] < red[1]
    # Equal scales: 2 m across are as many pixels as 2 m ahead.
    assert abs((green[0] - red[0]) - (red[1] - blue[1])) <= 2


def test_from_above_the_higher_point_covers_the_lower() -> None:
    xyz = np.array([[0, -1, 2], [0, 1, 2], [1, 0, 3]], np.float32)  # y is down
    rgb = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8)
    for order in ([0, 1, 2], [1, 0, 2]):
        picture = view_from_above(xyz[order], rgb[order], 320, 240)
        brightest(picture, 0)
        with pytest.raises(AssertionError, match="not in the picture"):
            brightest(picture, 2)


def test_oblique_view_stands_upright_to_the_left() -> None:
    # A pole: red above blue. Green stands as far to the right and at the same height as red.
    xyz = np.array([[0, -1, 4], [0, 1, 4], [2, -1, 4]], np.float32)
    rgb = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8)
    picture = view_oblique(xyz, rgb, 320, 240)
    red, green, blue = (brightest(picture, channel) for channel in range(3))
    assert red[1] < blue[1]
    assert green[0] > red[0]
    # From the left a near point lies to the right of a far one.
    near_far = np.array([[0, 0, 3], [0, 0, 5], [0, 1, 4]], np.float32)
    picture = view_oblique(near_far, rgb, 320, 240)
    assert brightest(picture, 0)[0] > brightest(picture, 2)[0]


def test_views_of_nothing_are_empty() -> None:
    nothing = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    for view in (view_from_above, view_oblique):
        assert (view(*nothing, 40, 30) == BACKGROUND).all()


def test_pictures_say_what_there_is() -> None:
    rgb = np.full((240, 320, 3), (200, 10, 10), np.uint8)
    metric = np.tile(np.linspace(1, 3, 320, dtype=np.float32), (240, 1))
    sensor = np.full((240, 320), np.nan, np.float32)
    sensor[120, 160] = 2.0
    truth = metric.copy()
    truth[120, 160] = np.nan
    normals = np.zeros((240, 320, 3), np.float32)
    normals[..., 2] = -1
    cloud = Cloud(np.array([[0, 0, 2.0]], np.float32), np.array([[9, 9, 9]], np.uint8))
    everything = frame_pictures(
        rgb,
        sensor=sensor,
        truth=truth,
        relative=metric / 4,
        metric=metric,
        normals=normals,
        cloud=cloud,
    )
    assert list(everything) == [
        "colour",
        "depth",
        "measured",
        "normals",
        "cloud_above",
        "cloud_oblique",
    ]
    assert all(p.shape[0] == 480 and p.dtype == np.uint8 for p in everything.values())
    assert everything["colour"][10, 10].tolist() == [200, 10, 10]
    assert everything["colour"][241, 321].tolist() == [90, 255, 90], "the given point's dot"
    assert everything["normals"][5, 5].tolist() == [128, 128, 255]
    # Near is bright: the left of the picture. Depth and its truth have the same colours.
    assert everything["depth"][200, 20].sum() > everything["depth"][200, 600].sum()
    np.testing.assert_array_equal(
        everything["depth"][50, 100:600], everything["measured"][50, 100:600]
    )
    assert strip(everything, {}).shape[1] > 6 * 400
    little = frame_pictures(
        rgb, sensor=None, truth=None, relative=metric / 4, metric=None, normals=None, cloud=None
    )
    assert list(little) == ["colour", "depth"]


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


def record(folder: Path, *, metric: bool) -> Recording:
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
            points = np.array([[0, 0, 1, 10, 20, 30], [1, 0, 2, 40, 50, 60]], np.float32)
            recording.save_array(stamp, POINTS, points)
        state = "measured" if metric else "relative"
        received.write(Reported(SCALE, stamp + 30 * MS, {"state": state}))
    received.write(
        Reported(
            "/diagnostics", 1, {"camera/predictor: scale": {"level": 0, "message": "no points"}}
        )
    )
    sent.close()
    received.close()
    return recording


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
    assert "48 measured pixels of 2 frames" in report["abs_rel_note"]
    assert [row["frame"] for row in report["per_frame"]] == [0, 2, 0]
    assert [row["pixels"] for row in report["per_frame"]] == [24, 0, 24]

    # Frame 0 came twice and is shown once; frame 2 has pictures but no truth.
    assert sorted(path.name for path in output.glob("frame_*_strip.png")) == [
        "frame_1_strip.png",
        "frame_2_strip.png",
    ]
    assert (output / "frame_1_measured.png").is_file()
    assert not (output / "frame_2_measured.png").exists()
    for name in ("colour", "depth", "cloud_above", "cloud_oblique"):
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
    assert len(sources) >= 5
    assert all(source.startswith("data:image/jpeg;base64") for source in sources)
    assert "http" not in page
    assert "three &lt;frames&gt;" in page
    assert "a warning" in page


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

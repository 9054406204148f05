"""The parts of the node that need no node: slot, matching, counting, telling, judging."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ros_harness import wait_until
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from d3_ros.ros.diagnostics import ERROR, OK, WARN, judge_frames, judge_scale, scale_values
from d3_ros.ros.inputs import Inputs, stamp_ns
from d3_ros.ros.scale_report import ScaleReport
from d3_ros.ros.settings import NodeSettings
from d3_ros.ros.statistics import FrameStatistics, Snapshot, StageTimes, median_and_p95
from d3_ros.ros.telling import Teller
from d3_ros.ros.worker import NewestWins
from d3_ros.types import DepthFit

pytestmark = pytest.mark.ros
RELATIVE = ScaleReport(DepthFit(ok=False, state="relative"))


def at(seconds: float, kind: type = Image) -> Image | CameraInfo:
    message = kind()
    nanoseconds = round(seconds * 1e9)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(nanoseconds, 1_000_000_000)
    return message


def test_the_newest_item_wins_and_the_overtaken_are_dropped() -> None:
    done: list[int] = []
    dropped: list[int] = []
    started, go_on = threading.Event(), threading.Event()

    def process(item: int) -> None:
        started.set()
        go_on.wait(5.0)
        done.append(item)

    worker = NewestWins(process, dropped.append)
    worker.submit(1)
    assert started.wait(5.0)
    for item in (2, 3, 4):
        worker.submit(item)
    assert dropped == [2, 3]
    go_on.set()
    wait_until(lambda: done == [1, 4], "both are done")
    assert worker.stop(5.0)
    worker.submit(5)
    assert dropped == [2, 3, 5]


def test_stop_tells_whether_the_last_item_is_done() -> None:
    go_on, started = threading.Event(), threading.Event()

    def process(item: int) -> None:
        started.set()
        go_on.wait(5.0)

    dropped: list[int] = []
    worker = NewestWins(process, dropped.append)
    worker.submit(1)
    assert started.wait(5.0)
    worker.submit(2)
    assert not worker.stop(0.05)
    assert dropped == [2]
    go_on.set()
    assert worker.stop(5.0)


def test_the_nearest_message_of_each_sensor_belongs_to_an_image() -> None:
    inputs = Inputs()
    inputs.store_camera_info(at(0.0, CameraInfo))
    for seconds in (9.9, 10.02, 10.2):
        inputs.store_sensor("image", at(seconds))
    inputs.store_sensor("scan", at(9.0, LaserScan))
    found = inputs.companions_of(at(10.0), wait_s=0.0).sensors
    assert set(found) == {"image", "scan"}
    assert stamp_ns(found["image"].header) == 10_020_000_000
    assert stamp_ns(found["scan"].header) == 9_000_000_000
    assert inputs.sensor_depth_seen
    inputs.clear()
    nothing = inputs.companions_of(at(10.0), wait_s=0.0)
    assert (nothing.camera_info, dict(nothing.sensors)) == (None, {})
    assert not inputs.sensor_depth_seen


def test_the_camera_info_of_the_same_stamp_is_taken_or_else_the_newest() -> None:
    inputs = Inputs()
    for seconds in (1.0, 2.0, 3.0):
        inputs.store_camera_info(at(seconds, CameraInfo))
    same = inputs.companions_of(at(2.0), wait_s=0.0).camera_info
    assert stamp_ns(same.header) == 2_000_000_000
    newest = inputs.companions_of(at(2.5), wait_s=0.0).camera_info
    assert stamp_ns(newest.header) == 3_000_000_000


def test_after_a_jump_back_in_time_sensors_are_of_the_new_time_and_awaited() -> None:
    inputs = Inputs()
    inputs.store_camera_info(at(99.0, CameraInfo))
    for seconds in (98.8, 99.0):
        inputs.store_sensor("image", at(seconds))
        inputs.store_sensor("scan", at(seconds, LaserScan))
    assert inputs.companions_of(at(99.0), wait_s=0.0).jumped_back_s == 0
    # A little back is a camera's disorder, not another pass of the bag.
    assert inputs.companions_of(at(98.9), wait_s=0.0).jumped_back_s == 0
    inputs.store_sensor("image", at(5.1))  # the new pass may be heard before its first image
    later = threading.Timer(0.1, lambda: inputs.store_sensor("scan", at(5.0, LaserScan)))
    later.start()
    found = inputs.companions_of(at(5.0), wait_s=5.0)
    later.join()
    assert found.jumped_back_s == pytest.approx(93.9)
    assert stamp_ns(found.sensors["image"].header) == 5_100_000_000
    assert stamp_ns(found.sensors["scan"].header) == 5_000_000_000
    assert found.camera_info is not None, "a calibration holds in any time"
    assert inputs.companions_of(at(5.1), wait_s=0.0).jumped_back_s == 0


def test_a_sensor_that_is_silent_after_a_jump_is_not_awaited_for_long() -> None:
    inputs = Inputs()
    inputs.store_camera_info(at(99.0, CameraInfo))
    inputs.store_sensor("image", at(99.0))
    inputs.companions_of(at(99.0), wait_s=0.0)
    found = inputs.companions_of(at(5.0), wait_s=0.01)
    assert dict(found.sensors) == {}
    assert inputs.sensor_depth_seen
    started = time.monotonic()
    inputs.companions_of(at(6.1), wait_s=5.0)
    assert time.monotonic() - started < 4.0


def test_an_image_waits_for_what_is_late_and_no_longer() -> None:
    inputs = Inputs()
    inputs.store_camera_info(at(1.0, CameraInfo))
    inputs.store_sensor("image", at(0.9))
    late = threading.Timer(0.1, lambda: inputs.store_sensor("image", at(1.0)))
    late.start()
    started = time.monotonic()
    found = inputs.companions_of(at(1.0), wait_s=5.0)
    assert stamp_ns(found.sensors["image"].header) == 1_000_000_000
    assert time.monotonic() - started < 4.0
    late.join()


def waits_for(stamps: list[float], image: float) -> bool:
    """Whether an image waits for another message of a sensor that has sent these."""
    inputs = Inputs()
    inputs.store_camera_info(at(image, CameraInfo))
    for seconds in stamps:
        inputs.store_sensor("points", at(seconds, PointCloud2))
    started = time.monotonic()
    inputs.companions_of(at(image), wait_s=0.2)
    return time.monotonic() - started >= 0.2


def test_nothing_is_waited_for_that_will_not_come_nearer() -> None:
    """A LiDAR at 10 Hz: its next sweep is worth a wait where it will be nearer than the last."""
    sweeps = [1.0, 1.1, 1.2, 1.3]
    assert not waits_for(sweeps, 1.3), "of the same stamp"
    assert not waits_for(sweeps, 1.33), "the next one is farther"
    assert waits_for(sweeps, 1.37)
    assert waits_for([1.3], 1.33), "its period is not known yet"
    assert not waits_for(sweeps, 2.5), "gone"
    assert not waits_for([], 1.0), "there is no such sensor"


def test_a_calibration_is_waited_for_once() -> None:
    inputs = Inputs()
    started = time.monotonic()
    inputs.companions_of(at(1.0), wait_s=0.2)
    assert time.monotonic() - started >= 0.2, "the first image waits for a calibration"
    started = time.monotonic()
    for seconds in (1.1, 1.2, 1.3):
        inputs.companions_of(at(seconds), wait_s=5.0)
    assert time.monotonic() - started < 4.0


@given(st.lists(st.sampled_from(["published", "dropped", "refused", "idle"]), max_size=30))
def test_every_fate_is_counted_once(fates: list[str]) -> None:
    statistics = FrameStatistics()
    for fate in fates:
        statistics.received()
        if fate == "published":
            statistics.published(0.1, 0.2, RELATIVE)
        else:
            getattr(statistics, fate)()
    snapshot = statistics.snapshot()
    assert snapshot.received == len(fates)
    for fate in ("published", "dropped", "refused", "idle"):
        assert getattr(snapshot, fate) == fates.count(fate)


def test_latencies_are_in_milliseconds() -> None:
    statistics = FrameStatistics()
    for latency_s in (0.1, 0.2, 0.3):
        statistics.published(latency_s, latency_s + 1.0, RELATIVE)
    snapshot = statistics.snapshot()
    assert snapshot.latency_ms == pytest.approx((200.0, 290.0))
    assert snapshot.age_ms[0] == pytest.approx(1200.0)
    statistics.restart()
    assert statistics.snapshot().published == 0


def test_stages_are_measured_also_when_they_fail() -> None:
    stage = StageTimes()
    with pytest.raises(ZeroDivisionError), stage("work"):
        time.sleep(0.01)
        _ = 1 / 0
    stage.add("other", 3.0)
    assert list(stage.percentiles()) == ["work", "other"]
    assert stage.percentiles()["work"][0] >= 10.0
    stage.next_frame()
    stage.add("other", 5.0)
    assert stage.percentiles()["other"] == pytest.approx((4.0, 4.9))
    stage.clear()
    assert stage.percentiles() == {}
    assert median_and_p95([]) == pytest.approx((float("nan"),) * 2, nan_ok=True)


class Log:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)

    error = warning


def test_a_line_is_said_once_in_a_while() -> None:
    log = Log()
    tell = Teller(log, period_s=0.1)
    for _ in range(3):
        tell.warn("a")
        tell.error("b")
    assert log.lines == ["a", "b"]
    time.sleep(0.12)
    tell.warn("a")
    assert log.lines == ["a", "b", "a"]


def test_lines_that_differ_in_a_number_do_not_flood() -> None:
    log = Log()
    tell = Teller(log, most=5)
    for count in range(100):
        tell.warn(f"got {count} bytes")
    assert len(log.lines) == 5


def snapshot(**changes: object) -> Snapshot:
    usual = {
        "received": 100,
        "published": 90,
        "dropped": 10,
        "refused": 0,
        "idle": 0,
        "idle_lately": False,
        "input_hz": 10.0,
        "published_hz": 9.0,
        "since_input_s": 0.1,
        "observed_s": 60.0,
        "latency_ms": (1.0, 2.0),
        "age_ms": (1.0, 2.0),
        "fault": "",
        "scale": None,
    }
    return Snapshot(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, OK, "running"),
        ({"idle_lately": True, "published_hz": 0.0}, OK, "nobody subscribes"),
        ({"published_hz": 0.1}, WARN, "0.10 Hz is below 0.5 Hz"),
        ({"published_hz": 0.1, "observed_s": 1.0}, OK, "running"),
        ({"since_input_s": 7.0, "published_hz": 0.0}, ERROR, "no image for 7 s"),
        ({"fault": "the depth is not finite"}, ERROR, "not finite"),
    ],
)
def test_the_flow_of_frames_is_judged(changes: dict, level: bytes, words: str) -> None:
    judged, message = judge_frames(snapshot(**changes), NodeSettings())
    assert judged == level
    assert words in message


@pytest.mark.parametrize(
    ("fit", "seen", "level", "words"),
    [
        (None, False, OK, "no frame yet"),
        (DepthFit(ok=True, state="measured", scale=1.0, shift=0.0), True, OK, "by points and scan"),
        (
            DepthFit(ok=True, state="held", reason="too few", age_s=1.2),
            True,
            WARN,
            "held for 1.2 s, expires in 0.8 s: too few",
        ),
        (DepthFit(ok=False, state="relative", reason="none"), False, OK, "silent: none"),
        (DepthFit(ok=False, state="relative", reason="bad fit"), True, WARN, "silent: bad fit"),
        (DepthFit(ok=True, state="ground", reason="none"), False, OK, "from the floor: none"),
        (DepthFit(ok=True, state="ground", reason="bad fit"), True, WARN, "floor: bad fit"),
    ],
)
def test_the_scale_is_judged(fit: DepthFit | None, seen: bool, level: bytes, words: str) -> None:
    report = None if fit is None else ScaleReport(fit, {"points": 100, "scan": 10})
    judged, message = judge_scale(report, sensor_depth_seen=seen, hold_s=2.0)
    assert judged == level
    assert words in message


def test_the_scale_is_told_in_figures() -> None:
    fit = DepthFit(ok=True, state="measured", scale=4.0, shift=0.5, abs_rel=0.0123, points=77)
    report = ScaleReport(fit, {"image": 70, "scan": 9}, fused_pixels=60, disagreeing_pixels=3)
    values = {entry.key: entry.value for entry in scale_values(report, hold_s=2.0)}
    assert values["scale (m)"] == "4.0000"
    assert values["AbsRel on held-out points"] == "0.0123"
    assert values["sensor points"] == "77"
    assert values["sensors (pixels)"] == "image 70, scan 9"
    assert (values["fused (pixels)"], values["measured but disagreeing (pixels)"]) == ("60", "3")
    assert scale_values(None, hold_s=2.0) == []


def test_the_benchmark_runs_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from d3_ros.__main__ import main

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    out = tmp_path / "bench.json"
    run = ["bench", "--ros", "--size", "64x48", "--seconds", "1", "--rate", "10"]
    assert main([*run, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    for name in ("node", "node_points_with_normals", "node_normals_from_depth"):
        assert report[name]["published"] > 0
        assert report[name]["node_thread_ms"]["all"]["p50"] > 0
        assert {"decode", "sensor depth", "publish ~/points"} <= set(report[name]["stages_ms"])
        assert report[name]["subscriber"]["received"]["~/points"] > 0
    assert "node's thread, without the scale" in capsys.readouterr().out

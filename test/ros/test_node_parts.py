"""The parts of the node that need no node: slot, matching, counting, telling, judging."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.waiting import PATIENCE_S, wait_until
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from d3_ros.pipeline import FrameRequest
from d3_ros.ros.node.diagnostics.diagnostics import (
    ERROR,
    OK,
    WARN,
    CameraFigures,
    NetworkFigures,
    active_report,
    judge_frames,
    judge_scale,
    scale_values,
)
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport
from d3_ros.ros.node.diagnostics.statistics import (
    FrameStatistics,
    Snapshot,
    StageTimes,
    median_and_p95,
)
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.graph import wrong_type
from d3_ros.ros.node.inputs.matched_inputs import InputBuffer, stamp_ns
from d3_ros.ros.node.inputs.rectified_request import rectified_request
from d3_ros.ros.node.worker import LatestFrameWorker
from d3_ros.ros.parameters.node_settings import NodeSettings, settings_from
from d3_ros.types import CameraIntrinsics, CameraMounting, DepthFit

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

    def process(items: dict[str, int]) -> None:
        started.set()
        go_on.wait(PATIENCE_S)
        done.append(items["a"])

    worker = LatestFrameWorker("a", process, lambda source, item: dropped.append(item))
    worker.submit("a", 1)
    assert started.wait(PATIENCE_S)
    for item in (2, 3, 4):
        worker.submit("a", item)
    assert dropped == [2, 3]
    go_on.set()
    wait_until(lambda: done == [1, 4], "both are done")
    assert worker.stop(PATIENCE_S)
    worker.submit("a", 5)
    assert dropped == [2, 3, 5]


def test_stop_tells_whether_the_last_item_is_done() -> None:
    go_on, started = threading.Event(), threading.Event()

    def process(items: dict[str, int]) -> None:
        started.set()
        go_on.wait(PATIENCE_S)

    dropped: list[int] = []
    worker = LatestFrameWorker("a", process, lambda source, item: dropped.append(item))
    worker.submit("a", 1)
    assert started.wait(PATIENCE_S)
    worker.submit("a", 2)
    assert not worker.stop(0.05)
    assert dropped == [2]
    go_on.set()
    assert worker.stop(PATIENCE_S)


def test_what_waits_at_the_same_time_is_processed_together() -> None:
    batches: list[dict[str, int]] = []
    started, go_on = threading.Event(), threading.Event()

    def process(items: dict[str, int]) -> None:
        batches.append(items)
        started.set()
        go_on.wait(PATIENCE_S)

    worker = LatestFrameWorker("ab", process, lambda source, item: None)
    worker.submit("a", 1)
    assert started.wait(PATIENCE_S)
    for source, item in (("a", 2), ("b", 3), ("a", 4)):
        worker.submit(source, item)
    go_on.set()
    wait_until(lambda: len(batches) == 2, "a second batch")
    assert batches == [{"a": 1}, {"a": 4, "b": 3}]
    assert worker.stop(PATIENCE_S)


def test_whatever_the_work_raises_the_thread_lives_and_says_so() -> None:
    done: list[int] = []

    def process(items: dict[str, int]) -> None:
        if items["a"] < 0:
            raise RuntimeError("CUDA error:\nlaunch failed")
        done.append(items["a"])

    def ready_in(source: str, item: int) -> float:
        if item == 2:
            raise KeyError("stamp")
        return 0.0

    worker = LatestFrameWorker("a", process, lambda *_: None, ready_in)
    worker.submit("a", -1)
    wait_until(lambda: worker.fault, "the fault is kept")
    assert worker.fault == "RuntimeError: CUDA error: launch failed"
    worker.submit("a", 2)
    wait_until(lambda: done == [2], "the next one is processed")
    wait_until(lambda: worker.fault == "", "and clears the fault")
    assert worker.stop(PATIENCE_S)


def test_how_long_the_work_takes_can_be_seen_from_outside() -> None:
    go_on = threading.Event()
    worker = LatestFrameWorker("a", lambda items: go_on.wait(PATIENCE_S) and None, lambda *_: None)
    assert worker.busy_s == 0.0
    worker.submit("a", 1)
    wait_until(lambda: worker.busy_s > 0.05, "it is busy")
    go_on.set()
    wait_until(lambda: worker.busy_s == 0.0, "it is done")
    assert worker.stop(PATIENCE_S)


class Patience:
    """Items that become ready when the test says so."""

    def __init__(self) -> None:
        self.done: list[dict[str, int]] = []
        self.dropped: list[int] = []
        self.ready: set[int] = set()
        self.looked_at: set[int] = set()
        self.worker = LatestFrameWorker(
            "ab",
            self.done.append,
            lambda source, item: self.dropped.append(item),
            self.ready_in,
        )

    def ready_in(self, source: str, item: int) -> float:
        self.looked_at.add(item)
        return 0.0 if item in self.ready else 600.0

    def submit(self, source: str, item: int) -> None:
        """Returns when the worker waits for the item."""
        self.worker.submit(source, item)
        wait_until(lambda: item in self.looked_at, f"the worker looks at {item}")

    def let(self, *items: int) -> None:
        self.ready.update(items)
        self.worker.wake()


def test_a_source_that_is_not_ready_holds_up_nobody() -> None:
    patience = Patience()
    patience.ready.add(2)
    patience.worker.submit("a", 1)
    patience.worker.submit("b", 2)
    wait_until(lambda: patience.done == [{"b": 2}], "b is done")
    patience.let(1)
    wait_until(lambda: patience.done == [{"b": 2}, {"a": 1}], "a is done")
    assert patience.worker.stop(PATIENCE_S)


def test_an_item_that_waits_for_its_companions_is_not_overtaken_by_one_that_waits_too() -> None:
    """Else a sensor later than the next image would keep every image from its turn."""
    patience = Patience()
    for item in (1, 2, 3):
        patience.submit("a", item)
    assert patience.dropped == [2]
    patience.let(1)
    wait_until(lambda: patience.done == [{"a": 1}], "the first is done")
    patience.let(3)
    wait_until(lambda: patience.done == [{"a": 1}, {"a": 3}], "the newest is done")
    # But a newer one that is ready goes before one that is not.
    patience.submit("a", 4)
    patience.ready.add(5)
    patience.worker.submit("a", 5)
    wait_until(lambda: patience.done[-1] == {"a": 5}, "the ready one is done")
    assert patience.dropped == [2, 4]
    assert patience.worker.stop(PATIENCE_S)


def test_an_item_is_processed_when_its_time_to_wait_is_over() -> None:
    deadline = time.monotonic() + 0.1
    done: list[dict[str, int]] = []
    worker = LatestFrameWorker(
        "a", done.append, lambda *_: None, lambda source, item: deadline - time.monotonic()
    )
    worker.submit("a", 1)
    wait_until(lambda: done == [{"a": 1}], "nobody woke the worker")
    assert time.monotonic() >= deadline
    assert worker.stop(PATIENCE_S)


def test_clearing_drops_all_that_waits() -> None:
    patience = Patience()
    patience.submit("a", 1)
    patience.worker.submit("a", 2)
    patience.worker.submit("b", 3)
    patience.worker.clear()
    assert sorted(patience.dropped) == [1, 2, 3]
    assert patience.worker.stop(PATIENCE_S)
    assert patience.done == []


def test_the_nearest_message_of_each_sensor_belongs_to_an_image() -> None:
    inputs = InputBuffer()
    inputs.store_camera_info(at(0.0, CameraInfo))
    for seconds in (9.9, 10.02, 10.2):
        inputs.store_sensor("image", at(seconds))
    inputs.store_sensor("scan", at(9.0, LaserScan))
    found = inputs.match(at(10.0)).sensors
    assert set(found) == {"image", "scan"}
    assert stamp_ns(found["image"].header) == 10_020_000_000
    assert stamp_ns(found["scan"].header) == 9_000_000_000
    assert inputs.sensor_depth_seen
    inputs.clear()
    nothing = inputs.match(at(10.0))
    assert (nothing.camera_info, dict(nothing.sensors)) == (None, {})
    assert not inputs.sensor_depth_seen


def test_the_camera_info_of_the_same_stamp_is_taken_or_else_the_newest() -> None:
    inputs = InputBuffer()
    for seconds in (1.0, 2.0, 3.0):
        inputs.store_camera_info(at(seconds, CameraInfo))
    same = inputs.match(at(2.0)).camera_info
    assert stamp_ns(same.header) == 2_000_000_000
    newest = inputs.match(at(2.5)).camera_info
    assert stamp_ns(newest.header) == 3_000_000_000


def test_after_a_jump_back_in_time_sensors_are_of_the_new_time_and_awaited() -> None:
    inputs = InputBuffer()
    inputs.store_camera_info(at(99.0, CameraInfo))
    for seconds in (98.8, 99.0):
        inputs.store_sensor("image", at(seconds))
        inputs.store_sensor("scan", at(seconds, LaserScan))
    assert inputs.note_image(at(99.0).header) == 0
    # A little back is a camera's disorder, not another pass of the bag.
    assert inputs.note_image(at(98.9).header) == 0
    inputs.store_sensor("image", at(5.1))  # the new pass may be heard before its first image
    assert inputs.note_image(at(5.0).header) == pytest.approx(93.9)
    found = inputs.match(at(5.0))
    assert stamp_ns(found.sensors["image"].header) == 5_100_000_000
    assert set(found.sensors) == {"image"}
    assert found.camera_info is not None, "a calibration holds in any time"
    assert inputs.note_image(at(5.1).header) == 0
    # The scan has sent before, so it is waited for, though not for ever.
    assert not inputs.are_complete_for(at(5.0))
    assert inputs.are_complete_for(at(6.2))
    inputs.store_sensor("scan", at(5.0, LaserScan))
    assert inputs.are_complete_for(at(5.0))


def test_a_jump_back_in_time_does_not_make_a_sensor_unknown() -> None:
    inputs = InputBuffer()
    inputs.store_sensor("image", at(99.0))
    inputs.note_image(at(99.0).header)
    inputs.note_image(at(5.0).header)
    assert dict(inputs.match(at(5.0)).sensors) == {}
    assert inputs.sensor_depth_seen
    inputs.clear()
    assert not inputs.sensor_depth_seen
    assert inputs.note_image(at(1.0).header) == 0


def test_whoever_waits_is_told_of_every_message() -> None:
    told: list[int] = []
    inputs = InputBuffer(lambda: told.append(1))
    inputs.store_camera_info(at(1.0, CameraInfo))
    inputs.store_sensor("points", at(1.0, PointCloud2))
    assert len(told) == 2


@pytest.mark.parametrize(
    ("stamps", "image", "complete", "why"),
    [
        ([1.0, 1.1, 1.2, 1.3], 1.3, True, "of the same stamp"),
        ([1.0, 1.1, 1.2, 1.3], 1.33, True, "the next one is farther"),
        ([1.0, 1.1, 1.2, 1.3], 1.37, False, "the next one is nearer"),
        ([1.3], 1.33, False, "its period is not known yet"),
        ([1.0, 1.1, 1.2, 1.3], 2.5, True, "gone"),
        ([1.4], 1.3, True, "it is ahead of the image"),
        ([], 1.0, True, "there is no such sensor"),
    ],
)
def test_only_what_will_come_nearer_is_waited_for(
    stamps: list[float], image: float, complete: bool, why: str
) -> None:
    """A LiDAR at 10 Hz: its next sweep is worth a wait where it will be nearer than the last."""
    inputs = InputBuffer()
    inputs.store_camera_info(at(image, CameraInfo))
    for seconds in stamps:
        inputs.store_sensor("points", at(seconds, PointCloud2))
    assert inputs.are_complete_for(at(image)) == complete, why


def test_a_calibration_is_waited_for_once() -> None:
    inputs = InputBuffer()
    assert not inputs.are_complete_for(at(1.0)), "the first image waits for a calibration"
    inputs.match(at(1.0))  # in vain
    assert inputs.are_complete_for(at(1.1))
    inputs.clear()
    assert not inputs.are_complete_for(at(1.2)), "a new start, a new chance"


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


def test_a_compressed_sensor_topic_is_no_reason_to_change_the_camera_s_transport() -> None:
    sent = SimpleNamespace(topic_type="sensor_msgs/msg/CompressedImage")
    node: Any = SimpleNamespace(get_publishers_info_by_topic=lambda topic: [sent])
    line = wrong_type(node, "/depth", Image)
    assert "image.transport" not in line
    assert "sensor depth is read uncompressed only" in line
    assert "image.transport to compressed" in wrong_type(node, "/color", Image, is_camera=True)


def test_a_rectified_camera_s_up_is_in_its_own_axes() -> None:
    """It is turned by 90 degrees about the viewing axis: what was up is to the right."""
    info = CameraInfo(width=64, height=48)
    info.k = [40.0, 0.0, 32.0, 0.0, 40.0, 24.0, 0.0, 0.0, 1.0]
    info.p = [40.0, 0.0, 32.0, 0.0, 0.0, 40.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    info.distortion_model, info.d = "plumb_bob", [0.0] * 5
    request = FrameRequest(
        np.zeros((48, 64, 3), np.uint8),
        0.0,
        intrinsics=CameraIntrinsics(64, 48, 40.0, 40.0, 32.0, 24.0),
        mounting=CameraMounting(0.5),
    )
    topics: Any = SimpleNamespace(image="/image", camera_info="/camera_info")
    turned = rectified_request(request, info, topics).mounting
    assert turned is not None
    assert turned.height_m == 0.5
    assert turned.up == pytest.approx((1.0, 0.0, 0.0))


def test_a_fault_is_over_when_nothing_is_asked_for_any_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stays while it is the newest that is known; idle frames cannot take it back."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    statistics = FrameStatistics()
    statistics.refused("damaged")
    now[0] += 60.0
    assert statistics.snapshot().fault == "damaged"
    statistics.refused("damaged")
    now[0] += 1.0
    statistics.idle()
    assert statistics.snapshot().fault == "damaged", "frames between two faults are idle, too"
    now[0] += 10.0
    statistics.idle()
    assert statistics.snapshot().fault == ""


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
    meanwhile = stage.frames  # of another thread, which is about to add to it
    stage.clear()
    assert stage.percentiles() == {}
    meanwhile[-1]["other"] = 7.0
    assert stage.percentiles() == {}
    assert median_and_p95([]) == pytest.approx((float("nan"),) * 2, nan_ok=True)


class Log:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)

    error = warning


def test_a_line_is_said_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("d3_ros.ros.node.diagnostics.throttled_logger.time", clock)
    log = Log()
    tell = ThrottledLogger(log, period_s=0.1)
    for _ in range(3):
        tell.warn("a")
        tell.error("b")
    assert log.lines == ["a", "b"]
    now += 0.12
    tell.warn("a")
    assert log.lines == ["a", "b", "a"]


def test_a_line_with_another_time_is_the_same_line() -> None:
    """tf tells the times that it knows."""
    log = Log()
    tell = ThrottledLogger(log)
    for count in range(3):
        tell.error(f"camera1: no transform at {1000 + count}.5: the latest is {999 + count}.25")
    tell.error("camera2: no transform at 1000.5: the latest is 999.25")
    assert [line[:7] for line in log.lines] == ["camera1", "camera2"]


def test_lines_that_differ_in_a_number_do_not_flood() -> None:
    log = Log()
    tell = ThrottledLogger(log, most=5)
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


def figures(
    snapshot: Snapshot, parameters: dict[str, object] | None = None, **rest: Any
) -> CameraFigures:
    return CameraFigures(
        snapshot, {}, settings_from(parameters or {}), sensor_depth_seen=False, **rest
    )


def test_a_frame_that_takes_too_long_is_told_before_anything_else() -> None:
    quiet = snapshot(since_input_s=7.0, published_hz=0.1)
    camera = figures(quiet, busy_s=31.0, busy_with="scale alignment")
    level, message = judge_frames(camera)
    assert level == ERROR
    assert message.startswith("a frame has been in work for 31 s, at 'scale alignment', above 30 s")
    assert "diagnostics.max_frame_time" in message
    assert judge_frames(figures(snapshot(), busy_s=29.0))[0] == OK


def test_why_there_is_no_image_is_told() -> None:
    camera = figures(snapshot(since_input_s=7.0), no_image_because="nobody publishes '/a'")
    assert judge_frames(camera) == (ERROR, "no image for 7 s: nobody publishes '/a'")


def test_an_exception_in_the_inference_thread_is_an_error() -> None:
    network = NetworkFigures("fp32", "", "RuntimeError: CUDA")
    report = active_report({"": figures(snapshot())}, network, enabled=True)
    assert report["network"][:2] == (
        ERROR,
        "unexpected in the inference thread: RuntimeError: CUDA",
    )


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, OK, "running"),
        ({"idle_lately": True, "published_hz": 0.0}, OK, "nobody subscribes"),
        ({"idle_lately": True, "published_hz": 0.2}, OK, "running"),  # a capped output
        ({"published_hz": 0.1}, WARN, "0.10 Hz is below 0.5 Hz"),
        ({"published_hz": 0.1, "observed_s": 1.0}, OK, "running"),
        ({"since_input_s": 7.0, "published_hz": 0.0}, ERROR, "no image for 7 s"),
        ({"fault": "the depth is not finite"}, ERROR, "not finite"),
    ],
)
def test_the_flow_of_frames_is_judged(changes: dict, level: bytes, words: str) -> None:
    judged, message = judge_frames(figures(snapshot(**changes)))
    assert judged == level
    assert words in message


@pytest.mark.parametrize(
    ("fit", "seen", "level", "words"),
    [
        (None, False, OK, "no frame yet"),
        (DepthFit(ok=True, state="measured", scale=1.0, shift=0.0), True, OK, "by points and scan"),
        (
            DepthFit(ok=True, state="measured", reason="one depth"),
            True,
            OK,
            "scan; one depth",
        ),
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
    judged, message = judge_scale(report, NodeSettings(), sensor_depth_seen=seen)
    assert judged == level
    assert words in message


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            ScaleReport(DepthFit(ok=True, state="measured", held_out_abs_rel=0.3)),
            "AbsRel 0.30 on held-out points is above 0.2",
        ),
        (
            ScaleReport(DepthFit(ok=True, state="measured"), normal_angle=1.2),
            "depth and normals differ by 1.20 rad",
        ),
    ],
)
def test_a_scale_that_fits_badly_is_warned_of(report: ScaleReport, words: str) -> None:
    settings = settings_from({"diagnostics.max_abs_rel": 0.2})
    level, message = judge_scale(report, settings, sensor_depth_seen=True)
    assert level == WARN
    assert words in message


def test_old_output_is_warned_of_where_a_limit_is_set() -> None:
    old = snapshot(age_ms=(100.0, 900.0))
    assert judge_frames(figures(old)) == (OK, "running")
    level, message = judge_frames(figures(old, {"diagnostics.max_age": 0.5}))
    assert (level, message[:27]) == (WARN, "output is 0.90 s old (p95),")


def test_a_paused_node_is_not_a_faulty_one() -> None:
    quiet = snapshot(since_input_s=7.0, published_hz=0.0)
    assert judge_frames(figures(quiet), enabled=False)[0] == OK


def test_a_report_of_several_cameras_names_them() -> None:
    one = figures(snapshot())
    network = NetworkFigures("fp16, 512x512 pixels", "")
    report = active_report({"front": one, "rear": one}, network, enabled=True)
    assert list(report) == ["front frames", "front scale", "rear frames", "rear scale", "network"]
    assert list(active_report({"": one}, network, enabled=True)) == [
        "frames",
        "scale",
        "network",
    ]
    stepped = active_report({"": one}, NetworkFigures("bf16", "out of memory"), enabled=True)
    assert stepped["network"][:2] == (WARN, "out of memory")


def test_the_scale_is_told_in_figures() -> None:
    errors = {"abs_rel": 0.0456, "held_out_abs_rel": 0.0123}
    fit = DepthFit(ok=True, state="measured", scale=4.0, shift=0.5, points=77, **errors)
    report = ScaleReport(fit, {"image": 70, "scan": 9}, fused_pixels=60, disagreeing_pixels=3)
    values = {entry.key: entry.value for entry in scale_values(report, hold_s=2.0)}
    assert values["scale (m)"] == "4.0000"
    assert values["AbsRel on held-out points"] == "0.0123"
    assert values["AbsRel expected of the image"] == "0.0456"
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
    environment = dict(os.environ)
    out = tmp_path / "bench.json"
    run = ["bench", "--ros", "--size", "64x48", "--seconds", "2", "--rate", "10", "--cameras", "1"]
    assert main([*run, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    for name in ("node", "node_points_with_normals", "node_normals_from_depth"):
        assert report[name]["published"] > 0
        assert report[name]["node_thread_ms"]["all"]["p50"] > 0
        assert {"decode", "sensor depth", "publish ~/points"} <= set(report[name]["stages_ms"])
        assert report[name]["subscriber"]["received"]["~/points"] > 0
    assert "node's thread, without the scale" in capsys.readouterr().out
    assert dict(os.environ) == environment


def test_an_overloaded_node_counts_every_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from d3_ros.__main__ import main

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    out = tmp_path / "bench.json"
    run = ["bench", "--ros", "--size", "64x48", "--seconds", "3", "--rate", "60"]
    assert main([*run, "--overload", "0.2", "--json", str(out)]) == 0
    report = json.loads(out.read_text())["overload"]
    fates = [report[name] for name in ("published", "dropped", "refused", "idle")]
    assert report["received"] == sum(fates)
    assert report["dropped"] > report["published"] > 3
    assert report["memory_mib"]["late"] > 0
    assert "age of the output at the subscriber" in capsys.readouterr().out

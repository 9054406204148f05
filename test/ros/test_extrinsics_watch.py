"""The node watches extrinsics: a wrong LiDAR is told, a right one and a still robot are not."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from helpers.room_lidar import CAMERA, T_CAMERA_LIDAR, RoomFrame, room_frames

from d3_ros.geometry.extrinsics.edge_match import small_motion
from d3_ros.ros.node.diagnostics import extrinsics_watch
from d3_ros.ros.node.diagnostics.diagnostics import WARN, judge_scale
from d3_ros.ros.node.diagnostics.extrinsics_watch import ExtrinsicsWatch, PlacedCloud
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.types import DepthFit

TOPICS = {"points": "/lidar"}
TURNED = small_motion(np.array([0, np.radians(2.0), 0, 0, 0, 0])) @ T_CAMERA_LIDAR


class Log:
    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, line: str) -> None:
        self.errors.append(line)


@pytest.fixture(scope="module")
def frames() -> list[RoomFrame]:
    return list(room_frames(extrinsics_watch.FRAMES + extrinsics_watch.NEW_FRAMES))


def watched(
    frames: list[RoomFrame],
    placed: np.ndarray,
    period_s: float = 0.0,
) -> tuple[ExtrinsicsWatch, Log]:
    """A watch that was offered all frames, and whose looks have ended."""
    log = Log()
    watch = ExtrinsicsWatch(TOPICS, log, period_s)  # type: ignore[arg-type]
    for frame in frames:
        watch.offer(frame.rgb, CAMERA, {"points": PlacedCloud(frame.points, placed)})
        for thread in threading.enumerate():
            if thread.name == "extrinsics":
                thread.join()
    return watch, log


def test_a_turned_lidar_is_told(frames: list[RoomFrame]) -> None:
    """Not at the first verdict, but when the next one agrees; a reset forgets."""
    watch, log = watched(frames[: extrinsics_watch.FRAMES], TURNED)
    assert watch.line == ""
    watch, log = watched(frames, TURNED)
    assert watch.line.startswith("extrinsics of '/lidar' seem off by about "), log.errors
    assert "turned to the right" in watch.line
    assert "check-calibration" in watch.line
    watch.reset()
    assert watch.line == ""
    assert not log.errors


def test_a_right_lidar_and_a_still_robot_are_not(frames: list[RoomFrame]) -> None:
    """The same picture over and over is one frame, however wrong it looks."""
    assert watched(frames, T_CAMERA_LIDAR)[0].line == ""
    assert watched(frames[:1] * 60, TURNED)[0].line == ""


def test_the_diagnostics_warn() -> None:
    fit = DepthFit(ok=True, state="measured", abs_rel=0.01)
    report = ScaleReport(fit, {"points": 100})
    fault = "extrinsics of '/lidar' seem off by about 2.0 degrees (turned up); run …"
    judged = judge_scale(report, NodeSettings(), sensor_depth_seen=True, extrinsics_fault=fault)
    assert judged == (WARN, f"measured by points, but {fault}")


def test_a_look_is_rare(monkeypatch: pytest.MonkeyPatch, frames: list[RoomFrame]) -> None:
    """However fast the camera is, frames between two looks cost nothing."""
    looks = []
    monkeypatch.setattr(ExtrinsicsWatch, "_judge", lambda *_: looks.append(1))
    watched(frames, T_CAMERA_LIDAR, period_s=3600.0)
    assert len(looks) == 1


def test_a_fault_of_the_watch_is_logged(
    monkeypatch: pytest.MonkeyPatch, frames: list[RoomFrame]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(extrinsics_watch, "match_edges", fail)
    _, log = watched(frames[:1], T_CAMERA_LIDAR)
    assert log.errors == ["the check of the extrinsics failed: broken"]

"""Figures to diagnostic_msgs: what is judged OK, WARN and ERROR, and in which words."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from d3_ros.ros.qos import LATCHED
from d3_ros.ros.scale_report import ScaleReport
from d3_ros.ros.settings import NodeSettings
from d3_ros.ros.statistics import RATE_WINDOW_S, Snapshot

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
PERIOD_S = 1.0


def judge_frames(snapshot: Snapshot, settings: NodeSettings) -> tuple[bytes, str]:
    """Level and message of the flow of frames in an active node."""
    if snapshot.since_input_s > settings.diagnostics.input_timeout:
        return ERROR, f"no image for {snapshot.since_input_s:.0f} s"
    if snapshot.fault:
        return ERROR, snapshot.fault
    busy = snapshot.published > 0 and snapshot.observed_s > RATE_WINDOW_S
    if busy and not snapshot.idle_lately and snapshot.published_hz < settings.diagnostics.min_rate:
        return WARN, (
            f"{snapshot.published_hz:.2f} Hz is below {settings.diagnostics.min_rate:g} Hz "
            "(parameter diagnostics.min_rate)"
        )
    return OK, "nobody subscribes" if snapshot.idle_lately else "running"


def judge_scale(
    report: ScaleReport | None, *, sensor_depth_seen: bool, hold_s: float
) -> tuple[bytes, str]:
    """Level and message of the metric scale in an active node.

    A robot without sensor depth is a use, not a fault; sensor depth that gives no scale is one.
    """
    if report is None:
        return OK, "no frame yet"
    fit = report.fit
    if fit.state == "held":
        expires = f"expires in {report.expires_s(hold_s):.1f} s"
        return WARN, f"scale held for {fit.age_s:.1f} s, {expires}: {fit.reason}"
    if fit.state == "relative":
        level = WARN if sensor_depth_seen else OK
        return level, f"no metric scale, metric topics are silent: {fit.reason}"
    if fit.state == "ground":
        level = WARN if sensor_depth_seen else OK
        return level, f"scale from the floor: {fit.reason}"
    return OK, f"measured by {' and '.join(report.sensors)}"


def frame_values(snapshot: Snapshot, stages: Mapping[str, tuple[float, float]]) -> list[KeyValue]:
    """The figures of the flow of frames, units in the keys."""
    rows: dict[str, object] = {
        "input rate (Hz)": f"{snapshot.input_hz:.2f}",
        "published rate (Hz)": f"{snapshot.published_hz:.2f}",
        "latency from reception p50 (ms)": f"{snapshot.latency_ms[0]:.1f}",
        "latency from reception p95 (ms)": f"{snapshot.latency_ms[1]:.1f}",
        "latency from stamp p50 (ms)": f"{snapshot.age_ms[0]:.1f}",
        "latency from stamp p95 (ms)": f"{snapshot.age_ms[1]:.1f}",
        "received (frames)": snapshot.received,
        "published (frames)": snapshot.published,
        "dropped, overtaken by a newer one (frames)": snapshot.dropped,
        "refused (frames)": snapshot.refused,
        "idle, nobody subscribed (frames)": snapshot.idle,
    }
    rows.update({f"{name} p50 (ms)": f"{p50:.2f}" for name, (p50, _) in stages.items()})
    return _key_values(rows)


def scale_values(report: ScaleReport | None, hold_s: float) -> list[KeyValue]:
    """The figures of the metric scale, units in the keys."""
    if report is None:
        return []
    fit = report.fit
    return _key_values(
        {
            "state": fit.state,
            "scale (m)": f"{fit.scale:.4f}",
            "shift (m)": f"{fit.shift:.4f}",
            "sensors (pixels)": ", ".join(f"{s} {n}" for s, n in report.sensors.items()) or "none",
            "sensor points": fit.points,
            "inlier ratio": f"{fit.inlier_ratio:.3f}",
            "AbsRel on held-out points": f"{fit.abs_rel:.4f}",
            "age (s)": f"{fit.age_s:.2f}",
            "expires in (s)": f"{report.expires_s(hold_s):.2f}",
            "fused (pixels)": report.fused_pixels,
            "measured but disagreeing (pixels)": report.disagreeing_pixels,
        }
    )


def _key_values(rows: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=str(value)) for key, value in rows.items()]


Report = Mapping[str, tuple[bytes, str, list[KeyValue]]]


def plain_report(level: bytes, message: str) -> Report:
    """The report of a node that is not active."""
    return {"frames": (level, message, [])}


def active_report(
    snapshot: Snapshot,
    settings: NodeSettings,
    stages: Mapping[str, tuple[float, float]],
    *,
    sensor_depth_seen: bool,
) -> Report:
    """Task -> (level, message, values) of an active node."""
    report, hold_s = snapshot.scale, settings.scale.hold_s
    return {
        "frames": (*judge_frames(snapshot, settings), frame_values(snapshot, stages)),
        "scale": (
            *judge_scale(report, sensor_depth_seen=sensor_depth_seen, hold_s=hold_s),
            scale_values(report, hold_s),
        ),
    }


class DiagnosticsPublisher:
    """Publishes /diagnostics, and `~/status`, latched, when it changes.

    In every lifecycle state: that a node failed to configure is what one looks there for.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._array = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self._status = node.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._last: tuple[bytes, str] | None = None

    def publish(self, report: Report, hardware_id: str) -> None:
        """Publish a report task by task, and all of it in one as `~/status`."""
        name = self._node.get_fully_qualified_name().lstrip("/")
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [
            DiagnosticStatus(
                level=level,
                name=f"{name}: {task}",
                message=message,
                hardware_id=hardware_id,
                values=values,
            )
            for task, (level, message, values) in report.items()
        ]
        self._array.publish(array)
        level = max(status.level for status in array.status)
        message = "; ".join(status.message for status in array.status)
        if self._last != (level, message):
            self._last = (level, message)
            values = [value for status in array.status for value in status.values]
            self._status.publish(
                DiagnosticStatus(
                    level=level, name=name, message=message, hardware_id=hardware_id, values=values
                )
            )

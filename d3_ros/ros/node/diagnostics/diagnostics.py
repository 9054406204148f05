"""Turns figures into diagnostics: which level, and in which words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from d3_ros.ros.node.diagnostics.scale_report import ScaleReport
from d3_ros.ros.node.diagnostics.statistics import RATE_WINDOW_S, Snapshot
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.ros.qos import LATCHED

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
PERIOD_S = 1.0
TASKS_OF_ONE_CAMERA = 3  # frames, scale, network


@dataclass(frozen=True)
class CameraFigures:
    """One camera's figures.

    `stages`: (p50, p95) in ms of each stage of the work. `no_image_because`: why no image comes, in
    one line. `extrinsics_fault`: which sensor's place seems wrong, in one line; else empty.
    `busy_s`: how long the inference thread has been working on the present frames, and
    `busy_with`: at which stage of this camera's.
    """

    snapshot: Snapshot
    stages: Mapping[str, tuple[float, float]]
    settings: NodeSettings
    sensor_depth_seen: bool
    no_image_because: str = ""
    extrinsics_fault: str = ""
    busy_s: float = 0.0
    busy_with: str = ""


@dataclass(frozen=True)
class NetworkFigures:
    """How the network runs.

    `step`: precision and processing size, in words. `reason`: why these are not what the parameters
    ask for; empty where they are. `fault`: an unexpected exception in the inference thread; empty
    without.
    """

    step: str
    reason: str
    fault: str = ""


def judge_frames(camera: CameraFigures, *, enabled: bool = True) -> tuple[bytes, str]:
    """Level and message of the flow of frames in an active node."""
    snapshot, settings = camera.snapshot, camera.settings
    if not enabled:
        return OK, "paused (service ~/enable)"
    longest_s = settings.diagnostics.max_frame_time
    if camera.busy_s > longest_s:
        stage = camera.busy_with or "network"
        return ERROR, (
            f"a frame has been in work for {camera.busy_s:.0f} s, at '{stage}', above "
            f"{longest_s:g} s (parameter diagnostics.max_frame_time): no other frame is processed "
            "meanwhile"
        )
    if snapshot.since_input_s > settings.diagnostics.input_timeout:
        why = camera.no_image_because and f": {camera.no_image_because}"
        return ERROR, f"no image for {snapshot.since_input_s:.0f} s{why}"
    if snapshot.fault:
        return ERROR, snapshot.fault
    busy = snapshot.published > 0 and snapshot.observed_s > RATE_WINDOW_S
    if busy and not snapshot.idle_lately and snapshot.published_hz < settings.diagnostics.min_rate:
        return WARN, (
            f"{snapshot.published_hz:.2f} Hz is below {settings.diagnostics.min_rate:g} Hz "
            "(parameter diagnostics.min_rate)"
        )
    age_s, oldest_s = snapshot.age_ms[1] * 1e-3, settings.diagnostics.max_age
    if 0 < oldest_s < age_s:
        return WARN, (
            f"output is {age_s:.2f} s old (p95), above {oldest_s:g} s (parameter "
            "diagnostics.max_age)"
        )
    # Frames also count as idle where all subscribed outputs have a lower max_rate.
    idle = snapshot.idle_lately and snapshot.published_hz == 0
    return OK, "nobody subscribes" if idle else "running"


def judge_scale(
    report: ScaleReport | None,
    settings: NodeSettings,
    *,
    sensor_depth_seen: bool,
    extrinsics_fault: str = "",
) -> tuple[bytes, str]:
    """Level and message of the metric scale in an active node.

    A robot may have no sensor depth: that is OK. Sensor depth that gives no scale is a warning.
    """
    if report is None:
        return OK, "no frame yet"
    fit = report.fit
    if fit.state == "held":
        expires = f"expires in {report.expires_s(settings.scale.hold_s):.1f} s"
        return WARN, f"scale held for {fit.age_s:.1f} s, {expires}: {fit.reason}"
    if fit.state == "relative":
        level = WARN if sensor_depth_seen else OK
        return level, f"no metric scale, metric topics are silent: {fit.reason}"
    if fit.state == "ground":
        level = WARN if sensor_depth_seen else OK
        return level, f"scale from the floor: {fit.reason}"
    sensors = " and ".join(report.sensors)
    measured = "; ".join(filter(None, [f"measured by {sensors}", fit.reason]))
    if extrinsics_fault:
        return WARN, f"{measured}, but {extrinsics_fault}"
    if fit.held_out_abs_rel > settings.diagnostics.max_abs_rel:
        return WARN, (
            f"{measured}, but AbsRel {fit.held_out_abs_rel:.2f} on held-out points is above "
            f"{settings.diagnostics.max_abs_rel:g} (parameter diagnostics.max_abs_rel): are the "
            "sensor's calibration and time right?"
        )
    if report.normal_angle > settings.diagnostics.max_normal_angle:
        return WARN, (
            f"{measured}, but depth and normals differ by {report.normal_angle:.2f} rad "
            "(parameter diagnostics.max_normal_angle)"
        )
    return OK, measured


def judge_network(network: NetworkFigures) -> tuple[bytes, str]:
    """Level and message of the network."""
    if network.fault:
        return ERROR, f"unexpected in the inference thread: {network.fault}"
    return (WARN, network.reason) if network.reason else (OK, network.step)


def frame_values(snapshot: Snapshot, stages: Mapping[str, tuple[float, float]]) -> list[KeyValue]:
    """The figures about frames; units are in the keys."""
    rows: dict[str, object] = {
        "input rate (Hz)": f"{snapshot.input_hz:.2f}",
        "published rate (Hz)": f"{snapshot.published_hz:.2f}",
        "latency from reception p50 (ms)": f"{snapshot.latency_ms[0]:.1f}",
        "latency from reception p95 (ms)": f"{snapshot.latency_ms[1]:.1f}",
        "latency from stamp p50 (ms)": f"{snapshot.age_ms[0]:.1f}",
        "latency from stamp p95 (ms)": f"{snapshot.age_ms[1]:.1f}",
        "received (frames)": snapshot.received,
        "published (frames)": snapshot.published,
        "dropped, replaced by a newer one (frames)": snapshot.dropped,
        "refused (frames)": snapshot.refused,
        "idle, nobody subscribed (frames)": snapshot.idle,
    }
    rows.update({f"{name} p50 (ms)": f"{p50:.2f}" for name, (p50, _) in stages.items()})
    return _key_values(rows)


def scale_values(report: ScaleReport | None, hold_s: float) -> list[KeyValue]:
    """The figures about the metric scale; units are in the keys."""
    if report is None:
        return []
    fit = report.fit
    return _key_values(
        {
            "state": fit.state,
            "reason": fit.reason or "none",
            "scale (m)": f"{fit.scale:.4f}",
            "shift (m)": f"{fit.shift:.4f}",
            "sensors (pixels)": ", ".join(f"{s} {n}" for s, n in report.sensors.items()) or "none",
            "sensor points": fit.points,
            "inlier ratio": f"{fit.inlier_ratio:.3f}",
            "AbsRel on held-out points": f"{fit.held_out_abs_rel:.4f}",
            "AbsRel expected of the image": f"{fit.abs_rel:.4f}",
            "depth to normals, median (rad)": f"{report.normal_angle:.3f}",
            "age (s)": f"{fit.age_s:.2f}",
            "expires in (s)": f"{report.expires_s(hold_s):.2f}",
            "fused (pixels)": report.fused_pixels,
            "measured but disagreeing (pixels)": report.disagreeing_pixels,
        }
    )


def network_values(network: NetworkFigures) -> list[KeyValue]:
    """The figures about the network; units are in the keys."""
    rows: dict[str, object] = {"runs at": network.step}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        rows["GPU memory in use (MiB)"] = torch.cuda.memory_allocated() // 2**20
        rows["GPU memory reserved (MiB)"] = torch.cuda.memory_reserved() // 2**20
    return _key_values(rows)


def _key_values(rows: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=str(value)) for key, value in rows.items()]


Report = Mapping[str, tuple[bytes, str, list[KeyValue]]]


def plain_report(level: bytes, message: str) -> Report:
    """The report of a node that is not active."""
    return {"frames": (level, message, [])}


def active_report(
    cameras: Mapping[str, CameraFigures], network: NetworkFigures, *, enabled: bool
) -> Report:
    """Task -> (level, message, values) of an active node."""
    report: dict[str, tuple[bytes, str, list[KeyValue]]] = {}
    for name, camera in cameras.items():
        snapshot, settings = camera.snapshot, camera.settings
        report[f"{name} frames".lstrip()] = (
            *judge_frames(camera, enabled=enabled),
            frame_values(snapshot, camera.stages),
        )
        report[f"{name} scale".lstrip()] = (
            *judge_scale(
                snapshot.scale,
                settings,
                sensor_depth_seen=camera.sensor_depth_seen,
                extrinsics_fault=camera.extrinsics_fault,
            ),
            scale_values(snapshot.scale, settings.scale.hold_s),
        )
    report["network"] = (*judge_network(network), network_values(network))
    return report


def with_node_faults(report: Report, faults: Sequence[str]) -> Report:
    """The report with a task for what is wrong with the node as a whole, where anything is."""
    return {**report, "node": (ERROR, "; ".join(faults), [])} if faults else report


class DiagnosticsPublisher:
    """Publishes /diagnostics, and the same in one status as `~/status`, latched.

    In every lifecycle state, so that a failed configure is seen there, too.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._array = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self._status = node.create_publisher(DiagnosticStatus, "~/status", LATCHED)

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
        messages = {task: message for task, (_, message, _) in report.items()}
        if len(messages) > TASKS_OF_ONE_CAMERA:
            messages = {task: f"{task}: {message}" for task, message in messages.items()}
        message = "; ".join(messages.values())
        values = [value for status in array.status for value in status.values]
        self._status.publish(
            DiagnosticStatus(
                level=level, name=name, message=message, hardware_id=hardware_id, values=values
            )
        )

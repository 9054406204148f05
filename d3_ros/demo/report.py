"""From a recording to something to look at: pictures, cloud.ply, report.json and a table."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import d3_ros
from d3_ros.data.played_frame import FrameSource, PlayedFrame
from d3_ros.demo.page import Figure, write_page
from d3_ros.demo.pictures import Cloud, frame_pictures
from d3_ros.demo.recording import (
    METRIC,
    NORMALS,
    POINTS,
    RELATIVE,
    Recording,
    Sent,
    evenly,
)
from d3_ros.demo.score import DepthScore, Traffic, scale_states, score_depth, traffic
from d3_ros.geometry.point_cloud import ply_file
from d3_ros.imaging.drawing import save_picture, strip
from d3_ros.imaging.image_file import encode_jpeg, write_whole

CAPTIONS = {
    "colour": "camera, dots: depth given",
    "depth": "depth",
    "measured": "measured",
    "normals": "normals",
    "cloud_above": "cloud from above",
    "cloud_oblique": "cloud, oblique",
}


@dataclass(frozen=True)
class RunInfo:
    """What only the one who started the processes knows."""

    model: str
    device: str
    rate: str
    log_file: str


def write_report(
    output: Path, recording: Recording, source: FrameSource, info: RunInfo, *, pictures: int
) -> dict[str, Any]:
    """Write everything of one run into `output` and return the content of report.json.

    Args:
        output: an existing folder.
        recording: what the player and the recorder left.
        source: the frames that were played; read once more for colour and truth.
        info: what was asked for.
        pictures: of how many frames to make pictures.

    Raises:
        DataError: the source can no longer be read, or the folder not written to.
    """
    sent_rows, received, reported = recording.sent(), recording.received(), recording.reported()
    numbers = traffic(sent_rows, received)
    states = scale_states(sent_rows, received, reported)
    latency = {row.stamp_ns: row.latency_ms for row in received if row.topic == numbers.depth_topic}
    kept: dict[int, int] = {}  # a frame that was played several times is shown once
    for row in numbers.answered:
        if recording.array_path(row.stamp_ns, RELATIVE).is_file():
            kept.setdefault(row.index, row.stamp_ns)
    shown = sorted(evenly(list(kept.values()), pictures))
    by_index: dict[int, list[Sent]] = {}
    for row in numbers.answered:
        by_index.setdefault(row.index, []).append(row)

    rows: list[dict[str, Any]] = []
    figures: list[Figure] = []
    held_out = 0
    cloud_stamp = _last_with_cloud(recording, shown)
    for frame in source:
        held_out += int(frame.truth is not None and np.isfinite(frame.truth).any())
        for sent in by_index.get(frame.index, []):
            score = _score(recording, sent.stamp_ns, frame)
            rows.append(_row(frame, sent.stamp_ns, latency, states, score))
            if sent.stamp_ns in shown:
                cloud = read_cloud(recording, sent.stamp_ns)
                stem = output / f"frame_{shown.index(sent.stamp_ns) + 1}"
                figures.append(_figure(stem, recording, frame, rows[-1], cloud))
                if cloud is not None and sent.stamp_ns == cloud_stamp:
                    content = ply_file(cloud.xyz, cloud.rgb, cloud.normals)
                    write_whole(output / "cloud.ply", content)
    rows.sort(key=lambda row: row["stamp_ns"])
    figures.sort(key=lambda figure: figure.stamp_ns)

    diagnostics: dict[str, Any] = next(
        (row.values for row in reversed(reported) if row.topic == "/diagnostics"), {}
    )
    note = _note(numbers, rows, diagnostics, has_truth=held_out > 0)
    report = _summary(numbers, rows, source, info, note)
    report["diagnostics"] = diagnostics
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (output / "report.json").write_text(text + "\n", encoding="utf-8")
    write_page(output / "index.html", report, figures)
    return report


def read_cloud(recording: Recording, stamp_ns: int) -> Cloud | None:
    """The points of a kept frame, from the recorder's (N, 6 or 9) float32 rows."""
    rows = recording.load_array(stamp_ns, POINTS)
    if rows is None:
        return None
    rows = rows[np.isfinite(rows[:, :3]).all(axis=1)]
    normals = rows[:, 6:9] if rows.shape[1] == 9 else None
    return Cloud(rows[:, :3], rows[:, 3:6].astype(np.uint8), normals)


def table(report: dict[str, Any]) -> str:
    """The summary for the terminal, a line a number."""
    latency = report["latency_ms"]
    lines = [
        ("frames", f"{report['frames']} of {report['sent']} sent, {report['dropped']} dropped"),
        ("model", f"{report['model']} on {report['device']} ({report['hardware']})"),
        ("rate", _text(report["depth_hz"], "{:.2f} Hz") + f" on ~/{report['depth_topic']}"),
        (
            "latency",
            "none" if latency is None else "{p50:.0f} ms p50, {p95:.0f} ms p95".format(**latency),
        ),
        ("scale", ", ".join(f"{k} {n}" for k, n in report["scale_states"].items()) or "unknown"),
    ]
    if report["abs_rel"] is None:
        lines.append(("AbsRel", f"none: {report['abs_rel_note']}"))
    else:
        lines.append(("AbsRel", f"{report['abs_rel']:.4f} on {report['abs_rel_note']}"))
        lines.append(("delta1", f"{report['delta1']:.4f}"))
        lines.append(("coverage", f"{100 * report['coverage']:.1f} % of those pixels have depth"))
    return "\n".join(f"  {name:<10}{value}" for name, value in lines)


def _score(recording: Recording, stamp_ns: int, frame: PlayedFrame) -> DepthScore | None:
    metric = recording.load_array(stamp_ns, METRIC)
    if metric is None or frame.truth is None:
        return None
    return score_depth(metric, frame.truth)


def _row(
    frame: PlayedFrame,
    stamp_ns: int,
    latency: dict[int, float],
    states: dict[int, str],
    score: DepthScore | None,
) -> dict[str, Any]:
    """One frame of report.json."""
    return {
        "frame": frame.index,
        "name": frame.name,
        "stamp_ns": stamp_ns,
        "latency_ms": latency.get(stamp_ns),
        "scale_state": states.get(stamp_ns),
        "abs_rel": None if score is None else score.abs_rel,
        "delta1": None if score is None else score.delta1,
        "coverage": None if score is None else score.coverage,
        "pixels": 0 if score is None else score.pixels,
    }


def _figure(
    stem: Path, recording: Recording, frame: PlayedFrame, row: dict[str, Any], cloud: Cloud | None
) -> Figure:
    """Make the pictures of one frame and save them as STEM_NAME.png."""
    stamp_ns = row["stamp_ns"]
    made = frame_pictures(
        frame.rgb,
        sensor=frame.sensor,
        truth=frame.truth,
        relative=recording.load_array(stamp_ns, RELATIVE),
        metric=recording.load_array(stamp_ns, METRIC),
        normals=recording.load_array(stamp_ns, NORMALS),
        cloud=cloud,
    )
    captions = dict(CAPTIONS)
    if not recording.array_path(stamp_ns, METRIC).is_file():
        captions["depth"] = "relative depth, no scale"
    elif row["abs_rel"] is not None:
        captions["depth"] += f", AbsRel {row['abs_rel']:.3f}"
    for name, picture in {**made, "strip": strip(made, captions)}.items():
        save_picture(stem.with_name(f"{stem.name}_{name}.png"), picture)
    return Figure(
        stamp_ns=stamp_ns,
        title=f"frame {frame.index} ({frame.name})",
        pictures=[(captions[name], encode_jpeg(picture)) for name, picture in made.items()],
    )


def _last_with_cloud(recording: Recording, stamps: Sequence[int]) -> int | None:
    having = [stamp for stamp in stamps if recording.array_path(stamp, POINTS).is_file()]
    return having[-1] if having else None


def _summary(
    numbers: Traffic,
    rows: list[dict[str, Any]],
    source: FrameSource,
    info: RunInfo,
    note: str,
) -> dict[str, Any]:
    """The content of report.json."""
    scored = [row for row in rows if row["abs_rel"] is not None]

    def mean(key: str) -> float | None:
        return float(np.mean([row[key] for row in scored])) if scored else None

    return {
        "frames": len(numbers.answered),
        "sent": numbers.sent,
        "dropped": numbers.dropped,
        "model": info.model,
        "device": info.device,
        "source": source.title,
        "warnings": list(source.warnings),
        "rate": info.rate,
        "depth_topic": numbers.depth_topic,
        "depth_hz": numbers.depth_hz,
        "latency_ms": numbers.latency_ms,
        "abs_rel": mean("abs_rel"),
        "delta1": mean("delta1"),
        "coverage": mean("coverage"),
        "abs_rel_note": note,
        "scale_states": dict(Counter(row["scale_state"] for row in rows if row["scale_state"])),
        "topics": numbers.topics,
        "hardware": hardware(),
        "versions": versions(),
        "log": info.log_file,
        "per_frame": rows,
    }


def _note(
    numbers: Traffic,
    rows: list[dict[str, Any]],
    diagnostics: dict[str, Any],
    *,
    has_truth: bool,
) -> str:
    """What the score was taken on, or why there is none."""
    pixels = [row["pixels"] for row in rows if row["pixels"]]
    if pixels:
        return f"{sum(pixels)} measured pixels of {len(pixels)} frames that the node was not given"
    if not has_truth:
        return "the input has no measured depth that was held back from the node"
    if METRIC not in numbers.topics:
        said = [values["message"] for task, values in diagnostics.items() if "scale" in task]
        return f"the node published no metric depth ({said[0] if said else 'no diagnostics came'})"
    return "no pixel has both metric depth and a measurement that was held back"


def _text(value: float | None, form: str) -> str:
    return "none" if value is None else form.format(value)


def hardware() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    """What this run was made with, as far as it can be known without importing it."""
    found = {
        "d3_ros": d3_ros.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "ros": os.environ.get("ROS_DISTRO", ""),
    }
    for package in ("torch", "diffusers", "ros-rclpy", "ros-jazzy-rclpy", "ros-kilted-rclpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {name: version for name, version in found.items() if version}

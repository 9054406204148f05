"""From a recording to its results: pictures, cloud.ply, report.json, index.html and a table."""

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
from d3_ros.demo.page import Figure, write_demo_page
from d3_ros.demo.recording import (
    METRIC,
    NORMALS,
    POINTS,
    RELATIVE,
    SIGMA,
    Recording,
    Sent,
    evenly,
)
from d3_ros.demo.score import (
    DepthScore,
    Traffic,
    published_states,
    scale_states,
    score_depth,
    score_points_alone,
    traffic,
)
from d3_ros.demo.verdict import played
from d3_ros.evaluation.output_folder import REPORT
from d3_ros.geometry.point_cloud import ply_file
from d3_ros.imaging.drawing import panels, save_picture
from d3_ros.imaging.frame_pictures import Cloud, frame_pictures
from d3_ros.imaging.image_file import encode_jpeg, write_whole

MADE_BY = "the d3_ros demo"
LOGS = ("node.log", "player.log", "recorder.log", "rviz2.log")
# On the page, but not in the strip, which has six panels.
EXPECTED_ERROR = "expected error of depth"
# The file of each picture, by its caption.
FILES = {
    "camera": "colour",
    "camera, dots: depth given": "colour",
    "depth": "depth",
    "relative depth, no scale": "depth",
    "measured depth": "measured",
    "error of depth": "error",
    EXPECTED_ERROR: "expected_error",
    "normals": "normals",
    "cloud from above": "cloud_above",
    "cloud, oblique": "cloud_oblique",
}
# Saved, but not shown in the strip and on the page, which has a cloud to turn.
NOT_SHOWN = "cloud from above"
# Interpolating the points of a frame takes a third of a second.
MOST_INTERPOLATED = 20


@dataclass(frozen=True)
class RunInfo:
    """What the user asked for, and where the node's log is."""

    model: str
    device: str
    rate: str
    log_file: str


def write_report(
    output: Path, recording: Recording, source: FrameSource, info: RunInfo, *, pictures: int
) -> dict[str, Any]:
    """Write everything of one run into `output` and return the content of report.json.

    Args:
        output: a folder that `claim_output` prepared for `output_files(pictures)`.
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
    shown = _frames_to_show(recording, numbers.answered, pictures)
    by_index: dict[int, list[Sent]] = {}
    for row in numbers.answered:
        by_index.setdefault(row.index, []).append(row)
    interpolated = set(evenly(sorted(by_index), MOST_INTERPOLATED))

    rows: list[dict[str, Any]] = []
    figures: list[Figure] = []
    shown_cloud: tuple[str, Cloud] | None = None
    held_out, given_points = 0, []
    for frame in source:
        held_out += int(frame.truth is not None and np.isfinite(frame.truth).any())
        if frame.sensor is not None:
            given_points.append(int(np.isfinite(frame.sensor).sum()))
        alone = None
        for sent in by_index.get(frame.index, []):
            metric = recording.load_array(sent.stamp_ns, METRIC)
            score = None
            if metric is not None and frame.truth is not None:
                score = score_depth(metric, frame.truth)
                if alone is None and score is not None and frame.index in interpolated:
                    alone = score_points_alone(frame.sensor, metric, frame.truth)
            rows.append(_row(frame, sent.stamp_ns, latency, states, score, alone))
            if sent.stamp_ns in shown:
                cloud = read_cloud(recording, sent.stamp_ns)
                stem = output / f"frame_{shown.index(sent.stamp_ns) + 1}"
                figures.append(_figure(stem, recording, frame, rows[-1], cloud))
                if cloud is not None and np.isfinite(cloud.xyz).any():
                    shown_cloud = figures[-1].title, cloud
    if shown_cloud is not None:
        cloud = shown_cloud[1]
        write_whole(output / "cloud.ply", ply_file(cloud.xyz, cloud.rgb, cloud.normals))
    rows.sort(key=lambda row: row["stamp_ns"])
    figures.sort(key=lambda figure: figure.index)

    diagnostics: dict[str, Any] = next(
        (row.values for row in reversed(reported) if row.topic == "/diagnostics"), {}
    )
    note = _note(numbers, rows, diagnostics, has_truth=held_out > 0)
    report = {
        "made_by": MADE_BY,
        "files": [REPORT, *output_files(len(shown))],
        **_summary(numbers, rows, source, info, note),
        # Where a message was lost, the states have no frames, but they still count.
        "scale_states": dict(Counter(states.values() or published_states(reported))),
    }
    report["given_points"] = int(np.median(given_points)) if given_points else 0
    report["diagnostics"] = diagnostics
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(output / REPORT, text + "\n")
    write_demo_page(output / "index.html", report, figures, shown_cloud)
    return report


def output_files(pictures: int) -> list[str]:
    """Names of all files that a run with this many shown frames may write."""
    names = [*sorted(set(FILES.values())), "strip"]
    frames = [f"frame_{i + 1}_{name}.png" for i in range(pictures) for name in names]
    return ["index.html", "cloud.ply", *LOGS, *frames]


def _frames_to_show(recording: Recording, answered: Sequence[Sent], pictures: int) -> list[int]:
    """Stamps of the frames to show, in the order of the source; none is shown twice."""
    kept: dict[int, int] = {}
    for row in answered:
        if recording.array_path(row.stamp_ns, RELATIVE).is_file():
            kept.setdefault(row.index, row.stamp_ns)
    return evenly([kept[index] for index in sorted(kept)], pictures)


def read_cloud(recording: Recording, stamp_ns: int) -> Cloud | None:
    """The points of a kept frame, from the recorder's (H, W, 6 or 9) float32 array."""
    points = recording.load_array(stamp_ns, POINTS)
    if points is None:
        return None
    rgb = np.nan_to_num(points[..., 3:6]).astype(np.uint8)
    return Cloud(points[..., :3], rgb, points[..., 6:9] if points.shape[2] == 9 else None)


def table(report: dict[str, Any]) -> str:
    """The summary for the terminal, one line per number."""
    latency = report["latency_ms"]
    lines = [
        (
            "images",
            f"{report['frames']} of {report['sent']} sent, {report['dropped']} dropped "
            f"({played(report)})",
        ),
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
        if (alone := report["points_alone"]) is not None:
            lines.append(
                (
                    "",
                    f"{alone['abs_rel']:.4f} by interpolating the same points without a network, "
                    f"against {alone['d3_abs_rel']:.4f} on those {alone['frames']} frames",
                )
            )
        lines.append(("delta1", f"{report['delta1']:.4f}"))
        lines.append(("coverage", f"{100 * report['coverage']:.1f} % of those pixels have depth"))
    return "\n".join(f"  {name:<10}{value}" for name, value in lines)


def _row(
    frame: PlayedFrame,
    stamp_ns: int,
    latency: dict[int, float],
    states: dict[int, str],
    score: DepthScore | None,
    points_alone: tuple[float, float] | None,
) -> dict[str, Any]:
    """One answered image in report.json."""
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
        "points_alone_abs_rel": None if points_alone is None else points_alone[0],
        "points_alone_d3_abs_rel": None if points_alone is None else points_alone[1],
    }


def _figure(
    stem: Path, recording: Recording, frame: PlayedFrame, row: dict[str, Any], cloud: Cloud | None
) -> Figure:
    """Draw the pictures of one frame and save them as STEM_NAME.png."""
    stamp_ns = row["stamp_ns"]
    metric, normals = (recording.load_array(stamp_ns, topic) for topic in (METRIC, NORMALS))
    truth = frame.truth
    if truth is not None and frame.sensor is not None:
        # Given points are no truth to score with, but they were measured.
        truth = np.where(np.isfinite(truth), truth, frame.sensor)
    made = frame_pictures(
        frame.rgb,
        given=frame.sensor,
        truth=truth,
        depths={} if metric is None else {"depth": metric},
        sigma=recording.load_array(stamp_ns, SIGMA),
        relative=recording.load_array(stamp_ns, RELATIVE),
        normals={} if normals is None else {"normals": normals},
        cloud=cloud,
    )
    for caption, picture in made.items():
        save_picture(stem.with_name(f"{stem.name}_{FILES[caption]}.png"), picture)
    made.pop(NOT_SHOWN, None)
    strip = {caption: picture for caption, picture in made.items() if caption != EXPECTED_ERROR}
    save_picture(stem.with_name(f"{stem.name}_strip.png"), panels(strip))
    title = f"Frame {frame.index}: {frame.name}"
    if row["abs_rel"] is not None:
        title += f", AbsRel {row['abs_rel']:.3f}"
    return Figure(
        index=frame.index,
        title=title,
        pictures=[(caption, encode_jpeg(picture)) for caption, picture in made.items()],
    )


def _summary(
    numbers: Traffic,
    rows: list[dict[str, Any]],
    source: FrameSource,
    info: RunInfo,
    note: str,
) -> dict[str, Any]:
    """The content of report.json."""
    means = {key: mean_over_frames(rows, key) for key in ("abs_rel", "delta1", "coverage")}
    alone = mean_over_frames(rows, "points_alone_abs_rel")
    return {
        "frames": len(numbers.answered),
        "sent": numbers.sent,
        "dropped": numbers.dropped,
        "model": info.model,
        "device": info.device,
        "source": source.title,
        "source_frames": len(source),
        "warnings": list(source.warnings),
        "rate": info.rate,
        "depth_topic": numbers.depth_topic,
        "depth_hz": numbers.depth_hz,
        "latency_ms": numbers.latency_ms,
        **means,
        "abs_rel_note": note,
        "points_alone": None
        if alone is None
        else {
            "abs_rel": alone,
            "d3_abs_rel": mean_over_frames(rows, "points_alone_d3_abs_rel"),
            "frames": len({r["frame"] for r in rows if r["points_alone_abs_rel"] is not None}),
        },
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
    """Which pixels were scored, or why none were."""
    pixels = {row["frame"]: row["pixels"] for row in rows if row["pixels"]}
    if pixels:
        total, frames = sum(pixels.values()), "frame" if len(pixels) == 1 else "frames"
        return f"{total} measured pixels of {len(pixels)} {frames} that the node was not given"
    if not has_truth:
        return "the input has no measured depth that was held back from the node"
    if METRIC not in numbers.topics:
        said = [values["message"] for task, values in diagnostics.items() if "scale" in task]
        return f"the node published no metric depth ({said[0] if said else 'no diagnostics came'})"
    return "no pixel has both metric depth and a measurement that was held back"


def mean_over_frames(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Mean of a value over the frames that have it; a frame that was played twice counts once."""
    by_frame: dict[int, list[float]] = {}
    for row in rows:
        if row[key] is not None:
            by_frame.setdefault(row["frame"], []).append(row[key])
    if not by_frame:
        return None
    return float(np.mean([np.mean(values) for values in by_frame.values()]))


def _text(value: float | None, form: str) -> str:
    return "none" if value is None else form.format(value)


def hardware() -> str:
    """Name of the processor, and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    """Versions of what the run used. Packages are not imported for it."""
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

"""index.html of a run: one file without external resources, for people who did not run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from d3_ros.demo.verdict import next_steps, verdict, what_was_run
from d3_ros.imaging import html_page as html
from d3_ros.imaging.cloud_viewer import SCRIPT, cloud_viewer
from d3_ros.imaging.frame_pictures import Cloud


@dataclass(frozen=True)
class Figure:
    """The pictures of one frame: (caption, bytes of a JPEG) in the order to show them."""

    index: int
    title: str
    pictures: list[tuple[str, bytes]]


def write_demo_page(
    path: Path, report: dict[str, Any], figures: Sequence[Figure], cloud: tuple[str, Cloud] | None
) -> None:
    """Write the page of a run.

    Args:
        path: file to write.
        report: the content of report.json.
        figures: the frames to show.
        cloud: title of a frame and its points, or None.
    """
    body = [
        "<h1>d3_ros demo</h1>",
        f"<p>{escape(report['source'])}</p>",
        f"<p>{escape(what_was_run(report))}</p>",
        html.verdict(*verdict(report)),
        *(f"<p>Note: {escape(warning)}</p>" for warning in report["warnings"]),
        _cards(report),
        "<h2>Frames</h2><p>Click a picture to enlarge it.</p>",
    ]
    for figure in figures:
        body.append(f"<h3>{escape(figure.title)}</h3><div class=frame>")
        body += [html.figure(figure.title, caption, data) for caption, data in figure.pictures]
        body.append("</div>")
    if cloud is not None:
        title, points = cloud
        caption = f"{title}. Drag to turn, wheel to zoom, double click to start again."
        body += ["<h2>Point cloud</h2>", cloud_viewer(points.xyz, points.rgb, caption)]
    steps = "".join(f"<li>{escape(step)}</li>" for step in next_steps(report))
    body += [f"<h2>What to try next</h2><ul>{steps}</ul>", *_details(report)]
    html.write_page(path, f"d3_ros demo: {report['model']}", body, SCRIPT)


def _cards(report: dict[str, Any]) -> str:
    latency = {
        name: "-" if report["latency_ms"] is None else f"{report['latency_ms'][name]:.0f}"
        for name in ("p50", "p95")
    }
    states = report["scale_states"]
    alone = report["points_alone"]
    cards = [
        (html.number(report["abs_rel"], 3), "AbsRel: mean relative error of depth"),
        (
            "-" if alone is None else html.number(alone["abs_rel"], 3),
            "AbsRel of the same points, interpolated",
        ),
        (html.number(report["delta1"], 3), "δ1: share of pixels within 25 %"),
        (html.number(report["depth_hz"], 3), "depth images per second"),
        (latency["p50"], "latency, ms, median"),
        (latency["p95"], "latency, ms, 95 %"),
        (f"{report['frames']} / {report['sent']}", "images answered"),
        (max(states, key=states.get) if states else "-", "state of the scale, most frames"),
    ]
    return html.cards(cards)


def _details(report: dict[str, Any]) -> list[str]:
    """Tables for engineers, folded."""
    topics = html.table(
        ["topic", "messages", "Hz", "latency median, ms", "95 %, ms"],
        [
            [f"~/{name}", row["messages"], row["hz"], row.get("p50"), row.get("p95")]
            for name, row in report["topics"].items()
        ],
    )
    columns = {
        "frame": "frame",
        "name": "name",
        "latency_ms": "latency, ms",
        "scale_state": "scale",
        "abs_rel": "AbsRel",
        "points_alone_abs_rel": "AbsRel, points alone",
        "delta1": "δ1",
        "coverage": "coverage",
        "pixels": "pixels",
    }
    frames = html.table(
        list(columns.values()), [[row[key] for key in columns] for row in report["per_frame"]]
    )
    made_with = html.table(
        ["what", "value"],
        [["hardware", report["hardware"]], *map(list, report["versions"].items())],
    )
    return [
        "<h2>Details</h2>",
        "<p>Latency: from the stamp of the image to the arrival of "
        f"~/{escape(report['depth_topic'])} in another process. Coverage: share of the measured "
        "pixels that have depth.</p>",
        html.folded(topics, "Topics"),
        html.folded(frames, f"All {len(report['per_frame'])} answered images"),
        html.folded(made_with, "Hardware and versions"),
    ]

"""index.html of a run: one file without a single external resource, readable from a USB stick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from d3_ros.imaging import html_page as html


@dataclass(frozen=True)
class Figure:
    """The pictures of one frame: (caption, bytes of a JPEG) in the order to show them."""

    stamp_ns: int
    title: str
    pictures: list[tuple[str, bytes]]


def write_page(path: Path, report: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Write the page of a run from the content of its report.json and its pictures."""
    body = [
        f"<h1>d3_ros: {escape(report['model'])} on {escape(report['device'])}</h1>",
        f"<p>{escape(report['source'])}</p>",
        *(f"<p>Note: {escape(warning)}</p>" for warning in report["warnings"]),
        _cards(report),
        f"<p>AbsRel and δ1: {escape(report['abs_rel_note'])}. Latency: from the camera's stamp to "
        f"the arrival of ~/{escape(report['depth_topic'])} in another process.</p>",
    ]
    for figure in figures:
        body.append(f"<h2>{escape(figure.title)}</h2><div class=frame>")
        body += [html.figure(figure.title, caption, data) for caption, data in figure.pictures]
        body.append("</div>")
    body += [
        "<h2>Topics</h2>",
        html.table(
            ["topic", "messages", "Hz", "latency p50, ms", "p95, ms"],
            [
                [f"~/{name}", row["messages"], row["hz"], row.get("p50"), row.get("p95")]
                for name, row in report["topics"].items()
            ],
        ),
        "<h2>Frames</h2>",
        _frames(report["per_frame"]),
        "<h2>Made with</h2>",
        html.table(
            ["what", "value"],
            [["hardware", report["hardware"]], *map(list, report["versions"].items())],
        ),
    ]
    html.write_page(path, f"d3_ros: {report['model']}", body)


def _cards(report: dict[str, Any]) -> str:
    latency = report["latency_ms"] or {"p50": None, "p95": None}
    states = report["scale_states"]
    cards = [
        (f"{report['frames']} / {report['sent']}", f"frames ({report['dropped']} dropped)"),
        (html.number(report["depth_hz"], 3), "depth, Hz"),
        (html.number(latency["p50"], 3), "latency p50, ms"),
        (html.number(latency["p95"], 3), "latency p95, ms"),
        (html.number(report["abs_rel"], 3), "AbsRel, held-out pixels"),
        (html.number(report["delta1"], 3), "δ1, held-out pixels"),
        (max(states, key=states.get) if states else "-", "scale state, most frames"),
    ]
    return html.cards(cards)


def _frames(rows: list[dict[str, Any]]) -> str:
    """The table of all frames, folded where it is long."""
    table = html.table(
        ["frame", "name", "latency, ms", "scale", "AbsRel", "δ1", "coverage", "pixels"],
        [
            [
                row["frame"],
                row["name"],
                row["latency_ms"],
                row["scale_state"],
                row["abs_rel"],
                row["delta1"],
                row["coverage"],
                row["pixels"],
            ]
            for row in rows
        ],
    )
    return html.folded(table, len(rows), "frames")

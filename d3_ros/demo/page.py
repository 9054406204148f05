"""index.html of a run: one file without a single external resource, readable from a USB stick."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1c2230; --soft: #5d6678; --line: #d9dde6;
  --page: #f6f7f9; --card: #ffffff; --accent: #0b6bcb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaf0; --soft: #9aa3b5; --line: #30353f;
  --page: #14161b; --card: #1d2027; --accent: #6db3ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 4px 0; color: var(--soft); overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 20px 0 8px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; }
.frame { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 10px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; }
figure img { display: block; width: 100%; height: auto; }
figcaption { padding: 6px 10px; font-size: 13px; color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; border-top: 1px solid var(--line);
  white-space: nowrap; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child { text-align: left; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--accent); }
"""


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
        body += [_figure(figure.title, caption, data) for caption, data in figure.pictures]
        body.append("</div>")
    body += [
        "<h2>Topics</h2>",
        _table(
            ["topic", "messages", "Hz", "latency p50, ms", "p95, ms"],
            [
                [f"~/{name}", row["messages"], row["hz"], row.get("p50"), row.get("p95")]
                for name, row in report["topics"].items()
            ],
        ),
        "<h2>Frames</h2>",
        _frames(report["per_frame"]),
        "<h2>Made with</h2>",
        _table(
            ["what", "value"],
            [["hardware", report["hardware"]], *map(list, report["versions"].items())],
        ),
    ]
    path.write_text(
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>d3_ros: {escape(report['model'])}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n",
        encoding="utf-8",
    )


def _cards(report: dict[str, Any]) -> str:
    latency = report["latency_ms"] or {"p50": None, "p95": None}
    states = report["scale_states"]
    cards = [
        (f"{report['frames']} / {report['sent']}", f"frames ({report['dropped']} dropped)"),
        (_number(report["depth_hz"], 3), "depth, Hz"),
        (_number(latency["p50"], 3), "latency p50, ms"),
        (_number(latency["p95"], 3), "latency p95, ms"),
        (_number(report["abs_rel"], 3), "AbsRel, held-out pixels"),
        (_number(report["delta1"], 3), "δ1, held-out pixels"),
        (max(states, key=states.get) if states else "-", "scale state, most frames"),
    ]
    return (
        "<div class=cards>"
        + "".join(
            f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>"
            for value, name in cards
        )
        + "</div>"
    )


def _figure(title: str, caption: str, jpeg: bytes) -> str:
    data = base64.b64encode(jpeg).decode("ascii")
    text = escape(caption)
    alt = escape(f"{title}: {caption}", quote=True)
    return (
        f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _frames(rows: list[dict[str, Any]]) -> str:
    """The table of all frames, folded where it is long."""
    table = _table(
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
    if len(rows) <= 12:
        return table
    return f"<details><summary>all {len(rows)} frames</summary>{table}</details>"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        "<div class=scroll><table>"
        + line(head, "th")
        + "".join(line([_number(cell) for cell in row], "td") for row in rows)
        + "</table></div>"
    )


def _number(value: Any, digits: int = 4) -> str:
    """A cell: floats with so many digits, what is missing as a dash."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

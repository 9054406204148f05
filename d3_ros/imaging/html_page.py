"""Parts of a report's page: one file without a single external resource."""

from __future__ import annotations

import base64
from collections.abc import Sequence
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


def write_page(path: Path, title: str, body: Sequence[str]) -> None:
    """Write a page of the parts `body`, which are HTML already."""
    path.write_text(
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n",
        encoding="utf-8",
    )


def cards(values: Sequence[tuple[str, str]]) -> str:
    """The figures that matter most, large: (value, what it is)."""
    return (
        "<div class=cards>"
        + "".join(
            f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>"
            for value, name in values
        )
        + "</div>"
    )


def folded(table: str, rows: int, what: str) -> str:
    """A table, folded where it is long."""
    if rows <= 12:
        return table
    return f"<details><summary>all {rows} {escape(what)}</summary>{table}</details>"


def figure(title: str, caption: str, jpeg: bytes) -> str:
    """A picture with its caption; the bytes of the JPEG go into the page."""
    data = base64.b64encode(jpeg).decode("ascii")
    text = escape(caption)
    alt = escape(f"{title}: {caption}", quote=True)
    return (
        f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells under their heads, scrolled sideways where it is wide."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        "<div class=scroll><table>"
        + line(head, "th")
        + "".join(line([number(cell) for cell in row], "td") for row in rows)
        + "</table></div>"
    )


def number(value: Any, digits: int = 4) -> str:
    """A cell: floats with so many digits, what is missing as a dash."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

"""The one builder of HTML pages: a single file without external resources, in light or dark."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from d3_ros.imaging.image_file import write_whole

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #596379; --line: #dde2ec;
  --page: #f7f8fb; --card: #fff; --accent: #0b62c4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9f0; --soft: #9aa3b5; --line: #30353f;
  --page: #14161b; --card: #1d2027; --accent: #6db3ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 21px; margin: 40px 0 10px; }
h3 { font-size: 16px; margin: 24px 0 8px; }
p { margin: 4px 0; color: var(--soft); overflow-wrap: anywhere; }
li { margin: 6px 0; } code { background: var(--card); border: 1px solid var(--line);
  border-radius: 4px; padding: 0 4px; overflow-wrap: anywhere; }
.verdict { background: var(--card); border: 1px solid var(--line); border-left: 6px solid
  var(--accent); border-radius: 10px; padding: 14px 18px; margin: 20px 0; }
.verdict b { display: block; font-size: 21px; line-height: 1.3; } .verdict p { color: var(--ink); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 12px;
  margin: 20px 0 8px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; }
.frame { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 10px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; }
figure img, canvas { display: block; width: 100%; height: auto; } canvas { cursor: grab;
  touch-action: none; }
.frame img { aspect-ratio: 4 / 3; object-fit: contain; background: #181a20; }
figure img { cursor: zoom-in; } figure:fullscreen { display: grid; place-content: center;
  background: #000; } figure:fullscreen img { width: 100vw; height: 94vh; object-fit: contain;
  cursor: zoom-out; }
figcaption { padding: 6px 10px; font-size: 14px; color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; border-top: 1px solid var(--line);
  white-space: nowrap; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child { text-align: left; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--accent); }
"""
# A click shows a picture on the whole screen, another one ends that.
ENLARGE = """
document.addEventListener("click", e => {
  const figure = e.target.tagName === "IMG" && e.target.closest("figure");
  if (!figure || !figure.requestFullscreen) return;
  document.fullscreenElement ? document.exitFullscreen() : figure.requestFullscreen();
});
"""


def write_page(path: Path, title: str, body: Sequence[str], script: str = "") -> None:
    """Write a page.

    Args:
        path: file to write.
        title: of the browser's tab.
        body: its parts, in HTML.
        script: JavaScript that runs when the page is loaded.

    Raises:
        DataError: the file cannot be written.
    """
    write_whole(
        path,
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main><script>{ENLARGE}{script}</script></body></html>\n",
    )


def verdict(headline: str, sentences: Sequence[str]) -> str:
    """The result in words, at the top of a page."""
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f"<div class=verdict><b>{escape(headline)}</b>{text}</div>"


def cards(values: Sequence[tuple[str, str]]) -> str:
    """The most important numbers, in large type: (value, what it is)."""
    return (
        "<div class=cards>"
        + "".join(
            f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>"
            for value, name in values
        )
        + "</div>"
    )


def folded(content: str, summary: str) -> str:
    """Content that is shown after a click on its summary."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def figure(title: str, caption: str, jpeg: bytes) -> str:
    """A picture with its caption. The bytes of the JPEG become part of the page."""
    data = base64.b64encode(jpeg).decode("ascii")
    text = escape(caption)
    alt = escape(f"{title}: {caption}", quote=True)
    return (
        f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells below their heads; a wide table scrolls sideways."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        "<div class=scroll><table>"
        + line(head, "th")
        + "".join(line([number(cell) for cell in row], "td") for row in rows)
        + "</table></div>"
    )


def number(value: Any, digits: int = 4) -> str:
    """A cell: a float with so many significant digits, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

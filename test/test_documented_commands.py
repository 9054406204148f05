"""The commands that the pages and the demo show are commands that the parser takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paths import ROOT

from d3_ros.__main__ import parsed_arguments
from d3_ros.demo.verdict import next_steps

PAGES = (ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMAND = re.compile(r"^(?:    |\$ |    \$ )?python -m d3_ros (\w.*)$", re.MULTILINE)


def shown(page: Path) -> Iterator[list[str]]:
    """The words behind `python -m d3_ros` of each line of code that begins with it."""
    for line in COMMAND.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_the_pages(page: Path) -> None:
    for words in shown(page):
        parsed_arguments(words)


def test_the_pages_show_commands() -> None:
    """So that the test above cannot pass because the pattern fits nothing."""
    names = {words[0] for page in PAGES for words in shown(page)}
    assert names >= {"bag", "evaluate", "render", "finetune", "download", "convert", "bench"}


def test_commands_that_the_demo_proposes() -> None:
    report = {"abs_rel": None, "points_alone": None, "model": "d3_nano"}
    text = " ".join(next_steps(report))
    commands = re.findall(r"python -m d3_ros (.*?)(?:, see| prints)", text)
    assert [command.split()[0] for command in commands] == ["download", "finetune"]
    for command in commands:
        parsed_arguments(shlex.split(command))

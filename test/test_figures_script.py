"""scripts/figures.py: blocks are written anew, everything else stays; a failure changes nothing."""

from __future__ import annotations

import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "figures.py"))
main: Callable[[list[str]], int] = SCRIPT["main"]
PAGE = """# A page
<!-- figures: run -->
```
$ python -c "print('old'.replace('old', 'new'))"
old

$ echo one \\
      two > file; cat file
three
```
```
$ echo this block has no mark
old
```
"""


def test_marked_blocks_are_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert main([str(page), "--list"]) == 0
    assert page.read_text() == PAGE
    assert "echo one" in capsys.readouterr().out
    assert main([str(page)]) == 0
    text = page.read_text()
    assert text == PAGE.replace("\nold\n\n$", "\nnew\n\n$").replace("\nthree\n", "\none two\n")
    assert main([str(page)]) == 0
    assert page.read_text() == text


def test_a_failing_command_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("echo one", "false; exit 3; echo one"))
    before = page.read_text()
    with pytest.raises(SystemExit, match="ended with 3"):
        main([str(page)])
    assert page.read_text() == before


def test_a_picture_is_copied(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "picture.png"
    page.write_text(f"<!-- figures: echo drawn > made.png => made.png => {picture} -->\n")
    assert main([str(page)]) == 0
    assert picture.read_text() == "drawn\n"


def test_marks_of_the_repository_are_commands_of_it() -> None:
    """A mark that nothing reads, by a slip in it, would keep old figures for ever."""
    for pattern in SCRIPT["PAGES"]:
        for page in ROOT.glob(pattern):
            marks = page.read_text(encoding="utf-8").count("<!-- figures")
            found = SCRIPT["commands"](page)
            assert bool(marks) == bool(found), page
            for command in found:
                assert shlex.split(command.replace("\\\n", " "))[0] == "python", command

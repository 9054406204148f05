"""docs/reliability.md: every test that it names exists."""

from __future__ import annotations

import re

from helpers.paths import ROOT

PAGE = ROOT / "docs" / "reliability.md"


def test_the_tests_of_the_table_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    there = {
        name
        for path in (ROOT / "test").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 30
    assert named <= there, named - there

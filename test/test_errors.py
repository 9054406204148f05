"""Errors as users see them: one line."""

from __future__ import annotations

import ast
from pathlib import Path

import d3_ros
from d3_ros.errors import one_line


def test_line_breaks_go_and_an_empty_text_becomes_the_class() -> None:
    assert one_line(ValueError("two\n  lines\t here ")) == "two lines here"
    assert one_line("a plain\ntext") == "a plain text"
    assert one_line(KeyError()) == "KeyError"
    assert one_line(OSError("x" * 300), 200) == "x" * 200


def test_there_is_one_way_to_put_an_error_on_one_line() -> None:
    """`" ".join(text.split())` stands in d3_ros/errors.py alone."""
    places = []
    for path in Path(d3_ros.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "join"
                and ast.unparse(node.func.value) == "' '"
                and len(node.args) == 1
                and ast.unparse(node.args[0]).endswith(".split()")
            ):
                places.append(path.name)
    assert places == ["errors.py"]

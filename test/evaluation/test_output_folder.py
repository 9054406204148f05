"""Results never replace a file of the user's, and are there whole or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from d3_ros.errors import DataError
from d3_ros.evaluation.output_folder import REPORT, claim_output, write_table

US = "the command"
FILES = ("index.html", "frames.csv")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_and_one_with_other_files_are_taken(tmp_path: Path) -> None:
    claim_output(tmp_path / "deep" / "out", US, FILES)
    (tmp_path / "notes.txt").write_text("mine")
    claim_output(tmp_path, US, FILES)
    assert names(tmp_path) == ["deep", "notes.txt", REPORT]


def test_an_earlier_run_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    claim_output(tmp_path, US, [*FILES, "old.png"])
    for name in (*FILES, "old.png", "notes.txt"):
        (tmp_path / name).write_text("x")
    claim_output(tmp_path, US, FILES)
    assert names(tmp_path) == ["notes.txt", REPORT]
    assert json.loads((tmp_path / REPORT).read_text())["files"] == [REPORT, *FILES]


@pytest.mark.parametrize(
    "report",
    [
        "",
        "[]",
        "{}",
        "[" * 5000,
        json.dumps({"made_by": "another command", "files": ["index.html"]}),
        json.dumps({"made_by": US, "files": "index.html"}),
    ],
)
def test_a_file_that_no_report_lists_is_refused(report: str, tmp_path: Path) -> None:
    (tmp_path / REPORT).write_text(report)
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(DataError, match="was not written by the command") as error:
        claim_output(tmp_path, US, FILES)
    assert "\n" not in str(error.value)
    assert (tmp_path / "index.html").read_text() == "mine"
    assert (tmp_path / REPORT).read_text() == report


def test_a_report_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious").write_text("mine")
    listed = ["../precious", str(tmp_path / "precious"), "..", ".", 7, REPORT]
    (out / REPORT).write_text(json.dumps({"made_by": US, "files": listed}))
    claim_output(out, US, FILES)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DataError, match="out: cannot be used for the results"):
        claim_output(tmp_path / "out", US, FILES)
    with pytest.raises(DataError, match="cannot be used for the results"):
        claim_output(tmp_path / "out" / "inner", US, FILES)


def test_a_table_has_every_column_once(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, [{"a": 1, "b": "x, y"}, {"a": 2, "c": 0.5}])
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"a": "1", "b": "x, y", "c": ""}, {"a": "2", "b": "", "c": "0.5"}]


def test_a_full_disk_is_one_line() -> None:
    with pytest.raises(DataError, match="/dev/full cannot be written") as error:
        write_table(Path("/dev/full"), [{"a": 1}])
    assert "\n" not in str(error.value)

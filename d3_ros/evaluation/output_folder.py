"""Folders and tables that results are written to; nothing of the user's is ever replaced."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import write_whole

REPORT = "report.json"


def claim_output(folder: Path, made_by: str, files: Sequence[str]) -> None:
    """Prepare a folder for results: make it, and remove the results of an earlier run.

    A first report.json lists `files` at once, so that a later run may replace them even if this
    one fails. Files that no such report lists are not touched.

    Args:
        folder: made if it is not there.
        made_by: the command, as in the report of an earlier run.
        files: names of all files that may be written into it.

    Raises:
        DataError: one of `files` is there and was not written by this command, or the folder
            cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _listed(folder / REPORT, made_by)
        for name in (REPORT, *files):
            if (folder / name).exists() and name not in earlier:
                raise DataError(
                    f"{folder / name} was not written by {made_by} and would be replaced: give "
                    "another --output, or remove it"
                )
        for name in earlier:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be used for the results ({error.strerror})") from error
    write_whole(folder / REPORT, json.dumps({"made_by": made_by, "files": [REPORT, *files]}))


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, with the columns in the order in which they first appear.

    Raises:
        DataError: the file cannot be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def _listed(report: Path, made_by: str) -> list[str]:
    """Names of the files that an earlier run of the command wrote beside its report."""
    if not report.is_file():
        return []
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return []
    if not isinstance(content, dict) or content.get("made_by") != made_by:
        return []
    names = content.get("files")
    names = names if isinstance(names, list) else []
    # A name, never a path: a report from elsewhere must not reach other folders.
    return [n for n in names if isinstance(n, str) and n == Path(n).name and n not in (".", "..")]


def without_nan(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

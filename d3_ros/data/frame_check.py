"""Every frame of a dataset is read once before it is used; what was found is remembered.

The findings are in the user's cache (~/.cache/d3_ros/checked), never beside the data. They hold as
long as the frame's files keep their sizes and times of change, so a second run begins at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from d3_ros.data.readers import Reader, UnusableError
from d3_ros.errors import DataError
from d3_ros.imaging.image_file import write_whole
from d3_ros.network.bundle.lookup import user_cache

FORMAT = 2  # of the findings; another one is checked anew
DAMAGED = "cannot be read"
NAMED = 5  # of the frames with one fault
MIN_KNOWN_PIXELS = 10


@dataclass(frozen=True)
class Finding:
    """What was found out about one frame.

    label_size: (h, w) of its labels; None where the frame has a fault.
    has_camera: whether its intrinsics are known.
    fault: None, or (the kind of fault, in words that many frames share; the exact error message).
    """

    name: str
    label_size: tuple[int, int] | None
    has_camera: bool
    fault: tuple[str, str] | None


def check_frames(reader: Reader, folder: Path) -> list[Finding]:
    """A finding for every frame of the reader, in order; a progress bar where it takes long."""
    known = _remembered(folder, reader.kind)
    states = {name: _state(reader, name) for name in reader.names}
    todo = [name for name in reader.names if known.get(name, {}).get("state") != states[name]]
    if todo:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            results = pool.map(lambda name: _examine(reader, name), todo)
            bar = tqdm(results, total=len(todo), unit="frame", desc=f"check {folder.name}", delay=1)
            for name, result in zip(todo, bar, strict=True):
                known[name] = {"state": states[name], **result}
        # What could not be read is tried again: permissions and disks are mended without a trace.
        sure = {n: known[n] for n in reader.names if known[n].get("fault", [""])[0] != DAMAGED}
        _remember(folder, reader.kind, sure)
    return [_finding(name, known[name]) for name in reader.names]


def describe_faults(findings: Sequence[Finding], total: int) -> str:
    """What was left out, in one line: how many frames, why, and some names for each reason."""
    by_reason: dict[str, list[Finding]] = {}
    for finding in findings:
        assert finding.fault is not None
        by_reason.setdefault(finding.fault[0], []).append(finding)
    parts = []
    for reason, found in by_reason.items():
        names = ", ".join(finding.name for finding in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        parts.append(f"{len(found)} x {reason} ({names}{more})")
    first = findings[0].fault
    assert first is not None
    return f"{len(findings)} of {total} left out: {'; '.join(parts)}; the first: {first[1]}"


def _examine(reader: Reader, name: str) -> dict[str, Any]:
    try:
        frame = reader.read(name)
    except UnusableError as error:
        return {"fault": [error.reason, str(error)]}
    except DataError as error:
        return {"fault": [DAMAGED, str(error)]}
    picture, *others = reader.files(name)
    if reader.has_depth and frame.depth is None:
        return {"fault": ["no depth", f"{picture} has no depth of its name"]}
    label = frame.normals if frame.depth is None else frame.depth
    if label is None:
        return {"fault": ["nothing known", f"{picture} has no normals of its name"]}
    known = np.count_nonzero(label)
    if known < MIN_KNOWN_PIXELS:
        message = f"{others[0]} is known at {known} pixels only"
        return {"fault": ["nothing known", message]}
    return {"size": frame.label_size, "camera": frame.camera is not None}


def _finding(name: str, entry: dict[str, Any]) -> Finding:
    if "fault" in entry:
        reason, message = entry["fault"]
        return Finding(name, None, False, (reason, message))
    height, width = entry["size"]
    return Finding(name, (height, width), entry["camera"], None)


def _state(reader: Reader, name: str) -> list[list[Any]]:
    """What a finding depends on: the frame's files, and which labels the dataset has at all."""
    state: list[list[Any]] = [[reader.has_depth, reader.has_normals]]
    for path in reader.files(name):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            state.append([path.name, about.st_size, about.st_mtime_ns])
    return state


def _findings_file(folder: Path, kind: str) -> Path:
    place = hashlib.sha256(f"{kind} {folder.resolve()}".encode()).hexdigest()[:24]
    return user_cache().with_name("checked") / f"{place}.json"


def _remembered(folder: Path, kind: str) -> dict[str, Any]:
    try:
        content = json.loads(_findings_file(folder, kind).read_text(encoding="utf-8"))
        return dict(content["frames"]) if content["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(folder: Path, kind: str, frames: dict[str, Any]) -> None:
    content = {"format": FORMAT, "folder": str(folder.resolve()), "frames": frames}
    file = _findings_file(folder, kind)
    # Without a home to write to, each run checks anew.
    with contextlib.suppress(OSError, DataError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(content))

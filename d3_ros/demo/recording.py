"""The data that player and recorder leave for the report: two logs and some arrays in a folder.

The player appends to `sent.jsonl` *before* it publishes a frame, the recorder to `received.jsonl`
when a message arrives. The node copies the input's header bit for bit, so the stamp (integer
nanoseconds) identifies a frame: results and truth are matched by equal stamps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RELATIVE, METRIC, SIGMA = "depth/relative", "depth/image", "depth/uncertainty"
NORMALS, POINTS = "normals/image", "points"
# The scale has no stamp. It comes once per frame, after the frame's other outputs.
SCALE = "scale"
# Outputs of the node with a header; names relative to the node.
STAMPED_OUTPUTS = (
    RELATIVE,
    METRIC,
    SIGMA,
    "depth/camera_info",
    NORMALS,
    POINTS,
    "depth/color",
    "normals/color",
)


@dataclass(frozen=True)
class Sent:
    """One published image: index of the frame in the source, and its stamp."""

    index: int
    stamp_ns: int


@dataclass(frozen=True)
class Received:
    """One message of a stamped output; times in nanoseconds of the machine's clock."""

    topic: str
    stamp_ns: int
    received_ns: int

    @property
    def latency_ms(self) -> float:
        """From the camera's stamp to the arrival at the recorder."""
        return (self.received_ns - self.stamp_ns) / 1e6


@dataclass(frozen=True)
class Reported:
    """One message of a topic without a stamp (state, diagnostics) as plain values."""

    topic: str
    received_ns: int
    values: dict[str, Any]


class Recording:
    """The folder of one demo run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent_log = folder / "sent.jsonl"
        self.received_log = folder / "received.jsonl"

    def sent(self) -> list[Sent]:
        """The images that the player published so far, in order."""
        return [Sent(**row) for row in _rows(self.sent_log)]

    def received(self) -> list[Received]:
        """The stamped messages that the recorder received so far, in order of arrival."""
        return [Received(**row) for row in _rows(self.received_log) if "stamp_ns" in row]

    def reported(self) -> list[Reported]:
        """The messages without a stamp that the recorder received so far."""
        return [Reported(**row) for row in _rows(self.received_log) if "values" in row]

    def array_path(self, stamp_ns: int, topic: str) -> Path:
        """Path of the array of one output of one frame."""
        return self.folder / "arrays" / str(stamp_ns) / f"{topic.replace('/', '_')}.npy"

    def save_array(self, stamp_ns: int, topic: str, array: np.ndarray) -> None:
        """Save one output of one frame."""
        path = self.array_path(stamp_ns, topic)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)

    def load_array(self, stamp_ns: int, topic: str) -> np.ndarray | None:
        """One saved output of one frame; None if there is none."""
        path = self.array_path(stamp_ns, topic)
        return np.load(path) if path.is_file() else None

    def forget(self, stamp_ns: int, topics: tuple[str, ...]) -> None:
        """Remove these outputs of a frame."""
        for topic in topics:
            self.array_path(stamp_ns, topic).unlink(missing_ok=True)


class LogWriter:
    """Appends rows to a log; readers see whole lines only."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, row: Sent | Received | Reported) -> None:
        """Append one row."""
        self._file.write(json.dumps(asdict(row)) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class SpreadChoice:
    """Chooses frames evenly during a run of unknown length.

    Every `stride`-th frame is kept, from the first on. When `2 * wanted` frames are kept, every
    second one is forgotten and the stride doubles. So, after the beginning, between `wanted` and
    `2 * wanted` frames are kept, spread over the whole run.
    """

    def __init__(self, wanted: int) -> None:
        self.kept: list[int] = []
        self._wanted = max(wanted, 1)
        self._stride = 1
        self._seen = 0

    def offer(self, stamp_ns: int) -> tuple[bool, list[int]]:
        """Add a frame; returns whether to keep it, and which earlier frames to forget."""
        position, self._seen = self._seen, self._seen + 1
        if position % self._stride:
            return False, []
        self.kept.append(stamp_ns)
        forgotten: list[int] = []
        if len(self.kept) >= 2 * self._wanted:
            forgotten = self.kept[1::2]
            self.kept = self.kept[::2]
            self._stride *= 2
        return stamp_ns in self.kept, forgotten


def evenly(stamps: list[int], wanted: int) -> list[int]:
    """`wanted` of the stamps, or all, spread evenly from the first to the last."""
    if len(stamps) <= wanted:
        return list(stamps)
    return [stamps[i] for i in np.linspace(0, len(stamps) - 1, wanted).round().astype(int)]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a log; a line that is being written is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)

"""What the processes of a demo leave for the report: two logs and some arrays in one folder.

The player appends to `sent.jsonl` *before* it publishes a frame, the recorder to `received.jsonl`
when a message arrives. A header is copied from input to output bit for bit, so a stamp (integer
nanoseconds) names a frame everywhere: results meet their truth by equal stamps, never by guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RELATIVE, METRIC = "depth/relative", "depth/image"
NORMALS, POINTS = "normals/image", "points"
# The scale's fit has no stamp, but comes once a frame, after the frame's other outputs.
SCALE = "scale"
# The node's outputs that carry a header, as they are named below the node.
STAMPED_OUTPUTS = (
    RELATIVE,
    METRIC,
    "depth/camera_info",
    NORMALS,
    POINTS,
    "depth/color",
    "normals/color",
)


@dataclass(frozen=True)
class Sent:
    """One published camera frame: its place in the source and the stamp it was given."""

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
        """What the player published so far, in order."""
        return [Sent(**row) for row in _rows(self.sent_log)]

    def received(self) -> list[Received]:
        """The stamped messages that the recorder received so far, in order of arrival."""
        return [Received(**row) for row in _rows(self.received_log) if "stamp_ns" in row]

    def reported(self) -> list[Reported]:
        """The messages without a stamp that the recorder received so far."""
        return [Reported(**row) for row in _rows(self.received_log) if "values" in row]

    def array_path(self, stamp_ns: int, topic: str) -> Path:
        """Where the array of one output of one frame is, if it was kept."""
        return self.folder / "arrays" / str(stamp_ns) / f"{topic.replace('/', '_')}.npy"

    def save_array(self, stamp_ns: int, topic: str, array: np.ndarray) -> None:
        """Keep one output of one frame."""
        path = self.array_path(stamp_ns, topic)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)

    def load_array(self, stamp_ns: int, topic: str) -> np.ndarray | None:
        """One kept output of one frame; None if it was not kept or never came."""
        path = self.array_path(stamp_ns, topic)
        return np.load(path) if path.is_file() else None

    def forget(self, stamp_ns: int, topics: tuple[str, ...]) -> None:
        """Remove these outputs of a frame that is no longer wanted."""
        for topic in topics:
            self.array_path(stamp_ns, topic).unlink(missing_ok=True)


class LogWriter:
    """Appends rows to a log, each visible to readers as a whole line at once."""

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
    """Chooses frames evenly from a run of unknown length while it happens.

    Every `stride`-th frame is kept, from the first on; when twice as many are kept as are wanted,
    every second one is forgotten and the stride doubles. So between `wanted` and `2 * wanted`
    frames are held at any time (fewer at the beginning), and they cover the whole run.
    """

    def __init__(self, wanted: int) -> None:
        self.kept: list[int] = []
        self._wanted = max(wanted, 1)
        self._stride = 1
        self._seen = 0

    def offer(self, stamp_ns: int) -> tuple[bool, list[int]]:
        """Tell of a new frame; return whether to keep it and which earlier ones to forget."""
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
    """`wanted` of the stamps (all, if there are fewer), spread evenly, first and last included."""
    if len(stamps) <= wanted:
        return list(stamps)
    return [stamps[i] for i in np.linspace(0, len(stamps) - 1, wanted).round().astype(int)]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a log that may still be written to."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)

"""Chooses the processing size that meets a latency target: down soon, up late, no oscillation."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from d3_ros.network.inference.processing_size import Size

WINDOW = 15  # latest frames whose median counts: single slow frames change nothing
PATIENCE = 60  # frames at a size before a larger one is tried
LONGEST_PATIENCE = 16 * PATIENCE
HEADROOM = 0.85  # a larger size must be expected to need less than this share of the target


@dataclass(frozen=True)
class LatencyState:
    """State of a `SizeController`, for diagnostics.

    `size` is (height, width), the `rung`-th of `rungs`, from 1, the smallest. `latency_ms` is the
    median of the latest frames, NaN before the first; `changes` counts the steps taken so far.
    """

    size: Size
    rung: int
    rungs: int
    latency_ms: float
    target_ms: float
    changes: int


class SizeController:
    """Chooses among sizes by the latency of the frames so far.

    It begins with the largest size that was measured to meet the target. It steps down when the
    median latency misses the target, and up when, after some patience, the next size is expected to
    meet it with headroom: its measured time, scaled by how much slower than measured frames are
    now. A step up that had to be taken back doubles the patience for the next one.

    Args:
        measured: (size, milliseconds) from the smallest size to the largest.
        target_ms: latency to stay under.

    Raises:
        ValueError: nothing was measured, or the target is not above 0.
    """

    def __init__(self, measured: Sequence[tuple[Size, float]], target_ms: float) -> None:
        if not measured or not target_ms > 0:
            raise ValueError("the controller needs measured sizes and a target above 0")
        self._sizes = [size for size, _ in measured]
        self._measured_ms = [milliseconds for _, milliseconds in measured]
        self._target_ms = target_ms
        fitting = [i for i, ms in enumerate(self._measured_ms) if ms <= target_ms]
        self._index = max(fitting, default=0)
        self._latest: deque[float] = deque(maxlen=WINDOW)
        self._frames = 0  # since the last change
        self._patience = PATIENCE
        self._went_up = False
        self._changes = 0

    @property
    def size(self) -> Size:
        """(height, width) for the next frame."""
        return self._sizes[self._index]

    @property
    def state(self) -> LatencyState:
        """The present state."""
        latency = statistics.median(self._latest) if self._latest else float("nan")
        return LatencyState(
            size=self.size,
            rung=self._index + 1,
            rungs=len(self._sizes),
            latency_ms=latency,
            target_ms=self._target_ms,
            changes=self._changes,
        )

    def observe(self, latency_ms: float) -> None:
        """Record the milliseconds that a frame at `size` took."""
        self._latest.append(latency_ms)
        self._frames += 1
        if len(self._latest) < WINDOW:
            return
        median = statistics.median(self._latest)
        if median > self._target_ms:
            if self._index > 0:
                if self._went_up and self._frames < PATIENCE:  # it was a mistake
                    self._patience = min(2 * self._patience, LONGEST_PATIENCE)
                self._step(-1)
            return
        if self._went_up and self._frames >= PATIENCE:  # it was right
            self._patience, self._went_up = PATIENCE, False
        if self._frames >= self._patience and self._index + 1 < len(self._sizes):
            slower = median / self._measured_ms[self._index]
            if slower * self._measured_ms[self._index + 1] < HEADROOM * self._target_ms:
                self._step(+1)

    def _step(self, by: int) -> None:
        self._index += by
        self._went_up = by > 0
        self._frames = 0
        self._changes += 1
        self._latest.clear()

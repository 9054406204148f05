"""Counts frames, and measures rates, latencies and the time of each stage. No ROS here."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from d3_ros.ros.node.diagnostics.scale_report import ScaleReport

RATE_WINDOW_S = 5.0
KEPT = 200  # percentiles are over so many of the latest frames


class StageTimes:
    """Milliseconds of each named stage of the work, for each of the latest frames.

    `running`: the stage that runs now, the innermost of nested ones; empty where none does.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.running = ""
        self.frames: deque[dict[str, float]] = deque([{}], maxlen=kept)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure one pass through a stage."""
        started, around, self.running = time.perf_counter(), self.running, name
        try:
            yield
        finally:
            self.running = around
            self.add(name, (time.perf_counter() - started) * 1e3)

    def next_frame(self) -> None:
        """Begin a new frame: later times belong to it."""
        self.frames.append({})

    def add(self, name: str, ms: float) -> None:
        """Add a time that was measured elsewhere."""
        self.frames[-1][name] = ms

    def clear(self) -> None:
        """Forget all times."""
        # A new deque: another thread may add to the old one now, which must not become empty.
        self.frames = deque([{}], maxlen=self.frames.maxlen)

    def percentiles(self) -> dict[str, tuple[float, float]]:
        """Stage -> (p50, p95) in milliseconds over the frames that went through it."""
        times: dict[str, list[float]] = {}
        for frame in list(self.frames):
            for name, ms in list(frame.items()):
                times.setdefault(name, []).append(ms)
        return {name: median_and_p95(ms) for name, ms in times.items()}


def median_and_p95(values: list[float]) -> tuple[float, float]:
    """(p50, p95); NaN where there are no values."""
    if not values:
        return float("nan"), float("nan")
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)


@dataclass(frozen=True)
class Snapshot:
    """The statistics at one moment. Every received frame ends in one of four counts.

    `published`: at least one message of it was sent. `dropped`: a newer frame replaced it.
    `refused`: it could not be read, the network failed, or only metric topics had subscribers and
    there was no scale. `idle`: no output had a subscriber and was due.
    """

    received: int
    published: int
    dropped: int
    refused: int
    idle: int
    idle_lately: bool
    input_hz: float
    published_hz: float
    since_input_s: float
    observed_s: float
    latency_ms: tuple[float, float]
    age_ms: tuple[float, float]
    fault: str
    scale: ScaleReport | None


class FrameStatistics:
    """Counts the frames of one camera; may be used from any thread.

    `stage` measures the stages of the worker's work.
    """

    def __init__(self) -> None:
        self.stage = StageTimes()
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Begin anew, as at an activation."""
        self.stage.clear()
        with self._lock:
            self._since = time.monotonic()
            self._received = self._published = self._dropped = self._refused = self._idle = 0
            self._inputs: deque[float] = deque()
            self._outputs: deque[float] = deque()
            self._latency_ms: deque[float] = deque(maxlen=KEPT)
            self._age_ms: deque[float] = deque(maxlen=KEPT)
            self._last_input = self._since
            self._last_idle = float("-inf")
            self._fault, self._fault_at = "", float("-inf")
            self._scale: ScaleReport | None = None

    def received(self) -> None:
        """An image arrived."""
        with self._lock:
            self._received += 1
            self._last_input = time.monotonic()
            self._inputs.append(self._last_input)

    def dropped(self) -> None:
        """A newer image replaced an image before its turn."""
        with self._lock:
            self._dropped += 1

    def idle(self) -> None:
        """An image came while no output had a subscriber or was due."""
        with self._lock:
            self._idle += 1
            self._last_idle = time.monotonic()

    def refused(self, fault: str = "", scale: ScaleReport | None = None) -> None:
        """Nothing of an image was published; `fault` is empty where only a scale was missing."""
        with self._lock:
            self._refused += 1
            self._fault, self._fault_at = fault, time.monotonic()
            self._scale = scale or self._scale

    def published(self, latency_s: float, age_s: float, scale: ScaleReport) -> None:
        """An image is done: `latency_s` after its reception, `age_s` after its stamp."""
        with self._lock:
            self._published += 1
            self._outputs.append(time.monotonic())
            self._latency_ms.append(latency_s * 1e3)
            self._age_ms.append(age_s * 1e3)
            self._fault = ""
            self._scale = scale

    def forget_ages(self) -> None:
        """Forget the ages of outputs: time has jumped, so earlier ones do not compare."""
        with self._lock:
            self._age_ms.clear()

    def snapshot(self) -> Snapshot:
        """The present figures."""
        with self._lock:
            now = time.monotonic()
            observed = now - self._since
            window = min(max(observed, 1e-3), RATE_WINDOW_S)
            # Once nothing is asked for any longer, no frame can show that the fault is over.
            past = self._last_idle > self._fault_at and now - self._fault_at > RATE_WINDOW_S
            for times in (self._inputs, self._outputs):
                while times and now - times[0] > RATE_WINDOW_S:
                    times.popleft()
            return Snapshot(
                received=self._received,
                published=self._published,
                dropped=self._dropped,
                refused=self._refused,
                idle=self._idle,
                idle_lately=now - self._last_idle < RATE_WINDOW_S,
                input_hz=len(self._inputs) / window,
                published_hz=len(self._outputs) / window,
                since_input_s=now - self._last_input,
                observed_s=observed,
                latency_ms=median_and_p95(list(self._latency_ms)),
                age_ms=median_and_p95(list(self._age_ms)),
                fault="" if past else self._fault,
                scale=self._scale,
            )

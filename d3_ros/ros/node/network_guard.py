"""A network that steps down where it fails, and comes back: the node must live and tell no lies.

What can be tried is a ladder of (precision, processing size). Too little memory steps at once;
answers that are not finite, and failures that nobody foresaw, step after some in a row. After a
while the step above is tried again, each time later.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from d3_ros.errors import D3Error, DeviceError, NonFiniteError, one_line
from d3_ros.network.inference.latency import LatencyState
from d3_ros.pipeline import Predictor
from d3_ros.ros.node.loading import free_memory
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.types import D3Prediction, Task

# From the one that overflows first.
PRECISIONS = ("fp16", "bf16", "fp32")
# Sides shrink to this share, and not below this many pixels.
SHRINK = 0.75
SMALLEST_SIDE = 128
MOST_STEPS = 6
LONGEST_RETRY_S = 3600.0


class LoadedPredictor(Predictor, Protocol):
    """What the guard needs to know of a predictor to find the step below it."""

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        ...

    @property
    def latency(self) -> Mapping[tuple[int, int], LatencyState]:
        """By size of the images, what the choice of the processing size by a target does."""
        ...

    def processing_size(self, task: Task, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which it sees an image of (height, width)."""
        ...

    def predict_batch(
        self, images: Sequence[np.ndarray], tasks: tuple[Task, ...] | None = None
    ) -> list[D3Prediction]:
        """Predict several images at once."""
        ...


Load = Callable[[NodeSettings], LoadedPredictor]


class NetworkGuard:
    """A predictor that survives; used by one thread at a time.

    Args:
        load: makes a predictor from settings; raises D3Error.
        settings: the first step; `fallback` says how to go down and up again.
        warn: told, in a line, about every step.

    Raises:
        D3Error: the network cannot be loaded as the settings ask for.
    """

    def __init__(self, load: Load, settings: NodeSettings, warn: Callable[[str], None]) -> None:
        self._load = load
        self._warn = warn
        self._fallback = settings.fallback
        self._steps = [settings]
        self._reasons: list[str] = []
        self._failures = 0
        self._retry_s = settings.fallback.retry_after
        self._retry_at = float("inf")
        self._no_step_until = float("-inf")
        self._predictor: LoadedPredictor | None = load(settings)
        self._tasks = self._predictor.tasks
        self._precision = self._predictor.precision

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can predict."""
        return self._tasks

    @property
    def reason(self) -> str:
        """Why it does not run as the parameters ask for, in one line; empty where it does."""
        return "; ".join(self._reasons)

    @property
    def step(self) -> str:
        """At which step of the ladder it runs; under a target latency, at which sizes just now."""
        predictor = self._predictor
        states = list(predictor.latency.values()) if predictor is not None else []
        size = self._steps[-1].processing_size if not states else _at_present(states)
        return f"{self._precision}, processing size {size}"

    def __call__(self, rgb: np.ndarray, tasks: tuple[Task, ...] | None = None) -> D3Prediction:
        """Predict one image.

        Raises:
            D3Error, Exception: it failed at every step that was left.
        """
        (result,) = self.predict_each([rgb], tasks or self._tasks)
        if isinstance(result, Exception):
            raise result
        return result

    def predict_each(
        self, images: Sequence[np.ndarray], tasks: tuple[Task, ...]
    ) -> list[D3Prediction | Exception]:
        """Predict images together; for each, the prediction or what went wrong with it."""
        self._try_the_step_above()
        while True:
            try:
                predictions = self._loaded().predict_batch(images, tasks)
            except Exception as error:
                if self._step_down(error, images[0].shape[:2]):
                    continue
                if len(images) == 1:
                    return [error]
                # Only one of them may be to blame.
                return [result for image in images for result in self.predict_each([image], tasks)]
            self._failures = 0
            return list(predictions)

    def _loaded(self) -> LoadedPredictor:
        if self._predictor is None:
            self._use(self._steps[-1])
        assert self._predictor is not None
        return self._predictor

    def _use(self, settings: NodeSettings) -> None:
        self._predictor = None  # first, so that two never need memory at once
        free_memory()
        self._predictor = self._load(settings)
        self._precision = self._predictor.precision

    def _step_down(self, error: Exception, image_size: tuple[int, ...]) -> bool:
        """Go to the step below, if it is time to and there is one; False to give up the frame."""
        self._failures += 1
        at_once = isinstance(error, DeviceError)
        if not at_once and self._failures < self._fallback.failures:
            return False
        below = self._step_below(error, (image_size[0], image_size[1]))
        if not self._fallback.enabled or below is None or time.monotonic() < self._no_step_until:
            return False
        self._failures = 0
        why = str(error) if isinstance(error, D3Error) else f"{type(error).__name__}: {error}"
        self._warn(f"stepping down to {_described(below)}: {one_line(why)}")
        # What failed must not keep the network's memory through its local variables.
        traceback.clear_frames(error.__traceback__)
        try:
            self._use(below)
        except D3Error as fault:
            self._warn(f"cannot step down: {fault}")
            self._no_step_until = time.monotonic() + max(self._retry_s, 1.0)
            return False
        self._steps.append(below)
        self._reasons.append(f"stepped down to {_described(below)}: {one_line(why)}")
        self._retry_at = self._next_retry()
        return True

    def _step_below(self, error: Exception, image_size: tuple[int, int]) -> NodeSettings | None:
        present = self._steps[-1]
        if len(self._steps) > MOST_STEPS:
            return None
        if isinstance(error, NonFiniteError):
            wider = PRECISIONS[PRECISIONS.index(self._precision) + 1 :]
            return replace(present, dtype=wider[0]) if wider else None
        if isinstance(error, DeviceError) and self._precision == "fp32":
            return replace(present, dtype="fp16")
        if self._predictor is None:
            return None
        sides = self._predictor.processing_size("depth", image_size)
        smaller = tuple(max(SMALLEST_SIDE, round(side * SHRINK / 64) * 64) for side in sides)
        if smaller[0] * smaller[1] >= sides[0] * sides[1]:
            return None
        return replace(present, processing_size=f"{smaller[0]}x{smaller[1]}")

    def _try_the_step_above(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        below = self._steps.pop()
        try:
            self._use(self._steps[-1])
        except D3Error as fault:
            self._warn(f"cannot step up to {_described(self._steps[-1])} yet: {fault}")
            self._steps.append(below)
            self._predictor = None
            self._retry_s = min(2.0 * self._retry_s, LONGEST_RETRY_S)
        else:
            self._reasons.pop()
            self._warn(f"trying {_described(self._steps[-1])} again")
            # A step that fails again is tried later and later.
            self._retry_s = min(2.0 * self._retry_s, LONGEST_RETRY_S)
        self._retry_at = self._next_retry()

    def _next_retry(self) -> float:
        if len(self._steps) == 1 or self._retry_s <= 0:
            return float("inf")
        return time.monotonic() + self._retry_s


def _at_present(states: Sequence[LatencyState]) -> str:
    return "; ".join(
        f"{state.size[0]}x{state.size[1]} ({state.rung} of {state.rungs}, "
        f"{state.latency_ms:.0f} of {state.target_ms:g} ms)"
        for state in states
    )


def _described(settings: NodeSettings) -> str:
    return f"dtype {settings.dtype}, processing size {settings.processing_size}"

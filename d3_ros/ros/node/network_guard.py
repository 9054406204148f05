"""Keeps the node's network running: steps down where it fails, and up again later.

A step is a precision and a processing size. An error of the device (too little memory) leads to the
next step at once. Output with NaN or infinity and unexpected errors do so after several failures in
a row. After a while the step above is tried again; the time until then doubles with every try.
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

# The precision to try after one whose answers are not finite.
WIDER = {"int8": "fp32", "fp16": "bf16", "bf16": "fp32"}
# Sides shrink to this share, and not below this many pixels.
SHRINK = 0.75
SMALLEST_SIDE = 128
MOST_STEPS = 6
LONGEST_RETRY_S = 3600.0
# A network that cannot be loaded is tried again this much later.
RELOAD_S = 5.0


class LoadedPredictor(Predictor, Protocol):
    """What the guard needs to know of a predictor to find the step below it."""

    @property
    def precision(self) -> str:
        """fp32, fp16, bf16 or int8."""
        ...

    @property
    def latency(self) -> Mapping[tuple[int, int], LatencyState]:
        """Image size -> how a target latency chose the processing size; empty without a target."""
        ...

    def processing_size(self, task: Task, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) to which an image of (height, width) is resized for the network."""
        ...

    def predict_batch(
        self, images: Sequence[np.ndarray], tasks: tuple[Task, ...] | None = None
    ) -> list[D3Prediction]:
        """Predict several images at once."""
        ...


Load = Callable[[NodeSettings], LoadedPredictor]


class NetworkGuard:
    """A predictor that survives its own failures; used by one thread at a time.

    `reason` and `step` may be read from any thread.

    Args:
        load: makes a predictor from settings; may raise anything.
        settings: the first step; `fallback` says how to go down and up again.
        warn: called with one line about every step.

    Raises:
        Exception: whatever `load` raises for the first step.
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
        self._load_error: Exception | None = None
        self._no_load_until = float("-inf")
        self._image_size: tuple[int, int] | None = None
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
        """Precision and processing size at which it runs, in words."""
        predictor = self._predictor
        states = list(predictor.latency.values()) if predictor is not None else []
        if states:
            return f"{self._precision}, {'; '.join(map(_chosen_by_latency, states))}"
        if predictor is None or self._image_size is None:
            return f"{self._precision}, {_size_in_words(self._steps[-1].processing_size)}"
        height, width = predictor.processing_size("depth", self._image_size)
        return f"{self._precision}, {height}x{width} pixels"

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
        self._image_size = (images[0].shape[0], images[0].shape[1])
        self._try_the_step_above()
        while True:
            try:
                predictions = self._loaded().predict_batch(images, tasks)
            except Exception as error:
                if self._step_down(error, self._image_size):
                    continue
                if len(images) == 1:
                    return [error]
                # Only one of them may be to blame.
                return [result for image in images for result in self.predict_each([image], tasks)]
            self._failures = 0
            return list(predictions)

    def _loaded(self) -> LoadedPredictor:
        if self._predictor is None:
            # Loading takes seconds: not with every frame while it fails.
            if self._load_error is not None and time.monotonic() < self._no_load_until:
                raise self._load_error
            self._use(self._steps[-1])
        assert self._predictor is not None
        return self._predictor

    def _use(self, settings: NodeSettings) -> None:
        self._predictor = None  # first, so that two never need memory at once
        free_memory()
        try:
            self._predictor = self._load(settings)
        except Exception as error:
            # Without its traceback, whose local variables hold the network's memory.
            self._load_error = error.with_traceback(None)
            self._no_load_until = time.monotonic() + RELOAD_S
            raise
        self._load_error = None
        self._precision = self._predictor.precision

    def _step_down(self, error: Exception, image_size: tuple[int, int]) -> bool:
        """Go to the step below, if it is time to and there is one; False to give up the frame."""
        self._failures += 1
        at_once = isinstance(error, DeviceError)
        if not at_once and self._failures < self._fallback.failures:
            return False
        candidates = self._steps_below(error, image_size)
        if not self._fallback.enabled or time.monotonic() < self._no_step_until:
            return False
        if candidates:
            self._failures = 0
            # What failed must not keep the network's memory through its local variables.
            traceback.clear_frames(error.__traceback__)
        why = _in_words(error)
        for below in candidates:
            self._warn(f"stepping down to {_described(below)}: {why}")
            try:
                self._use(below)
            except Exception as fault:
                self._warn(f"cannot step down: {_in_words(fault)}")
                continue
            self._steps.append(below)
            self._reasons.append(f"stepped down to {_described(below)}: {why}")
            self._retry_at = self._next_retry()
            return True
        if candidates:
            self._no_step_until = time.monotonic() + max(self._retry_s, 1.0)
            self._no_load_until = float("-inf")  # the step that it stays at may be loaded at once
        return False

    def _steps_below(self, error: Exception, image_size: tuple[int, int]) -> list[NodeSettings]:
        """The steps that may avoid the error, the best first; a model may lack the first."""
        present = self._steps[-1]
        if len(self._steps) > MOST_STEPS:
            return []
        if isinstance(error, NonFiniteError):
            wider = WIDER.get(self._precision)
            return [replace(present, dtype=wider)] if wider else []
        below = []
        if isinstance(error, DeviceError) and self._precision == "fp32":
            below.append(replace(present, dtype="fp16"))  # ONNX Runtime needs graphs in fp16
        if self._predictor is not None:
            sides = self._predictor.processing_size("depth", image_size)
            smaller = tuple(max(SMALLEST_SIDE, round(side * SHRINK / 64) * 64) for side in sides)
            if smaller[0] * smaller[1] < sides[0] * sides[1]:
                below.append(replace(present, processing_size=f"{smaller[0]}x{smaller[1]}"))
        return below

    def _try_the_step_above(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        below = self._steps.pop()
        try:
            self._use(self._steps[-1])
        except Exception as fault:
            self._warn(f"cannot step up to {_described(self._steps[-1])} yet: {_in_words(fault)}")
            self._steps.append(below)
            self._no_load_until = float("-inf")  # the step below may be loaded at once
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


def _in_words(error: Exception) -> str:
    """One line; the class's name only where it was not expected."""
    text = one_line(error)
    return text if isinstance(error, D3Error) else f"{type(error).__name__}: {text}"


def _chosen_by_latency(state: LatencyState) -> str:
    height, width = state.size
    return (
        f"{height}x{width} pixels (size {state.rung} of {state.rungs}, "
        f"{state.latency_ms:.0f} of {state.target_ms:g} ms)"
    )


def _size_in_words(processing_size: str) -> str:
    """A value of the parameter processing_size, for readers who do not know its words."""
    if processing_size == "bundle":
        return "the model's own size"
    if processing_size.startswith("aspect"):
        shorter = processing_size.partition(":")[2]
        return "the image's aspect ratio" + (
            f", shorter side about {shorter} pixels" if shorter else ""
        )
    return f"{processing_size} pixels"


def _described(settings: NodeSettings) -> str:
    return f"{settings.dtype}, {_size_in_words(settings.processing_size)}"

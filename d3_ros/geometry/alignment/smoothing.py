"""What the aligner remembers from frame to frame: the global fit and the choices it made.

`GatedSmoother` averages the global fit while successive fits agree and follows a real change at
once. `CorrectionSmoother` averages the local correction where the scene stays.
`SteadyChoice` picks one of several methods by their errors without flipping between frames.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from d3_ros.geometry.alignment.global_fit.domain import GlobalFit
from d3_ros.geometry.alignment.numerics import median

Key = TypeVar("Key", bound=Hashable)

# Differences of log depth between two frames at which a cell's past counts 0.6 of its weight.
SAME_DEPTH, SAME_CORRECTION = 0.05, 0.2
# chi-squared with two degrees of freedom, one false alarm in a thousand.
GATE_CHI2 = 13.8


class GatedSmoother:
    """Kalman filter over (scale, shift) with a forgetting factor.

    In a steady scene it averages about the last 1 / (1 - memory) fits. A new fit replaces the state
    when the difference is significant (by both covariances) and larger than `step` at the points.

    Args:
        memory: in [0, 1); 0 is no smoothing.
        step: smallest relative change of depth that can replace the state.
    """

    def __init__(self, memory: float, step: float) -> None:
        self.memory = memory
        self.step = step
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._state: GlobalFit | None = None

    def update(self, fit: GlobalFit, relative: np.ndarray) -> GlobalFit:
        """The smoothed fit. `relative` (N,) is where the fit was measured."""
        if self._state is not None and self._state.domain == fit.domain and self.memory > 0:
            fit = self._blend(self._state, fit, relative)
        self._state = fit
        return fit

    def _blend(self, past: GlobalFit, fit: GlobalFit, relative: np.ndarray) -> GlobalFit:
        prior = past.affine.covariance / self.memory
        measured = fit.affine.covariance
        innovation = fit.affine.parameters - past.affine.parameters
        total = prior + measured
        if np.linalg.cond(total) > 1e14:  # exact fits: there is nothing to average
            return fit
        by_chance = float(innovation @ np.linalg.solve(total, innovation)) < GATE_CHI2
        old, new = past.metres(relative), fit.metres(relative)
        with np.errstate(invalid="ignore", divide="ignore"):
            changes = np.abs(np.log(new / old))
        known = changes[~np.isnan(changes)]
        change = median(known) if len(known) else np.nan
        if not by_chance and not change < self.step:
            return fit
        gain = prior @ np.linalg.inv(total)
        parameters = past.affine.parameters + gain @ innovation
        covariance = (np.eye(2) - gain) @ prior
        scale, shift = float(parameters[0]), float(parameters[1])
        return replace(
            fit, affine=replace(fit.affine, scale=scale, shift=shift, covariance=covariance)
        )


class CorrectionSmoother:
    """Averages the local correction over frames, cell by cell, where the scene stays the same.

    A cell keeps its past as far as its depth by the global fit and its correction are alike in both
    frames. A step of the scene or an object that moves through the cell is followed at once.

    Args:
        memory: in [0, 1); 0 is no smoothing.
    """

    def __init__(self, memory: float) -> None:
        self.memory = memory
        self._past: tuple[np.ndarray, np.ndarray] | None = None

    def update(self, by_fit: np.ndarray, correction: np.ndarray) -> np.ndarray:
        """The smoothed correction of log depth, (h, w).

        Args:
            by_fit: (h, w) log depth of the cells by the global fit.
            correction: (h, w) what this frame adds to it.
        """
        if self._past is not None and self._past[0].shape == by_fit.shape and self.memory > 0:
            moved = (by_fit - self._past[0]) * np.float32(1.0 / SAME_DEPTH)
            change = correction - self._past[1]
            moved *= moved
            moved += np.square(change * np.float32(1.0 / SAME_CORRECTION))
            keep = np.float32(self.memory) * np.exp(np.float32(-0.5) * moved)
            correction = correction - keep * change
        self._past = by_fit, correction
        return correction


class SteadyChoice(Generic[Key]):
    """Chooses the candidate with the smallest error, averaged over frames.

    Another candidate takes over only when its average is better by the share `hysteresis`.
    """

    def __init__(self, hysteresis: float, memory: float = 0.8) -> None:
        self.hysteresis = hysteresis
        self.memory = memory
        self.reset()

    def reset(self) -> None:
        """Forget all errors."""
        self._chosen: list[Key] = []
        self._errors: dict[Key, float] = {}

    def choose(self, errors: dict[Key, float]) -> Key:
        """The candidate to use, given this frame's held-out error of each usable candidate."""
        for key, error in errors.items():
            before = self._errors.get(key, error)
            self._errors[key] = self.memory * before + (1 - self.memory) * error
        best = min(errors, key=self._errors.__getitem__)
        current = self._chosen[0] if self._chosen and self._chosen[0] in errors else best
        if self._errors[best] < (1 - self.hysteresis) * self._errors[current]:
            current = best
        self._chosen = [current]
        return current

"""Choosing the best of several ways by their errors, without flipping between frames."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class SteadyChoice(Generic[Key]):
    """Keeps what predicts held-out points best.

    Each candidate's error is averaged over frames; another one takes over when its average is
    better by the share `hysteresis`.
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
        """The candidate to use, given this frame's held-out error of each that is usable."""
        for key, error in errors.items():
            before = self._errors.get(key, error)
            self._errors[key] = self.memory * before + (1 - self.memory) * error
        best = min(errors, key=self._errors.__getitem__)
        current = self._chosen[0] if self._chosen and self._chosen[0] in errors else best
        if self._errors[best] < (1 - self.hysteresis) * self._errors[current]:
            current = best
        self._chosen = [current]
        return current

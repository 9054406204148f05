"""The robot's path: a closed curve at constant speed; the robot faces forward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

SAMPLES = 4096


@dataclass(frozen=True)
class Motion:
    """Pose and speed of the robot.

    `x`, `y` (m) and `yaw` (rad) of base_link in the world; `speed` (m/s) along its x axis and
    `turn_rate` (rad/s) about its z axis.
    """

    x: float
    y: float
    yaw: float
    speed: float
    turn_rate: float

    @property
    def T_world_base(self) -> np.ndarray:  # noqa: N802 - T_a_b is how the package writes transforms
        """(4, 4) pose of base_link."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s, 0, self.x], [s, c, 0, self.y], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@dataclass(frozen=True)
class Loop:
    """An ellipse about the world's origin, anticlockwise.

    Args:
        half_x: half its axis along x, metres.
        half_y: half its axis along y, metres.
        start: where the robot starts, as a share of the whole path.
    """

    half_x: float
    half_y: float
    start: float = 0.0

    def at(self, seconds: float, speed: float) -> Motion:
        """The motion `seconds` after the start, with `speed` m/s."""
        angles, lengths = self._arc
        way = (self.start * self.length + seconds * speed) % self.length
        a = float(np.interp(way, lengths, angles))
        dx, dy = -self.half_x * np.sin(a), self.half_y * np.cos(a)
        curvature = self.half_x * self.half_y / np.hypot(dx, dy) ** 3
        return Motion(
            x=float(self.half_x * np.cos(a)),
            y=float(self.half_y * np.sin(a)),
            yaw=float(np.arctan2(dy, dx)),
            speed=speed,
            turn_rate=float(speed * curvature),
        )

    @property
    def length(self) -> float:
        """Length of the path, metres."""
        return float(self._arc[1][-1])

    @cached_property
    def _arc(self) -> tuple[np.ndarray, np.ndarray]:
        """Angles, and the length of the path from angle 0 to each."""
        angles = np.linspace(0.0, 2 * np.pi, SAMPLES + 1)
        steps = np.hypot(
            np.diff(self.half_x * np.cos(angles)), np.diff(self.half_y * np.sin(angles))
        )
        return angles, np.concatenate([[0.0], np.cumsum(steps)])

"""How far metres may rise where the image is farther than every sensor point.

There the global fit extrapolates: if the network's floor is a little too flat, the wall behind it
comes out at many times its depth. A fit that predicts the points well may rise farther.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Reach of the limit (log depth) times the left-out error of the fit: a fit that is wrong by 10 %
# may rise to e^0.6 = 1.8 times the depth of the farthest point.
ERROR_TIMES_REACH = 0.06
LEAST_ERROR = 1e-4


@dataclass(frozen=True)
class FarLimit:
    """Beyond `log_depth`, log depth rises ever less and comes up to `reach` above it at most."""

    log_depth: float
    reach: float

    def apply(self, log_depth: np.ndarray) -> np.ndarray:
        """(…) log depth within the limit, of the same shape and type; NaN stays NaN."""
        kind = log_depth.dtype.type
        over = np.maximum(log_depth - kind(self.log_depth), kind(0))
        less = over - kind(self.reach) * -np.expm1(over * kind(-1.0 / self.reach))
        return np.asarray(log_depth - less)


class SteadyFarLimit:
    """The limit of each frame, from its own points and those of the frames before.

    The farthest point is another one in each frame. A nearer one takes over slowly, with the same
    memory as the fit's; a farther one counts at once.

    Args:
        memory: in [0, 1); 0 is no smoothing.
    """

    def __init__(self, memory: float) -> None:
        self.memory = memory
        self._farthest = float("-inf")
        self._log_error: float | None = None

    def update(self, farthest: float, error: float) -> tuple[float, float]:
        """Relative depth where the limit begins, and its reach in log depth.

        Args:
            farthest: largest relative depth of the frame's points.
            error: mean relative error of its left-out points.
        """
        log_error = float(np.log(max(error, LEAST_ERROR)))
        if self._log_error is None:
            self._farthest, self._log_error = farthest, log_error
        self._farthest = max(
            farthest, self._farthest + (1 - self.memory) * (farthest - self._farthest)
        )
        self._log_error += (1 - self.memory) * (log_error - self._log_error)
        return self._farthest, float(ERROR_TIMES_REACH / np.exp(self._log_error))

"""The global fit over time: steady while it agrees with itself, new at once when it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from d3_ros.geometry.alignment.global_fit.domain import GlobalFit
from d3_ros.geometry.alignment.numerics import median

# chi-squared with two degrees of freedom, one false alarm in a thousand.
GATE_CHI2 = 13.8


class GatedSmoother:
    """Kalman filter over (scale, shift) with a forgetting factor.

    The filter forgets at a fixed rate per fit, so in a steady scene it averages about the last
    1 / (1 - memory) fits. A fit starts it anew when it differs both by more than chance (its own
    and the filter's covariance) and by more than matters (`step`, at the measured points).

    Args:
        memory: in [0, 1); 0 is no smoothing.
        step: relative change of depth that counts as real.
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
        if np.linalg.cond(total) > 1e14:  # exact fits: nothing to average
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

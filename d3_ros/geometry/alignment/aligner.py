"""The scale of one camera over time: fit, judge, hold, refuse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from d3_ros.geometry.alignment.robust_fit import robust_affine
from d3_ros.geometry.alignment.settings import AlignmentSettings
from d3_ros.types import DepthFit


class _RefusedError(Exception):
    """This frame's sensor depth gives no scale; the message says why."""


@dataclass(frozen=True)
class _Points:
    """Usable sensor points: relative depth in (0, 1) and z-depth in metres, both (N,)."""

    relative: np.ndarray
    depth: np.ndarray


class ScaleAligner:
    """Puts affine-invariant depth to metric scale, frame by frame; holds one camera's state.

    Args:
        **settings: fields of `AlignmentSettings`.

    Raises:
        ValueError: a setting is out of its range.
        TypeError: a setting is unknown.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = AlignmentSettings(**settings)
        self.reset()

    def reset(self) -> None:
        """Forget the fit that is held."""
        self._last: DepthFit | None = None
        self._last_stamp = float("-inf")
        self._now = float("-inf")

    def update(self, relative: np.ndarray, sparse: np.ndarray | None, stamp: float) -> DepthFit:
        """Fit this frame, or hold the last fit, or say that there is no scale.

        The inputs are not changed. The same inputs after a reset give the same fit.

        Args:
            relative: (H, W) float32 affine-invariant depth in [0, 1], 0 near; values at 0 and 1
                are saturated and take no part.
            sparse: (H, W) float32 sensor z-depth in metres, NaN or <= 0 = none; or None.
            stamp: acquisition time in seconds. Time that jumps back (a bag that starts again)
                resets the state.

        Raises:
            ValueError: the sizes differ or an array is not (H, W).
        """
        if relative.ndim != 2:
            raise ValueError(f"relative depth must be (H, W), got {relative.shape}")
        if sparse is not None and sparse.shape != relative.shape:
            raise ValueError(
                f"sparse depth {sparse.shape} is not of the image's size {relative.shape}"
            )
        if stamp < self._now:
            self.reset()
        self._now = stamp
        try:
            fit = self._measure(relative, sparse)
        except _RefusedError as refusal:
            return self._hold(str(refusal), stamp)
        self._last, self._last_stamp = fit, stamp
        return fit

    def _hold(self, reason: str, stamp: float) -> DepthFit:
        if self._last is None:
            return DepthFit(ok=False, state="relative", reason=reason)
        age = stamp - self._last_stamp
        if age > self.settings.hold_s:
            expired = (
                f"{reason}; the last fit is {age:.1f} s old, held for {self.settings.hold_s:g} s"
            )
            return DepthFit(ok=False, state="relative", reason=expired, age_s=age)
        return replace(self._last, state="held", reason=reason, points=0, age_s=age)

    def _measure(self, relative: np.ndarray, sparse: np.ndarray | None) -> DepthFit:
        settings = self.settings
        points = self._usable_points(relative, sparse)
        count = len(points.depth)
        # Seeded by nothing but the count: the same frame always gives the same fit.
        rng = np.random.default_rng(count)
        held_out = np.zeros(count, bool)
        held_out[rng.permutation(count)[: int(settings.held_out_share * count)]] = True
        fit_on = np.flatnonzero(~held_out)
        if len(fit_on) > settings.max_points:
            fit_on = fit_on[np.linspace(0, len(fit_on) - 1, settings.max_points).astype(int)]
        scale, shift = robust_affine(points.relative[fit_on], points.depth[fit_on], rng)

        if not np.isfinite(scale) or scale <= 0:
            raise _RefusedError("sensor depth falls where relative depth rises (negative scale)")
        error = np.abs(scale * points.relative + shift - points.depth) / points.depth
        inlier_ratio = float(np.mean(error[~held_out] < settings.inlier_tolerance))
        if inlier_ratio < settings.min_inlier_ratio:
            raise _RefusedError(
                f"only {inlier_ratio:.0%} of {count} points agree with one scale, "
                f"{settings.min_inlier_ratio:.0%} needed"
            )
        abs_rel = float(error[held_out].mean()) if held_out.any() else float("nan")
        return DepthFit(
            ok=True,
            state="measured",
            scale=scale,
            shift=shift,
            inlier_ratio=inlier_ratio,
            abs_rel=abs_rel,
            points=count,
        )

    def _usable_points(self, relative: np.ndarray, sparse: np.ndarray | None) -> _Points:
        settings = self.settings
        if sparse is None:
            raise _RefusedError("no sensor depth")
        # Comparisons are false for NaN, so this keeps measured points only.
        rows, columns = np.nonzero((sparse >= settings.min_depth) & (sparse <= settings.max_depth))
        if len(rows) < settings.min_points:
            raise _RefusedError(f"{len(rows)} sensor points in range, {settings.min_points} needed")
        x, z = relative[rows, columns], sparse[rows, columns]
        finite = np.isfinite(x)
        if not finite.any():
            raise _RefusedError("relative depth is not finite at any sensor point")
        usable = finite & (x > 0.0) & (x < 1.0)
        if usable.sum() < settings.min_points:
            raise _RefusedError(
                f"relative depth is saturated at all but {usable.sum()} of {len(x)} sensor points, "
                f"{settings.min_points} needed"
            )
        x, z = x[usable], z[usable]
        low, high = np.quantile(x, (0.05, 0.95))
        if high - low < settings.min_relative_spread:
            raise _RefusedError(
                f"relative depth spans {high - low:.3f} over the sensor points, "
                f"{settings.min_relative_spread:g} needed"
            )
        return _Points(x.astype(np.float64), z.astype(np.float64))

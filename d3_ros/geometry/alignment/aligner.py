"""The scale of one camera over time: fit, judge, correct, smooth, hold, refuse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from d3_ros.geometry.alignment.carried_points import CameraView, CarriedPoints
from d3_ros.geometry.alignment.global_fit.global_scale import GlobalScale
from d3_ros.geometry.alignment.local.guided_detail import Guide
from d3_ros.geometry.alignment.local.local_correction import LocalCorrection
from d3_ros.geometry.alignment.local.voronoi import Diagram, diagram_of
from d3_ros.geometry.alignment.metric_map import MetricMap
from d3_ros.geometry.alignment.parallel import meanwhile
from d3_ros.geometry.alignment.points import Points, RefusedError, joined, thin, usable_points
from d3_ros.geometry.alignment.settings import AlignmentSettings
from d3_ros.geometry.alignment.uncertainty import ErrorModel, LeftOut, range_at
from d3_ros.types import DepthFit

# Most held-out points; the second number where there are more than `max_points`.
MAX_HELD_OUT, MAX_HELD_OUT_DENSE = 64, 256
# Up to so many points, the image guides the detail; more points show the edges themselves.
GUIDED_POINTS = 3000
# 95 % of a normal distribution lie above its mean minus so many standard deviations.
ONE_SIDED_95 = 1.645
# An image that is older than the newest one by more than this (seconds) begins a new sequence.
LATE_S = 1.0


class ScaleAligner:
    """Puts affine-invariant depth to metric scale, frame by frame; holds one camera's state.

    Args:
        stage: gives, for the name of each stage that runs, a context to run it in; for measuring.
        **settings: fields of `AlignmentSettings`.

    Raises:
        ValueError: a setting is out of its range.
        TypeError: a setting is unknown.
    """

    # Whether to refuse points whose metres do not rise with relative depth.
    _needs_slope = False

    def __init__(
        self,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
        **settings: Any,
    ) -> None:
        self.settings = AlignmentSettings(**settings)
        self._stage = stage
        self.reset()

    def reset(self) -> None:
        """Forget everything learned from earlier frames."""
        self._last: DepthFit | None = None
        self._last_stamp = float("-inf")
        self._last_shape: tuple[int, ...] = (0, 0)
        self._global_error = 0.0
        self._now = float("-inf")
        self._carried = CarriedPoints(self.settings)
        self._begin((0, 0))

    def _begin(self, shape: tuple[int, ...]) -> None:
        """Take images of another size: the network's depth has another scale there.

        The last fit may still be held, without its correction, which belongs to single pixels.
        """
        self._shape = shape
        self._local = LocalCorrection(self.settings, self._stage)
        self._global = GlobalScale(self.settings, self._needs_slope)

    def update(
        self,
        relative: np.ndarray,
        sparse: np.ndarray | None,
        stamp: float,
        missing: str = "no sensor depth",
        rgb: np.ndarray | None = None,
        view: CameraView | None = None,
    ) -> DepthFit:
        """Fit this frame, or hold the last fit, or say that there is no scale.

        The inputs are not changed. The same inputs after a reset give the same fit.

        Args:
            relative: (H, W) float32 affine-invariant depth in [0, 1], 0 near; values at 0 and 1
                are saturated and take no part.
            sparse: (H, W) float32 sensor z-depth in metres, NaN or <= 0 = none; or None.
            stamp: acquisition time in seconds. Time that jumps back (a bag that starts again)
                resets the state; a frame that is late by up to `LATE_S` does not.
            missing: why `sparse` is None, for the fit's reason.
            rgb: (H, W, 3) uint8 image; the correction then follows its edges.
            view: where the camera is and how it projects; points of earlier frames with a view are
                then used as far as they are still seen (`carry_age_s`, `carry_points`).

        Returns:
            The fit. `scale` and `shift` are those of the (smoothed) affine fit in the depth domain;
            `apply` uses the domain that predicts best and the local correction.

        Raises:
            ValueError: the sizes differ or an array is not (H, W).
        """
        if relative.ndim != 2:
            raise ValueError(f"relative depth must be (H, W), got {relative.shape}")
        if sparse is not None and sparse.shape != relative.shape:
            raise ValueError(
                f"sparse depth {sparse.shape} is not of the image's size {relative.shape}"
            )
        if rgb is not None and rgb.shape != (*relative.shape, 3):
            raise ValueError(f"the image {rgb.shape} is not of the size {relative.shape}")
        if view is not None:
            camera = view.intrinsics
            if (camera.height, camera.width) != relative.shape:
                raise ValueError(f"{camera} is not of the image's size {relative.shape}")
        if stamp < self._now - LATE_S:
            self.reset()
        self._now = stamp
        if relative.shape != self._shape:
            self._begin(relative.shape)
        if sparse is None:
            return self._hold(missing, stamp)
        try:
            fit = self._measure(relative, sparse, stamp, rgb, view)
        except RefusedError as refusal:
            return self._hold(str(refusal), stamp)
        self._last, self._last_stamp, self._last_shape = fit, stamp, relative.shape
        return fit

    def _hold(self, reason: str, stamp: float) -> DepthFit:
        if self._last is None:
            return DepthFit(ok=False, state="relative", reason=reason)
        age = max(0.0, stamp - self._last_stamp)
        if age > self.settings.hold_s:
            expired = (
                f"{reason}; the last fit is {age:.1f} s old, held for {self.settings.hold_s:g} s"
            )
            return DepthFit(ok=False, state="relative", reason=expired, age_s=age)
        metric_map = self._last.to_metres
        outdated = age > self.settings.hold_correction_s or self._last_shape != self._shape
        if outdated and isinstance(metric_map, MetricMap):
            metric_map = replace(metric_map, field=None, detail=None, reach=None)
        errors = self._last.relative_error
        if isinstance(errors, ErrorModel):
            points = errors.points.resized(self._last_shape, self._shape)
            errors = replace(errors, points=points, age_s=age)
            if metric_map is not self._last.to_metres:
                errors = replace(errors, lost_error=self._global_error)
        return replace(
            self._last,
            state="held",
            reason=reason,
            points=0,
            age_s=age,
            to_metres=metric_map,
            relative_error=errors,
        )

    def _split(self, points: Points, rng: np.random.Generator) -> tuple[Points, Points]:
        """Held-out points, and the others in random order, so that the last ones are a sample."""
        count, settings = len(points), self.settings
        shuffled = rng.permutation(count)
        most = MAX_HELD_OUT if count <= settings.max_points else MAX_HELD_OUT_DENSE
        held_out_count = min(int(settings.held_out_share * count), most)
        return points[np.sort(shuffled[:held_out_count])], points[shuffled[held_out_count:]]

    def _inlier_ratio(self, agreement: np.ndarray, points: int) -> float:
        """The share of (N,) relative errors within the tolerance; refuses where it is too small."""
        ratio = float(np.mean(agreement < self.settings.inlier_tolerance))
        # Of few points a small share may disagree by chance.
        needed = self.settings.min_inlier_ratio
        needed -= ONE_SIDED_95 * (needed * (1.0 - needed) / len(agreement)) ** 0.5
        if ratio < needed:
            raise RefusedError(
                f"only {ratio:.0%} of {points} points agree with one scale, "
                f"{self.settings.min_inlier_ratio:.0%} needed"
            )
        return ratio

    def _measure(
        self,
        relative: np.ndarray,
        sparse: np.ndarray,
        stamp: float,
        rgb: np.ndarray | None,
        view: CameraView | None,
    ) -> DepthFit:
        settings = self.settings
        with self._stage("usable points"):
            points = usable_points(relative, sparse, settings)
        # Seeded by nothing but the count: the same frame always gives the same fit.
        rng = np.random.default_rng(len(points))
        held_out, seen = self._split(points, rng)
        if view is not None and settings.carry_age_s > 0:
            with self._stage("carried points"):
                seen = joined(self._carried.seen_from(view, relative, points, stamp), seen)
        shape = relative.shape[0], relative.shape[1]

        def look_around() -> Diagram | Guide:
            if rgb is not None and len(seen) <= GUIDED_POINTS:
                return Guide(rgb)
            return diagram_of(seen.rows, seen.columns, shape)

        ahead: AbstractContextManager[Callable[[], Diagram | Guide] | None] = nullcontext()
        if settings.local_correction:
            ahead = meanwhile(look_around)
        with ahead as around:
            with self._stage("thinning"):
                few, cell_of = thin(seen, settings.max_points)
            with self._stage("global fits"):
                scale = self._global.fit(few, rng)
            fit = scale.fit
            metric_map = MetricMap(fit, None, None, 0.0, settings.max_depth)
            by_fit = LeftOut.of(few, fit.metres(few.relative))
            left_out = LeftOut.of(held_out, fit.metres(held_out.relative))
            agreement = np.abs(fit.metres(few.relative) / few.depth - 1.0)
            local = None
            if around is not None:
                local = self._local.fit(fit, seen, few, cell_of, held_out, relative, rng, around)
        if local is not None:
            metric_map, agreement, left_out = local.metric_map, local.left_out, local.held_out
        inlier_ratio = self._inlier_ratio(agreement, len(few))
        self._global_error = by_fit.mean()
        if view is not None and settings.carry_age_s > 0:
            self._carried.remember(view, points, fit, stamp)
        held_out_abs_rel = left_out.mean()
        judges = left_out if len(left_out) else by_fit
        errors = ErrorModel(few, judges.around(few), guess=bool(scale.note)).calibrated(
            judges, range_at(relative, judges, fit.metres), max(shape), len(points)
        )
        return DepthFit(
            ok=True,
            state="measured",
            reason=scale.note,
            scale=scale.published.scale,
            shift=scale.published.shift,
            inlier_ratio=inlier_ratio,
            abs_rel=errors.mean(held_out_abs_rel, partial(metric_map.band, relative), shape),
            held_out_abs_rel=held_out_abs_rel,
            points=len(points),
            to_metres=metric_map,
            relative_error=errors,
        )

"""The global fit of a frame: best domain, slope tested for significance, smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from d3_ros.geometry.alignment.global_fit.domain import (
    DOMAINS,
    Domain,
    GlobalFit,
    fit_domains,
    level_fit,
    with_rising_slope,
)
from d3_ros.geometry.alignment.global_fit.far_limit import FarLimit, SteadyFarLimit
from d3_ros.geometry.alignment.global_fit.robust_fit import AffineFit
from d3_ros.geometry.alignment.numerics import central_span
from d3_ros.geometry.alignment.points import Points, RefusedError
from d3_ros.geometry.alignment.settings import AlignmentSettings
from d3_ros.geometry.alignment.smoothing import GatedSmoother, SteadyChoice

# A slope is believed from so many of its standard deviations on.
SIGNIFICANT = 2.0
# Points whose 5 % to 95 % span of log depth is smaller than this lie at one depth.
ONE_DEPTH_SPAN = 0.05
# Two scales that each fit their points better than this are a contradiction, not a poor network.
CONTRADICTION_ERROR = 0.05
# Fewer points than this fit a scale of their own by chance: a floor, and what stands behind it.
CONTRADICTION_POINTS = 20


@dataclass(frozen=True)
class FrameScale:
    """A frame's global fit.

    `fit`: in the chosen domain, smoothed, and with `local_correction` limited beyond the points.
    `published`: scale and shift in metres, without that limit. `note`: what a user should know, or
    empty.
    """

    fit: GlobalFit
    published: AffineFit
    note: str


class GlobalScale:
    """Fits the global map of one camera and remembers its domain and its smoothed parameters.

    Args:
        settings: of the alignment.
        needs_slope: refuse points along which metres do not rise significantly.
    """

    def __init__(self, settings: AlignmentSettings, needs_slope: bool) -> None:
        self.settings = settings
        self.needs_slope = needs_slope
        self._choice: SteadyChoice[Domain] = SteadyChoice(settings.domain_hysteresis)
        self._smoothers = {
            domain: GatedSmoother(settings.smoothing, settings.scale_step) for domain in DOMAINS
        }
        self._far_limit = SteadyFarLimit(settings.smoothing)

    def fit(self, points: Points, rng: np.random.Generator) -> FrameScale:
        """Fit the points of a frame.

        Raises:
            RefusedError: the points contradict each other, or no slope is found and one is needed.
        """
        one_depth = central_span(np.log(points.depth)) < ONE_DEPTH_SPAN
        note = f"all sensor points lie near {np.median(points.depth):.2f} m" if one_depth else ""
        if central_span(points.relative) < self.settings.min_relative_spread:
            if self.needs_slope:
                raise RefusedError("relative depth is the same at all sensor points")
            fit = self._smoothers["log"].update(
                level_fit(points.relative, points.depth), points.relative
            )
            told = note or "relative depth is the same at all sensor points"
            return self._by_points_alone(fit, points, told)
        fits = fit_domains(DOMAINS, points.relative, points.depth, rng)
        errors: dict[Domain, float] = {
            domain: fit.left_out_error(points.depth)
            for domain, fit in fits.items()
            if fit.significance > SIGNIFICANT
        }
        if errors:
            self._refuse_contradiction(fits[min(errors, key=errors.__getitem__)], points, rng)
            chosen = self._choice.choose(errors)
            smoothed = {
                domain: self._smoothers[domain].update(fits[domain], points.relative)
                for domain in {chosen, "depth"} & errors.keys()
            }
            fit = smoothed[chosen]
            in_metres = smoothed.get("depth")
            published = in_metres.affine if in_metres else fit.tangent(points.relative)
            told = f"{note}: elsewhere is a guess" if note else ""
            return FrameScale(self._limited(fit, points), published, told)
        told = note or "sensor depth does not rise with relative depth"
        if fits["log"].significance < -SIGNIFICANT and not one_depth:
            told = "sensor depth falls where relative depth rises (negative scale)"
            if not self.settings.local_correction:
                raise RefusedError(told)
        if self.needs_slope:
            raise RefusedError(told)
        fit = self._smoothers["log"].update(with_rising_slope(fits["log"]), points.relative)
        return self._by_points_alone(fit, points, told)

    def _by_points_alone(self, fit: GlobalFit, points: Points, why: str) -> FrameScale:
        note = f"{why}: metres come from the sensor points alone"
        return FrameScale(self._limited(fit, points), fit.tangent(points.relative), note)

    def _limited(self, fit: GlobalFit, points: Points) -> GlobalFit:
        """The fit, held back beyond the farthest of its points."""
        if not self.settings.local_correction:
            return fit
        error = fit.left_out_error(points.depth)
        farthest, reach = self._far_limit.update(float(points.relative.max()), error)
        metres = float(fit.metres(np.float64(farthest)))
        if not np.isfinite(metres):
            return fit
        return replace(fit, limit=FarLimit(float(np.log(metres)), reach))

    def _refuse_contradiction(
        self, fit: GlobalFit, points: Points, rng: np.random.Generator
    ) -> None:
        """Refuse points that two different scales explain, each a part of them and each well."""
        error = np.abs(fit.metres(points.relative) / points.depth - 1.0)
        rest = points[~(error < self.settings.inlier_tolerance)]
        share = 1.0 - len(rest) / len(points)
        fewest = max(self.settings.min_points, CONTRADICTION_POINTS)
        if share >= self.settings.min_inlier_ratio or len(rest) < fewest:
            return
        other = fit_domains([fit.domain], rest.relative, rest.depth, rng)[fit.domain]
        other_error = np.abs(other.metres(rest.relative) / rest.depth - 1.0)
        agreeing = error[error < self.settings.inlier_tolerance]
        if max(np.median(agreeing), np.nanmedian(other_error)) < CONTRADICTION_ERROR:
            raise RefusedError(
                f"only {share:.0%} of {len(points)} points agree with one scale and the others "
                "with another: is the sensor's extrinsic calibration right?"
            )

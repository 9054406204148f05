"""The domain in which relative depth is affine to metric depth: depth, disparity or log depth.

Which one it is depends on the network and on the scene. A domain is a pair of functions between
metres and the value y = scale * relative + shift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.special import log_ndtr

from d3_ros.geometry.alignment.global_fit.far_limit import FarLimit
from d3_ros.geometry.alignment.global_fit.robust_fit import GROSS_ERROR, AffineFit, robust_affine
from d3_ros.geometry.alignment.numerics import LEAST_AFFINE, MAD_TO_SIGMA, median

Domain = Literal["depth", "disparity", "log"]
# A slope smaller than this share of the shift is a rounding error.
ROUNDING = 1e-9
DOMAINS: tuple[Domain, ...] = ("depth", "disparity", "log")


@dataclass(frozen=True)
class GlobalFit:
    """One affine map in one domain: metres = from_domain(scale * relative + shift).

    `limit` holds back what is farther than every point; None: nothing does.
    """

    domain: Domain
    affine: AffineFit
    limit: FarLimit | None = None

    @property
    def significance(self) -> float:
        """The slope over its standard deviation; positive where metres rise with relative depth.

        Noise decides the sign of a slope whose significance is below about 2.
        """
        rise = -self.affine.scale if self.domain == "disparity" else self.affine.scale
        # Points on an exact line leave a slope of rounding errors.
        rounding = ROUNDING * abs(self.affine.shift)
        sigma = float(np.sqrt(self.affine.covariance[0, 0] + rounding**2))
        if not np.isfinite(rise):
            return float("-inf")
        return rise / sigma if sigma > 0 else float(np.copysign(np.inf, rise)) if rise else 0.0

    def tangent(self, relative: np.ndarray) -> AffineFit:
        """The line z = scale * relative + shift in metres that is nearest to this map at (N,)."""
        metres = self.metres(relative)
        known = np.isfinite(metres)
        x, z = relative[known], metres[known]
        if len(x) == 0:
            return replace(self.affine, scale=float("nan"), shift=float("nan"))
        centred = x - x.mean()
        spread = float(centred @ centred)
        scale = max(float(centred @ z) / spread, 0.0) if spread > 0 else 0.0
        return replace(self.affine, scale=scale, shift=float(z.mean() - scale * x.mean()))

    def metres(self, relative: Any) -> np.ndarray:
        """Metres of relative depth, same shape; NaN where the map gives no positive depth."""
        value = relative * self.affine.scale + self.affine.shift
        if self.limit is None:
            return FROM_DOMAIN[self.domain](value)
        if self.domain == "disparity":  # beyond infinity is far
            value = np.maximum(value, LEAST_AFFINE)
        return np.exp(self.limit.apply(np.log(FROM_DOMAIN[self.domain](value))))

    def left_out_error(self, depth: np.ndarray) -> float:
        """Mean of |z - depth| / depth over the fitted points, each predicted from the others.

        An error counts as at most `GROSS_ERROR`, so that outliers of the sensor do not decide.
        """
        predicted = FROM_DOMAIN[self.domain](self.affine.left_out)
        error = np.abs(predicted / depth - 1.0)
        return float(np.mean(np.fmin(error, GROSS_ERROR)))


def _inverse(value: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(value > 0, 1.0 / value, np.nan)


def _positive(value: np.ndarray) -> np.ndarray:
    return np.where(value > 0, value, np.nan)


FROM_DOMAIN: dict[Domain, Callable[[np.ndarray], np.ndarray]] = {
    "depth": _positive,
    "disparity": _inverse,
    "log": lambda value: np.exp(np.minimum(value, 20.0)),
}
TO_DOMAIN: dict[Domain, Callable[[np.ndarray], np.ndarray]] = {
    "depth": lambda depth: depth,
    "disparity": lambda depth: 1.0 / depth,
    "log": np.log,
}
# dy per relative error of depth: dividing a residual by it gives a relative error of depth.
RELATIVE_UNIT: dict[Domain, Callable[[np.ndarray], np.ndarray]] = {
    "depth": lambda depth: depth,
    "disparity": lambda depth: 1.0 / depth,
    "log": np.ones_like,
}


def fit_domains(
    domains: Sequence[Domain], relative: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> dict[Domain, GlobalFit]:
    """One robust affine fit per domain of (N,) sensor depth in metres to (N,) relative depth."""
    y = np.stack([TO_DOMAIN[domain](depth) for domain in domains])
    unit = np.stack([RELATIVE_UNIT[domain](depth) for domain in domains])
    fits = robust_affine(relative, y, unit, rng)
    return {domain: GlobalFit(domain, fit) for domain, fit in zip(domains, fits, strict=True)}


def level_fit(relative: np.ndarray, depth: np.ndarray) -> GlobalFit:
    """The median log depth everywhere: a map that does not use the relative depth."""
    level, log_depth = median(np.log(depth)), np.log(depth)
    variance = (MAD_TO_SIGMA * median(np.abs(log_depth - level))) ** 2 / len(depth)
    covariance = np.diag([0.0, variance])
    left_out = np.full(len(depth), level)
    return GlobalFit("log", AffineFit(0.0, level, covariance, left_out))


def with_rising_slope(fit: GlobalFit) -> GlobalFit:
    """The fit in the log domain with the slope's expected value, given that it is not negative.

    The slope is normally distributed about the fitted one. Cut off at zero, its mean changes little
    where it is significant and goes to zero where it is significantly negative, without a step. The
    shift moves along, by their covariance, so that the metres at the points stay.
    """
    slope, variance = fit.affine.scale, float(fit.affine.covariance[0, 0])
    expected, moved = max(slope, 0.0), 0.0
    if variance > 0:
        sigma = variance**0.5
        t = slope / sigma
        # Density over distribution function of the normal distribution, without underflow.
        ratio = float(np.exp(-0.5 * (t * t + np.log(2.0 * np.pi)) - log_ndtr(t)))
        expected = max(slope + sigma * ratio, 0.0)
        moved = float(fit.affine.covariance[0, 1]) / variance * (expected - slope)
    shift = fit.affine.shift + moved
    return replace(fit, affine=replace(fit.affine, scale=expected, shift=shift))

"""The domain in which relative depth is affine to metric depth: depth, disparity or log depth.

Networks differ in what they are affine to, and so do scenes. Each domain is a pair of functions
between metres and the value y with y = scale * relative + shift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from d3_ros.geometry.alignment.global_fit.robust_fit import GROSS_ERROR, AffineFit, robust_affine

Domain = Literal["depth", "disparity", "log"]
DOMAINS: tuple[Domain, ...] = ("depth", "disparity", "log")


@dataclass(frozen=True)
class GlobalFit:
    """One affine map in one domain: metres = from_domain(scale * relative + shift)."""

    domain: Domain
    affine: AffineFit

    @property
    def rises(self) -> bool:
        """Whether farther in relative depth is farther in metres, as it must be."""
        scale = self.affine.scale
        return bool(np.isfinite(scale) and (scale < 0 if self.domain == "disparity" else scale > 0))

    def metres(self, relative: Any) -> np.ndarray:
        """Depth in metres of relative depth, same shape; NaN where the map has none."""
        value = relative * self.affine.scale + self.affine.shift
        return FROM_DOMAIN[self.domain](value)

    def left_out_error(self, depth: np.ndarray) -> float:
        """Mean of |z - depth| / depth over the fitted points, each predicted from the others.

        Errors count at most `GROSS_ERROR`, so that outliers of the sensor do not decide.
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
# |dy| / relative error in metres: makes residuals of every domain relative errors of depth.
RELATIVE_UNIT: dict[Domain, Callable[[np.ndarray], np.ndarray]] = {
    "depth": lambda depth: depth,
    "disparity": lambda depth: 1.0 / depth,
    "log": np.ones_like,
}


def fit_domains(
    domains: Sequence[Domain], relative: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> dict[Domain, GlobalFit]:
    """Robust affine fits of (N,) sensor depth in metres to (N,) relative depth, one a domain."""
    y = np.stack([TO_DOMAIN[domain](depth) for domain in domains])
    unit = np.stack([RELATIVE_UNIT[domain](depth) for domain in domains])
    fits = robust_affine(relative, y, unit, rng)
    return {domain: GlobalFit(domain, fit) for domain, fit in zip(domains, fits, strict=True)}

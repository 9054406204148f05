"""The domain in which relative depth is affine to metric depth: depth, disparity or log depth.

Which one it is depends on the network and on the scene. A domain is a pair of functions between
metres and the value y = scale * relative + shift.
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
        """Metres of relative depth, same shape; NaN where the map gives no positive depth."""
        value = relative * self.affine.scale + self.affine.shift
        return FROM_DOMAIN[self.domain](value)

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

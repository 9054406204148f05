"""Gaussian-process regression of what the global fit leaves over, with outliers among the points.

The residual in log depth is modelled over (image position, log depth of the global fit) as the sum
of a curve over depth alone, which straightens what an affine map cannot, and a local field with a
Matern 3/2 kernel over the image and a squared exponential over depth, so that neither reaches
across depth edges. Leave-one-out errors, in closed form (Rasmussen & Williams 2006, eq. 5.10 to
5.12), calibrate the noise and take the weight from outliers (Student's t).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf, dtrtri

# Prior of the residual, in log depth (0.1 is about 10 %) and in image widths.
CURVE_SIGMA, CURVE_DEPTH = 0.3, 0.5
FIELD_SIGMA, FIELD_WIDTH, FIELD_DEPTH = 0.15, 0.4, 0.5
NOISE_START, NOISE_MIN, NOISE_MAX = 0.1, 0.003, 0.2
WEIGHING_ROUNDS = 4
# Points that find noise and outliers; the final regression uses all.
WEIGHING_POINTS = 160
STUDENT_NU = 4.0
OUTLIER_CHI2 = 25.0
OUTLIER_WEIGHT = 1e-4
CHI2_MEDIAN = 0.455
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Features:
    """Where points are: `position` (N, 2) in image widths, `log_depth` (N,) by the global fit."""

    position: np.ndarray
    log_depth: np.ndarray

    def __len__(self) -> int:
        return len(self.log_depth)

    def __getitem__(self, index: np.ndarray | slice) -> Features:
        return Features(self.position[index], self.log_depth[index])


@dataclass(frozen=True)
class Regression:
    """Posterior mean sum_i alpha_i k(., anchor_i); `held_out` predicts the held-out points."""

    anchors: Features
    alpha: np.ndarray
    noise: float
    outliers: np.ndarray
    held_out: np.ndarray


def depth_kernels(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curve kernel and the field kernel's factor over log depth, (len(a), len(b)) float32."""
    # Single precision: the exponentials are four times faster, and the noise is far above it.
    squared = (a.astype(np.float32)[:, None] - b.astype(np.float32)[None, :]) ** 2
    curve = cv2.exp(squared * (-0.5 / CURVE_DEPTH**2)) * CURVE_SIGMA**2
    return curve, cv2.exp(squared * (-0.5 / FIELD_DEPTH**2))


def image_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The field kernel's factor over image position, with its variance, (len(a), len(b))."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    squared = (a[:, None, 0] - b[None, :, 0]) ** 2
    squared += (a[:, None, 1] - b[None, :, 1]) ** 2
    distance = cv2.sqrt(squared * (3.0 / FIELD_WIDTH**2))
    return (1.0 + distance) * cv2.exp(-distance) * FIELD_SIGMA**2


def kernel(a: Features, b: Features) -> np.ndarray:
    """Prior covariance of the residual at two sets of points, (len(a), len(b)) float64."""
    curve, depth_factor = depth_kernels(a.log_depth, b.log_depth)
    covariance = curve + image_kernel(a.position, b.position) * depth_factor
    return covariance.astype(np.float64)


def regress(
    features: Features, residual: np.ndarray, held_out: np.ndarray, rng: np.random.Generator
) -> Regression:
    """Fit the residual field to points, some of which also measure how well it predicts.

    Args:
        features: where the N points are.
        residual: (N,) log of sensor depth over the global fit's.
        held_out: (N,) bool. These points are predicted from the others alone; only then they join.
        rng: draws the points that calibrate noise and outliers.
    """
    seen = np.flatnonzero(~held_out)
    order = np.concatenate([seen, np.flatnonzero(held_out)])
    features, residual = features[order], residual[order]
    covariance = kernel(features, features)

    judges = np.sort(rng.permutation(len(seen))[:WEIGHING_POINTS])
    noise, weight = _calibrate(covariance, residual, judges)
    covariance[np.diag_indices_from(covariance)] += noise**2 / weight
    # The factor's leading block is that of the seen points alone, so one factorisation gives both
    # the honest prediction of the held-out points and the regression on all.
    # Symmetric, so its transpose is itself, in the order of memory that LAPACK overwrites.
    factor = dpotrf(covariance.T, lower=1, overwrite_a=1)[0]
    white = solve_triangular(factor, residual, lower=True, check_finite=False)
    prediction = factor[len(seen) :, : len(seen)] @ white[: len(seen)]
    alpha = solve_triangular(factor, white, lower=True, trans=1, check_finite=False)

    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Regression(
        anchors=features,
        alpha=alpha,
        noise=noise,
        outliers=(weight <= OUTLIER_WEIGHT)[back],
        held_out=prediction,
    )


def _calibrate(
    covariance: np.ndarray, residual: np.ndarray, judges: np.ndarray
) -> tuple[float, np.ndarray]:
    """Noise (log depth) and a weight in (0, 1] for every point.

    Starts with little weight where the global fit is far off and with noise so large that the rest
    of the outliers stand out of a smooth field, and sharpens from there; a point that the field
    comes to explain gets its weight back.
    """
    among = covariance[np.ix_(judges, judges)]
    prior = covariance[0, 0]
    y = residual[judges]
    typical = max(MAD_TO_SIGMA * float(np.median(np.abs(y))), 0.5 * NOISE_START)
    weight, noise, spread = _weigh((y / typical) ** 2), NOISE_START, 1.0
    inverse_factor, alpha = among, y
    for _ in range(WEIGHING_ROUNDS):
        variance = noise**2 / weight
        factor = dpotrf(among + np.diag(variance), lower=1)[0]
        inverse_factor = dtrtri(factor, lower=1)[0]
        alpha = inverse_factor.T @ (inverse_factor @ y)
        precision = np.einsum("ij,ij->j", inverse_factor, inverse_factor)
        left_out = alpha / precision
        expected = 1.0 / precision - variance + noise**2  # of a good point, whatever its weight
        chi2 = left_out**2 / expected
        good = weight > OUTLIER_WEIGHT
        spread = max(float(np.median(chi2[good])) / CHI2_MEDIAN, 1e-6)
        weight = _weigh(chi2 / spread)
        previous, noise = noise, noise * np.sqrt(spread)
        noise = float(np.clip(noise, max(NOISE_MIN, 0.3 * previous), min(NOISE_MAX, 2 * previous)))

    everyone = np.empty(len(residual))
    others = np.setdiff1d(np.arange(len(residual)), judges, assume_unique=True)
    if len(others):
        across = covariance[np.ix_(judges, others)]
        error = residual[others] - alpha @ across
        reached = inverse_factor @ across
        expected = prior - np.einsum("ij,ij->j", reached, reached) + noise**2
        everyone[others] = _weigh(error**2 / (expected * max(spread, 1.0)))
    everyone[judges] = weight
    return noise, everyone


def _weigh(chi2: np.ndarray) -> np.ndarray:
    return np.where(chi2 > OUTLIER_CHI2, OUTLIER_WEIGHT, STUDENT_NU / (STUDENT_NU + chi2))

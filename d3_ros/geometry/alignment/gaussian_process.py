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
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Prior:
    """Size (log depth; 0.1 is about 10 %) and reach (log depth, image widths) of the residual.

    `tilt_sigma` is that of a line over log depth, which can undo the global fit's slope.
    """

    curve_sigma: float
    curve_depth: float
    tilt_sigma: float
    field_sigma: float
    field_width: float
    field_depth: float


# From a network that is nearly right to one that is hardly better than the points alone.
PRIORS = (
    Prior(0.3, 0.5, 0.0, 0.15, 0.4, 0.5),
    Prior(0.3, 0.5, 0.0, 0.3, 0.25, 1.0),
    Prior(0.3, 0.5, 0.5, 0.5, 0.2, 3.0),
    Prior(0.3, 0.5, 0.5, 0.5, 0.08, 3.0),
)
NOISE_START, NOISE_MIN, NOISE_MAX = 0.1, 0.003, 0.2
WEIGHING_ROUNDS = 4
# Points that find noise and outliers; the final regression uses all. Comparing priors takes more,
# because a fine field only shows between points that are close.
WEIGHING_POINTS, REVIEW_POINTS = 160, 320
STUDENT_NU = 4.0
OUTLIER_CHI2 = 25.0
OUTLIER_WEIGHT = 1e-4
CHI2_MEDIAN = 0.455
MAD_TO_SIGMA = 1.4826
# A point is no outlier when so many of its nearest neighbours are within this (log) of it.
NEIGHBOURS, SUPPORT, SUPPORT_TOLERANCE = 6, 2, 0.05


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
    """Posterior mean sum_i alpha_i k(., anchor_i) under `prior`.

    `held_out` predicts the residual of the held-out points. `left_out` is the error of a sample of
    the others, each predicted without itself. `noise` is the calibrated noise, log depth.
    """

    prior: Prior
    anchors: Features
    alpha: np.ndarray
    noise: float
    held_out: np.ndarray
    left_out: np.ndarray


@dataclass(frozen=True)
class _Calibration:
    """Noise, weights of all points, leave-one-out errors of the judges and their likelihood."""

    noise: float
    weight: np.ndarray
    left_out: np.ndarray
    log_likelihood: float


def depth_kernels(prior: Prior, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel over log depth alone and the field's factor over it, (len(a), len(b)) float32."""
    # Single precision: the exponentials are four times faster, and the noise is far above it.
    a, b = a.astype(np.float32), b.astype(np.float32)
    squared = (a[:, None] - b[None, :]) ** 2
    curve = cv2.exp(squared * (-0.5 / prior.curve_depth**2)) * prior.curve_sigma**2
    if prior.tilt_sigma > 0:
        curve = curve + np.outer(a * np.float32(prior.tilt_sigma**2), b)
    return curve, cv2.exp(squared * (-0.5 / prior.field_depth**2))


def image_kernel(prior: Prior, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The field's factor over image position, with its variance, (len(a), len(b)) float32."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    squared = (a[:, None, 0] - b[None, :, 0]) ** 2
    squared += (a[:, None, 1] - b[None, :, 1]) ** 2
    distance = cv2.sqrt(squared * (3.0 / prior.field_width**2))
    return (1.0 + distance) * cv2.exp(-distance) * prior.field_sigma**2


def kernel(prior: Prior, a: Features, b: Features) -> np.ndarray:
    """Prior covariance of the residual at two sets of points, (len(a), len(b)) float64."""
    curve, depth_factor = depth_kernels(prior, a.log_depth, b.log_depth)
    covariance = curve + image_kernel(prior, a.position, b.position) * depth_factor
    return covariance.astype(np.float64)


class ResidualModel:
    """Regression of residual fields that remembers which prior suits the network and the scene.

    By the likelihood of points left out, the first frame compares all priors, and every
    `REVIEW_EVERY`-th frame the one in use with another, in turn.
    """

    REVIEW_EVERY = 5

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the choice."""
        self._prior = PRIORS[0]
        self._frames = 0

    def _candidates(self) -> tuple[Prior, ...]:
        review, within = divmod(self._frames, self.REVIEW_EVERY)
        self._frames += 1
        if review == 0 and within == 0:
            return PRIORS
        challenger = PRIORS[review % len(PRIORS)]
        if within == 0 and challenger != self._prior:
            return self._prior, challenger
        return (self._prior,)

    def regress(
        self,
        features: Features,
        residual: np.ndarray,
        held_out: np.ndarray,
        rng: np.random.Generator,
    ) -> Regression:
        """Fit the residual field to points, some of which also measure how well it predicts.

        Args:
            features: where the N points are; log depth relative to a value within its range.
            residual: (N,) log of sensor depth over the global fit's.
            held_out: (N,) bool. These are predicted from the others alone; only then they join.
            rng: draws the points that calibrate noise and outliers.
        """
        seen = np.flatnonzero(~held_out)
        order = np.concatenate([seen, np.flatnonzero(held_out)])
        features, residual = features[order], residual[order]
        loner = _loners(features, residual, len(seen))
        candidates = self._candidates()
        judging = REVIEW_POINTS if len(candidates) > 1 else WEIGHING_POINTS
        judges = np.sort(rng.permutation(len(seen))[:judging])
        best: tuple[_Calibration, Prior] | None = None
        for prior in candidates:
            calibration = _calibrate(prior, features, residual, loner, judges)
            if best is None or calibration.log_likelihood > best[0].log_likelihood:
                best = calibration, prior
        assert best is not None  # there is at least one candidate
        calibration, self._prior = best

        covariance = kernel(self._prior, features, features)
        covariance[np.diag_indices_from(covariance)] += calibration.noise**2 / calibration.weight
        # The factor's leading block is that of the seen points alone, so one factorisation gives
        # both the honest prediction of the held-out points and the regression on all. Symmetric,
        # so the transpose is the same matrix, in the order of memory that LAPACK overwrites.
        factor = dpotrf(covariance.T, lower=1, overwrite_a=1)[0]
        white = solve_triangular(factor, residual, lower=True, check_finite=False)
        prediction = factor[len(seen) :, : len(seen)] @ white[: len(seen)]
        alpha = solve_triangular(factor, white, lower=True, trans=1, check_finite=False)
        return Regression(
            prior=self._prior,
            anchors=features,
            alpha=alpha,
            noise=calibration.noise,
            held_out=prediction,
            left_out=calibration.left_out,
        )


def _loners(features: Features, residual: np.ndarray, seen: int) -> np.ndarray:
    """(N,) bool: points that hardly any neighbour agrees with, in depth or in residual.

    Only they can be outliers of the sensor; what several neighbours say is an edge or an object
    that the network missed. The first `seen` points are the neighbours.
    """
    depth = features.log_depth + residual
    count = min(NEIGHBOURS + 1, seen)
    _, near = cKDTree(features.position[:seen]).query(features.position, k=count)
    near = near.reshape(len(depth), count)
    agrees = np.abs(depth[near] - depth[:, None]) < SUPPORT_TOLERANCE
    agrees |= np.abs(residual[near] - residual[:, None]) < SUPPORT_TOLERANCE
    agrees &= near != np.arange(len(depth))[:, None]
    return agrees.sum(axis=1) < SUPPORT


def _calibrate(
    prior: Prior,
    features: Features,
    residual: np.ndarray,
    loner: np.ndarray,
    judges: np.ndarray,
) -> _Calibration:
    """Noise, and a weight in (0, 1] for every point.

    Starts with little weight where the global fit is far off and with noise so large that the rest
    of the outliers stand out of a smooth field, and sharpens from there; a point that the field
    comes to explain gets its weight back.
    """
    among = kernel(prior, features[judges], features[judges])
    y, alone = residual[judges], loner[judges]
    typical = max(MAD_TO_SIGMA * float(np.median(np.abs(y))), 0.5 * NOISE_START)
    weight, noise = _weigh((y / typical) ** 2, alone), NOISE_START
    for _ in range(WEIGHING_ROUNDS):
        variance = noise**2 / weight
        factor = dpotrf((among + np.diag(variance)).T, lower=1, overwrite_a=1)[0]
        inverse_factor = dtrtri(factor, lower=1, overwrite_c=1)[0]
        alpha = inverse_factor.T @ (inverse_factor @ y)
        precision = np.einsum("ij,ij->j", inverse_factor, inverse_factor)
        left_out = alpha / precision
        predictive = 1.0 / precision - variance + noise**2  # of a good point, whatever its weight
        chi2 = left_out**2 / predictive
        good = weight > OUTLIER_WEIGHT
        spread = max(float(np.median(chi2[good])) / CHI2_MEDIAN, 1e-6) if good.any() else 1.0
        weight = _weigh(chi2 / spread, alone)
        previous, noise = noise, noise * np.sqrt(spread)
        noise = float(np.clip(noise, max(NOISE_MIN, 0.3 * previous), min(NOISE_MAX, 2 * previous)))

    everyone = np.ones(len(residual))
    others = np.setdiff1d(np.flatnonzero(loner), judges, assume_unique=True)
    if len(others):
        across = kernel(prior, features[judges], features[others])
        error = residual[others] - alpha @ across
        reached = inverse_factor @ across
        own = prior.curve_sigma**2 + prior.field_sigma**2
        own = own + (prior.tilt_sigma * features.log_depth[others]) ** 2
        expected = own - np.einsum("ij,ij->j", reached, reached) + noise**2
        chi2_others = error**2 / (np.maximum(expected, noise**2) * max(spread, 1.0))
        everyone[others] = _weigh(chi2_others, loner[others])
    everyone[judges] = weight
    likelihood = -0.5 * np.log(predictive) - 0.5 * np.minimum(chi2, 9.0)
    return _Calibration(noise, everyone, left_out, float(np.mean(likelihood)))


def _weigh(chi2: np.ndarray, alone: np.ndarray) -> np.ndarray:
    weight = np.where(chi2 > OUTLIER_CHI2, OUTLIER_WEIGHT, STUDENT_NU / (STUDENT_NU + chi2))
    return np.where(alone, weight, 1.0)

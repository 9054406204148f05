"""Gaussian-process regression of the global fit's residual, robust to outliers among the points.

The residual in log depth is a function of (image position, log depth of the global fit); `prior`
holds its covariances. Leave-one-out errors, in closed form (Rasmussen & Williams 2006, eq. 5.10
to 5.12), choose the prior and the noise, and reduce the weight of outliers (Student's t).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.linalg.blas import dtrsv
from scipy.linalg.lapack import dpotrf, dtrtri
from scipy.spatial import cKDTree

from d3_ros.geometry.alignment.local.prior import PRIORS, Features, Prior, kernel, upper_covariance
from d3_ros.geometry.alignment.numerics import MAD_TO_SIGMA, median
from d3_ros.geometry.alignment.parallel import together

# Noise levels to choose from (log depth), from the largest to almost none. Outliers are searched
# from the largest on: then the field is smooth and they stand out.
NOISES = (0.1, 0.03, 0.01, 0.003)
CANDIDATES = tuple(product(PRIORS, NOISES))
# Outliers are found with WEIGHING_POINTS points drawn from the whole image; priors are compared at
# REVIEW_POINTS points of one part of it.
WEIGHING_POINTS, REVIEW_POINTS = 112, 220
# At so many points the error of the regression is measured, each left out in turn.
JUDGES = 200
# Another prior takes over when its mean log-likelihood per point is better by this.
PRIOR_HYSTERESIS = 0.03
STUDENT_NU = 4.0
OUTLIER_CHI2 = 25.0
OUTLIER_WEIGHT = 1e-4
# Even a good sensor has points that look like outliers, at edges and on small objects: up to this
# share of all points, within this of their surroundings (log depth). A point looks like an outlier
# when its weight is below the last value.
GOOD_SENSOR_LONER_SHARE, LONER_ERROR, SUSPICIOUS_WEIGHT = 0.03, 0.7, 0.3
# Up to this share of all points are farther off than `LONER_ERROR` and no outliers of the sensor.
GOOD_SENSOR_FAR_OFF_SHARE = 0.04
# Median of the chi-squared distribution with one degree of freedom.
CHI2_MEDIAN = 0.455
# When priors are compared, chi-squared counts at most so many times its median.
CHI2_CAP = 9.0
# A point is no outlier when `SUPPORT` of its nearest neighbours are within this log depth of it.
NEIGHBOURS, SUPPORT, SUPPORT_TOLERANCE = 6, 2, 0.05


@dataclass(frozen=True)
class Regression:
    """Posterior mean sum_i alpha_i k(., anchor_i) under `prior`.

    `held_out`: predicted residual at the held-out points. `left_out`: errors at a sample of the
    other points, each predicted without itself. `judge_errors`: leave-one-out errors at the last
    `JUDGES` anchors; empty where the held-out points are no anchors. `noise`: standard deviation
    of the points, in log depth. `weight` (N,) in (0, 1]: the precision of each point, relative to
    that of a good one. `trust` (N,) in (0, 1]: the same, lenient with points that may lie on small
    objects.
    """

    prior: Prior
    anchors: Features
    alpha: np.ndarray
    noise: float
    weight: np.ndarray
    trust: np.ndarray
    held_out: np.ndarray
    left_out: np.ndarray
    judge_errors: np.ndarray


class ResidualModel:
    """Regression of the residual; remembers which prior and noise suit network and scene.

    They are compared by the likelihood of left-out points. The first frame compares all pairs of
    prior and noise; every `REVIEW_EVERY`-th frame compares the pair in use with one other.
    """

    REVIEW_EVERY = 4

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the choice."""
        self._prior, self._noise = CANDIDATES[0]
        self._frames = 0

    def regress(
        self,
        features: Features,
        residual: np.ndarray,
        precision: np.ndarray,
        seen: int,
        join: bool,
        rng: np.random.Generator,
    ) -> Regression:
        """Fit the residual field to the first `seen` points and predict the held-out ones.

        Args:
            features: where the N points are; log depth relative to a value within its range.
            residual: (N,) log of sensor depth over the global fit's.
            precision: (N,) of the points, relative to each other, in (0, 1].
            seen: the first `seen` points are not held out; they alone predict the others.
            join: whether the held-out points become anchors after they were predicted.
            rng: draws the points that find outliers and compare priors.
        """
        before, anchors = self._prior, len(features) if join else seen
        (weight, trust, left_out), covariance = together(
            lambda: self._judge(features, residual, seen, rng),
            lambda: upper_covariance(before, features[:anchors]),
        )
        weight, trust = weight * precision, trust * precision
        if self._prior is not before:
            covariance = upper_covariance(self._prior, features[:anchors])
        factor = _factorised(covariance, self._noise**2 / weight[:anchors])
        white = dtrsv(factor, residual[:anchors], lower=1)
        alpha = dtrsv(factor, white, lower=1, trans=1)
        if join:
            # The factor's leading block is that of the seen points alone, so one factorisation
            # gives both: held-out points predicted without themselves, and the regression on all.
            prediction = factor[seen:, :seen] @ white[:seen]
            # The inverse's last diagonal elements need the factor's last block alone.
            last = slice(max(0, anchors - JUDGES), anchors)
            inverse_block = dtrtri(factor[last, last], lower=1)[0]
            judge_errors = alpha[last] / np.einsum("ij,ij->j", inverse_block, inverse_block)
        else:
            prediction = kernel(self._prior, features[seen:], features[:seen]) @ alpha
            judge_errors = np.zeros(0)
        return Regression(
            prior=self._prior,
            anchors=features[:anchors],
            alpha=alpha,
            noise=self._noise,
            weight=weight,
            trust=trust,
            held_out=prediction,
            left_out=left_out,
            judge_errors=judge_errors,
        )

    def _judge(
        self, features: Features, residual: np.ndarray, seen: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, trust and left-out errors; reviews prior and noise by them."""
        loner = _loners(features, residual, seen)
        judges = np.sort(rng.permutation(seen)[:WEIGHING_POINTS])
        review, within = divmod(self._frames, self.REVIEW_EVERY)
        weight, trust, left_out = _weigh_points(self._prior, features, residual, loner, judges)
        if within == 0:
            challenger = CANDIDATES[review % len(CANDIDATES)]
            candidates = ((self._prior, self._noise), challenger) if review else CANDIDATES
            block = _neighbours(features[:seen], rng)
            self._review(candidates, features[block], residual[block], weight[block])
        self._frames += 1
        return weight, trust, left_out

    def _review(
        self,
        candidates: tuple[tuple[Prior, float], ...],
        features: Features,
        residual: np.ndarray,
        weight: np.ndarray,
    ) -> None:
        """Choose prior and noise by how likely they make points, each left out in turn."""
        covariances = {prior: upper_covariance(prior, features) for prior, _ in candidates}
        current, best = (self._prior, self._noise), -np.inf
        for candidate in candidates:
            prior, noise = candidate
            *_, left_out, predictive = _leave_one_out(covariances[prior], residual, noise, weight)
            likelihood = _log_likelihood(left_out**2 / predictive, predictive)
            if candidate == current and self._frames:
                likelihood += PRIOR_HYSTERESIS
            if likelihood > best:
                best, (self._prior, self._noise) = likelihood, candidate


def _loners(features: Features, residual: np.ndarray, seen: int) -> np.ndarray:
    """(N,) bool: points with which hardly any neighbour agrees, neither in depth nor in residual.

    Only these can be outliers of the sensor. Where neighbours agree, the network missed an edge or
    an object. Neighbours are taken from the first `seen` points.
    """
    depth = features.log_depth + residual
    count = min(NEIGHBOURS + 1, seen)
    # A tree that is built quickly and asked once.
    tree = cKDTree(features.position[:seen], balanced_tree=False, compact_nodes=False)
    _, near = tree.query(features.position, k=count)
    near = near.reshape(len(depth), count)
    agrees = np.abs(depth[near] - depth[:, None]) < SUPPORT_TOLERANCE
    agrees |= np.abs(residual[near] - residual[:, None]) < SUPPORT_TOLERANCE
    agrees &= near != np.arange(len(depth))[:, None]
    return agrees.sum(axis=1) < SUPPORT


def _neighbours(features: Features, rng: np.random.Generator) -> np.ndarray:
    """Indices of up to `REVIEW_POINTS` points on one side of a line of random direction.

    They are as dense as the points are, unlike a random sample; only dense points show how rough
    the field is.
    """
    angle = rng.uniform(0.0, 2.0 * np.pi)
    along = features.position @ np.array([np.cos(angle), np.sin(angle)])
    return np.argsort(along, kind="stable")[:REVIEW_POINTS]


def _factorised(covariance: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of `upper_covariance` and noise of that (N,) variance, in its place."""
    covariance.flat[:: len(covariance) + 1] += variance
    # The transpose has the order of memory that LAPACK overwrites.
    return np.asarray(dpotrf(covariance.T, lower=1, overwrite_a=1)[0])


def _leave_one_out(
    covariance: np.ndarray, y: np.ndarray, noise: float, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inverse of the Cholesky factor, it times y, left-out errors and their expected variances.

    The variances are those of a good point, whatever its weight. See `upper_covariance`.
    """
    variance = noise**2 / weight
    factor = _factorised(covariance.copy(), variance)
    inverse_factor = dtrtri(factor, lower=1, overwrite_c=1)[0]
    white = inverse_factor @ y
    precision = np.einsum("ij,ij->j", inverse_factor, inverse_factor)
    predictive = np.maximum(1.0 / precision - variance, 0.0) + noise**2
    return inverse_factor, white, (inverse_factor.T @ white) / precision, predictive


def _log_likelihood(chi2: np.ndarray, predictive: np.ndarray) -> float:
    """Mean log-likelihood of left-out errors, the prior's size taken from the errors themselves.

    What few points miss by much counts no more than what they miss by a little.
    """
    capped = np.minimum(chi2, CHI2_CAP * median(chi2))
    return -0.5 * float(np.mean(np.log(predictive)) + np.log(max(float(capped.mean()), 1e-12)))


def _weigh_points(
    prior: Prior,
    features: Features,
    residual: np.ndarray,
    loner: np.ndarray,
    judges: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight and trust in (0, 1] of every point, and the judges' errors, each left out.

    At first, points far off the global fit have little weight, and the noise is large: the field is
    smooth, and other outliers stand out. Then the noise gets smaller step by step. A point that the
    field comes to explain gets its weight back.
    """
    among = upper_covariance(prior, features[judges])
    y, alone = residual[judges], loner[judges]
    typical = max(MAD_TO_SIGMA * median(np.abs(y)), 0.5 * NOISES[0])
    weight = _weigh((y / typical) ** 2, alone)
    for noise in NOISES:
        inverse_factor, white, left_out, predictive = _leave_one_out(among, y, noise, weight)
        chi2 = left_out**2 / predictive
        good = weight > OUTLIER_WEIGHT
        # The prior's shape counts, not its size: that is taken from the errors.
        spread = max(median(chi2[good]) / CHI2_MEDIAN, 1e-9) if good.any() else 1.0
        weight = _weigh(chi2 / spread, alone)

    error, everyone = np.zeros(len(residual)), np.ones(len(residual))
    error[judges], everyone[judges] = left_out, weight
    others = np.setdiff1d(np.flatnonzero(loner), judges, assume_unique=True)
    if len(others):
        reached = inverse_factor @ kernel(prior, features[judges], features[others])
        error[others] = residual[others] - white @ reached
        own = prior.variance(features.log_depth[others]) + noise**2
        expected = np.maximum(own - np.einsum("ij,ij->j", reached, reached), noise**2)
        everyone[others] = _weigh(error[others] ** 2 / (expected * spread), loner[others])
    far_off = np.abs(error) > LONER_ERROR
    suspicious = everyone < SUSPICIOUS_WEIGHT
    # As many loners as a good sensor has are small objects rather than outliers.
    doubt = loner_doubt(float(np.mean(suspicious)), GOOD_SENSOR_LONER_SHARE)
    weight = np.where(far_off, everyone, everyone**doubt)
    # Edges make loners, too, but not far off ones: those tell whether the sensor has outliers.
    doubt = loner_doubt(float(np.mean(suspicious & far_off)), GOOD_SENSOR_FAR_OFF_SHARE)
    trust = np.where(far_off, everyone, everyone**doubt)
    return weight, trust, left_out


def loner_doubt(share: float, usual: float) -> float:
    """How far lone points are outliers: 0 up to the usual share of all points, then towards 1."""
    return 1.0 - usual / max(share, usual)


def _weigh(chi2: np.ndarray, alone: np.ndarray) -> np.ndarray:
    weight = np.where(chi2 > OUTLIER_CHI2, OUTLIER_WEIGHT, STUDENT_NU / (STUDENT_NU + chi2))
    return np.where(alone, weight, 1.0)

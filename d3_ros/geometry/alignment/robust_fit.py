"""Robust affine fit with gross outliers.

Random pairs ranked by truncated L1 (MSAC, Torr & Zisserman 2000, with the norm that AbsRel is) find
the line that most points are near; iteratively re-weighted least squares polishes it, L1 too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PAIRS = 128
POLISH_ROUNDS = 8
# Residuals below this weigh the same, which keeps the weights of L1 finite.
L1_FLOOR = 0.02
# Points farther off than this (in units of the residual) do not pull at all.
GROSS_ERROR = 1.0


@dataclass(frozen=True)
class AffineFit:
    """y = scale * x + shift.

    `covariance` (2, 2) is that of (scale, shift); `left_out` (N,) predicts every point from the fit
    to all others.
    """

    scale: float
    shift: float
    covariance: np.ndarray
    left_out: np.ndarray

    @property
    def parameters(self) -> np.ndarray:
        """(2,) scale, shift."""
        return np.array([self.scale, self.shift])


def robust_affine(
    x: np.ndarray, y: np.ndarray, unit: np.ndarray, rng: np.random.Generator
) -> AffineFit:
    """The line y = scale * x + shift that most points are near.

    Args:
        x, y: (N,) float64, N >= 3, x with some spread.
        unit: (N,) > 0; residuals are measured in it: |scale * x + shift - y| / unit.
        rng: source of the random pairs; the same state gives the same fit.

    Returns:
        The fit. Its scale may be of either sign: judging it is the caller's part.
    """
    line = _nearest_line(x, y, unit, rng)
    # Centred, the 2 x 2 system is well conditioned.
    centre = float(np.median(x))
    design = np.column_stack([x - centre, np.ones_like(x)])
    solution = np.array([line[0], line[1] + line[0] * centre])
    inverse, weighted = np.zeros((2, 2)), np.zeros_like(design)
    for _ in range(POLISH_ROUNDS):
        residual = np.abs(design @ solution - y) / unit
        weight = (residual < GROSS_ERROR) / (np.maximum(residual, L1_FLOOR) * unit * unit)
        weighted = design * weight[:, None]
        (a, b), (_, d) = weighted.T @ design
        determinant = a * d - b * b
        if determinant <= 1e-12 * a * d:  # all weight on one x: the line so far stands
            break
        inverse = np.array([[d, -b], [-b, a]]) / determinant
        solution = inverse @ (weighted.T @ y)
    score = weighted * (design @ solution - y)[:, None]
    covariance = inverse @ (score.T @ score) @ inverse  # "sandwich": true for any weights
    leverage = ((weighted @ inverse) * design).sum(axis=1)

    to_origin = np.array([[1.0, 0.0], [-centre, 1.0]])
    scale, shift = to_origin @ solution
    predicted = design @ solution
    left_out = y + (predicted - y) / np.maximum(1.0 - leverage, 0.1)
    return AffineFit(float(scale), float(shift), to_origin @ covariance @ to_origin.T, left_out)


def _nearest_line(
    x: np.ndarray, y: np.ndarray, unit: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """The line through two of the points with the smallest mean of truncated residuals."""
    first = rng.integers(0, len(x), PAIRS)
    second = rng.integers(0, len(x), PAIRS)
    low, high = np.quantile(x, (0.05, 0.95))
    # Pairs far apart tell a slope, pairs close together tell noise.
    useful = np.abs(x[second] - x[first]) > 0.25 * (high - low)
    first = np.append(first[useful], np.argmin(x))
    second = np.append(second[useful], np.argmax(x))
    scales = (y[second] - y[first]) / (x[second] - x[first])
    shifts = y[first] - scales * x[first]
    # A hundred or two of the points rank the candidates as well as thousands do.
    look = slice(None, None, max(1, len(x) // 128))
    residuals = np.abs(scales[:, None] * x[None, look] + shifts[:, None] - y[look]) / unit[look]
    best = int(np.argmin(np.minimum(residuals, GROSS_ERROR).mean(axis=1)))
    return float(scales[best]), float(shifts[best])

"""Robust affine fit with gross outliers.

Lines through random pairs of points are ranked by truncated L1 (MSAC, Torr & Zisserman 2000; L1 is
the norm of AbsRel). Iteratively re-weighted least squares then refines the best line, in L1 too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.geometry.alignment.numerics import median

PAIRS = 128
POLISH_ROUNDS = 8
# Residuals below this have equal weight, which keeps the weights of L1 finite.
L1_FLOOR = 0.02
# Points with a larger residual (relative error of depth) have no weight.
GROSS_ERROR = 1.0


@dataclass(frozen=True)
class AffineFit:
    """y = scale * x + shift.

    `covariance` (2, 2) is that of (scale, shift). `left_out` (N,): y of each point,
    predicted by the fit to all other points.
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
) -> list[AffineFit]:
    """Fit lines y = scale * x + shift to the same points for several y.

    Args:
        x: (N,) float64, N >= 3, with some spread.
        y: (K, N) float64.
        unit: (K, N) > 0; residuals are measured in it: |scale * x + shift - y| / unit.
        rng: source of the random pairs; the same state gives the same fits.

    Returns:
        K fits. Their scales may have either sign; the caller judges that.
    """
    lines = _nearest_lines(x, y, unit, rng)
    # Centred, the 2 x 2 systems are well conditioned.
    centre = median(x)
    design = np.column_stack([x - centre, np.ones_like(x)])
    moments = np.column_stack([design[:, 0] ** 2, design[:, 0], design[:, 1]])
    solution = np.column_stack([lines[:, 0], lines[:, 1] + lines[:, 0] * centre])
    inverse, weight = np.zeros((len(y), 2, 2)), np.zeros_like(y)
    going = np.ones(len(y), bool)
    for _ in range(POLISH_ROUNDS):
        residual = np.abs(solution @ design.T - y) / unit
        near = residual < GROSS_ERROR
        weight[going] = (near / (np.maximum(residual, L1_FLOOR) * unit * unit))[going]
        a, b, d = (weight @ moments).T
        determinant = a * d - b * b
        going &= determinant > 1e-12 * a * d  # all weight at one x: keep the line found so far
        if not going.any():
            break
        adjugate = np.stack([d, -b, -b, a], axis=-1).reshape(-1, 2, 2)
        inverse[going] = adjugate[going] / determinant[going, None, None]
        right = (weight * y) @ design
        solution[going] = (inverse[going] @ right[going, :, None])[..., 0]
    predicted = solution @ design.T
    a, b, d = ((weight * (predicted - y)) ** 2 @ moments).T
    scores = np.stack([a, b, b, d], axis=-1).reshape(-1, 2, 2)
    leverage = weight * ((design @ inverse) * design).sum(axis=-1)
    to_origin = np.array([[1.0, 0.0], [-centre, 1.0]])
    # "Sandwich" covariance: true for any weights.
    covariance = to_origin @ inverse @ scores @ inverse @ to_origin.T
    left_out = y + (predicted - y) / np.maximum(1.0 - leverage, 0.1)
    parameters = solution @ to_origin.T
    return [
        AffineFit(float(scale), float(shift), *rest)
        for (scale, shift), *rest in zip(parameters, covariance, left_out, strict=True)
    ]


def _nearest_lines(
    x: np.ndarray, y: np.ndarray, unit: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(K, 2) scale and shift of the lines through two points with the smallest truncated L1."""
    first = rng.integers(0, len(x), PAIRS)
    second = rng.integers(0, len(x), PAIRS)
    low, high = np.sort(x)[[len(x) // 20, -1 - len(x) // 20]]
    # Pairs close together would measure noise, not slope.
    useful = np.abs(x[second] - x[first]) > 0.25 * (high - low)
    first = np.append(first[useful], np.argmin(x))
    second = np.append(second[useful], np.argmax(x))
    scales = (y[:, second] - y[:, first]) / (x[second] - x[first])
    shifts = y[:, first] - scales * x[first]
    # A hundred or two of the points rank the candidates as well as thousands do.
    look = slice(None, None, max(1, len(x) // 128))
    residuals = scales[..., None] * x[look]
    residuals += shifts[..., None]
    residuals -= y[:, None, look]
    np.abs(residuals, out=residuals)
    residuals /= unit[:, None, look]
    np.minimum(residuals, GROSS_ERROR, out=residuals)
    best = np.argmin(residuals.mean(axis=-1), axis=-1)
    which = np.arange(len(y))
    return np.column_stack([scales[which, best], shifts[which, best]])

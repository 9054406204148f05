"""Robust affine fit of sensor depth to relative depth, with gross outliers.

Least median of squares over random pairs (Rousseeuw 1984) finds the majority without a threshold;
iteratively re-weighted least squares with Tukey's biweight polishes it. Residuals are relative,
|z_fit - z| / z, because both the error of the network and AbsRel are.
"""

from __future__ import annotations

import numpy as np

HYPOTHESES = 256
POLISH_ROUNDS = 8
# Tukey's constant for 95 % efficiency, and the factor from median |residual| to sigma.
TUKEY = 4.685
MAD_TO_SIGMA = 1.4826


def robust_affine(
    relative: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Scale and shift with depth ~ scale * relative + shift for the majority of points.

    Args:
        relative: (N,) relative depth with some spread, N >= 3.
        depth: (N,) sensor z-depth in metres, > 0.
        rng: source of the random pairs; the same state gives the same fit.

    Returns:
        scale, shift in metres. The scale may be of either sign: judging it is the caller's part.
    """
    x, z = relative.astype(np.float64), depth.astype(np.float64)
    scale, shift = _least_median(x, z, rng)
    residual = np.abs(scale * x + shift - z) / z
    design = np.column_stack([x, np.ones_like(x)]) / z[:, None]
    for _ in range(POLISH_ROUNDS):
        sigma = max(MAD_TO_SIGMA * float(np.median(residual)), 1e-6)
        weight = np.clip(1.0 - (residual / (TUKEY * sigma)) ** 2, 0.0, None)  # sqrt of the biweight
        solution, _, rank, _ = np.linalg.lstsq(design * weight[:, None], weight, rcond=None)
        if rank < 2:  # all weight on one relative depth: the pair's fit stands
            break
        scale, shift = float(solution[0]), float(solution[1])
        residual = np.abs(scale * x + shift - z) / z
    return scale, shift


def _least_median(x: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The line through two of the points with the smallest median relative residual."""
    first = rng.integers(0, len(x), HYPOTHESES)
    second = rng.integers(0, len(x), HYPOTHESES)
    run = x[second] - x[first]
    # Pairs far apart tell a slope, pairs close together tell noise.
    useful = np.abs(run) >= 0.25 * (np.quantile(x, 0.95) - np.quantile(x, 0.05))
    useful &= run != 0
    if not useful.any():
        first, second = np.array([np.argmin(x)]), np.array([np.argmax(x)])
        run, useful = x[second] - x[first], np.array([True])
    first, run = first[useful], run[useful]
    scales = (z[second[useful]] - z[first]) / run
    shifts = z[first] - scales * x[first]
    # A few hundred points rank the candidates as well as thousands do.
    look = slice(None, None, max(1, len(x) // 400))
    residuals = np.abs(scales[:, None] * x[None, look] + shifts[:, None] - z[None, look]) / z[look]
    best = int(np.argmin(np.median(residuals, axis=1)))
    return float(scales[best]), float(shifts[best])

"""Errors of depth and normals against the truth: pure functions over arrays.

What affine-invariant depth may be compared by is in the names: `affine_align` first, then
`abs_rel` and the like on metres. Every function takes a valid mask and looks at nothing else.
"""

from __future__ import annotations

import numpy as np

# Depth at or behind the camera is replaced by this value, so that it has a logarithm.
LEAST_DEPTH_M = 1e-3


def affine_align(
    relative: np.ndarray, metric: np.ndarray, valid: np.ndarray
) -> tuple[float, float]:
    """Least-squares scale and shift of `relative` to `metric`, in depth.

    Args:
        relative, metric: (H, W) floats; metric in metres.
        valid: (H, W) bool, at least two pixels.

    Raises:
        ValueError: fewer than two valid pixels.
    """
    x, y = relative[valid].astype(np.float64), metric[valid].astype(np.float64)
    if len(x) < 2:
        raise ValueError(f"an affine fit needs at least 2 valid pixels, got {len(x)}")
    spread = float(((x - x.mean()) ** 2).sum())
    if spread < 1e-12:
        return 0.0, float(y.mean())
    scale = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    return scale, float(y.mean() - scale * x.mean())


def abs_rel(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Mean of `|predicted - metric| / metric` over the valid pixels; NaN if there are none."""
    if not valid.any():
        return float("nan")
    truth = metric[valid].astype(np.float64)
    return float(np.mean(np.abs(predicted[valid] - truth) / truth))


def rmse(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Root mean squared error in metres; NaN if no pixel is valid."""
    if not valid.any():
        return float("nan")
    return float(np.sqrt(np.mean((predicted[valid].astype(np.float64) - metric[valid]) ** 2)))


def rmse_log(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Root mean squared difference of natural logarithms; NaN if no pixel is valid."""
    if not valid.any():
        return float("nan")
    return float(np.sqrt(np.mean(_log_ratio(predicted, metric, valid) ** 2)))


def si_log(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Standard deviation of the differences of natural logarithms; a wrong scale does not count.

    As in KITTI's benchmark, which writes it times 100; NaN where nothing is valid.
    """
    if not valid.any():
        return float("nan")
    return float(np.std(_log_ratio(predicted, metric, valid)))


def delta(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray, power: int = 1) -> float:
    """Share of valid pixels with max(p / t, t / p) below 1.25 to the power of `power`."""
    if not valid.any():
        return float("nan")
    ratio = np.abs(_log_ratio(predicted, metric, valid))
    return float(np.mean(ratio < power * np.log(1.25)))


def _log_ratio(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> np.ndarray:
    guess = np.maximum(predicted[valid].astype(np.float64), LEAST_DEPTH_M)
    return np.log(guess) - np.log(metric[valid].astype(np.float64))


def normal_angles(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Angles in degrees, one per valid pixel, between unit normals (H, W, 3)."""
    cosine = np.einsum("ij,ij->i", predicted[valid], truth[valid])
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))

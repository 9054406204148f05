"""How far a prediction is from the truth: pure functions over arrays.

What affine-invariant depth may be compared by is in the names: `affine_align` first, then
`abs_rel` and the like on metres. Every function takes a valid mask and looks at nothing else.
"""

from __future__ import annotations

import numpy as np

# A prediction at or behind the camera counts as this near, so that it has a logarithm.
LEAST_DEPTH_M = 1e-3


def affine_align(
    relative: np.ndarray, metric: np.ndarray, valid: np.ndarray
) -> tuple[float, float]:
    """Scale and shift that bring `relative` closest to `metric` (least squares, depth domain).

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
    """Mean of `|predicted - metric| / metric` over the valid pixels; NaN where there are none."""
    if not valid.any():
        return float("nan")
    truth = metric[valid].astype(np.float64)
    return float(np.mean(np.abs(predicted[valid] - truth) / truth))


def rmse(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Root of the mean squared error in metres; NaN where nothing is valid."""
    if not valid.any():
        return float("nan")
    return float(np.sqrt(np.mean((predicted[valid].astype(np.float64) - metric[valid]) ** 2)))


def rmse_log(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Root of the mean squared difference of natural logarithms; NaN where nothing is valid."""
    if not valid.any():
        return float("nan")
    return float(np.sqrt(np.mean(_log_ratio(predicted, metric, valid) ** 2)))


def si_log(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Standard deviation of the differences of natural logarithms: blind to a wrong scale.

    As in KITTI's benchmark, which writes it times 100; NaN where nothing is valid.
    """
    if not valid.any():
        return float("nan")
    return float(np.std(_log_ratio(predicted, metric, valid)))


def delta(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray, power: int = 1) -> float:
    """Share of valid pixels whose ratio to the truth, either way, is below 1.25 to the `power`."""
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

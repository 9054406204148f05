"""Which measured pixels are given to a predictor, and which are held out to score it.

A score on pixels that were given would only say how well they are copied. So measured depth is
split here, once for the demo, `evaluate` and `evaluate --scale`. In all arrays of this module NaN
means "not measured"; `draw_points` also takes depth in which 0 means that.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Pattern = Literal["random", "outliers", "noise", "line", "lower"]

DEFAULT_POINTS = 500
OUTLIER_SHARE, OUTLIER_RANGE_M = 0.2, (0.5, 10.0)
NOISE_SHARE = 0.02


def draw_points(
    measured: np.ndarray, count: int, *, seed: int, pattern: Pattern = "random"
) -> np.ndarray:
    """Sparse depth: some measured pixels, chosen at random.

    At most half of the measured pixels are drawn, so that a sparse sensor leaves some to score
    with. The same seed draws the same pixels of the same depth.

    Args:
        measured: (H, W) float32 metres, NaN or 0 where nothing was measured.
        count: how many pixels to draw.
        seed: of the choice.
        pattern: `random`: anywhere. `line`: from one row, as a 2D scanner measures. `lower`: from
            the lower half of the image, as a LiDAR does. `outliers`: anywhere, and 20 % of the
            values are replaced by random depths. `noise`: anywhere, and the values are multiplied
            by 1 + 2 % Gaussian noise.

    Returns:
        (H, W) float32 metres, NaN elsewhere.
    """
    rng = np.random.default_rng(seed)
    known = np.isfinite(measured) & (measured > 0)
    candidates = np.flatnonzero(known)
    most = min(count, candidates.size // 2)
    if pattern == "lower":
        candidates = candidates[candidates // measured.shape[1] >= measured.shape[0] // 2]
    elif pattern == "line":
        # Rows with at least half as many measured pixels as the best row, the middle row first.
        # Seed 0 takes the first of them, each further seed one 8 places on, at most the last.
        per_row = known.sum(axis=1)
        from_middle = np.abs(np.arange(len(measured)) - len(measured) // 2)
        usable = np.flatnonzero(per_row >= 0.5 * per_row.max())
        order = usable[np.argsort(from_middle[usable], kind="stable")]
        row = order[min(8 * seed, len(order) - 1)]
        candidates = candidates[candidates // measured.shape[1] == row]
    chosen = rng.choice(candidates, min(most, candidates.size), replace=False)
    values = measured.flat[chosen].astype(np.float64)
    if pattern == "outliers":
        wrong = rng.choice(len(chosen), int(OUTLIER_SHARE * len(chosen)), replace=False)
        values[wrong] = rng.uniform(*OUTLIER_RANGE_M, len(wrong))
    elif pattern == "noise":
        values *= 1.0 + NOISE_SHARE * rng.standard_normal(len(values))
    given = np.full(measured.shape, np.nan, np.float32)
    given.flat[chosen] = values
    return given


def split_depth(
    sensor: np.ndarray | None, truth: np.ndarray | None, points: int | None, *, seed: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Split a frame's measurements into what a predictor is given and what it is scored with.

    Args:
        sensor: (H, W) float32 metres, NaN where nothing was measured, or None.
        truth: the same, from a better source, or None: then the sensor's depth is split.
        points: how many of the sensor's pixels to give; None: all of them where there is a truth,
            else 500.
        seed: of the random choice.

    Returns:
        given, held_out: each (H, W) float32 metres or None; no pixel is in both.
    """
    if sensor is None:
        return None, truth
    given = sensor
    if truth is None:
        given = draw_points(sensor, DEFAULT_POINTS if points is None else points, seed=seed)
        truth = sensor
    elif points is not None:
        given = draw_points(sensor, points, seed=seed)
    held_out = without_pixels(truth, given)
    return given if np.isfinite(given).any() else None, held_out


def without_pixels(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """`truth` with NaN wherever `given` has a value: both (H, W) float32 metres."""
    return np.where(np.isfinite(given), np.float32(np.nan), truth)

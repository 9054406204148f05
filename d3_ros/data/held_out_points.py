"""Which measured pixels the node is given, and which are kept back to score it.

A score on pixels that the node was given would only say how well it copies. So they are split
once, here, and the score sees nothing but the second half of the split.
"""

from __future__ import annotations

import numpy as np

DEFAULT_POINTS = 500


def share_depth(
    sensor: np.ndarray | None, truth: np.ndarray | None, points: int | None, *, seed: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What of a frame's measurements the node is given and what it is scored with.

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
    if truth is None:
        given, held_out = split_depth(
            sensor, DEFAULT_POINTS if points is None else points, seed=seed
        )
    else:
        given = sensor if points is None else split_depth(sensor, points, seed=seed)[0]
        held_out = without_pixels(truth, given)
    return given if np.isfinite(given).any() else None, held_out


def split_depth(measured: np.ndarray, points: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split measured depth at random into a few pixels to give and the rest to score with.

    At most half of the measured pixels are given, however many are asked for, so that a sparse
    sensor leaves something to score with.

    Args:
        measured: (H, W) float32 metres, NaN where nothing was measured.
        points: how many pixels to give.
        seed: the same seed gives the same split of the same depth.

    Returns:
        given, held_out: (H, W) float32 metres each, NaN elsewhere; no pixel is in both.
    """
    candidates = np.flatnonzero(np.isfinite(measured))
    count = min(points, candidates.size // 2)
    chosen = np.random.default_rng(seed).choice(candidates, size=count, replace=False)
    given = np.full(measured.shape, np.nan, np.float32)
    given.flat[chosen] = measured.flat[chosen]
    return given, without_pixels(measured, given)


def without_pixels(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """`truth` with NaN wherever `given` has a value: both (H, W) float32 metres."""
    return np.where(np.isfinite(given), np.float32(np.nan), truth)

"""Which measured pixels the node is given, and which are kept back to score it.

A score on pixels that the node was given would only say how well it copies. So they are split
once, here, and the score sees nothing but the second half of the split.
"""

from __future__ import annotations

import numpy as np

DEFAULT_POINTS = 500


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

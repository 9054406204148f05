"""Robust statistics of a few hundred values, many times a frame."""

from __future__ import annotations

import numpy as np

MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, of a normal distribution


def median(values: np.ndarray) -> float:
    """The median of (N,) values without NaN, N >= 1: `numpy.median` in a fifth of its time."""
    middle, odd = divmod(len(values), 2)
    if odd:
        return float(np.partition(values, middle)[middle])
    ordered = np.partition(values, (middle - 1, middle))
    return 0.5 * float(ordered[middle - 1] + ordered[middle])

"""Limits of depth and robust statistics that all parts of the alignment share."""

from __future__ import annotations

import numpy as np

# An affine map is cut off at this value before its logarithm is taken.
LEAST_AFFINE = 1e-9
# Metric depth below this many metres is invalid.
LEAST_METRES = 1e-4
# Relative depth at 0 and 1 is saturated; these are the smallest and the largest valid values.
NEAREST_UNSATURATED, FARTHEST_UNSATURATED = 2.0**-24, 1.0 - 2.0**-24

# Median absolute deviation to standard deviation of a normal distribution.
MAD_TO_SIGMA = 1.4826


def median(values: np.ndarray) -> float:
    """The median of (N,) values without NaN, N >= 1; five times faster than `numpy.median`."""
    middle, odd = divmod(len(values), 2)
    if odd:
        return float(np.partition(values, middle)[middle])
    ordered = np.partition(values, (middle - 1, middle))
    return 0.5 * float(ordered[middle - 1] + ordered[middle])


def central_span(values: np.ndarray) -> float:
    """The span from about the 5 % to about the 95 % quantile of (N,) values, N >= 1."""
    low, high = np.sort(values)[[len(values) // 20, -1 - len(values) // 20]]
    return float(high - low)

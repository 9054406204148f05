"""Errors of depth and normals against the truth: pure functions over arrays.

Affine-invariant depth is brought to metres by `affine_align` first; the other depth scores compare
metres. Functions with a `valid` mask look at those pixels only; the edge scores take NaN instead.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

# Depth at or behind the camera is replaced by this value, so that it has a logarithm.
LEAST_DEPTH_M = 1e-3
# Holes of a measured map that are closed before its steps are looked for, pixels.
CLOSED_HOLE_PX = 8
# A step is a jump of depth between neighbours by more than this share; its zone is this wide.
STEP_SHARE, STEP_ZONE_PX = 0.05, 5
# A boundary: inverse depth changes by over BOUNDARY_SHARE across BOUNDARY_SPAN_PX pixels. What it
# changes in half that distance beside the boundary, on a slanted surface, is subtracted first.
# Boundaries match within BOUNDARY_MATCH_PX; fewer than LEAST_BOUNDARY pixels give no score.
BOUNDARY_SHARE, BOUNDARY_SPAN_PX, BOUNDARY_MATCH_PX, LEAST_BOUNDARY = 0.1, 4, 3, 30
# Edges are scored where at least this share of the pixels is measured, small holes closed.
DENSE_SHARE = 0.8
# Depth Pro's boundary F1: jumps between neighbours by these shares, weighted by the share.
EXACT_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25)
# A clean step: depth jumps by over CLEAN_SHARE, and CLEAN_REACH_PX pixels on either side are flat.
# At most MOST_STEPS jumps along rows, and as many along columns, are looked at. A step is seen when
# the prediction has SEEN_CONTRAST of its contrast.
CLEAN_SHARE, CLEAN_REACH_PX, MOST_STEPS, SEEN_CONTRAST = 0.15, 20, 150, 0.3
# Near pixels are nearer than this; they are too far by more than this share of their depth. Fewer
# near pixels than this give no score.
NEAR_M, TOO_FAR_SHARE, LEAST_NEAR = 1.0, 0.25, 100


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


def close_holes(metric: np.ndarray) -> np.ndarray:
    """(H, W) metres; holes (NaN or 0) take the nearest value up to `CLOSED_HOLE_PX` away."""
    holes = ~(metric > 0)
    if holes.all():
        return np.full(metric.shape, np.nan)
    distance, (rows, columns) = ndimage.distance_transform_edt(holes, return_indices=True)
    return np.where(distance > CLOSED_HOLE_PX, np.nan, metric[rows, columns])


def near_steps(metric: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels within `STEP_ZONE_PX` of a step of measured depth (NaN or 0: none)."""
    log_depth = np.log(close_holes(metric))
    step = np.zeros(metric.shape, np.uint8)
    for axis in (0, 1):
        jump = np.abs(np.diff(log_depth, axis=axis)) > np.log(1.0 + STEP_SHARE)
        for side in ((1, 0), (0, 1)):
            step |= np.pad(jump, [side if a == axis else (0, 0) for a in (0, 1)])
    width = 2 * STEP_ZONE_PX + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return np.asarray(cv2.dilate(step, disc) > 0)


def boundary_f1(predicted: np.ndarray, metric: np.ndarray) -> tuple[float, float, float]:
    """F1, precision and recall of depth boundaries, matched within `BOUNDARY_MATCH_PX`.

    Args:
        predicted: (H, W) metres.
        metric: (H, W) measured metres without small holes, NaN = none. The prediction counts only
            where there is a measurement.

    Returns:
        Three numbers in [0, 1]; NaN where the measured depth has hardly any boundary.
    """
    true = _boundaries(metric)
    if true.sum() < LEAST_BOUNDARY:
        return (float("nan"),) * 3
    found = _boundaries(np.where(np.isfinite(metric), predicted, np.nan))
    if not found.any():
        return 0.0, 0.0, 0.0
    to_true, to_found = (ndimage.distance_transform_edt(~edges) for edges in (true, found))
    precision = float(np.mean(to_true[found] <= BOUNDARY_MATCH_PX))
    recall = float(np.mean(to_found[true] <= BOUNDARY_MATCH_PX))
    both = precision + recall
    return (2.0 * precision * recall / both if both > 0 else 0.0), precision, recall


def _boundaries(metric: np.ndarray) -> np.ndarray:
    """(H, W) bool: where inverse depth changes across a pixel by more than on either side of it."""
    boundaries = np.zeros(metric.shape, bool)
    half, whole = BOUNDARY_SPAN_PX // 2, BOUNDARY_SPAN_PX
    for axis in (0, 1):
        inverse = np.moveaxis(1.0 / metric, axis, 0)
        size = len(inverse)
        if size <= 2 * whole:
            continue
        far_before, before, after, far_after = (
            inverse[whole + offset : size - whole + offset]
            for offset in (-whole, -half, half, whole)
        )
        slope = np.minimum(np.abs(before - far_before), np.abs(far_after - after))
        jump = np.abs(after - before) - slope
        edges = np.moveaxis(boundaries, axis, 0)
        edges[whole : size - whole] |= jump > BOUNDARY_SHARE * np.minimum(before, after)
    return boundaries


def boundary_f1_exact(predicted: np.ndarray, metric: np.ndarray) -> float:
    """Depth Pro's boundary F1: jumps between neighbours that match to the pixel and the direction.

    Args:
        predicted: (H, W) metres, above 0.
        metric: (H, W) measured metres without small holes, NaN = none.

    Returns:
        The F1 in [0, 1], a mean over `EXACT_SHARES`; NaN where the measured depth has no jump.
    """
    pairs = [_neighbours(depth) for depth in (predicted, metric)]
    known = np.isfinite(pairs[0]) & np.isfinite(pairs[1])
    if not (pairs[1][known] > 1.0 + EXACT_SHARES[0]).any():
        return float("nan")
    scores = []
    for share in EXACT_SHARES:
        found, true = ((nearer > 1.0 + share) & known for nearer in pairs)
        marked = int(found.sum() + true.sum())
        scores.append(2.0 * int((found & true).sum()) / marked if marked else 0.0)
    return float(np.average(scores, weights=EXACT_SHARES))


def _neighbours(depth: np.ndarray) -> np.ndarray:
    """(N,) ratios of depth of all neighbours, along rows and columns, in both directions."""
    ratios = []
    for first, second in ((depth[1:], depth[:-1]), (depth[:, 1:], depth[:, :-1])):
        ratios += [(first / second).ravel(), (second / first).ravel()]
    return np.concatenate(ratios)


def clean_steps(predicted: np.ndarray, metric: np.ndarray) -> tuple[float, float, int]:
    """How many of the clean steps of the measured depth are seen, and how wide they come out.

    A clean step stands between two flat sides. It is seen when the prediction has over
    `SEEN_CONTRAST` of its contrast, with its sign.

    Args:
        predicted: (H, W) metres.
        metric: (H, W) measured metres without small holes, NaN = none.

    Returns:
        share seen, in [0, 1]; median distance in pixels between 10 and 90 % of the contrast of
        those that are seen; number of clean steps. NaN without any.
    """
    widths: list[float] = []
    clean = 0
    for truth, guess in ((metric, predicted), (metric.T, predicted.T)):
        for row, column in _jumps(truth):
            place = slice(column - CLEAN_REACH_PX + 1, column + CLEAN_REACH_PX + 1)
            width = _step_width(truth[row, place], guess[row, place])
            if width is not None:
                clean += 1
                widths.append(width)
    seen = [width for width in widths if np.isfinite(width)]
    share = len(seen) / clean if clean else float("nan")
    return share, float(np.median(seen)) if seen else float("nan"), clean


def _jumps(depth: np.ndarray) -> np.ndarray:
    """(N, 2) rows and columns of pixels before a jump along a row; at most `MOST_STEPS`."""
    jump = np.abs(np.diff(np.log(depth), axis=1)) > np.log(1.0 + CLEAN_SHARE)
    at = np.argwhere(jump)
    last = depth.shape[1] - CLEAN_REACH_PX - 1
    at = at[(at[:, 1] >= CLEAN_REACH_PX) & (at[:, 1] < last)]
    if len(at) <= MOST_STEPS:
        return at
    return at[np.random.default_rng(0).choice(len(at), MOST_STEPS, replace=False)]


def _step_width(truth: np.ndarray, guess: np.ndarray) -> float | None:
    """Width in pixels of a step in the middle of `guess`; NaN: not seen; None: not a clean step."""
    if not (np.isfinite(truth).all() and np.isfinite(guess).all()):
        return None
    reach = CLEAN_REACH_PX
    before, after = truth[: reach - 2], truth[reach + 2 :]
    contrast = float(np.median(after) - np.median(before))
    uneven = max(np.ptp(before), np.ptp(after)) > 0.35 * abs(contrast)
    if uneven or abs(contrast) < 0.1 * np.median(truth):
        return None
    low, high = np.median(guess[: reach // 2]), np.median(guess[-(reach // 2) :])
    if (high - low) * np.sign(contrast) < SEEN_CONTRAST * abs(contrast):
        return float("nan")
    share = (guess - low) / (high - low)
    above = np.flatnonzero(share > 0.9)
    top = int(above[0]) if len(above) else 2 * reach
    below = np.flatnonzero(share[:top] < 0.1)
    return float(top - (below[-1] if len(below) else 0))


def near_too_far(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> float:
    """Share of the pixels nearer than `NEAR_M` that come out over `TOO_FAR_SHARE` too far.

    NaN where fewer than `LEAST_NEAR` pixels are that near.
    """
    near = valid & (metric < NEAR_M)
    if np.count_nonzero(near) < LEAST_NEAR:
        return float("nan")
    return float(np.mean(predicted[near] > (1.0 + TOO_FAR_SHARE) * metric[near]))

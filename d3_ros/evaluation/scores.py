"""All scores of one frame, by five protocols.

    affine_depth        relative depth after a least-squares fit to the true depth: the protocol of
                        networks that predict affine-invariant depth (Marigold, D³)
    edges               steps of depth after the same fit
    affine_disparity    the fitted depth, inverted, after a least-squares fit to the inverse true
                        depth: the protocol of networks that predict disparity (MiDaS). Near pixels
                        have more weight.
    sparse_fit          metric depth as on the robot: `ScaleAligner` with a few random measured
                        pixels, scored on the other measured pixels where it gives depth
    normals             surface normals, without a fit

A score's name is PROTOCOL.SCORE; depth in metres, angles in degrees, all others without unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros import metrics
from d3_ros.data.held_out_points import draw_points
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.types import D3Prediction

POINTS = 100  # measured pixels that the sparse fit is given by default
NORMAL_LIMITS_DEG = (11.25, 22.5, 30.0)
# Before fitted depth is inverted, it is limited to this share of the smallest true depth.
NEAREST_SHARE = 0.5
# Before its edges are scored, fitted depth is limited to this: an edge is a ratio of depths.
NEAREST_EDGE_M = 0.05


@dataclass(frozen=True)
class Meaning:
    """How a score is shown: its label, whether a higher value is better, and what it is.

    `what` is empty where the label says it.
    """

    label: str
    higher_is_better: bool = False
    what: str = ""


MEANINGS = {
    "abs_rel": Meaning("AbsRel"),
    "rmse_m": Meaning("RMSE, m"),
    "rmse_log": Meaning("RMSE log"),
    "si_log": Meaning("SILog"),
    "delta1": Meaning("δ1", True),
    "delta2": Meaning("δ2", True),
    "delta3": Meaning("δ3", True),
    "near_too_far": Meaning(
        "near too far",
        what=f"share of the pixels nearer than {metrics.NEAR_M:g} m that are more than "
        f"{metrics.TOO_FAR_SHARE:.0%} too far",
    ),
    "at_steps": Meaning(
        "AbsRel at steps", what=f"AbsRel within {metrics.STEP_ZONE_PX} pixels of a step of depth"
    ),
    "boundary_f1": Meaning(
        "boundary F1", True, f"F1 of depth boundaries, within {metrics.BOUNDARY_MATCH_PX} pixels"
    ),
    "boundary_f1_exact": Meaning(
        "exact F1", True, "F1 of jumps of depth to the pixel, as Depth Pro defines it"
    ),
    "steps_seen": Meaning(
        "steps seen",
        True,
        f"share of clean steps that the depth shows with over {metrics.SEEN_CONTRAST:.0%} of their "
        "contrast",
    ),
    "step_width_px": Meaning(
        "step width, px", what="median width of those from 10 to 90 % of their contrast"
    ),
    "coverage": Meaning("coverage", True),
    "mean_deg": Meaning("mean, °"),
    "median_deg": Meaning("median, °"),
    "within_11": Meaning("< 11.25°", True),
    "within_22": Meaning("< 22.5°", True),
    "within_30": Meaning("< 30°", True),
}
PROTOCOLS = {
    "affine_depth": "depth after an affine fit to the truth, in depth",
    "edges": "steps of depth after an affine fit to the truth, in depth",
    "affine_disparity": "depth after an affine fit to the truth, in disparity",
    "sparse_fit": "metric depth from a few measured points",
    "normals": "surface normals",
}


def frame_scores(
    prediction: D3Prediction,
    depth: np.ndarray | None,
    normals: np.ndarray | None,
    *,
    points: int,
    seed: int,
    rgb: np.ndarray | None = None,
) -> dict[str, float]:
    """All scores that can be computed from the truth of a frame, by PROTOCOL.SCORE.

    Args:
        prediction: at the size of the truth.
        depth: (H, W) metres, 0 = not known, or None.
        normals: (H, W, 3) unit vectors in the optical frame, (0, 0, 0) = not known, or None.
        points: how many measured pixels the sparse fit is given.
        seed: of their choice.
        rgb: (H, W, 3) uint8 image at the size of the truth; the sparse fit follows its edges.
    """
    scores: dict[str, float] = {}
    if prediction.depth is not None and depth is not None and np.count_nonzero(depth) >= 2:
        valid = depth > 0
        fitted = affine_depth(prediction.depth, depth)
        scores |= _named("affine_depth", depth_scores(fitted, depth, valid))
        near = {"near_too_far": metrics.near_too_far(fitted, depth, valid)}
        scores |= _named("affine_depth", _told(near))
        scores |= _named("edges", edge_scores(fitted, depth))
        inverted = affine_disparity(fitted, depth)
        scores |= _named("affine_disparity", depth_scores(inverted, depth, valid))
        given = draw_points(depth, points, seed=seed)
        metric = sparse_fit(prediction.depth, given, rgb)
        rest = valid & ~np.isfinite(given)
        answered = rest & np.isfinite(metric)
        coverage = float(answered.sum() / max(rest.sum(), 1))
        sparse = {**depth_scores(metric, depth, answered), "coverage": coverage}
        scores |= _named("sparse_fit", sparse)
    if prediction.normals is not None and normals is not None:
        valid = normals.any(axis=2) & np.isfinite(prediction.normals).all(axis=2)
        if valid.any():
            scores |= _named("normals", normal_scores(prediction.normals, normals, valid))
    return scores


def depth_scores(predicted: np.ndarray, metric: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Scores of (H, W) depth in metres against the truth; NaN where nothing is valid."""
    return {
        "abs_rel": metrics.abs_rel(predicted, metric, valid),
        "rmse_m": metrics.rmse(predicted, metric, valid),
        "rmse_log": metrics.rmse_log(predicted, metric, valid),
        "si_log": metrics.si_log(predicted, metric, valid),
        **{f"delta{n}": metrics.delta(predicted, metric, valid, n) for n in (1, 2, 3)},
    }


def edge_scores(fitted: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    """Scores of the steps of (H, W) fitted depth in metres against `depth` (0 = not known).

    A score that this truth does not allow is left out: all of them if the truth is too sparse to
    show steps, those of clean steps if it has none. Unknown pixels, such as the sky, do not count.
    """
    closed = metrics.close_holes(depth)
    if np.isfinite(closed).mean() < metrics.DENSE_SHARE:
        return {}
    sharp = np.maximum(fitted, NEAREST_EDGE_M)
    seen, width, _ = metrics.clean_steps(sharp, closed)
    found = {
        "at_steps": metrics.abs_rel(fitted, depth, (depth > 0) & metrics.near_steps(depth)),
        "boundary_f1": metrics.boundary_f1(sharp, closed)[0],
        "boundary_f1_exact": metrics.boundary_f1_exact(sharp, closed),
        "steps_seen": seen,
        "step_width_px": width,
    }
    return _told(found)


def normal_scores(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Angles in degrees between (H, W, 3) unit normals, and shares of pixels below each limit."""
    angles = metrics.normal_angles(predicted, truth, valid)
    return {
        "mean_deg": float(angles.mean()),
        "median_deg": float(np.median(angles)),
        **{f"within_{int(limit)}": float(np.mean(angles < limit)) for limit in NORMAL_LIMITS_DEG},
    }


def affine_depth(relative: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(H, W) metres: relative depth after its least-squares fit to the known `depth` (0 = not)."""
    scale, shift = metrics.affine_align(relative, depth, depth > 0)
    return scale * relative + shift


def affine_disparity(fitted: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(H, W) metres: fitted depth after a least-squares fit of its inverse to that of `depth`."""
    valid = depth > 0
    nearest = NEAREST_SHARE * float(depth[valid].min())
    farthest = float(depth[valid].max()) / NEAREST_SHARE
    disparity = 1.0 / np.maximum(fitted, nearest)
    truth = np.where(valid, 1.0 / np.where(valid, depth, 1.0), 0.0)
    scale, shift = metrics.affine_align(disparity, truth, valid)
    return 1.0 / np.maximum(scale * disparity + shift, 1.0 / farthest)


def sparse_fit(
    relative: np.ndarray, given: np.ndarray, rgb: np.ndarray | None = None
) -> np.ndarray:
    """(H, W) float32 metres as the node has them of one frame, NaN where it gives none."""
    fit = ScaleAligner().update(relative, given, stamp=0.0, rgb=rgb)
    if not fit.ok:
        return np.full(relative.shape, np.nan, np.float32)
    return fit.apply(relative)


def _told(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if np.isfinite(value)}


def _named(protocol: str, scores: dict[str, float]) -> dict[str, float]:
    return {f"{protocol}.{name}": value for name, value in scores.items()}

"""A verdict on an extrinsic calibration, from the edges of many frames.

Depth edges of a right calibration lie on image edges. The sensor is turned by up to 3 degrees, or
shifted by up to 10 cm, to see whether another place fits better. An error is told only when it is
larger than its own uncertainty (bootstrap over parts of the recording), and when edges that were
not used to find the better place fit better there, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from d3_ros.geometry.extrinsics.edge_match import STRIPS, EdgeMatch, small_motion

Verdict = Literal["right", "off", "unclear"]
Kind = Literal["rotation", "translation"]

MAX_TURN_DEG, MAX_SHIFT_M = 3.0, 0.10
# Fewer edges, or fewer frames with edges, cannot say anything.
MIN_EDGES, MIN_FRAMES = 100, 2
# More edges than these are thinned.
MAX_EDGES = 30_000
# An axis of the image (u or v) is checked when the edges across it have this total weight.
MIN_WEIGHT = 25.0
# A smaller mean displacement of the edges is no error, because the measurement is not finer: in
# degrees, and as a share of the gap between the two sensor points beside an edge.
TOLERANCE_DEG, TOLERANCE_GAPS = 0.2, 0.5
# An uncertainty above this, or above a gap, is too much to call a calibration right.
MAX_UNCERTAINTY_DEG = 0.75
# Held-out edges must fit better by this many standard errors.
MIN_T = 2.0
# The best correction of the other kind (turn or shift) is reported, too, when it improves the fit
# of held-out edges by this share of what the first one does.
SIMILAR = 0.8
# Frames are grouped into blocks, because neighbours in time show the same things. Then: folds of
# the cross-validation, and bootstrap samples.
BLOCKS, FOLDS, RESAMPLES = 20, 20, 300


@dataclass(frozen=True)
class ExtrinsicsCheck:
    """What edges say about `T_camera_sensor`.

    frames, edges: number of frames with depth edges, and of these edges.
    score: 1 when no small offset fits better, 0 when the calibration fits as by chance. Right
        calibrations have 0.9 and more.
    kind, offset: the correction that fits best, either a turn or a shift; (6,) radians about and
        metres along x, y, z of the optical frame. The other half is zeros.
    spread: (6,) standard errors of `offset`.
    alternative: (6,) the best correction of the other kind, where it explains the edges almost as
        well; else zeros.
    shift_deg: by how much the correction moves the edges, on average.
    uncertainty_deg: 95 % of the corrections found on resampled recordings differ by less.
    tolerance_deg: a smaller `shift_deg` is no error, because the sensor's points are not denser.
    axes: which of (u, v) of the image had enough edges across it.
    at_limit: the correction lies at the end of what was searched.
    """

    verdict: Verdict
    frames: int
    edges: int
    score: float = float("nan")
    kind: Kind = "rotation"
    offset: tuple[float, ...] = (0.0,) * 6
    spread: tuple[float, ...] = (0.0,) * 6
    alternative: tuple[float, ...] = (0.0,) * 6
    shift_deg: float = float("nan")
    uncertainty_deg: float = float("nan")
    tolerance_deg: float = float("nan")
    axes: tuple[bool, bool] = (True, True)
    at_limit: bool = False

    def corrected(self, T_camera_sensor: np.ndarray) -> np.ndarray:  # noqa: N803
        """(4, 4) the calibration with the best offset applied."""
        return small_motion(np.array(self.offset)) @ T_camera_sensor


@dataclass(frozen=True)
class _Search:
    """Scores of U parts of a recording at M offsets of one kind (turns, or shifts).

    A part is one strip of the image in one block of frames. The first offset is no motion.
    """

    offsets: np.ndarray  # (M, 6)
    scores: np.ndarray  # (U, M)

    def best(self, weights: np.ndarray) -> np.ndarray:
        """(B,) index of the best offset, for (B, U) weights of the parts."""
        return (weights @ self.scores).argmax(axis=1)


def check_extrinsics(matches: Sequence[EdgeMatch], focal_px: float) -> ExtrinsicsCheck:
    """Judge the calibration with which `matches` were made.

    Args:
        matches: of frames in the order of their recording.
        focal_px: of the camera, to tell displacements as angles.
    """
    with_edges = [match for match in matches if len(match)]
    edges = sum(map(len, with_edges))
    most = max(1, MAX_EDGES // max(1, len(with_edges)))
    with_edges = [match.thinned(most) for match in with_edges]
    weight = sum((match.across.sum(axis=0) for match in with_edges), np.zeros(2))
    axes = (bool(weight[0] >= MIN_WEIGHT), bool(weight[1] >= MIN_WEIGHT))
    if edges < MIN_EDGES or len(with_edges) < MIN_FRAMES or not any(axes):
        return ExtrinsicsCheck("unclear", len(with_edges), edges, axes=axes)
    blocks = np.arange(len(with_edges)) * min(BLOCKS, len(with_edges)) // len(with_edges)
    searches, part_weights = _search(with_edges, blocks, axes)
    parts = len(part_weights)
    folds = np.arange(parts) * min(FOLDS, parts) // parts
    gains = {kind: _held_out_gains(search, folds) for kind, search in searches.items()}
    kind: Kind = max(gains, key=lambda k: float(gains[k].sum()))
    other: Kind = "translation" if kind == "rotation" else "rotation"
    everything = np.ones((1, parts))
    best, second = (searches[k].offsets[searches[k].best(everything)[0]] for k in (kind, other))
    draws = np.random.default_rng(0).multinomial(parts, [1 / parts] * parts, RESAMPLES)
    resampled = searches[kind].offsets[searches[kind].best(draws)]
    metric = _metric(with_edges, focal_px)
    shift = float(_angle(best, metric))
    uncertainty = float(np.quantile(_angle(resampled - best, metric), 0.95))
    gap = _gap_deg(with_edges, focal_px)
    similar = gains[other].sum() > SIMILAR * gains[kind].sum()
    return ExtrinsicsCheck(
        verdict=_verdict(shift, uncertainty, gap, gains[kind]),
        frames=len(with_edges),
        edges=edges,
        score=_score(searches[kind], searches["rotation"], metric),
        kind=kind,
        offset=tuple(best.tolist()),
        spread=tuple(resampled.std(axis=0).tolist()),
        alternative=tuple(second.tolist()) if similar else (0.0,) * 6,
        shift_deg=shift,
        uncertainty_deg=uncertainty,
        tolerance_deg=max(TOLERANCE_DEG, TOLERANCE_GAPS * gap),
        axes=axes,
        at_limit=_at_limit(best),
    )


def _verdict(shift: float, uncertainty: float, gap: float, gains: np.ndarray) -> Verdict:
    limit = max(TOLERANCE_DEG, TOLERANCE_GAPS * gap, uncertainty)
    if shift > limit:
        return "off" if _t_value(gains) >= MIN_T else "unclear"
    return "right" if uncertainty <= max(MAX_UNCERTAINTY_DEG, gap) else "unclear"


def _gap_deg(matches: Sequence[EdgeMatch], focal_px: float) -> float:
    """Mean angle between the two points that an edge lies between."""
    weights = np.concatenate([match.across.sum(axis=1) for match in matches])
    gaps = np.concatenate([match.gaps for match in matches])
    return float(np.degrees(np.average(gaps, weights=weights) / focal_px))


def _t_value(gains: np.ndarray) -> float:
    """Mean over its standard error."""
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return float(gains.mean() / max(error, 1e-12))


def _held_out_gains(search: _Search, folds: np.ndarray) -> np.ndarray:
    """(U,) how much better each part scores at the best offset of the other folds than at none."""
    without = (folds != np.arange(folds.max() + 1)[:, None]).astype(np.float64)
    found = search.best(without)[folds]
    return search.scores[np.arange(len(folds)), found] - search.scores[:, 0]


def _search(
    matches: Sequence[EdgeMatch], blocks: np.ndarray, axes: tuple[bool, bool]
) -> tuple[dict[Kind, _Search], np.ndarray]:
    """Score a coarse grid of offsets, then a fine one around the best of each kind."""
    coarse = {kind: _grid(kind, np.zeros(6), axes, fine=False) for kind in _KINDS}
    found = {kind: _scores(matches, blocks, offsets) for kind, offsets in coarse.items()}
    searches: dict[Kind, _Search] = {}
    for kind in _KINDS:
        scores, weights = found[kind]
        centre = coarse[kind][scores.sum(axis=0).argmax()]
        fine = _grid(kind, centre, axes, fine=True)
        more, _ = _scores(matches, blocks, fine)
        used = weights > 0
        searches[kind] = _Search(
            np.concatenate([coarse[kind], fine]), np.concatenate([scores, more], axis=1)[used]
        )
    return searches, weights[used]


_KINDS: tuple[Kind, ...] = ("rotation", "translation")


def _scores(
    matches: Sequence[EdgeMatch], blocks: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(U, M) scores and (U,) weights of the parts: strips of the image in blocks of frames."""
    scores = np.zeros((blocks.max() + 1, STRIPS, len(offsets)))
    weights = np.zeros((blocks.max() + 1, STRIPS))
    for block, match in zip(blocks, matches, strict=True):
        score, weight = match.scores(offsets)
        scores[block] += score
        weights[block] += weight
    return scores.reshape(-1, len(offsets)), weights.ravel()


def _grid(kind: Kind, centre: np.ndarray, axes: tuple[bool, bool], *, fine: bool) -> np.ndarray:
    """(M, 6) offsets to try; the first of a coarse grid is no motion.

    Edges across u see turns about y and shifts along x; those across v the other two. Turns about
    z are seen with both.
    """
    across_u, across_v = axes
    if kind == "rotation":
        step, reach = np.radians((0.125, 0.375) if fine else (0.25, MAX_TURN_DEG))
        x = _steps(step, reach if across_v else 0.0)
        y = _steps(step, reach if across_u else 0.0)
        roll = _steps(*np.radians((0.25, 0.5)))
        z = roll if fine and across_u and across_v else np.zeros(1)
        columns = (0, 1, 2)
    else:
        step, reach = (0.0025, 0.01) if fine else (0.01, MAX_SHIFT_M)
        x = _steps(step, reach if across_u else 0.0)
        y = _steps(step, reach if across_v else 0.0)
        z = np.zeros(1)
        columns = (3, 4, 5)
    grid = np.stack([g.ravel() for g in np.meshgrid(x, y, z)], axis=1)
    offsets = np.zeros((len(grid), 6))
    offsets[:, columns] = grid
    if fine:
        return offsets + centre
    rolls = np.zeros((0, 6))
    if kind == "rotation" and across_u and across_v:
        angles = _steps(*np.radians((0.25, MAX_TURN_DEG)))
        rolls = angles[:, None] * (np.arange(6) == 2)
    return np.concatenate([np.zeros((1, 6)), offsets, rolls])


def _steps(step: float, reach: float) -> np.ndarray:
    count = round(reach / step)
    return step * np.arange(-count, count + 1)


def _metric(matches: Sequence[EdgeMatch], focal_px: float) -> np.ndarray:
    """(6, 6) whose quadratic form is the mean square displacement of the edges, degrees²."""
    total, weight = np.zeros((6, 6)), 0.0
    for match in matches:
        edge_weight = match.across.sum(axis=1)
        total += np.einsum("n,nci,ncj->ij", edge_weight, match.motion, match.motion)
        weight += edge_weight.sum()
    return total / weight * np.degrees(1 / focal_px) ** 2


def _angle(offsets: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Displacement of the edges by (..., 6) offsets, degrees."""
    return np.sqrt(np.einsum("...i,ij,...j->...", offsets, metric, offsets))


def _score(search: _Search, turns: _Search, metric: np.ndarray) -> float:
    """How well the calibration fits: 1 as well as the best offset, 0 no better than by chance.

    Chance is the mean score of turns that move the edges by more than half of `MAX_TURN_DEG`.
    """
    totals = turns.scores.sum(axis=0)
    chance = totals[_angle(turns.offsets, metric) > MAX_TURN_DEG / 2].mean()
    here = search.scores[:, 0].sum()
    best = search.scores.sum(axis=0).max()
    return float((here - chance) / max(best - chance, 1e-12))


def _at_limit(offset: np.ndarray) -> bool:
    limits = np.array([np.radians(MAX_TURN_DEG)] * 3 + [MAX_SHIFT_M] * 3)
    return bool((np.abs(offset) > 0.97 * limits).any())

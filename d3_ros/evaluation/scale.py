"""How well relative depth becomes metres from a few measured points.

Every case is scored on all measured pixels, with the global affine fit and with the interpolation
of the points alone (which needs no network) beside the aligner's answer. Pixels that a method does
not answer count in its coverage, not in its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from d3_ros import metrics
from d3_ros.data.held_out_points import Pattern, draw_points
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.types import DepthFit

COUNTS = (10, 20, 50, 100, 500, 2000)
ERRORS = (
    "aligned",
    "global_fit",
    "interpolated",
    "aligned_rmse_m",
    "global_fit_rmse_m",
    "interpolated_rmse_m",
)
# More about the aligner's answer; see `Score`.
EXTRAS = ("at_steps", "boundary_f1", "within_1_sigma", "within_2_sigma", "reported")


@dataclass(frozen=True)
class ScaleFrame:
    """One frame to score: its folder's name, relative depth (H, W) and measured metres, NaN none.

    `rgb` is the image that the correction follows, or None. `given` holds, by name, sparse depth
    that comes with the frame.
    """

    dataset: str
    relative: np.ndarray
    truth: np.ndarray
    given: dict[str, np.ndarray]
    rgb: np.ndarray | None = None

    @cached_property
    def near_steps(self) -> np.ndarray:
        """(H, W) bool, see `metrics.near_steps`."""
        return metrics.near_steps(self.truth)

    @cached_property
    def boundary_truth(self) -> np.ndarray | None:
        """Metres without small holes, or None where too little is measured to see boundaries."""
        closed = metrics.close_holes(self.truth)
        return closed if np.isfinite(closed).mean() > metrics.DENSE_SHARE else None


@dataclass(frozen=True)
class Score:
    """AbsRel and RMSE (metres) of the three methods on the same pixels; NaN without an answer.

    `at_steps` is the aligner's AbsRel near steps of depth, `boundary_f1` how well its boundaries
    match, `within_1_sigma` and `within_2_sigma` the shares of pixels whose error is within the
    expected one and twice that, `reported` the aligner's own estimate `DepthFit.abs_rel` divided by
    the true AbsRel (of several frames: the median). `coverage` is the share of the measured pixels
    for which the aligner gives depth, `answered` the share of the frames with a fit. `refusal` is
    the reason of the first fit that was refused, empty if none was.
    """

    aligned: float
    global_fit: float
    interpolated: float
    aligned_rmse_m: float
    global_fit_rmse_m: float
    interpolated_rmse_m: float
    at_steps: float
    boundary_f1: float
    within_1_sigma: float
    within_2_sigma: float
    reported: float
    coverage: float
    answered: float
    refusal: str = ""

    @property
    def over_global(self) -> float:
        """How much of the global fit's AbsRel is gone, 0 to 1; negative: worse."""
        return 1.0 - self.aligned / self.global_fit

    @property
    def beats_both(self) -> bool:
        """Whether neither the global fit nor the points alone have a smaller AbsRel."""
        return not (self.global_fit < self.aligned or self.interpolated < self.aligned)


def interpolate(sparse: np.ndarray) -> np.ndarray:
    """Points alone: (H, W) metres, linear between the (H, W) sparse points, nearest beyond."""
    rows, columns = np.nonzero(np.isfinite(sparse))
    points, values = np.column_stack([columns, rows]), sparse[rows, columns].astype(np.float64)
    v, u = np.mgrid[: sparse.shape[0], : sparse.shape[1]]
    dense = NearestNDInterpolator(points, values)(u, v)
    on_one_line = np.linalg.matrix_rank(points - points[0]) < 2
    if not on_one_line:
        linear = LinearNDInterpolator(points, values)(u, v)
        dense = np.where(np.isfinite(linear), linear, dense)
    return np.asarray(dense)


def score(frame: ScaleFrame, sparse: np.ndarray) -> Score:
    """Align one frame by its sparse points and score it on everything measured.

    After a refused fit all errors are NaN and the coverage is 0. Where the relative depth is
    saturated, the aligner gives no depth. All three methods are scored on the pixels for which it
    does, so that none gains by leaving difficult pixels out.
    """
    valid = np.isfinite(frame.truth)
    fit = ScaleAligner(min_points=3).update(frame.relative, sparse, stamp=0.0, rgb=frame.rgb)
    # The yardstick answers whatever it can fit at all.
    plain = ScaleAligner(min_points=3, min_inlier_ratio=0.1, local_correction=False).update(
        frame.relative, sparse, stamp=0.0
    )
    if not fit.ok:
        errors, coverage, answered = [float("nan")] * 6, 0.0, 0.0
        extras = [float("nan")] * len(EXTRAS)
    else:
        globally = np.full(frame.truth.shape, np.nan, np.float32)
        answers = [fit.apply(frame.relative), globally, interpolate(sparse)]
        common = valid & np.isfinite(answers[0])
        if plain.ok:
            answers[1] = plain.apply(frame.relative)
            common &= np.isfinite(answers[1])
        errors = [
            error(answer, frame.truth, common)
            for error in (metrics.abs_rel, metrics.rmse)
            for answer in answers
        ]
        coverage, answered = float(common.sum() / valid.sum()), 1.0
        extras = _extras(frame, fit, answers[0], common, errors[0])
    named = dict(zip((*ERRORS, *EXTRAS), (*errors, *extras), strict=True))
    reason = "" if fit.ok else fit.reason
    return Score(**named, coverage=coverage, answered=answered, refusal=reason)


def _extras(
    frame: ScaleFrame, fit: DepthFit, metric: np.ndarray, common: np.ndarray, abs_rel: float
) -> list[float]:
    """The values of `EXTRAS`, on the pixels `common`."""
    off = np.abs(metric - frame.truth)[common]
    sigma = fit.sigma(frame.relative, metric)[common]
    boundary = float("nan")
    if frame.boundary_truth is not None:
        boundary = metrics.boundary_f1(metric, frame.boundary_truth)[0]
    return [
        metrics.abs_rel(metric, frame.truth, common & frame.near_steps),
        boundary,
        float(np.mean(off < sigma)),
        float(np.mean(off < 2.0 * sigma)),
        fit.abs_rel / abs_rel if abs_rel > 0 else float("nan"),
    ]


def mean_score(
    frames: Iterable[ScaleFrame], sparse_of: Callable[[ScaleFrame, int], np.ndarray], seeds: int
) -> Score:
    """Mean over the frames and seeds with an answer; `sparse_of(frame, seed)` gives the points."""
    scores = [score(frame, sparse_of(frame, seed)) for frame in frames for seed in range(seeds)]
    means = {}
    for name in (*ERRORS, *EXTRAS, "coverage", "answered"):
        values = np.array([getattr(one, name) for one in scores])
        told = values[np.isfinite(values)]
        average = np.median if name == "reported" else np.mean
        means[name] = float(average(told)) if len(told) else float("nan")
    return Score(**means, refusal=next((one.refusal for one in scores if one.refusal), ""))


def table_rows(
    frames: list[ScaleFrame], seeds: int, predicted: bool
) -> Iterator[tuple[str, str, Score]]:
    """(points, how they are taken, score) for every row that the frames of one folder have.

    Frames with given sparse depth have a row for each; `predicted` (a relative depth that is known
    to be good) adds the rows with outliers and with noise.
    """
    if "every_second" not in frames[0].given:
        for count in COUNTS:
            yield str(count), "random", _mean(frames, count, "random", seeds)
        if predicted:
            yield "500", "20 % outliers", _mean(frames, 500, "outliers", seeds)
            yield "500", "2 % noise", _mean(frames, 500, "noise", seeds)
        yield "100", "one row (2D scan)", _mean(frames, 100, "line", seeds)
        yield "100", "lower half (LiDAR)", _mean(frames, 100, "lower", seeds)
    for key in frames[0].given:
        points = int(np.mean([np.isfinite(frame.given[key]).sum() for frame in frames]))
        given = mean_score(frames, lambda frame, _, key=key: frame.given[key], 1)  # type: ignore[misc]
        yield str(points), key, given


def _mean(frames: list[ScaleFrame], count: int, pattern: Pattern, seeds: int) -> Score:
    def points(frame: ScaleFrame, seed: int) -> np.ndarray:
        return draw_points(frame.truth, count, seed=seed, pattern=pattern)

    return mean_score(frames, points, seeds)

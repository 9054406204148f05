"""The local correction of a frame: a smooth field first, then detail; and its measured error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from d3_ros.geometry.alignment.global_fit.domain import GlobalFit
from d3_ros.geometry.alignment.local.correction_field import evaluate_field, image_position
from d3_ros.geometry.alignment.local.detail import Detail, DetailModel, coarse
from d3_ros.geometry.alignment.local.gaussian_process import (
    GOOD_SENSOR_LONER_SHARE,
    LONER_ERROR,
    OUTLIER_WEIGHT,
    Regression,
    ResidualModel,
    loner_doubt,
)
from d3_ros.geometry.alignment.local.guided_detail import Guide, GuidedDetailModel
from d3_ros.geometry.alignment.local.prior import Features
from d3_ros.geometry.alignment.local.reach import SteadyReach
from d3_ros.geometry.alignment.local.voronoi import Diagram, Samples, concatenate
from d3_ros.geometry.alignment.metric_map import MetricMap
from d3_ros.geometry.alignment.numerics import median
from d3_ros.geometry.alignment.parallel import in_bands
from d3_ros.geometry.alignment.points import Points, joined
from d3_ros.geometry.alignment.settings import AlignmentSettings
from d3_ros.geometry.alignment.smoothing import CorrectionSmoother
from d3_ros.geometry.alignment.uncertainty import LeftOut

# A point is doubted when the regression gives it less weight than this.
DOUBTED = 0.5
# Where points are dense, a doubted one is kept if NEIGHBOURS_THAT_CONFIRM others agree with it:
# within CONFIRM_REACH spacings of the points, their log depth differs by less than the tolerance.
NEIGHBOURS_THAT_CONFIRM, CONFIRM_REACH, CONFIRM_TOLERANCE = 2, 1.5, 0.05
# Pixels around doubted points that are looked at in one go, to bound the memory.
PIXELS_AT_ONCE = 2_000_000
# Memory of the correction, as a share of that of the scale.
CORRECTION_MEMORY = 0.95
# Points whose correction is looked up at once.
POINTS_AT_ONCE = 4096


@dataclass(frozen=True)
class LocalFit:
    """The corrected map and its relative errors |z - z_sensor| / z_sensor at sensor points.

    `held_out`: at points that had no part in the prediction. `left_out`: at a sample of points, by
    the smooth field alone, each predicted without itself.
    """

    metric_map: MetricMap
    held_out: LeftOut
    left_out: np.ndarray


@dataclass(frozen=True)
class _Evidence:
    """What the detail is computed from.

    `samples`: the points that are not held out. `judges`: the M held-out points. `loo_base` (M,):
    log depth of the smooth field there, predicted without them. `regression`: the field's.
    `dense`: whether the regression saw thinned points.
    """

    samples: Samples
    judges: Samples
    loo_base: np.ndarray
    regression: Regression
    dense: bool


class LocalCorrection:
    """Corrects global fits by the points; remembers the choices that suit network and scene."""

    def __init__(
        self,
        settings: AlignmentSettings,
        stage: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self.settings = settings
        self._stage = stage
        self.reset()

    def reset(self) -> None:
        """Forget what was learned from earlier frames."""
        self._residuals = ResidualModel()
        self._detail = DetailModel(self.settings.domain_hysteresis)
        self._guided = GuidedDetailModel(self.settings.domain_hysteresis)
        self._reach = SteadyReach(self.settings.smoothing)
        self._smoother = CorrectionSmoother(CORRECTION_MEMORY * self.settings.smoothing)

    def fit(
        self,
        fit: GlobalFit,
        seen: Points,
        few: Points,
        cell_of: np.ndarray,
        held_out: Points,
        relative: np.ndarray,
        rng: np.random.Generator,
        around: Callable[[], Diagram | Guide],
    ) -> LocalFit | None:
        """Correct `fit` by the seen points; None where too few of them have metres by `fit`.

        Args:
            fit: the global fit.
            seen: all points except the held-out ones.
            few: `seen`, thinned.
            cell_of: (N,) the index into `few` that each seen point was averaged into.
            held_out: points that measure the error of the result.
            relative: (H, W) relative depth.
            rng: draws the samples of points by which the regression chooses prior and noise.
            around: waits for and returns what carries the points' residuals to the pixels: the
                image, or the Voronoi diagram of the seen points.
        """
        dense = len(few) < len(seen)
        parts = [few, held_out]
        position, log_fit, residual = _residuals(fit, parts, relative.shape)
        known = np.flatnonzero(np.isfinite(log_fit))  # the others would be behind the camera
        known_few = int(np.searchsorted(known, len(few)))
        if known_few < self.settings.min_points:
            return None
        origin = median(log_fit[known])
        with self._stage("regression"):
            regression = self._residuals.regress(
                Features(position[known], log_fit[known] - origin),
                residual[known],
                np.concatenate([part.weight for part in parts])[known],
                known_few,
                join=not dense,
                rng=rng,
            )
        bound = float(np.log1p(self.settings.max_correction))
        height, width = relative.shape
        with self._stage("field"):
            field = evaluate_field(regression, origin, width, height, _depth_range(fit), bound)
        metric_map = MetricMap(fit, field, None, bound, self.settings.max_depth)
        hidden = known[known_few:]
        with self._stage("detail"):
            guided = isinstance(surroundings := around(), Guide)
            trust = np.zeros(len(log_fit))
            trust[known] = regression.trust if guided else regression.weight
            samples = _samples(metric_map, seen, relative.shape, trust[cell_of])
            if guided and not dense:  # the same points as the regression's
                samples = samples[known[:known_few]]
            evidence = _Evidence(
                samples,
                _samples(metric_map, held_out[hidden - len(few)], relative.shape, trust[hidden]),
                log_fit[hidden] + np.clip(regression.held_out, -bound, bound),
                regression,
                dense,
            )
            detail, errors, weight = self._add_detail(metric_map, evidence, relative, surroundings)
        if detail is not None and detail.step > 1:
            detail = self._smoothed(detail, metric_map, relative)
        believed = joined(seen[trust[cell_of] >= DOUBTED], held_out)
        return LocalFit(
            replace(metric_map, detail=detail, reach=self._reach.update(believed, (height, width))),
            _left_out(parts, known[len(known) - len(errors) :], errors, weight),
            np.abs(np.expm1(regression.left_out)),
        )

    def _add_detail(
        self,
        metric_map: MetricMap,
        evidence: _Evidence,
        relative: np.ndarray,
        surroundings: Diagram | Guide,
    ) -> tuple[Detail | None, np.ndarray, np.ndarray]:
        """The detail, errors (log depth) at points it did not know, and their weight."""
        shape = relative.shape[0], relative.shape[1]
        samples, judges, loo_base = evidence.samples, evidence.judges, evidence.loo_base
        left_out = evidence.regression.judge_errors

        def base(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return metric_map.log_depth(relative[np.ix_(rows, columns)])[1]

        if isinstance(surroundings, Guide):
            everything = concatenate(samples, judges)
            if len(left_out):  # more of them than were held out
                loo_base = everything.truth[-len(left_out) :] - left_out
            return self._guided.fit(surroundings, everything, loo_base, shape, base)
        if evidence.dense:
            _trust_all_but_lone(samples, shape)
        detail, errors = self._detail.fit(
            samples, judges, loo_base, evidence.dense, shape, base, surroundings
        )
        if len(left_out):
            return detail, left_out, evidence.regression.trust[-len(left_out) :]
        return detail, errors, np.ones(len(errors))

    def _smoothed(self, detail: Detail, metric_map: MetricMap, relative: np.ndarray) -> Detail:
        """The detail moved so that its cells' correction is steady over time."""
        by_fit, base = metric_map.log_depth(coarse(relative, detail.step))
        weight = 0.0 if detail.weight is None else detail.weight
        correction = np.nan_to_num(detail.offset + (1.0 - weight) * base - by_fit)
        smoothed = self._smoother.update(np.nan_to_num(by_fit), correction)
        return replace(detail, offset=detail.offset + (smoothed - correction))


def _residuals(
    fit: GlobalFit, parts: list[Points], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image position (N, 2), log depth of the fit (N,) and what it lacks (N,), of all parts."""
    log_fit = np.log(np.concatenate([fit.metres(part.relative) for part in parts]))
    log_truth = np.log(np.concatenate([part.depth for part in parts]))
    position = [image_position(part.columns, part.rows, shape) for part in parts]
    return np.concatenate(position), log_fit, log_truth - log_fit


def _left_out(
    parts: list[Points], judged: np.ndarray, errors: np.ndarray, weight: np.ndarray
) -> LeftOut:
    """The points with the indices `judged`, of all parts in turn, and their errors of log depth."""
    rows, columns, depth = (
        np.concatenate([getattr(part, axis) for part in parts])[judged]
        for axis in ("rows", "columns", "depth")
    )
    return LeftOut(rows, columns, depth, np.abs(np.expm1(errors)), weight)


def _samples(
    metric_map: MetricMap, points: Points, shape: tuple[int, ...], trust: np.ndarray
) -> Samples:
    """The points with their base log depth; trust 0 where the fit goes behind the camera."""
    log_fit, truth = np.log(metric_map.fit.metres(points.relative)), np.log(points.depth)
    unknown = ~np.isfinite(log_fit)
    log_fit[unknown] = truth[unknown]
    field, base = metric_map.field, log_fit.copy()
    assert field is not None
    position = image_position(points.columns, points.rows, shape)

    def correct(some: slice) -> None:
        base[some] += field.at_points(position[some], log_fit[some])

    in_bands(correct, len(points), POINTS_AT_ONCE)
    return Samples(points.rows, points.columns, base, truth, np.where(unknown, 0.0, trust))


def _trust_all_but_lone(samples: Samples, shape: tuple[int, int]) -> None:
    """Set the trust of dense samples, in place: low for doubted ones without neighbours, else 1.

    Where points are dense, every real surface has several of them. Lone samples are believed only
    where they are as few as a good sensor has on small objects, and not far off.
    """
    doubted = np.flatnonzero(samples.trust < DOUBTED)
    measured = np.full(shape, np.nan, np.float32)
    measured[samples.rows, samples.columns] = samples.truth
    reach = round(CONFIRM_REACH * (measured.size / len(samples)) ** 0.5)
    down, right = (np.arange(-min(reach, side), min(reach, side) + 1) for side in shape)
    lone = np.zeros(len(samples), bool)
    at_once = max(1, PIXELS_AT_ONCE // (len(down) * len(right)))
    for some in np.array_split(doubted, -(-len(doubted) // at_once) or 1):
        rows = np.clip(samples.rows[some, None] + down, 0, shape[0] - 1)
        columns = np.clip(samples.columns[some, None] + right, 0, shape[1] - 1)
        around = measured[rows[:, :, None], columns[:, None, :]]
        agree = np.abs(around - samples.truth[some, None, None]) < CONFIRM_TOLERANCE
        # The sample itself is among those that agree.
        lone[some] = agree.sum(axis=(1, 2)) <= NEIGHBOURS_THAT_CONFIRM
    far_off = np.abs(samples.truth - samples.base) > LONER_ERROR
    believed = OUTLIER_WEIGHT ** loner_doubt(float(np.mean(lone)), GOOD_SENSOR_LONER_SHARE)
    samples.trust[:] = np.where(lone, np.where(far_off, 0.0, believed), 1.0)


def _depth_range(fit: GlobalFit) -> tuple[float, float]:
    near, far = np.log(fit.metres(np.array([0.0, 1.0])))
    return (
        float(near) if np.isfinite(near) else float("-inf"),
        float(far) if np.isfinite(far) else float("inf"),
    )

"""The local correction of a frame: a smooth field, then detail, and how well they predict."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from d3_ros.geometry.alignment.global_fit.domain import GlobalFit
from d3_ros.geometry.alignment.local.correction_field import evaluate_field, points_in_widths
from d3_ros.geometry.alignment.local.detail import DetailModel
from d3_ros.geometry.alignment.local.gaussian_process import ResidualModel
from d3_ros.geometry.alignment.local.prior import Features
from d3_ros.geometry.alignment.local.voronoi import Diagram, Samples
from d3_ros.geometry.alignment.metric_map import MetricMap
from d3_ros.geometry.alignment.numerics import median
from d3_ros.geometry.alignment.parallel import in_bands
from d3_ros.geometry.alignment.points import Points
from d3_ros.geometry.alignment.settings import AlignmentSettings

# A dense point has company when so many others within so many spacings are at its log depth.
COMPANY, COMPANY_REACH, COMPANY_TOLERANCE = 2, 1.5, 0.05
DOUBTED = 0.5
# Points whose correction is looked up at once.
POINTS_AT_ONCE = 4096


@dataclass(frozen=True)
class LocalFit:
    """The map with its correction; relative errors of points that had no part in it.

    `held_out` (M,) are those of held-out points, `left_out` those of a sample of the others, each
    predicted without itself.
    """

    metric_map: MetricMap
    held_out: np.ndarray
    left_out: np.ndarray


class LocalCorrection:
    """Bends global fits to points; remembers what suits the network and the scene."""

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

    def fit(
        self,
        fit: GlobalFit,
        seen: Points,
        few: Points,
        cell_of: np.ndarray,
        held_out: Points,
        relative: np.ndarray,
        rng: np.random.Generator,
        diagram: Callable[[], Diagram],
    ) -> LocalFit | None:
        """Bend `fit` to the seen points, or None where there is nothing to bend.

        Args:
            fit: the global fit.
            seen: all points but those held out.
            few: these, thinned.
            cell_of: which of the few each seen point is part of.
            held_out: points to judge the result by.
            relative: (H, W) relative depth.
            rng: draws the samples of points that settle the regression's choices.
            diagram: of all seen points; called late.
        """
        height, width = relative.shape
        dense = len(few) < len(seen)
        parts = [few, held_out]
        log_fit = np.log(np.concatenate([fit.metres(part.relative) for part in parts]))
        log_truth = np.log(np.concatenate([part.depth for part in parts]))
        position = np.concatenate([points_in_widths(p.columns, p.rows, width) for p in parts])
        # Where the fit goes behind the camera, nothing can be bent.
        known = np.flatnonzero(np.isfinite(log_fit))
        known_few = int(np.searchsorted(known, len(few)))
        if known_few < self.settings.min_points:
            return None
        origin = median(log_fit[known])
        with self._stage("regression"):
            regression = self._residuals.regress(
                Features(position[known], log_fit[known] - origin),
                (log_truth - log_fit)[known],
                known_few,
                join=not dense,
                rng=rng,
            )
        bound = float(np.log1p(self.settings.max_correction))
        with self._stage("field"):
            field = evaluate_field(regression, origin, width, height, _depth_range(fit), bound)
        metric_map = MetricMap(fit, field, None, bound, self.settings.max_depth)

        trust = np.zeros(len(log_fit))
        trust[known] = regression.weight
        hidden = known[known_few:]
        judges = held_out[hidden - len(few)]
        honest = log_fit[hidden] + np.clip(regression.held_out, -bound, bound)
        with self._stage("detail"):
            samples = _samples(metric_map, seen, width, trust[cell_of])
            if dense:
                _trust_all_but_lone(samples, (height, width))
            held_out_samples = _samples(metric_map, judges, width, trust[hidden])

            def base(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
                return metric_map.log_depth(relative[np.ix_(rows, columns)])[1]

            detail, errors = self._detail.fit(
                samples, held_out_samples, honest, dense, (height, width), base, diagram()
            )
        left_out = np.abs(np.expm1(regression.left_out))
        return LocalFit(replace(metric_map, detail=detail), np.abs(np.expm1(errors)), left_out)


def _samples(metric_map: MetricMap, points: Points, width: int, trust: np.ndarray) -> Samples:
    """Samples of all points; no trust is in those where the fit goes behind the camera."""
    log_fit, truth = np.log(metric_map.fit.metres(points.relative)), np.log(points.depth)
    unknown = ~np.isfinite(log_fit)
    log_fit[unknown] = truth[unknown]
    field, base = metric_map.field, log_fit.copy()
    assert field is not None
    position = points_in_widths(points.columns, points.rows, width)

    def correct(some: slice) -> None:
        base[some] += field.at_points(position[some], log_fit[some])

    in_bands(correct, len(points), POINTS_AT_ONCE)
    return Samples(points.rows, points.columns, base, truth, np.where(unknown, 0.0, trust))


def _trust_all_but_lone(samples: Samples, shape: tuple[int, int]) -> None:
    """Believe dense samples, in place, but those doubted that are alone at their depth.

    Where points are dense, every real thing has several.
    """
    doubted = np.flatnonzero(samples.trust < DOUBTED)
    measured = np.full(shape, np.nan, np.float32)
    measured[samples.rows, samples.columns] = samples.truth
    reach = round(COMPANY_REACH * (measured.size / len(samples)) ** 0.5)
    window = np.arange(-reach, reach + 1)
    rows = np.clip(samples.rows[doubted, None] + window, 0, shape[0] - 1)
    columns = np.clip(samples.columns[doubted, None] + window, 0, shape[1] - 1)
    around = measured[rows[:, :, None], columns[:, None, :]]
    agree = np.abs(around - samples.truth[doubted, None, None]) < COMPANY_TOLERANCE
    lone = agree.sum(axis=(1, 2)) <= COMPANY  # one of them is the sample itself
    samples.trust[:] = 1.0
    samples.trust[doubted[lone]] = 0.0


def _depth_range(fit: GlobalFit) -> tuple[float, float]:
    near, far = np.log(fit.metres(np.array([0.0, 1.0])))
    return (
        float(near) if np.isfinite(near) else float("-inf"),
        float(far) if np.isfinite(far) else float("inf"),
    )

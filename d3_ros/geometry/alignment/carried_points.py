"""Sensor points of earlier frames, carried into this one by the known motion of the camera.

Points that a sensor measures anew in every frame shake the correction. Points that stay in the
scene steady it, and they add to what a sparse or narrow sensor sees.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.spatial import cKDTree

from d3_ros.geometry.alignment.global_fit.domain import GlobalFit
from d3_ros.geometry.alignment.numerics import median
from d3_ros.geometry.alignment.points import Points
from d3_ros.geometry.alignment.settings import AlignmentSettings
from d3_ros.geometry.camera import project, ray_map
from d3_ros.geometry.rigid import inverse_rigid
from d3_ros.types import CameraIntrinsics

# The measured points beside a carried one are its NEIGHBOURS nearest within REACH_SPACINGS point
# spacings. They contradict it when none of them agrees with it: depth, or depth over that of the
# global fit, differs by less than ALIKE (logarithm).
NEIGHBOURS, REACH_SPACINGS, ALIKE = 2, 2.0, 0.1
# While the network sees the same thing at a carried point, its depth over that of the global fit
# changes by less than this (logarithm). The median change of all points comes from the fit itself.
SAME_RESIDUAL = 0.15
# If fewer carried points than this agree with the measured ones, the camera's pose has jumped.
LEAST_AGREEING = 0.5


@dataclass(frozen=True)
class CameraView:
    """Where a camera is and how it projects.

    `T_fixed_camera`: (4, 4) maps points of the optical frame into a frame that does not move with
    the robot (odom), metres. `intrinsics`: of the image.

    Raises:
        ValueError: `T_fixed_camera` is not (4, 4) or not finite.
    """

    T_fixed_camera: np.ndarray
    intrinsics: CameraIntrinsics

    def __post_init__(self) -> None:
        T = self.T_fixed_camera  # noqa: N806
        if T.shape != (4, 4) or not np.isfinite(T).all():
            raise ValueError(f"T_fixed_camera must be (4, 4) and finite, got {T.shape}")


@dataclass(frozen=True)
class _Memory:
    """Points in the fixed frame: `xyz` (N, 3) metres, `stamp` (N,) of the measurement, seconds,
    `residual` (N,) log of measured depth over depth by the global fit at that time."""

    xyz: np.ndarray
    stamp: np.ndarray
    residual: np.ndarray

    def __getitem__(self, index: np.ndarray) -> _Memory:
        return _Memory(*(getattr(self, field.name)[index] for field in fields(self)))


class CarriedPoints:
    """Remembers measured points in a fixed frame and gives those that a new frame still sees.

    Each cell of the image holds one point at most, the newest; `carry_points` is the number of
    cells. A point is dropped when it is older than `carry_age_s`, when newer points or the network
    contradict it, and when the camera no longer sees its place.
    """

    def __init__(self, settings: AlignmentSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget all points."""
        self._memory = _Memory(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        self._fit: GlobalFit | None = None

    def seen_from(
        self, view: CameraView, relative: np.ndarray, measured: Points, stamp: float
    ) -> Points:
        """The points that this frame still sees, where no point was measured now.

        Their weight falls from 1 to 0.5 at the largest age.

        Args:
            view: of this frame.
            relative: (H, W) its relative depth.
            measured: what the sensor measured now.
            stamp: of this frame, seconds.
        """
        memory, fit = self._memory, self._fit
        if fit is None or len(memory.stamp) == 0:
            return _no_points()
        memory = memory[np.abs(stamp - memory.stamp) <= self.settings.carry_age_s]
        T = inverse_rigid(view.T_fixed_camera)  # noqa: N806
        points = memory.xyz @ T[:3, :3].T + T[:3, 3]
        with np.errstate(invalid="ignore"):
            columns, rows = np.floor(project(points, view.intrinsics) + 0.5).T
            inside = (columns >= 0) & (columns < relative.shape[1])
            inside &= (rows >= 0) & (rows < relative.shape[0])
            inside &= points[:, 2] >= self.settings.min_depth
        rows, columns = rows[inside].astype(np.intp), columns[inside].astype(np.intp)
        age = (stamp - memory.stamp[inside]) / max(self.settings.carry_age_s, 1e-9)
        there = relative[rows, columns].astype(np.float64)
        seen = Points(rows, columns, there, points[inside, 2], 1.0 / (1.0 + age**2))
        memory = memory[inside]
        kept = np.flatnonzero(self._free(seen, measured, relative.shape))
        kept = kept[(there[kept] > 0.0) & (there[kept] < 1.0)]  # false for NaN
        memory, seen = memory[kept], seen[kept]
        if len(seen) == 0:
            self._memory = memory
            return seen
        now = _residual(fit, seen)
        moved = now - memory.residual
        usual = moved[np.isfinite(moved)]
        same = np.abs(moved - (median(usual) if len(usual) else 0.0)) < SAME_RESIDUAL
        alike = _alike(seen, now, measured, _residual(fit, measured), relative.shape)
        if alike.mean() < LEAST_AGREEING:
            alike[:] = False
        kept = np.flatnonzero(same & alike)
        self._memory = memory[kept]
        return seen[kept]

    def remember(self, view: CameraView, measured: Points, fit: GlobalFit, stamp: float) -> None:
        """Store this frame's points beside the earlier ones that `seen_from` has kept.

        Args:
            view: of this frame.
            measured: what the sensor measured now.
            fit: the global fit of this frame.
            stamp: of this frame, seconds.
        """
        K, T = view.intrinsics, view.T_fixed_camera  # noqa: N806
        shape = K.height, K.width
        new = measured[np.unique(self._cell(measured, shape), return_index=True)[1]]
        xyz = ray_map(K)[new.rows, new.columns] * new.depth[:, None] @ T[:3, :3].T + T[:3, 3]
        before = self._memory
        self._memory = _Memory(
            np.concatenate([xyz, before.xyz]),
            np.concatenate([np.full(len(new), stamp), before.stamp]),
            np.concatenate([_residual(fit, new), before.residual]),
        )
        self._fit = fit

    def _cell(self, points: Points, shape: tuple[int, ...]) -> np.ndarray:
        """(N,) the image's cell of every point; there are about `carry_points` cells."""
        side = max(1.0, (shape[0] * shape[1] / self.settings.carry_points) ** 0.5)
        across = int(shape[1] / side) + 1
        return (points.rows / side).astype(np.intp) * across + (points.columns / side).astype(
            np.intp
        )

    def _free(self, points: Points, measured: Points, shape: tuple[int, ...]) -> np.ndarray:
        """(N,) bool: the first point of each cell in which nothing was measured now."""
        cell = self._cell(points, shape)
        free = np.zeros(len(points), bool)
        free[np.unique(cell, return_index=True)[1]] = True
        return free & ~np.isin(cell, self._cell(measured, shape))


def _alike(
    carried: Points,
    residual: np.ndarray,
    measured: Points,
    measured_residual: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """(N,) bool: whether a measured point next to a carried one is alike, or none is next to it."""
    tree = cKDTree(np.column_stack([measured.rows, measured.columns]))
    reach = REACH_SPACINGS * (shape[0] * shape[1] / len(measured)) ** 0.5
    count = min(NEIGHBOURS, len(measured))
    distance, near = tree.query(np.column_stack([carried.rows, carried.columns]), k=count)
    distance, near = distance.reshape(-1, count), near.reshape(-1, count)
    agrees = np.abs(np.log(measured.depth[near] / carried.depth[:, None])) < ALIKE
    agrees |= np.abs(measured_residual[near] - residual[:, None]) < ALIKE
    next_to = distance < reach
    return np.asarray((agrees & next_to).any(axis=1) | ~next_to.any(axis=1))


def _residual(fit: GlobalFit, points: Points) -> np.ndarray:
    """(N,) log of the points' depth over that of the fit; NaN where the fit has none."""
    return np.asarray(np.log(points.depth / fit.metres(points.relative)))


def _no_points() -> Points:
    nothing = np.zeros(0)
    return Points(nothing.astype(np.intp), nothing.astype(np.intp), nothing, nothing, nothing)

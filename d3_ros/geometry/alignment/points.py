"""The sensor points that a fit can use."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from d3_ros.geometry.alignment.settings import AlignmentSettings

# Points of one cell are averaged when they are within this log depth of the cell's median.
CELL_TOLERANCE = 0.05
# A cell spans one layer of log depth; so many layers per unit of log depth.
LAYERS_PER_LOG = 10


class RefusedError(Exception):
    """This frame's sensor depth gives no scale. The message is one line that says why."""


@dataclass(frozen=True)
class Points:
    """N measured pixels: `rows`, `columns`, relative depth in (0, 1), z-depth in metres.

    `weight` in (0, 1]: precision relative to that of a point measured now; all are (N,).
    """

    rows: np.ndarray
    columns: np.ndarray
    relative: np.ndarray
    depth: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.depth)

    def __getitem__(self, index: np.ndarray) -> Points:
        return Points(*(getattr(self, field.name)[index] for field in fields(self)))

    def resized(self, before: tuple[int, ...], after: tuple[int, ...]) -> Points:
        """The points in an image that was resized; both sizes are (rows, columns)."""
        return replace(
            self,
            rows=self.rows * after[0] // before[0],
            columns=self.columns * after[1] // before[1],
        )


def usable_points(relative: np.ndarray, sparse: np.ndarray, settings: AlignmentSettings) -> Points:
    """Sensor points in range on pixels whose relative depth is finite and not saturated.

    Raises:
        RefusedError: too few are left.
    """
    # Comparisons are false for NaN, so this keeps measured points only.
    measured = (sparse >= settings.min_depth) & (sparse <= settings.max_depth)
    rows, columns = np.divmod(np.flatnonzero(measured), sparse.shape[1])
    needed = settings.min_points
    if len(rows) < needed:
        raise RefusedError(f"{len(rows)} sensor points in range, {needed} needed")
    x, z = relative[rows, columns], sparse[rows, columns]
    finite = np.isfinite(x)
    if not finite.any():
        raise RefusedError("relative depth is not finite at any sensor point")
    usable = finite & (x > 0.0) & (x < 1.0)
    if usable.sum() < needed:
        raise RefusedError(
            f"relative depth is saturated at all but {usable.sum()} of {len(x)} sensor points, "
            f"{needed} needed"
        )
    return Points(
        rows[usable],
        columns[usable],
        x[usable].astype(np.float64),
        z[usable].astype(np.float64),
        np.ones(int(usable.sum())),
    )


def joined(first: Points, second: Points) -> Points:
    """The points of both, in this order."""
    names = [field.name for field in fields(Points)]
    return Points(*(np.concatenate([getattr(p, name) for p in (first, second)]) for name in names))


def thin(points: Points, most: int) -> tuple[Points, np.ndarray]:
    """At most `most` points, evenly over image and depth: the mean of each cell without outliers.

    Also returns, for each point, the index of the thinned point it was averaged into, (N,).
    """
    if len(points) <= most:
        return points, np.arange(len(points))
    log_z = np.log(points.depth)
    layers_per_log = float(LAYERS_PER_LOG)
    row, column = points.rows - points.rows.min(), points.columns - points.columns.min()
    cell = max(1.0, 0.8 * float(np.sqrt((row.max() + 1) * (column.max() + 1) / most)))
    while True:
        layer = ((log_z - log_z.min()) * layers_per_log).astype(np.int64)
        across = int(column.max() / cell) + 1
        key = ((row / cell).astype(np.int64) * across + (column / cell).astype(np.int64)) * (
            layer.max() + 1
        ) + layer
        if np.count_nonzero(np.bincount(key)) <= most:
            break
        cell *= 1.15
        if cell > max(row.max(), column.max()):  # one cell is the whole image: fewer layers
            layers_per_log /= 2
    order = np.argsort(key + (log_z - log_z.min()) / (np.ptp(log_z) + 1.0))  # by cell, then depth
    key, log_z = key[order], log_z[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    # Averages are taken in log depth over what agrees with the cell's median.
    sizes = np.diff(np.append(starts, len(key)))
    agrees = np.abs(log_z - np.repeat(log_z[starts + sizes // 2], sizes)) < CELL_TOLERANCE
    agreeing = np.add.reduceat(agrees.astype(np.float64), starts)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.where(agrees, values, 0.0), starts) / agreeing

    cell_of = np.empty(len(points), np.intp)
    cell_of[order] = np.repeat(np.arange(len(starts)), sizes)
    thinned = Points(
        mean(points.rows[order]),
        mean(points.columns[order]),
        mean(points.relative[order]),
        np.exp(mean(log_z)),
        mean(points.weight[order]),
    )
    return thinned, cell_of

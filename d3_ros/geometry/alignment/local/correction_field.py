"""The local correction as a coarse grid over (image column, image row, log depth).

This is a bilateral grid (Chen, Paris & Durand 2007): smooth over the image, with a value of its own
at each depth. Looking it up by a depth image gives a correction that is sharp at depth edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np

from d3_ros.geometry.alignment.local.gaussian_process import Regression
from d3_ros.geometry.alignment.local.prior import (
    curve_kernel,
    depth_factor,
    grid_distance,
    image_kernel,
)
from d3_ros.geometry.alignment.parallel import in_bands

# Nodes along the longer side of the image.
NODES = 40
# The grid is evaluated at this step of log depth. Cubic interpolation then refines it by the
# factor below, which is cheaper than evaluation and keeps the linear look-up smooth.
DEPTH_STEP = 0.125
REFINE_DEPTH = 3
# The grid ends this far (log depth) beyond the points, where the field has mostly faded.
DEPTH_MARGIN = 0.6
MAX_LAYERS = 40
# `cv2.remap` takes maps of fewer columns than 32,767.
MAX_REMAP = 32000
# So many rows of the grid are evaluated at a time, to stay in the processor's cache.
ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class CorrectionField:
    """Log-depth correction on a grid.

    `layers` (R, V, U) float32, cell centres like pixels; layer k is at log depth
    `low + k * step`. Depths beyond the first and the last layer take the value of that layer.
    `extent`: width and height of the image over its longer side.
    """

    layers: np.ndarray
    low: float
    step: float
    extent: tuple[float, float]

    def at(self, log_depth: np.ndarray, top: int = 0, height: int | None = None) -> np.ndarray:
        """(h, W) float32 correction for log depths of the global fit.

        Args:
            log_depth: (h, W) of an image, or of a band of one.
            top: the image's row that is the band's first.
            height: of the image, if this is only a band of it.
        """
        _, rows, columns = self.layers.shape
        below, share = self._layer(log_depth)
        band = slice(top, top + len(log_depth))
        column, row = (
            axis[band]
            for axis in grid_coordinates(
                height or len(log_depth), log_depth.shape[1], rows, columns
            )
        )
        # One look-up fetches the layers below and above; they are blended in float.
        below *= np.float32(rows)
        below += row
        low, high = cv2.split(_remap(self._atlas, column, below))
        high -= low
        high *= share
        high += low
        return high

    def at_points(self, position: np.ndarray, log_depth: np.ndarray) -> np.ndarray:
        """(N,) correction at image positions (N, 2), see `image_position`."""
        _, rows, columns = self.layers.shape
        below, share = self._layer(log_depth)
        column = np.clip(position[:, 0] * (columns / self.extent[0]) - 0.5, 0, columns - 1.001)
        row = np.clip(position[:, 1] * (rows / self.extent[1]) - 0.5, 0, rows - 1.001)
        u, v, k = column.astype(np.intp), row.astype(np.intp), below.astype(np.intp)
        s, t = column - u, row - v
        total = np.zeros(len(log_depth))
        for layer, depth_weight in ((k, 1 - share), (k + 1, share)):
            upper = (1 - s) * self.layers[layer, v, u] + s * self.layers[layer, v, u + 1]
            lower = (1 - s) * self.layers[layer, v + 1, u] + s * self.layers[layer, v + 1, u + 1]
            total += depth_weight * ((1 - t) * upper + t * lower)
        return total

    def _layer(self, log_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The layer below each log depth, and the share of the one above."""
        layer = log_depth - np.float32(self.low)
        layer *= np.float32(1.0 / self.step)
        np.clip(layer, 0.0, np.float32(len(self.layers) - 1.001), out=layer)
        below = np.floor(layer)
        layer -= below
        return below, layer

    @cached_property
    def _atlas(self) -> np.ndarray:
        """((R - 1) V, U, 2): layers on top of each other, each beside the next deeper one."""
        count, rows, columns = self.layers.shape
        pairs = np.stack([self.layers[:-1], self.layers[1:]], axis=-1)
        return pairs.reshape((count - 1) * rows, columns, 2)


def evaluate_field(
    regression: Regression,
    origin: float,
    width: int,
    height: int,
    depth_range: tuple[float, float],
    bound: float,
) -> CorrectionField:
    """Evaluate a regression's mean on the grid.

    Args:
        regression: the residual regression.
        origin: the log depth that its anchors' log depths count from.
        width, height: of the image, pixels.
        depth_range: lowest and highest log depth that the image holds.
        bound: the largest correction, |log|.
    """
    anchors = regression.anchors
    low = max(origin + float(anchors.log_depth.min()) - DEPTH_MARGIN, depth_range[0])
    high = min(origin + float(anchors.log_depth.max()) + DEPTH_MARGIN, depth_range[1])
    count = int(np.clip(np.ceil((high - low) / DEPTH_STEP) + 1, 2, MAX_LAYERS))
    step = max(high - low, 1e-3) / (count - 1)
    levels = low + step * np.arange(-1, count + 1)  # one more at each end, for the cubic

    extent = width / max(width, height), height / max(width, height)
    columns, rows = (max(2, round(NODES * side)) for side in extent)
    u = (np.arange(columns) + 0.5) / columns * extent[0]
    v = (np.arange(rows) + 0.5) / rows * extent[1]
    alpha = regression.alpha.astype(np.float32)
    curve = curve_kernel(regression.prior, levels - origin, anchors.log_depth) @ alpha
    fields = regression.prior.fields
    factors = [depth_factor(field, levels - origin, anchors.log_depth) * alpha for field in fields]
    refine = _refine_depth(count)
    layers = np.empty((len(refine), rows, columns), np.float32)

    def evaluate(band: slice) -> None:
        distance = grid_distance(u, v[band], anchors.position)
        mean = curve[:, None]
        for field, factor in zip(fields, factors, strict=True):
            mean = mean + factor @ image_kernel(field, distance).T
        fine = refine @ np.clip(mean, -bound, bound)
        # Once more, because the cubic overshoots.
        layers[:, band] = np.clip(fine, -bound, bound).reshape(len(refine), -1, columns)

    in_bands(evaluate, rows, ROWS_AT_ONCE)
    return CorrectionField(layers, low, step / REFINE_DEPTH, extent)


def _refine_depth(inner: int) -> np.ndarray:
    """(refined, inner + 2) float32 weights of a Catmull-Rom interpolation of `inner` layers.

    One more layer at either end is needed for the slope there.
    """
    position = np.linspace(1, inner, (inner - 1) * REFINE_DEPTH + 1)
    below = np.minimum(position.astype(int), inner - 1)
    t = position - below
    basis = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    weights = np.zeros((len(position), inner + 2), np.float32)
    for offset, weight in zip((-1, 0, 1, 2), basis, strict=True):
        weights[np.arange(len(t)), below + offset] = weight
    return weights


def image_position(columns: Any, rows: Any, shape: tuple[int, ...]) -> np.ndarray:
    """(N, 2) positions of pixel centres, x then y, in units of the image's longer side.

    `shape` is that of the image, (H, W).
    """
    return np.column_stack([columns + 0.5, rows + 0.5]) / max(shape)


def _remap(image: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """`cv2.remap`, linear, also for maps that are wider than OpenCV's limit."""
    parts = [
        cv2.remap(
            image,
            column[:, left : left + MAX_REMAP],
            row[:, left : left + MAX_REMAP],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for left in range(0, column.shape[1], MAX_REMAP)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


@lru_cache(maxsize=8)
def grid_coordinates(
    height: int, width: int, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Grid column and row of every pixel, (H, W) float32 each, within the outermost centres.

    Rounded to 1 / 32 as `cv2.remap` rounds them, so that the tensor path looks up the same.
    """
    u = np.clip((np.arange(width) + 0.5) * columns / width - 0.5, 0, columns - 1)
    v = np.clip((np.arange(height) + 0.5) * rows / height - 0.5, 0, rows - 1.001)
    column, row = np.meshgrid(*((np.round(axis * 32) / 32).astype(np.float32) for axis in (u, v)))
    return column, row

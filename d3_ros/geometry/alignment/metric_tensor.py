"""`MetricMap` for torch tensors: the same arithmetic, where the relative depth already is."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from d3_ros.geometry.alignment.global_fit.domain import GlobalFit
from d3_ros.geometry.alignment.local.correction_field import CorrectionField, grid_coordinates
from d3_ros.geometry.alignment.local.detail import Detail
from d3_ros.geometry.alignment.local.reach import STEP, Reach
from d3_ros.geometry.alignment.numerics import (
    FARTHEST_UNSATURATED,
    LEAST_AFFINE,
    LEAST_METRES,
    NEAREST_UNSATURATED,
)


def metres(
    relative: torch.Tensor,
    fit: GlobalFit,
    field: CorrectionField | None,
    detail: Detail | None,
    bound: float,
    max_depth: float,
    reach: Reach | None,
) -> torch.Tensor:
    """(H, W) float32 metres of (H, W) float32 relative depth, on its device.

    The other arguments are the fields of `MetricMap`; NaN as described there.
    """
    affine, domain = fit.affine, fit.domain
    by_fit = relative * affine.scale + affine.shift
    if domain != "log":
        by_fit = by_fit.clamp_min(LEAST_AFFINE).log()
        if domain == "disparity":
            by_fit = -by_fit
    if fit.limit is not None:
        over = (by_fit - fit.limit.log_depth).clamp_min(0.0)
        by_fit = by_fit - over - fit.limit.reach * torch.expm1(over * (-1.0 / fit.limit.reach))
    corrected = by_fit
    if field is not None:
        corrected = by_fit + _field_at(field, by_fit)
    if detail is not None:
        offset, weight = _detail_maps(detail, relative)
        change = corrected - by_fit + offset
        if weight is not None:
            change = change - weight * corrected
        corrected = by_fit + change.clamp(-bound, bound)
    if reach is not None:
        share = _per_pixel(reach.cells, STEP, relative)
        corrected = by_fit + share * (corrected - by_fit)
    metric = corrected.exp()
    trusted = (relative >= NEAREST_UNSATURATED) & (relative <= FARTHEST_UNSATURATED)
    trusted &= (metric >= LEAST_METRES) & (metric <= max_depth)
    return torch.where(trusted, metric, torch.nan)


def _field_at(field: CorrectionField, log_depth: torch.Tensor) -> torch.Tensor:
    layers = torch.from_numpy(field.layers).to(log_depth.device)
    count, rows, columns = layers.shape
    layer = (log_depth - field.low) * (1.0 / field.step)
    layer = layer.clamp(0.0, count - 1.001).nan_to_num(0.0)
    across = _normalised_coordinates(
        log_depth.shape[0], log_depth.shape[1], rows, columns, log_depth.device
    )
    grid = torch.cat([across, (layer * (2.0 / (count - 1)) - 1.0)[..., None]], dim=-1)
    sampled = F.grid_sample(layers[None, None], grid[None, None], align_corners=True)
    return sampled[0, 0, 0]


@lru_cache(maxsize=4)
def _normalised_coordinates(
    height: int, width: int, rows: int, columns: int, device: torch.device
) -> torch.Tensor:
    """(H, W, 2) grid column and row of every pixel, each from -1 to 1 over the grid."""
    column, row = grid_coordinates(height, width, rows, columns)
    axes = (column * (2.0 / (columns - 1)) - 1.0, row * (2.0 / (rows - 1)) - 1.0)
    return torch.stack([torch.from_numpy(axis) for axis in axes], dim=-1).to(device)


def _detail_maps(detail: Detail, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    offset = _per_pixel(detail.offset, detail.step, like)
    if detail.weight is None:
        return offset, None
    return offset, _per_pixel(detail.weight, detail.step, like)


def _per_pixel(cells: np.ndarray, step: int, like: torch.Tensor) -> torch.Tensor:
    """(h, w) cells of `step` pixels, linear between their centres, for every pixel of `like`."""
    values = torch.from_numpy(cells).to(like.device)
    size = (values.shape[0] * step, values.shape[1] * step)
    large = F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)
    return large[0, 0, : like.shape[0], : like.shape[1]]

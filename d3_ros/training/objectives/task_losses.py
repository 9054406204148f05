"""The official recipe's losses on a batch, by task: per image and unweighted.

The labels are never resized. The decoded image is resized to the labels, and so is a target that
was stored at the network's size, as in the official data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
from torch.nn import functional as F

from d3_ros.training.config.train_config import DepthUnit, LossConfig
from d3_ros.training.loading.sample import Batch
from d3_ros.training.objectives import losses
from d3_ros.types import Task

LEAST_UNIT = 0.05  # smallest depth, as a share of the mean, that divides a pixel's error
TILES = 8  # of the local loss, along each axis


def task_losses(
    task: Task,
    decoded: torch.Tensor,
    batch: Batch,
    axes: Sequence[int] | None,
    depth_unit: DepthUnit,
    mixture: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Losses (B,) of the task by name, for its decoded (B, 3, H, W) images in about [-1, 1].

    `axes` are the signs between the network's normals and the optical frame (`TaskSpec.axes`).
    `mixture` (B, 3 k, H, W) are the depths that the decoder proposed, if it proposes several; see
    `losses.laplace_mixture`. All are 0 if the batch has no labels of this task.
    """
    decoded = decoded.float()
    if task == "depth":
        values = _depth_losses(decoded, batch, depth_unit)
        if mixture is not None:
            values["mixture"] = _mixture_loss(mixture.float(), decoded, batch)
        return values
    assert axes is not None
    return _normal_losses(decoded, batch, axes)


def _depth_losses(
    decoded: torch.Tensor, batch: Batch, depth_unit: DepthUnit
) -> dict[str, torch.Tensor]:
    if batch.depth is None or batch.depth_target is None:
        return _nothing(decoded, ("mse", "scale_shift_invariant", "local", "log_gradient"))
    metric, size = batch.depth, batch.depth.shape[1:]
    valid = metric > 0
    target = resized(batch.depth_target[:, None], size)
    grey = resized(decoded.mean(dim=1, keepdim=True), size)
    # Clipped at the network's size, then resized, in the order of the official code.
    relative = resized((decoded / 2 + 0.5).clamp(0, 1), size).mean(dim=1)
    if depth_unit != "metre":
        metric = metric / losses.masked_mean(metric, valid).clamp(min=1e-3)[:, None, None]
    unit = metric.clamp(min=LEAST_UNIT) if depth_unit == "pixel" else 1.0
    return {
        "mse": losses.masked_mse(grey, target, valid),
        "scale_shift_invariant": losses.scale_shift_invariant_l1(relative, metric, valid, unit),
        "local": losses.local_shift_invariant_l1(relative, metric, valid, unit, TILES),
        "log_gradient": losses.log_gradient(relative, (target[:, 0] / 2 + 0.5).clamp(0, 1), valid),
    }


def _mixture_loss(mixture: torch.Tensor, decoded: torch.Tensor, batch: Batch) -> torch.Tensor:
    if batch.depth is None or batch.depth_target is None:
        return (mixture * 0).sum(dim=(1, 2, 3))
    size = batch.depth.shape[1:]
    answer, target = resized(decoded, size)[:, 0], resized(batch.depth_target[:, None], size)[:, 0]
    return losses.laplace_mixture(resized(mixture, size), answer, target, batch.depth > 0)


def _normal_losses(
    decoded: torch.Tensor, batch: Batch, axes: Sequence[int]
) -> dict[str, torch.Tensor]:
    if batch.normals is None or batch.normals_target is None:
        return _nothing(decoded, ("mse", "normal_angle"))
    size = batch.normals.shape[2:]
    signs = batch.normals.new_tensor(axes)[:, None, None]
    valid = batch.normals.square().sum(dim=1) > 0
    answer = resized(decoded, size)
    return {
        "mse": losses.masked_mse(answer, resized(batch.normals_target, size) * signs, valid),
        "normal_angle": losses.normal_angle(answer, batch.normals * signs, valid),
    }


def _nothing(decoded: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Losses of 0 that still depend on the network: all processes need the same graph."""
    return {name: (decoded * 0).sum(dim=(1, 2, 3)) for name in names}


def alignment_loss(
    adapted: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Sum over the features of 1 - cosine of the adapted student and the teacher.

    Both are (N, C, h, w) by name, N images times noise levels. The result is (N,).
    """
    return torch.stack(
        [losses.feature_distance(adapted[name].float(), teacher[name].float()) for name in teacher]
    ).sum(dim=0)


def weighted_sum(raw: Mapping[str, torch.Tensor], config: LossConfig) -> torch.Tensor:
    """The total of losses named TASK.LOSS."""
    weights = {field.name: getattr(config, field.name) for field in fields(config)}
    return torch.stack([weights[name.split(".")[1]] * value for name, value in raw.items()]).sum()


def resized(images: torch.Tensor, size: torch.Size | tuple[int, ...]) -> torch.Tensor:
    """(B, C, h, w) at another size, bilinear, with pixel centres kept (align_corners False)."""
    if images.shape[2:] == torch.Size(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False)

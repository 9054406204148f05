"""The losses of D³-Predictor for labelled pixels, one pure function each.

Source: arXiv 2512.07062 and its official code. Images are (B, C, h, w), maps (B, h, w), masks
(B, h, w) bool. Each function averages over the valid pixels of the whole batch and is 0 when there
are none, so that a batch without labels does not poison the sum.
"""

from __future__ import annotations

import torch

MAX_COSINE = 1 - 1e-4  # the angle's slope is infinite at cosine 1


def masked_mean(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean of (B, h, w) values where valid; 0 where nothing is."""
    return (values * valid).sum() / valid.sum().clamp(min=1)


def masked_mse(decoded: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean squared error of decoded images against their targets, both in [-1, 1]."""
    return masked_mean((decoded - target).square().mean(dim=1), valid)


def scale_shift_invariant_l1(
    prediction: torch.Tensor, metric: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """L1 of the prediction after its own least-squares fit to the truth, image by image.

    `prediction` (B, h, w) in [0, 1], `metric` (B, h, w) in any unit, which is the loss's unit.
    The fit is part of the gradient, as in the official code.
    """
    weight = valid.to(prediction.dtype)
    count = weight.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    mean_p = (prediction * weight).sum(dim=(1, 2), keepdim=True) / count
    mean_m = (metric * weight).sum(dim=(1, 2), keepdim=True) / count
    p, m = (prediction - mean_p) * weight, (metric - mean_m) * weight
    variance = p.square().sum(dim=(1, 2), keepdim=True) / count
    scale = (p * m).sum(dim=(1, 2), keepdim=True) / count / (variance + 1e-6)
    return masked_mean((scale * p - m).abs(), valid)


def log_gradient(
    prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Mean absolute difference, two pixels apart, of log(1 + prediction) - log(1 + target).

    Both (B, h, w) in [0, 1]; only pairs of valid pixels count. Keeps edges where they are.
    """
    error = torch.log1p(prediction) - torch.log1p(target)
    across = (error[:, :, 2:] - error[:, :, :-2]).abs()
    down = (error[:, 2:, :] - error[:, :-2, :]).abs()
    return masked_mean(across, valid[:, :, 2:] & valid[:, :, :-2]) + masked_mean(
        down, valid[:, 2:, :] & valid[:, :-2, :]
    )


def normal_angle(decoded: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean angle in radians between decoded (B, 3, h, w) and true unit normals."""
    unit = torch.nn.functional.normalize(decoded, dim=1, eps=1e-4)
    cosine = (unit * target).sum(dim=1).clamp(-MAX_COSINE, MAX_COSINE)
    return masked_mean(torch.arccos(cosine), valid)

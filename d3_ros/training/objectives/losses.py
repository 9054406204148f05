"""The losses of D³-Predictor, one pure function each.

Source: arXiv 2512.07062 and its official code. Images are (B, C, h, w), maps (B, h, w), masks
(B, h, w) bool. Each function averages over the valid pixels of an image and returns (B,): one value
per image, 0 for an image without valid pixels. So the mean over a batch does not depend on how the
batch is divided or accumulated, and an image without labels does no harm.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

MAX_COSINE = 1 - 1e-4  # the angle's slope is infinite at cosine 1
MIN_VARIANCE = 1e-8  # of a prediction in [0, 1]; below it there is nothing to fit
MIXTURE_SLOPES = (0.5, 2.0)  # limits of the scale that fits a mixture's depths to the target
LOG_SPREADS = (-4.5, 0.5)  # limits of the logs of a mixture's spreads; its depths are in [-1, 1]


def masked_mean(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Means (B,) of (B, h, w) values over valid pixels; 0 without any."""
    count = valid.sum(dim=(1, 2)).clamp(min=1)
    return torch.where(valid, values, 0).sum(dim=(1, 2)) / count


def masked_mse(decoded: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean squared error (B,) of decoded images against their targets, both in [-1, 1]."""
    return masked_mean((decoded - target).square().mean(dim=1), valid)


def scale_shift_invariant_l1(
    prediction: torch.Tensor,
    metric: torch.Tensor,
    valid: torch.Tensor,
    unit: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """L1 (B,) of the prediction after its own least-squares fit to the truth.

    `prediction` is (B, h, w) in [0, 1]. `metric` is (B, h, w) in any unit, which is also the
    loss's. `unit` (B, h, w) divides each pixel's error, for example by the pixel's own depth.
    The gradient goes through the fit, as in the official code. A prediction without contrast has
    the mean absolute deviation of the truth as its loss (the official code gives it 0, which
    rewards a flat picture).
    """
    count = valid.sum(dim=(1, 2), keepdim=True).clamp(min=1)

    def centred(values: torch.Tensor) -> torch.Tensor:
        values = torch.where(valid, values, 0)
        return torch.where(valid, values - values.sum(dim=(1, 2), keepdim=True) / count, 0)

    p, m = centred(prediction), centred(metric)
    variance = p.square().sum(dim=(1, 2), keepdim=True) / count
    covariance = (p * m).sum(dim=(1, 2), keepdim=True) / count
    error = (covariance / (variance + MIN_VARIANCE) * p - m).abs()
    return masked_mean(error / unit, valid)


def log_gradient(
    prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Mean absolute difference (B,), two pixels apart, of log(1 + prediction) - log(1 + target).

    Both are (B, h, w) in [0, 1]. The mean is over all pairs of valid pixels, across and down. This
    loss keeps edges where they are.
    """
    error = torch.log1p(prediction) - torch.log1p(target)
    across, across_valid = error[:, :, 2:] - error[:, :, :-2], valid[:, :, 2:] & valid[:, :, :-2]
    down, down_valid = error[:, 2:, :] - error[:, :-2, :], valid[:, 2:, :] & valid[:, :-2, :]
    total = torch.where(across_valid, across.abs(), 0).sum(dim=(1, 2)) + torch.where(
        down_valid, down.abs(), 0
    ).sum(dim=(1, 2))
    return total / (across_valid.sum(dim=(1, 2)) + down_valid.sum(dim=(1, 2))).clamp(min=1)


def local_shift_invariant_l1(
    prediction: torch.Tensor,
    metric: torch.Tensor,
    valid: torch.Tensor,
    unit: torch.Tensor | float,
    tiles: int,
) -> torch.Tensor:
    """L1 (B,) as `scale_shift_invariant_l1`, but with a separate shift in each tile.

    The image is cut into `tiles` x `tiles` tiles. Rows and columns that are left over do not count.
    The scale is fitted once, to the whole image. So the loss judges differences of depth within a
    tile, for example between a box and the wall behind it, and not how far away both are.
    """
    height, width = (side // tiles * tiles for side in prediction.shape[1:])

    def tiled(values: torch.Tensor) -> torch.Tensor:
        """(B, h, w) -> (B, tiles², pixels of a tile)."""
        cut = values[:, :height, :width].unflatten(2, (tiles, -1)).unflatten(1, (tiles, -1))
        return cut.transpose(2, 3).flatten(3).flatten(1, 2)

    def centred(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        count = known.sum(dim=-1, keepdim=True).clamp(min=1)
        values = torch.where(known, values, 0)
        return torch.where(known, values - values.sum(dim=-1, keepdim=True) / count, 0)

    whole = valid.flatten(1)
    p, m = (centred(values.flatten(1), whole) for values in (prediction, metric))
    slope = (p * m).sum(dim=1) / (p.square().sum(dim=1) + MIN_VARIANCE * whole.sum(dim=1).clamp(1))
    known = tiled(valid)
    local, truth = (centred(tiled(values), known) for values in (prediction, metric))
    error = (slope[:, None, None] * local - truth).abs()
    if torch.is_tensor(unit):
        error = error / tiled(unit)
    return (error * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)


def laplace_mixture(
    mixture: torch.Tensor, answer: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Mean negative log likelihood (B,) of targets under a mixture of Laplace distributions.

    `mixture` is (B, 3 k, h, w): k depths, k log weights, k logs of their spread. `answer` and
    `target` are (B, h, w), about [-1, 1]. First the depths are mapped by the least-squares fit of
    `answer` to `target`, with its scale limited to `MIXTURE_SLOPES`. So edges still count in an
    image that as a whole is a little too near or too far.
    """
    depths, weights, spreads = mixture.chunk(3, dim=1)
    with torch.no_grad():
        count = valid.sum(dim=(1, 2)).clamp(min=1)
        mean, goal = masked_mean(answer, valid), masked_mean(target, valid)
        p = torch.where(valid, answer - mean[:, None, None], 0)
        covariance = (p * target).sum(dim=(1, 2)) / count
        slope = covariance / (p.square().sum(dim=(1, 2)) / count + MIN_VARIANCE)
        slope = slope.clamp(*MIXTURE_SLOPES)
        shift = goal - slope * mean
    spreads = spreads.clamp(*LOG_SPREADS)
    places = slope[:, None, None, None] * depths + shift[:, None, None, None]
    distances = (target[:, None] - places).abs() * torch.exp(-spreads)
    likelihood = torch.logsumexp(weights.log_softmax(dim=1) - spreads - distances, dim=1)
    return masked_mean(math.log(2) - likelihood, valid)


def normal_angle(decoded: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean angle (B,) in radians between decoded (B, 3, h, w) and true unit normals."""
    unit = F.normalize(decoded, dim=1, eps=1e-4)
    cosine = (unit * target).sum(dim=1).clamp(-MAX_COSINE, MAX_COSINE)
    return masked_mean(torch.arccos(cosine), valid)


def feature_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - cosine over the channels (B,) of (B, C, h, w) features, averaged over the pixels."""
    return 1 - F.cosine_similarity(student, teacher, dim=1).mean(dim=(1, 2))

"""An exponential from the decoder's output to depth, which gives near depths a finer scale.

In a picture with depths from 0.2 to 10 m, an error of a hundredth of the range is 0.1 m: 1 % of the
depth at the far end, 50 % of it at the near end. With the curve, an error of the decoder is about
the same share of the depth everywhere. What follows the curve sees linear depth, as without it.
"""

from __future__ import annotations

import math

import torch

FARTHEST = 1.5  # of the range [-1, 1] as a share; the curve goes on straight beyond it
LEAST_CURVE, MOST_CURVE = 0.1, 6.0  # below the least, rounding would show
MOST_BEYOND = 1e6  # so that any answer gives a finite depth


def bent(answer: torch.Tensor, curve: float) -> torch.Tensor:
    """A decoder's output, about [-1, 1] -> depth, about [-1, 1], float32, of the same shape.

    `curve` is the logarithm of how much finer the scale is at the near end than at the far end,
    `LEAST_CURVE` to `MOST_CURVE`; 0 leaves the answer as it is, with its type. -1 and 1 stay where
    they are. Beyond `FARTHEST` depth goes on in a straight line.
    """
    if not curve:
        return answer
    # Half precision would round away the finer scale that this is for.
    share = (answer.float() + 1) / 2
    depth = torch.exp(share.clamp(max=FARTHEST) * curve) - 1  # torch.expm1 cannot be exported
    steepness = curve * math.exp(curve * FARTHEST)
    depth = depth + steepness * (share - FARTHEST).clamp(min=0, max=MOST_BEYOND)
    return depth * (2 / math.expm1(curve)) - 1


def unbent(depth: float, curve: float) -> float:
    """The reverse of `bent`, for one number in [-1, 1]."""
    if not curve:
        return depth
    return 2 * math.log1p((depth + 1) / 2 * math.expm1(curve)) / curve - 1

"""What a decoder computes is bent into depth by an exponential: near depths have a finer scale.

Depth from 0.2 to 10 m in one picture, linear in [-1, 1]: an error of a hundredth of the range is
half a wall's thickness at the far end, and half of the distance to what stands right before the
camera. Behind the curve, an error of what the decoder computes is about as large a part of the
depth everywhere. The depth itself stays linear, as all that follows expects.
"""

from __future__ import annotations

import math

import torch

FARTHEST = 1.5  # of what is bent, in [0, 1]; behind it depth does not grow


def bent(answer: torch.Tensor, curve: float) -> torch.Tensor:
    """What a decoder computed, about [-1, 1] -> depth, about [-1, 1], of any shape.

    `curve` is the logarithm of how much finer the scale is at the near end than at the far end; 0
    leaves the answer as it is. -1 and 1 stay where they are.
    """
    if not curve:
        return answer
    share = ((answer + 1) / 2).clamp(max=FARTHEST)
    # Not torch.expm1, which ONNX does not have.
    return (torch.exp(curve * share) - 1) * (2 / math.expm1(curve)) - 1


def unbent(depth: float, curve: float) -> float:
    """The reverse of `bent`, for one number in [-1, 1]."""
    if not curve:
        return depth
    return 2 * math.log1p((depth + 1) / 2 * math.expm1(curve)) / curve - 1

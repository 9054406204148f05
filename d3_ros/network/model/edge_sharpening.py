"""Makes the edges of a depth image steeper, without another network: a shock filter.

Between an object and its background a network predicts a slope some pixels wide, which gives flying
points in a cloud. Each pass moves a pixel towards its farthest neighbour if it is farther than the
mean around it, and towards its nearest neighbour if it is nearer. On a plane a pixel equals that
mean and stays. (Osher and Rudin, Feature-oriented image enhancement using shock filters, 1990.)
"""

from __future__ import annotations

from functools import reduce

import torch
from torch.nn import functional as F

AROUND = 5  # side of the square over which the mean is taken, pixels
STEP = 0.5  # of the way to the neighbour, in a pass
FIRMNESS = 4.0  # a pixel 1 / FIRMNESS of the neighbours' range off the mean moves by the full step
LEAST_RANGE = 0.12  # depth range of the neighbours, of 2; where it is smaller, pixels move little
TINY = 1e-4
# AROUND and LEAST_RANGE were chosen on the 17 frames of the data set `field` (docs/data.md): edges
# become sharper, and metric depth from 100 sensor points stays as good. A wider mean or a smaller
# range makes it worse.


def steeper(depth: torch.Tensor, passes: int) -> torch.Tensor:
    """(B, 1, h, w) depth in [-1, 1] -> the same with steeper edges, within the same range.

    Sides must be at least `AROUND` long; two pixels along the border stay as they are.
    """
    for _ in range(passes):
        far, near = _most(depth), -_most(-depth)
        extent = far - near
        side = FIRMNESS * _above_mean(depth) / (extent + TINY)
        square = extent * extent
        share = STEP * square / (square + LEAST_RANGE**2)
        to_far, to_near = side.clamp(0, 1), side.clamp(-1, 0)
        depth = depth + share * (to_far * (far - depth) + to_near * (depth - near))
    return depth


def _most(image: torch.Tensor) -> torch.Tensor:
    """The largest of the 3 x 3 values around each pixel.

    PyTorch computes shifted views twenty times as fast as max_pool2d on a CPU; for ONNX Runtime
    the pooling is one operator instead of eleven.
    """
    if torch.onnx.is_in_onnx_export():
        return F.max_pool2d(image, 3, stride=1, padding=1)
    image = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = reduce(torch.maximum, _shifted(image, 3, -2))
    return reduce(torch.maximum, _shifted(rows, 3, -1))


def _above_mean(image: torch.Tensor) -> torch.Tensor:
    """How far each pixel is above the mean around it; 0 at the border, where that is not known."""
    border = AROUND // 2
    if torch.onnx.is_in_onnx_export():
        mean = F.avg_pool2d(image, AROUND, stride=1)
    else:
        rows = reduce(torch.add, _shifted(image, AROUND, -2))
        mean = reduce(torch.add, _shifted(rows, AROUND, -1)) * (1.0 / AROUND**2)
    inner = image[..., border:-border, border:-border] - mean
    return F.pad(inner, (border, border, border, border))


def _shifted(image: torch.Tensor, count: int, axis: int) -> list[torch.Tensor]:
    """`count` views of one size, each one pixel further along `axis` (-1 or -2)."""
    cuts = [slice(start, start - count + 1 or None) for start in range(count)]
    return [image[..., cut] if axis == -1 else image[..., cut, :] for cut in cuts]

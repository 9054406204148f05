"""Camera pixels to the network's input, and the network's output to depth and normals, in PyTorch.

Everything here is float32, whatever dtype the network runs in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from d3_ros.network.inference.runtime import SHORTEST_NORMAL


def to_network(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(H, W, 3) uint8 RGB -> (1, 3, *size) float32 in [-1, 1], as the official code makes it.

    Bilinear, align_corners False, no antialias.
    """
    image = pixels.permute(2, 0, 1)[None].float() / 255 * 2 - 1
    return _resize(image, size)


def to_depth(decoded: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(1, 3 or 1, h, w) decoded depth -> (*size,) float32 in [0, 1], affine-invariant, 0 near."""
    return _to_unit_range(decoded, size).mean(dim=0)


def to_normals(
    decoded: torch.Tensor, size: tuple[int, int], axes: tuple[int, int, int]
) -> torch.Tensor:
    """(1, 3, h, w) decoded normals -> (*size, 3) float32 unit vectors in the optical frame.

    `axes` are the signs that the bundle states. A vector shorter than 1e-3 has no
    direction and becomes NaN. Normals are not flipped towards the camera: that needs the viewing
    rays, and the network does not know the camera's intrinsics.
    """
    vectors = _to_unit_range(decoded, size) * 2 - 1
    length = torch.linalg.vector_norm(vectors, dim=0)
    length = torch.where(length < SHORTEST_NORMAL, torch.nan, length)
    signs = torch.tensor(axes, dtype=torch.float32, device=decoded.device)
    return (vectors / length * signs[:, None, None]).permute(1, 2, 0)


def _to_unit_range(decoded: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(1, c, h, w) about [-1, 1] -> (c, *size) in [0, 1]; resized first, then clipped."""
    return (_resize(decoded.float(), size)[0] / 2 + 0.5).clamp(0, 1)


def _resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=False)

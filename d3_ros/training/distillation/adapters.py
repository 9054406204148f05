"""Adapters from the student's features to the teacher's, conditioned on the teacher's timestep.

The student sees a clean image, the teacher a noised one. An adapter per feature learns the
difference, so that the student need not imitate the noise. Adapters are residual and start at zero:
untrained, an adapter changes nothing. Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from d3_ros.training.config.model_config import AdapterConfig

EPSILON = 1e-6  # added to mean squares
MAX_TIMESTEP = 999  # mapped to 1


class FourierFeatures(nn.Module):
    """(B, 1) numbers -> (B, width) cosines and sines of random, fixed frequencies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(width // 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed x (B, 1)."""
        angles = 2 * math.pi * x @ self.get_buffer("weight").T
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale per channel, in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last axis of x."""
        return _rms_normalised(x) * self.scale.to(x.dtype)


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm whose scale is computed from a condition (B, width). The scale starts at 1."""

    def __init__(self, channels: int, condition_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_width, channels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Normalise the last axis of x (B, n, channels) under the condition (B, width)."""
        return _rms_normalised(x) * (self.linear(condition)[:, None] + 1).to(x.dtype)


class GatedFeedForward(nn.Module):
    """A residual SwiGLU layer on (B, ..., channels), whose residual starts at zero.

    With `condition_width` its norm is an AdaptiveRMSNorm, and the input is (B, n, channels).
    """

    def __init__(self, channels: int, hidden: int, condition_width: int | None = None) -> None:
        super().__init__()
        self.norm = (
            RMSNorm(channels)
            if condition_width is None
            else AdaptiveRMSNorm(channels, condition_width)
        )
        self.up_proj = nn.Linear(channels, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, channels, bias=False)
        nn.init.zeros_(self.down_proj.weight)

    def forward(self, x: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """x plus the residual. `condition` (B, width) is given if the norm is adaptive."""
        value, gate = self.up_proj(self.norm(x, *condition)).chunk(2, dim=-1)
        return x + self.down_proj(value * F.silu(gate))


class TimestepMapping(nn.Module):
    """Embedded timesteps (B, width) -> the adapters' condition (B, width)."""

    def __init__(self, width: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.in_norm = RMSNorm(width)
        self.blocks = nn.ModuleList(GatedFeedForward(width, hidden) for _ in range(depth))
        self.out_norm = RMSNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (B, width)."""
        x = self.in_norm(x)
        for block in self.blocks:
            x = block(x)
        return self.out_norm(x)


class Adapter(nn.Module):
    """Feed-forward layers on one feature: (B, n pixels, channels) -> the same shape."""

    def __init__(self, channels: int, depth: int, expansion: int, condition_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GatedFeedForward(channels, channels * expansion, condition_width) for _ in range(depth)
        )

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Adapt x (B, n, channels) under the condition (B, width)."""
        for layer in self.layers:
            x = layer(x, condition)
        return x


class FeatureAdapters(nn.Module):
    """One adapter per feature, and the timestep embedding that they share.

    Args:
        channels: the features' channels by name (`features.feature_channels`).
        config: sizes.
    """

    def __init__(self, channels: Mapping[str, int], config: AdapterConfig) -> None:
        super().__init__()
        width = config.condition_width
        self.time_emb = FourierFeatures(width)
        self.time_in_proj = nn.Linear(width, width, bias=False)
        self.mapping = TimestepMapping(width, config.condition_depth, config.condition_hidden)
        self.adapters = nn.ModuleDict(
            {
                name: Adapter(count, config.depth, config.expansion, width)
                for name, count in channels.items()
            }
        )

    def condition(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The teacher's timesteps (B,) as the condition (B, width)."""
        unit = timesteps[:, None].float() / MAX_TIMESTEP
        return self.mapping(self.time_in_proj(self.time_emb(unit)))

    def forward(
        self, features: Mapping[str, torch.Tensor], timesteps: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Features (B, C, h, w) by name, adapted to the teacher's at `timesteps` (B,)."""
        condition = self.condition(timesteps)
        adapted = {}
        for name, feature in features.items():
            pixels = self.adapters[name](feature.flatten(2).transpose(1, 2), condition)
            adapted[name] = pixels.transpose(1, 2).unflatten(2, feature.shape[2:])
        return adapted


def _rms_normalised(x: torch.Tensor) -> torch.Tensor:
    mean_square = x.float().square().mean(dim=-1, keepdim=True)
    return x * torch.rsqrt(mean_square + EPSILON).to(x.dtype)

"""A codec's decoder that sees the picture beside the latent, so that its answer has edges.

The picture is folded 2 x 2 to half size, and a small U-Net makes features of it, once for all
tasks. Its way down may be a backbone that knows photographs (backbone.py). A decoder goes from the
latent's size to half size, adds the features, and unfolds its answer to full size: nothing is
computed at full size, where a convolution costs four times as much.

The depth decoder may propose several depths for each pixel, with weights and spreads: a mixture of
Laplace distributions. The answer is the depth of the greatest weight, never the mean: between the
edge of a box and the wall behind it, their mean is a place where nothing is.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import nn
from torch.nn import functional as F

from d3_ros.network.model.backbone import LEVEL_CHANNELS, Backbone

FEATURE_SCALE = 0.1  # a backbone's features have a spread of about 10
SQUEEZE = 3.0  # the decoder's input is squeezed into (-3, 3), as AutoencoderTiny's is


class PictureFeatures(nn.Module):
    """A small U-Net from the picture to features at half size, and what goes into the latent.

    Args:
        widths: channels at half size, at a quarter, and so on.
        latent_channels: of the latent.
        reduction: image pixels per latent pixel along one axis, a power of 2; there must be a
            width for that size.
        has_backbone: a backbone computes the way down, not layers of its own.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        latent_channels: int,
        reduction: int,
        has_backbone: bool = False,
    ) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.entry = nn.Conv2d(12, widths[0], 3, padding=1)
        self.backbone = Backbone(len(widths)) if has_backbone else None
        if has_backbone:
            self.lateral = nn.ModuleList(
                nn.Conv2d(channels, width, 1)
                for channels, width in zip(LEVEL_CHANNELS[: len(widths)], widths, strict=True)
            )
        else:
            self.down = nn.ModuleList(
                nn.Sequential(nn.Conv2d(wide, deep, 3, stride=2, padding=1), Residual(deep))
                for wide, deep in steps
            )
        self.up = nn.ModuleList(nn.Conv2d(deep, wide, 3, padding=1) for wide, deep in steps)
        self.joined = nn.ModuleList(Residual(wide) for wide, _ in steps)
        self._latent_level = reduction.bit_length() - 2
        self.inward = nn.Conv2d(widths[self._latent_level], latent_channels, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, h, w) image -> (B, c0, h/2, w/2) features, (B, c, h/f, w/f) for the latent."""
        # The same as self.entry(F.pixel_unshuffle(image, 2)), without moving any pixel.
        weight, bias = F.pixel_shuffle(self.entry.weight, 2), self.entry.bias
        levels = [F.conv2d(image, weight, bias, stride=2, padding=2)]
        if self.backbone is not None:
            seen = self.backbone(image)
            sides = [
                layer(part * FEATURE_SCALE) for layer, part in zip(self.lateral, seen, strict=True)
            ]
            levels = [levels[0] + sides[0], *sides[1:]]
        else:
            for layer in self.down:
                levels.append(layer(F.relu(levels[-1])))
        for level in range(len(self.up) - 1, -1, -1):
            deeper = self.up[level](F.relu(levels[level + 1]))
            size = levels[level].shape[-2:]
            joined = levels[level] + F.interpolate(deeper, size=size, mode="nearest")
            levels[level] = self.joined[level](joined)
        return F.relu(levels[0]), self.inward(F.relu(levels[self._latent_level]))


class SkipDecoder(nn.Module):
    """Decodes a latent and the picture's features.

    Args:
        latent_channels: of the latent.
        width: channels from the latent's size up to half size.
        skips: channels of the features, and of the decoder at half size; at least `width`.
        blocks: residual blocks per level, from the latent's size upwards; the last number counts
            blocks at half size, behind those of its own level.
        outputs: channels of the answer.
    """

    def __init__(
        self, latent_channels: int, width: int, skips: int, blocks: tuple[int, ...], outputs: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, width, 3, padding=1), nn.ReLU()]
        half = len(blocks) - 2  # the level of half size
        for level, count in enumerate(blocks[:-1]):
            layers += [AutoencoderTinyBlock(width, width, "relu") for _ in range(count)]
            if level < half:
                wider = skips if level == half - 1 else width
                layers += [
                    nn.Upsample(scale_factor=2, mode="nearest"),
                    nn.Conv2d(width, wider, 3, padding=1, bias=False),
                ]
                width = wider
        if width != skips:  # the latent has half size itself
            layers.append(nn.Conv2d(width, skips, 3, padding=1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.skip = nn.Conv2d(skips, skips, 3, padding=1)
        self.refine = nn.ModuleList(Residual(skips) for _ in range(blocks[-1]))
        self.out = nn.Conv2d(skips, 4 * outputs, 3, padding=1)

    def forward(self, latent: torch.Tensor, features: torch.Tensor, count: int) -> torch.Tensor:
        """(B, c, h, w) latent, (B, skips, h', w') features -> (B, 4 count, h', w').

        The answer is folded: each output has four channels, its pixels 2 x 2. `unfolded` gives them
        their place. `count`: only that many of the outputs are computed, from the first on.
        """
        inner = self.layers(torch.tanh(latent / SQUEEZE) * SQUEEZE)
        hidden = inner + self.skip(features)
        for block in self.refine:
            hidden = block(hidden)
        weight, bias = self.out.weight, self.out.bias
        if count * 4 < len(weight):
            assert bias is not None
            return F.conv2d(hidden, weight[: 4 * count], bias[: 4 * count], padding=1)
        return self.out(hidden)


def unfolded(answer: torch.Tensor) -> torch.Tensor:
    """A `SkipDecoder`'s answer (B, 4 c, h, w) -> (B, c, 2 h, 2 w)."""
    return F.pixel_shuffle(answer, 2)


class Residual(nn.Module):
    """Adds to its input what two convolutions make of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> the same shape."""
        return hidden + self.second(F.relu(self.first(F.relu(hidden))))


def heaviest(mixture: torch.Tensor, components: int, folded: bool = False) -> torch.Tensor:
    """The depth of the greatest weight in each pixel.

    Args:
        mixture: k depths and k log weights, (B, 2 k or more, h, w).
        components: k.
        folded: the mixture is a `SkipDecoder`'s answer, with four channels for each output.

    Returns:
        (B, 1, h, w), or (B, 4, h, w) where it is folded.
    """
    each = 4 if folded else 1
    depths, weights, *_ = mixture.split(components * each, dim=1)
    answer, most = depths[:, :each], weights[:, :each]
    for start in range(each, components * each, each):
        weight = weights[:, start : start + each]
        answer = torch.where(weight > most, depths[:, start : start + each], answer)
        most = torch.maximum(weight, most)
    return answer

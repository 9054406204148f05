"""EfficientNet-Lite0 up to a sixteenth or a thirty-second of the picture: features of photographs.

A codec with skips may compute the picture's features with these layers. They were trained to
classify photographs (ImageNet), so they know textures and things that rendered frames do not show.
`training/loop/pretrained_backbone.py` brings the weights; a bundle stores them like all others.
Batch normalisation is part of the convolutions.

Source: EfficientNet, arXiv 1905.11946, in its "Lite" form: ReLU6, no squeeze and excitation.
"""

from __future__ import annotations

import torch
from torch import nn

BACKBONE = "efficientnet_lite0"  # its name in configurations
STEM = 32  # channels of the first convolution
# Kernel, stride, channels, expansion and blocks of each stage.
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 2, 80, 6, 3),
    (5, 1, 112, 6, 3),
    (5, 2, 192, 6, 4),
    (3, 1, 320, 6, 1),
)
LEVEL_STAGES = (0, 1, 2, 4, 6)  # the last stage of each size; its output is that level's features
LEVEL_CHANNELS = tuple(STAGES[stage][2] for stage in LEVEL_STAGES)


class Backbone(nn.Module):
    """EfficientNet-Lite0's features.

    Args:
        levels: how many sizes, 1 to 5: half size, a quarter, and so on.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if not 1 <= levels <= len(LEVEL_STAGES):
            raise ValueError(f"a backbone has 1 to {len(LEVEL_STAGES)} levels, got {levels}")
        self.stem = nn.Conv2d(3, STEM, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList()
        self._answers: list[int] = []  # the number of blocks behind which a level ends
        channels = STEM
        for number, (kernel, stride, width, expansion, count) in enumerate(
            STAGES[: LEVEL_STAGES[levels - 1] + 1]
        ):
            for repeat in range(count):
                step = stride if repeat == 0 else 1
                self.blocks.append(InvertedResidual(channels, width, kernel, step, expansion))
                channels = width
            if number in LEVEL_STAGES:
                self._answers.append(len(self.blocks))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, h, w) image in [-1, 1] -> (B, LEVEL_CHANNELS[i], h / 2 ** (i + 1), ...) each."""
        hidden = nn.functional.relu6(self.stem(image))
        levels = []
        for count, block in enumerate(self.blocks, start=1):
            hidden = block(hidden)
            if count in self._answers:
                levels.append(hidden)
        return levels


class InvertedResidual(nn.Module):
    """Widens, filters each channel for itself, narrows; adds its input where the shapes agree."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(
            wide, wide, kernel, stride=stride, padding=kernel // 2, groups=wide
        )
        self.project = nn.Conv2d(wide, width, 1)
        self.adds = stride == 1 and channels == width

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, channels, h, w) -> (B, width, h / stride, w / stride), rounded up."""
        inner = hidden
        if self.expand is not None:
            inner = nn.functional.relu6(self.expand(inner))
        inner = self.project(nn.functional.relu6(self.depthwise(inner)))
        return hidden + inner if self.adds else inner

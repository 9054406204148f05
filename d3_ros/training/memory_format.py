"""How training lays out images and weights in memory, and what the device's arithmetic can do."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices itself: a GPU, or a CPU that can."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def layer_format() -> torch.memory_format:
    """Channels last where there is a GPU or a CPU with bfloat16; channels first on other CPUs.

    On a CPU without bfloat16 (AVX2), the weights' gradient of a convolution takes two to four times
    as long with channels last, and a whole step of d3_nano a third longer.
    """
    if torch.accelerator.is_available() or has_bfloat16(torch.device("cpu")):
        return torch.channels_last
    return torch.contiguous_format

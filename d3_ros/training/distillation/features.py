"""The UNet features in which the student follows its teacher, read from diffusers by hooks.

`mid` is the output of the mid block. `us1`, `us2`, ... are the outputs of the layers of the up
blocks, in the order in which they run. The last layer of a block with an upsampler is read after
the upsampler. The last two outputs are not used: Stable Diffusion 2.1 has `us1` to `us10`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from d3_ros.network.model.d3_network import DiffusersModel

UNUSED = 2  # last outputs of the up blocks


def tapped_modules(unet: DiffusersModel) -> dict[str, nn.Module]:
    """The modules whose outputs are the features, by name of the feature."""
    outputs: list[nn.Module] = []
    for block in unet.up_blocks:
        layers = getattr(block, "attentions", None) or block.resnets
        outputs += layers
        if block.upsamplers:
            outputs[-1] = block.upsamplers[-1]
    used = outputs[: len(outputs) - UNUSED]
    return {"mid": unet.mid_block, **{f"us{i}": module for i, module in enumerate(used, start=1)}}


def feature_channels(unet: DiffusersModel) -> dict[str, int]:
    """The number of channels of every feature, by name."""
    widths = list(unet.config.block_out_channels)
    per_block = [
        width
        for width, block in zip(reversed(widths), unet.up_blocks, strict=True)
        for _ in block.resnets
    ]
    names = tapped_modules(unet)
    return dict(zip(names, [widths[-1], *per_block], strict=False))


@contextmanager
def tapped(unet: DiffusersModel, features: dict[str, torch.Tensor]) -> Iterator[None]:
    """Inside the block, a forward pass puts its features (B, C, h, w) by name into `features`.

    Leave the block before `backward`, since gradient checkpointing runs the layers again.
    """

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            features[name] = output if torch.is_tensor(output) else output[0]

        return hook

    handles = [
        module.register_forward_hook(keep(name)) for name, module in tapped_modules(unet).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

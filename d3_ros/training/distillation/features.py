"""The features at which the student is held to its teacher, read from a diffusers UNet by hooks.

`mid` is the mid block's output; `us1`, `us2`, ... are the outputs of the layers of the up blocks in
the order in which they run. Where a block ends in an upsampler, its last one is taken after it. The
last two are not used: of Stable Diffusion 2.1's twelve, `us1` to `us10` remain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from d3_ros.network.model.d3_network import DiffusersModel

UNUSED = 2  # of the last outputs of the up blocks


def tapped_modules(unet: DiffusersModel) -> dict[str, nn.Module]:
    """The modules whose outputs are the features, by the features' names."""
    outputs: list[nn.Module] = []
    for block in unet.up_blocks:
        layers = getattr(block, "attentions", None) or block.resnets
        outputs += layers
        if block.upsamplers:
            outputs[-1] = block.upsamplers[-1]
    used = outputs[: len(outputs) - UNUSED]
    return {"mid": unet.mid_block, **{f"us{i}": module for i, module in enumerate(used, start=1)}}


def feature_channels(unet: DiffusersModel) -> dict[str, int]:
    """Channels of every feature."""
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
    """Put the features, (B, C, h, w) each, of the forward pass made inside into `features`.

    Leave the block before `backward`: gradient checkpointing runs the layers a second time.
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

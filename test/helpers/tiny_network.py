"""A D3Network of a few channels with random weights: all that the real one has, in no time."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec

CROSS_ATTENTION_DIM = 8
SIZE = (64, 96)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )


def tiny_unet(**options: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=CROSS_ATTENTION_DIM,
        attention_head_dim=4,
        use_linear_projection=True,
        **options,
    )


def tiny_network(seed: int = 0, shared_unet: bool = False) -> D3Network:
    """Both tasks, at 64 x 96, with timesteps that are no integers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        names = ("unet", "unet") if shared_unet else ("unet_depth", "unet_normals")
        return D3Network(
            vae=tiny_vae(),
            unets={name: tiny_unet() for name in names},
            tasks={
                "depth": TaskSpec(names[0], PROMPTS["depth"], SIZE, timestep=187.3),
                "normals": TaskSpec(
                    names[1], PROMPTS["normals"], SIZE, timestep=262.7, axes=OFFICIAL_NORMAL_AXES
                ),
            },
            prompt_embeddings={
                "depth": torch.randn(77, CROSS_ATTENTION_DIM),
                "normals": torch.randn(77, CROSS_ATTENTION_DIM),
            },
        ).eval()

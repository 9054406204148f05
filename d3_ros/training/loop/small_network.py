"""A small D³-Predictor with random weights: one UNet for both tasks, told apart by the prompt."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import nn

from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.network.model.skip_decoder import Residual
from d3_ros.training.config.model_config import NewModelConfig
from d3_ros.types import TASKS

PROMPT_TOKENS = 8  # enough for a fixed prompt; CLIP's 77 would only cost time


def build_network(config: NewModelConfig, processing_size: tuple[int, int]) -> D3Network:
    """A D3Network of the given sizes with random weights. Seed torch before.

    The prompt embeddings are fixed random vectors: a small model has no text encoder.
    """
    vae = AutoencoderTiny(
        encoder_block_out_channels=(config.vae_channels,) * len(config.vae_blocks),
        decoder_block_out_channels=(config.vae_channels,) * len(config.vae_blocks),
        num_encoder_blocks=config.vae_blocks,
        num_decoder_blocks=config.vae_blocks[::-1],
        latent_channels=config.latent_channels,
    )
    _initialise(vae)
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.unet_attention]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.unet_attention)]
    unet = UNet2DConditionModel(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=config.unet_channels,
        layers_per_block=config.unet_layers,
        cross_attention_dim=config.prompt_width,
        attention_head_dim=tuple(c // config.head_width for c in config.unet_channels),
        use_linear_projection=True,
        norm_num_groups=config.norm_groups,
    )
    specs = {
        task: TaskSpec(
            unet="unet",
            prompt=PROMPTS[task],
            processing_size=processing_size,
            axes=OFFICIAL_NORMAL_AXES if task == "normals" else None,
        )
        for task in TASKS
    }
    prompts = {task: torch.randn(PROMPT_TOKENS, config.prompt_width) for task in TASKS}
    return D3Network(vae, {"unet": unet}, specs, prompts)


def _initialise(vae: DiffusersModel) -> None:
    """He initialisation, with an output near mid-grey."""
    he_initialise(vae)
    with torch.no_grad():
        last = vae.decoder.layers[-1]
        last.weight.mul_(0.2)
        last.bias.fill_(0.5)  # the decoder maps [0, 1] to [-1, 1]


def he_initialise(module: nn.Module) -> None:
    """He initialisation of the layers of a codec. Residual branches start small.

    AutoencoderTiny has no normalisation. With PyTorch's own initialisation the latent of an image
    has a deviation of 0.04, which is small beside the UNet's biases, and the first 20,000 images
    teach nothing.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, AutoencoderTinyBlock):
                part.conv[-1].weight.mul_(0.3)
            if isinstance(part, Residual):
                part.second.weight.mul_(0.3)

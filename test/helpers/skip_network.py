"""Small networks with an AutoencoderTiny, and with the codec that lets decoders see the picture."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import torch

from d3_ros.network import D3Network
from d3_ros.network.model.backbone import BACKBONE
from d3_ros.training.config.model_config import NewModelConfig, SkipConfig
from d3_ros.training.loop.add_skips import add_skips
from d3_ros.training.loop.small_network import build_network

SKIPS = SkipConfig(channels=(16, 20), latent_channels=4, blocks=1, depth_components=2)
PLAIN = NewModelConfig(
    vae_channels=12,
    vae_blocks=(0, 0, 1),
    latent_channels=4,
    unet_channels=(16, 32),
    unet_attention=(False, True),
    unet_layers=1,
    head_width=16,
    norm_groups=4,
    prompt_width=8,
)


def plain_network(seed: int = 0) -> D3Network:
    """Both tasks at 48 x 64, as the first d3_nano in small; random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(PLAIN, (48, 64)).eval()
        with torch.no_grad():  # an output layer as faint as at the start of a training says nothing
            network.vae.decoder.layers[-1].weight.mul_(5)
    return network


def skip_network(seed: int = 0, *, fresh: bool = False, has_backbone: bool = False) -> D3Network:
    """`plain_network` with skips; with `fresh` as they are before any training.

    Otherwise every path has weights, as after a training. A backbone has random weights here.
    """
    skips = replace(SKIPS, backbone=BACKBONE) if has_backbone else SKIPS
    part = "d3_ros.training.loop.add_skips"
    with (
        torch.random.fork_rng(),
        patch(f"{part}.pretrained_file"),
        patch(f"{part}.load_pretrained"),
    ):
        torch.manual_seed(seed)
        network = add_skips(plain_network(seed), skips).eval()
        if not fresh:
            with torch.no_grad():
                for weight in network.vae.parameters():
                    weight.add_(0.05 * torch.randn_like(weight))
    return network

"""Networks with random weights, where weights do not matter: of full size, or small for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from d3_ros.network.model.d3_network import D3Network, DiffusersModel
from d3_ros.network.model.task_spec import OFFICIAL_NORMAL_AXES, PROMPTS, TaskSpec
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.types import TASKS, Task

PROMPT_TOKENS = 77


@dataclass(frozen=True)
class Architecture:
    """Sizes of everything that a benchmark builds; keyword arguments of the libraries' classes.

    `depth_anything`: by letter, the backbone's arguments and those of the whole.
    """

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    codec_width: int
    depth_anything: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]


# Layers of the backbone that Depth Anything's neck taps, by the number of layers.
_TAPS = {
    4: {"out_indices": [1, 2, 3, 4]},
    12: {"out_indices": [3, 6, 9, 12]},
    24: {"out_indices": [5, 12, 18, 24]},
}

SD21 = Architecture(
    unet={
        "sample_size": 96,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    vae={
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 768,
    },
    text_encoder={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
    codec_width=64,
    depth_anything={
        "S": (
            {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12, **_TAPS[12]},
            {"fusion_hidden_size": 64, "neck_hidden_sizes": [48, 96, 192, 384]},
        ),
        "B": (
            {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, **_TAPS[12]},
            {"fusion_hidden_size": 128, "neck_hidden_sizes": [96, 192, 384, 768]},
        ),
        "L": (
            {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, **_TAPS[24]},
            {"fusion_hidden_size": 256, "neck_hidden_sizes": [256, 512, 1024, 1024]},
        ),
    },
)
"""Stable Diffusion 2.1, which D³-Predictor and Marigold are made from, and Depth Anything V2."""

SMALL = Architecture(
    unet={
        **SD21.unet,
        "sample_size": 8,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": (2, 2, 4, 4),
    },
    vae={**SD21.vae, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    text_encoder={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
    },
    codec_width=8,
    depth_anything={
        letter: (
            {"hidden_size": width, "num_attention_heads": 2, "num_hidden_layers": 4, **_TAPS[4]},
            {"fusion_hidden_size": 8, "neck_hidden_sizes": [8, 8, 16, 16]},
        )
        for letter, width in (("S", 16), ("B", 24), ("L", 32))
    },
)
"""The same blocks with few channels: for tests; its times mean nothing."""

ARCHITECTURES = {"sd21": SD21, "small": SMALL}


def random_unet(architecture: Architecture, **changes: Any) -> DiffusersModel:
    """A UNet on the default device; seed torch before."""
    return UNet2DConditionModel(**{**architecture.unet, **changes})


def random_vae(architecture: Architecture) -> DiffusersModel:
    """A VAE on the default device; seed torch before."""
    return AutoencoderKL(**architecture.vae)


def random_network(
    architecture: Architecture,
    tasks: tuple[Task, ...],
    device: torch.device,
    dtype: torch.dtype,
    codec: bool = False,
) -> D3Network:
    """A UNet per task, as the official weights have it; with a TinyCodec if asked for."""
    latent_channels = architecture.vae["latent_channels"]
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        vae = random_codec(latent_channels, architecture.codec_width) if codec else None
        vae = vae or random_vae(architecture)
        unets = {f"unet_{task}": cast(random_unet(architecture), dtype) for task in tasks}
        width = architecture.unet["cross_attention_dim"]
        prompts = {task: torch.randn(PROMPT_TOKENS, width) for task in tasks}
    side = architecture.vae["sample_size"]
    specs = {
        task: TaskSpec(
            unet=f"unet_{task}",
            prompt=PROMPTS[task],
            processing_size=(side, side),
            axes=OFFICIAL_NORMAL_AXES if task == "normals" else None,
        )
        for task in tasks
    }
    network = D3Network(vae, unets, specs, prompts)
    return network.to(device, dtype).eval().requires_grad_(False)


def cast(module: DiffusersModel, dtype: torch.dtype) -> DiffusersModel:
    """`module` in `dtype`, all of it; diffusers' own `to` warns that it would rather load so."""
    return torch.nn.Module.to(module, dtype).eval().requires_grad_(False)


def random_codec(latent_channels: int, width: int) -> TinyCodec:
    """The codec of config/training/train_codec.yaml's layout, untrained."""
    blocks = (1, 3, 3, 3)
    return TinyCodec(CodecConfig(latent_channels, width, blocks, blocks[::-1], TASKS))

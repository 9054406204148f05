"""A D3Network of Stable Diffusion 2.1's size: on the meta device, or with random weights."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec

PROMPT_SHAPE = (77, 1024)


def full_size_parts() -> tuple[AutoencoderKL, UNet2DConditionModel]:
    """VAE and UNet on the meta device: architecture without storage."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=96,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=PROMPT_SHAPE[1],
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=768,
        )
    return vae, unet


def full_size_network(
    weights: dict[str, dict[str, torch.Tensor]] | None = None, shared_unet: bool = False
) -> D3Network:
    """Both tasks, frozen; `weights` as `random_weights` makes them, shared with the network.

    Without weights everything is on the meta device.
    """
    names = ("unet", "unet") if shared_unet else ("unet_depth", "unet_normals")
    vae, _ = full_size_parts()
    unets = {name: full_size_parts()[1] for name in dict.fromkeys(names)}
    prompts = dict.fromkeys(("depth", "normals"), torch.empty(PROMPT_SHAPE, device="meta"))
    if weights is not None:
        vae.load_state_dict(weights["vae"], assign=True)
        for unet in unets.values():
            unet.load_state_dict(weights["unet"], assign=True)
        prompts = dict(weights["prompts"])
    specs = {
        "depth": TaskSpec(names[0], PROMPTS["depth"], (768, 768), timestep=187.3),
        "normals": TaskSpec(
            names[1], PROMPTS["normals"], (768, 768), timestep=262.7, axes=OFFICIAL_NORMAL_AXES
        ),
    }
    network = D3Network(vae, unets, specs, prompts).eval().requires_grad_(False)
    return network.to("meta") if weights is None else network


def random_weights(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """Float32 weights of one VAE and one UNet (3.8 GB) and two prompts, of sensible sizes."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(name: str, shape: torch.Size) -> torch.Tensor:
        tensor = torch.empty(shape)
        if len(shape) > 1:  # variance 1 / fan-in
            bound = math.sqrt(3 / math.prod(shape[1:]))
            return tensor.uniform_(-bound, bound, generator=generator)
        centre = 1.0 if name.endswith("weight") else 0.0  # scales of norms, biases
        return tensor.uniform_(centre - 0.1, centre + 0.1, generator=generator)

    vae, unet = full_size_parts()
    weights = {
        part: {name: drawn(name, value.shape) for name, value in module.state_dict().items()}
        for part, module in (("vae", vae), ("unet", unet))
    }
    weights["prompts"] = {
        task: torch.empty(PROMPT_SHAPE).uniform_(-2, 2, generator=generator)
        for task in ("depth", "normals")
    }
    return weights

"""A D3Network of Stable Diffusion 2.1's size: on the meta device, or with given weights."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from d3_ros.bench.network.architectures import PROMPT_TOKENS, SD21, random_unet, random_vae
from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec

PROMPT_SHAPE = (PROMPT_TOKENS, SD21.unet["cross_attention_dim"])
# State dicts: "vae" and "unet".
Weights = dict[str, dict[str, torch.Tensor]]


def full_size_parts(
    weights: Weights | None = None,
) -> tuple[AutoencoderKL, UNet2DConditionModel]:
    """VAE and UNet that share `weights`; without them on the meta device, which has no storage."""
    with torch.device("meta"):
        unet, vae = random_unet(SD21), random_vae(SD21)
    if weights is not None:
        vae.load_state_dict(weights["vae"], assign=True)
        unet.load_state_dict(weights["unet"], assign=True)
    return vae, unet


def full_size_network(weights: Weights | None = None, shared_unet: bool = False) -> D3Network:
    """Both tasks, frozen, with prompt embeddings drawn at random; on the device of the parts."""
    names = ("unet", "unet") if shared_unet else ("unet_depth", "unet_normals")
    vae, _ = full_size_parts(weights)
    unets = {name: full_size_parts(weights)[1] for name in dict.fromkeys(names)}
    generator = torch.Generator().manual_seed(0)
    prompts = {
        task: torch.empty(PROMPT_SHAPE).uniform_(-2, 2, generator=generator)
        for task in ("depth", "normals")
    }
    specs = {
        "depth": TaskSpec(names[0], PROMPTS["depth"], (768, 768), timestep=187.3),
        "normals": TaskSpec(
            names[1], PROMPTS["normals"], (768, 768), timestep=262.7, axes=OFFICIAL_NORMAL_AXES
        ),
    }
    network = D3Network(vae, unets, specs, prompts).eval().requires_grad_(False)
    return network.to("meta") if weights is None else network

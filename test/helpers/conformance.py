"""Numbers that the official D³-Predictor code computed, and the networks they belong to.

test/data/conformance holds the numbers. The official code was run in float32 with Stable Diffusion
2.1's networks and weights that follow from the parameters' names, so that no weights are needed.
"""

from __future__ import annotations

import math
import zlib

import torch
from helpers.full_size_network import Weights, full_size_parts
from helpers.paths import ROOT

VECTORS = ROOT / "test" / "data" / "conformance"


@torch.no_grad()
def sd21_weights() -> Weights:
    """State dicts of Stable Diffusion 2.1's VAE and UNet, 4 GB, with the weights of the vectors.

    It takes a quarter of a minute: tests ask for the fixture of this name.
    """
    vae, unet = full_size_parts()
    return {
        part: {name: weights_of(name, value.shape) for name, value in module.named_parameters()}
        for part, module in (("vae", vae), ("unet", unet))
    }


def weights_of(name: str, shape: torch.Size) -> torch.Tensor:
    """The float32 weights of parameter `name`, drawn with the CRC-32 of its name as the seed.

    Matrices and kernels: variance 1 / fan-in. Scales (one dimension, `.weight`): 1 with a standard
    deviation of 0.1. Biases: 0 with a standard deviation of 0.02.
    """
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 1.0 + 0.1 * noise if name.endswith(".weight") else 0.02 * noise

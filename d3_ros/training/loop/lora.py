"""Low-rank adaptation of a UNet with peft: added before training, merged into it afterwards.

The merged network is a plain UNet again, so that its bundle is like any other.
"""

from __future__ import annotations

from torch import nn

from d3_ros.errors import D3Error, DataError
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.model_config import LoraConfig


def add_lora(unet: DiffusersModel, config: LoraConfig) -> None:
    """Freeze `unet` and add trainable low-rank matrices, which change nothing yet, to its layers.

    Raises:
        D3Error: peft is not installed.
        DataError: no layer of the UNet has one of the targets' names.
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
    """Add every low-rank product in `module` to its layer, and restore the plain layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            module.set_submodule(name, layer.get_base_layer())

"""Floating-point operations of a network, counted by running it: two per multiply-accumulate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from d3_ros.network.model import D3Network
from d3_ros.types import Task

STAGES = ("encode", "unet", "decode")
T = TypeVar("T")


def counted(function: Callable[[], T]) -> tuple[T, int]:
    """What `function` returns, and the floating-point operations of its products.

    Convolutions, matrix products and attention are counted, as PyTorch's counter does; what is
    elementwise (norms, activations, resizing) is not: it is bound by memory, not by arithmetic.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention_flops}) as counter:
        result = function()
    return result, counter.get_total_flops()


def flops_by_stage(
    network: D3Network, size: tuple[int, int], tasks: Iterable[Task] | None = None, batch: int = 1
) -> dict[str, int]:
    """Operations of each of `STAGES` for a batch of images of `size` (height, width), all tasks.

    Runs the network once, where it is: on the meta device that takes no memory and no time. None of
    its parameters may require gradients (PyTorch's counter trips over them).
    """
    parameter = next(network.vae.parameters())
    chosen = network.tasks if tasks is None else tuple(tasks)
    with torch.inference_mode():
        image = torch.zeros(batch, 3, *size, device=parameter.device, dtype=parameter.dtype)
        latent, encode = counted(lambda: network.encode(image))
        latents, unet = counted(lambda: network.predict_latents(latent, chosen))
        _, decode = counted(lambda: network.decode_tasks(latents))
    return dict(zip(STAGES, (encode, unet, decode), strict=True))


def _attention_flops(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **__: object
) -> int:
    return sdpa_flop_count(query, key, value)

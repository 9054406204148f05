"""Floating-point operations and memory traffic of a network, counted by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from d3_ros.network.model.d3_network import D3Network
from d3_ros.types import Task

STAGES = ("encode", "unet", "decode")
T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """What a piece of computation has to do, whatever runs it.

    `flops`: operations of convolutions, matrix products and attention, two per
    multiply-accumulate. What is elementwise (norms, activations, resizing) is not counted: it is
    bound by memory. `bytes`: inputs, weights and outputs of those same operations, each once: the
    traffic that is left when everything elementwise is fused into them.
    """

    flops: int
    bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


class _Counter(TorchDispatchMode):
    """Adds up the work of every operation that PyTorch's registry of FLOP formulas knows."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # composite operations (linear, matmul) are made of others
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
            tensors = [x for x in tree_leaves((args, kwargs, result)) if torch.is_tensor(x)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def _cpu_attention(*args: Any, out_val: Any, **_: Any) -> int:
    return sdpa_flop_count(*(tensor.shape for tensor in args[:3]))


# CPU attention has a kernel of its own, which the registry lacks.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
}


def counted(function: Callable[[], T]) -> tuple[T, Work]:
    """What `function` returns, and the work that it does."""
    with _Counter() as counter:
        result = function()
    return result, Work(counter.flops, counter.bytes)


def work_by_stage(
    network: D3Network, size: tuple[int, int], tasks: Iterable[Task] | None = None, batch: int = 1
) -> dict[str, Work]:
    """Work of each of `STAGES` for a batch of images of `size` (height, width), all tasks.

    Runs the network once, where it is: on the meta device that takes no memory and no time.
    """
    parameter = next(network.vae.parameters())
    chosen = network.tasks if tasks is None else tuple(tasks)
    with torch.inference_mode():
        image = torch.zeros(batch, 3, *size, device=parameter.device, dtype=parameter.dtype)
        latent, encode = counted(lambda: network.encode(image))
        latents, unet = counted(lambda: network.predict_latents(latent, chosen))
        _, decode = counted(lambda: network.decode_tasks(latents))
    return dict(zip(STAGES, (encode, unet, decode), strict=True))

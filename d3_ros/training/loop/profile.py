"""The cost of a training step, part by part: counted without weights, data or a GPU, and timed.

The step of one micro-batch runs once on fake tensors, which have a shape but no content. This gives
the number of floating-point operations and the bytes that are alive. On a GPU, or if the step is
small, the same step then runs with random weights and is timed.
"""

from __future__ import annotations

import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from d3_ros.network import D3Network
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.train_config import TrainConfig
from d3_ros.training.distillation.teacher import LEVELS, NoiseDraw, teacher_targets
from d3_ros.training.loading.sample import Batch
from d3_ros.training.loop.start import blank_teacher, start_from
from d3_ros.training.objectives.forward import forward_module
from d3_ros.training.objectives.student import task_rows
from d3_ros.training.objectives.task_losses import weighted_sum

STAGES = ("encode", "teacher", "forward", "backward", "optimizer")
CPU_FLOP = 1e12  # without a GPU, a larger step is counted but not timed
REPEATS = 5  # timed steps, after one that is not timed

Watch = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class StageCost:
    """One part of a micro-batch's step.

    `flop`: floating-point operations; a multiply-add is two. `peak_bytes`: the most bytes alive.
    `milliseconds`: the median, if it was timed.
    """

    name: str
    flop: int
    peak_bytes: int
    milliseconds: float | None


@dataclass(frozen=True)
class _Parts:
    config: TrainConfig
    network: D3Network
    teacher: DiffusersModel | None
    student: nn.Module
    optimizer: torch.optim.Optimizer
    batch: Batch


def profile(config: TrainConfig) -> list[StageCost]:
    """The cost of every part of a micro-batch's step, at the last stage's image size.

    Raises:
        DataError, D3Error: the start or the teacher is not there.
    """
    counted = _count(config)
    cuda = torch.cuda.is_available()
    affordable = sum(cost.flop for cost in counted) < CPU_FLOP
    if not cuda and (not affordable or config.precision == "fp16"):
        return counted
    times = _measure(config, torch.device("cuda" if cuda else "cpu"))
    return [StageCost(cost.name, cost.flop, cost.peak_bytes, times[cost.name]) for cost in counted]


def table(config: TrainConfig, costs: list[StageCost]) -> list[str]:
    """The costs as lines for a terminal, with those of a whole step."""
    lines = [
        f"one micro-batch of {config.micro_batch}:",
        f"{'stage':10} {'TFLOP':>9} {'peak GB':>9} {'ms':>9}",
    ]
    for cost in costs:
        told = "" if cost.milliseconds is None else f"{cost.milliseconds:9.1f}"
        lines.append(f"{cost.name:10} {cost.flop / 1e12:9.3f} {cost.peak_bytes / 1e9:9.2f} {told}")
    rounds = config.stages[-1].batch // config.micro_batch
    flop = sum(cost.flop for cost in costs)
    lines.append(
        f"a step of {config.stages[-1].batch} images: {flop * rounds / 1e12:.1f} TFLOP, "
        f"{max(cost.peak_bytes for cost in costs) / 1e9:.1f} GB on one device"
    )
    seconds = step_seconds(config, costs)
    if seconds is not None:
        lines.append(f"{1 / seconds:.3f} steps/s on one device, without the reading of data")
    return lines


def step_seconds(config: TrainConfig, costs: list[StageCost]) -> float | None:
    """Seconds of a whole step of the last stage, without the reading of data; None: not timed."""
    once = costs[STAGES.index("optimizer")].milliseconds
    if once is None:
        return None
    each = sum(cost.milliseconds or 0 for cost in costs) - once
    rounds = config.stages[-1].batch // config.micro_batch
    return (each * rounds + once) / 1000


def _count(config: TrainConfig) -> list[StageCost]:
    costs: list[StageCost] = []
    alive = _AliveBytes()

    @contextmanager
    def watch(name: str) -> Iterator[None]:
        alive.peak = alive.now
        with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
            yield
        costs.append(StageCost(name, counter.get_total_flops(), alive.peak, None))

    blank = _modules(config)  # outside the fake mode: building them needs contents
    with FakeTensorMode(), alive:
        _step(_parts(*blank, torch.device("cpu")), watch)
    return costs


def _measure(config: TrainConfig, device: torch.device) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in STAGES}

    @contextmanager
    def watch(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize()
        times[name].append((time.perf_counter() - began) * 1000)

    parts = _parts(*_modules(config), device)
    for _ in range(1 + REPEATS):
        _step(parts, watch)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _modules(config: TrainConfig) -> tuple[TrainConfig, D3Network, DiffusersModel | None]:
    """The settled configuration, the network and its teacher without weights."""
    start = start_from(config, blank=True)
    teacher = None
    if config.model.teacher is not None:
        teacher = blank_teacher(config.model.teacher)
    return start.config, start.network, teacher


def _parts(
    config: TrainConfig, network: D3Network, teacher: DiffusersModel | None, device: torch.device
) -> _Parts:
    _fill(network, device, torch.float32)
    if teacher is not None:
        _fill(teacher, device, config.dtype)
    with device:
        student = forward_module(config, network, teacher is not None)
    learned = [p for p in student.parameters() if p.requires_grad]
    count, (height, width) = config.micro_batch, config.size

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(count, *shape, height, width, device=device)

    batch = Batch(
        ones(3), ones(), ones() / 2, ones(3), ones(3) / 2, (None,) * count, (None,) * count
    )
    return _Parts(config, network, teacher, student, torch.optim.AdamW(learned), batch)


def _fill(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give a module without weights small random ones on `device`; fake ones in fake mode."""
    for owner in module.modules():
        for name, old in owner.named_parameters(recurse=False):
            fan_in = max(1, math.prod(old.shape[1:]))
            new = torch.randn(old.shape, dtype=dtype, device=device) / math.sqrt(fan_in)
            setattr(owner, name, nn.Parameter(new, requires_grad=old.requires_grad))
        for name, buffer in owner.named_buffers(recurse=False):
            setattr(owner, name, torch.randn(buffer.shape, dtype=dtype, device=device))


def _step(parts: _Parts, watch: Watch) -> None:
    config, network, batch = parts.config, parts.network, parts.batch
    device = batch.image.device
    autocast = (
        nullcontext() if config.precision == "fp32" else torch.autocast(device.type, config.dtype)
    )
    rows = {t: task_rows(len(batch), config.tasks.share(t)) for t in config.tasks.trained}
    prompts = {t: network.prompt_embedding(t).expand(len(r), -1, -1) for t, r in rows.items()}
    latent, targets = None, {}
    with autocast:
        with watch("encode"):
            if not config.model.train_vae:
                with torch.no_grad():
                    latent = network.encode(batch.image).float()
        with watch("teacher"):
            if latent is not None and (parts.teacher or config.objective == "diffusion"):
                for task, chosen in rows.items():
                    draw = NoiseDraw(
                        torch.ones(len(chosen), LEVELS, dtype=torch.long, device=device),
                        torch.randn(len(chosen), LEVELS, *latent.shape[1:], device=device),
                    )
                    targets[task] = teacher_targets(
                        parts.teacher, latent[chosen], draw, prompts[task]
                    )
        with watch("forward"):
            raw = parts.student(batch, latent, prompts, targets)
            total = weighted_sum(raw, config.losses)
    del targets, raw
    with watch("backward"):
        total.backward()
    with watch("optimizer"):
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)


class _AliveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that were created inside it and are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._see, output)
        return output

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# Fake tensors use the CPU's fused attention, which PyTorch's counter does not know.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}

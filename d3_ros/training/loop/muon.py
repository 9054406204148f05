"""Muon: an optimiser that makes the momentum of weight matrices orthogonal.

Source: K. Jordan, https://kellerjordan.github.io/posts/muon. The step size, which suits AdamW's
learning rates, is that of arXiv 2502.16982. PyTorch's own `torch.optim.Muon` takes no convolutions,
but a UNet has little else. Here a convolution is a matrix of output channels by all other axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.optimizer import ParamsT

from d3_ros.training.config.train_config import OptimizerConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic polynomial
ITERATIONS = 5
STEP_RMS = 0.2  # root mean square of an update at learning rate 1, about AdamW's
OUTER = ("conv_in", "conv_out", "time_emb", "attn2.to_k", "attn2.to_v")  # of a UNet: AdamW


class Muon(torch.optim.AdamW):
    """Muon for parameter groups with `matrices=True`, AdamW for the others.

    Args:
        params: parameter groups. Tensors in groups of matrices have at least two dimensions.
        momentum: Nesterov momentum of the matrices' gradients.
        options: AdamW's. Learning rate and weight decay are used for the matrices, too.
    """

    def __init__(self, params: ParamsT, momentum: float = 0.95, **options: object) -> None:
        super().__init__(params, **options)  # type: ignore[arg-type]
        for group in self.param_groups:
            group.setdefault("matrices", False)
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all groups."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["matrices"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        overflowed = getattr(self, "found_inf", None)  # set by the loss scaler of fp16
        if overflowed is not None and bool(overflowed):
            return loss
        for group in groups:
            if group["matrices"]:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict) -> None:
        rate, momentum = group["lr"], group["momentum"]
        weights = [weight for weight in group["params"] if weight.grad is not None]
        updates = shared_orthogonal([self._ahead(weight, momentum) for weight in weights])
        for weight, update in zip(weights, updates, strict=True):
            size = STEP_RMS * max(update.shape) ** 0.5
            shape = (weight.shape[0], *weight.shape[2:], weight.shape[1])
            weight.mul_(1 - rate * group["weight_decay"])
            weight.add_(update.view(shape).movedim(-1, 1), alpha=-rate * size)

    def _ahead(self, weight: torch.Tensor, momentum: float) -> torch.Tensor:
        """The gradient with its Nesterov momentum, as a matrix with channels last, as in memory."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for it in a loaded state
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(state["momentum"], momentum).movedim(1, -1).flatten(1)


def shared_orthogonal(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """`orthogonal` of each matrix. In distributed training each process computes a part of them.

    On a CPU, computing all of them in every process would take a sixth of a step of d3_nano.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if matrices and matrices[0].device.type != "cpu":
            return orthogonal_by_shape(matrices)
        return [orthogonal(matrix) for matrix in matrices]
    owners = _owners(matrices, dist.get_world_size())
    parts = [
        orthogonal(matrix).flatten()
        for matrix, owner in zip(matrices, owners, strict=True)
        if owner == dist.get_rank()
    ]
    lengths = [0] * dist.get_world_size()
    for matrix, owner in zip(matrices, owners, strict=True):
        lengths[owner] += matrix.numel()
    kind = torch.bfloat16 if has_bfloat16(matrices[0].device) else torch.float32
    own = matrices[0].new_zeros(max(lengths), dtype=kind)
    if parts:
        own[: lengths[dist.get_rank()]] = torch.cat(parts)
    everyones = [torch.empty_like(own) for _ in lengths]
    dist.all_gather(everyones, own)
    places = [0] * len(lengths)
    answers = []
    for matrix, owner in zip(matrices, owners, strict=True):
        start = places[owner]
        places[owner] += matrix.numel()
        answers.append(everyones[owner][start : places[owner]].view(matrix.shape))
    return answers


def orthogonal_by_shape(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """`orthogonal` of each matrix, all of one shape at once: single small ones leave a GPU idle."""
    answers: list[torch.Tensor] = list(matrices)
    for shape in {matrix.shape for matrix in matrices}:
        places = [i for i, matrix in enumerate(matrices) if matrix.shape == shape]
        together = orthogonal(torch.stack([matrices[i] for i in places]))
        for i, answer in zip(places, together, strict=True):
            answers[i] = answer
    return answers


def _owners(matrices: Sequence[torch.Tensor], processes: int) -> list[int]:
    """The process that computes each matrix: largest first, each to the least loaded process."""
    work = [min(matrix.shape) * matrix.numel() for matrix in matrices]
    load, owners = [0] * processes, [0] * len(matrices)
    for index in sorted(range(len(matrices)), key=lambda i: -work[i]):
        owners[index] = load.index(min(load))
        load[owners[index]] += work[index]
    return owners


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest semi-orthogonal matrix to an (m, n) matrix, or to each of (k, m, n).

    The result is bfloat16. On a CPU without instructions for bfloat16 it is float32, which takes a
    tenth of the time there.

    Singular values are 0.7 to 1.2 instead of 1, since the quintic Newton-Schulz iteration ends
    early. Only the direction of the update matters.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16 if has_bfloat16(matrix.device) else torch.float32)
    is_wide = x.shape[-2] <= x.shape[-1]
    wide = x if is_wide else x.mT
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    fused = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = fused(wide, fused(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if is_wide else wide.mT


@lru_cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices itself: a GPU, or a CPU that can."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def new_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser `config.kind` for the trained parameters of the model.

    With "muon", the UNets' inner weights get Muon and all others AdamW: a UNet's first and last
    layers, layers that see only timesteps or prompts (their gradients have few dimensions, and Muon
    would amplify the rounding errors in the others), the VAE, the adapters, and all vectors.

    Each parameter group has a `factor`, by which its learning rate is multiplied: `vae_rate` for
    the VAE's weights.
    """
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": config.betas,
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    by_kind: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, weight in learned:
        matrices = config.kind == "muon" and _inner(name, weight)
        factor = config.vae_rate if ".vae." in name else 1.0
        by_kind.setdefault((matrices, factor), []).append(weight)
    groups = [
        {"params": weights, "matrices": matrices, "factor": factor}
        for (matrices, factor), weights in sorted(by_kind.items(), reverse=True, key=_kind)
    ]
    return (Muon if config.kind == "muon" else torch.optim.AdamW)(groups, **options)


def _kind(entry: tuple[tuple[bool, float], list[nn.Parameter]]) -> tuple[bool, float]:
    return entry[0]


def _inner(name: str, weight: nn.Parameter) -> bool:
    return "unets." in name and weight.ndim >= 2 and not any(part in name for part in OUTER)

"""Muon: momentum made orthogonal, for the weights that are matrices.

Source: K. Jordan, https://kellerjordan.github.io/posts/muon; the size of a step that fits AdamW's
learning rates is that of arXiv 2502.16982. PyTorch's own `torch.optim.Muon` takes no convolutions,
which are almost all of a UNet; here they are matrices of output channels by everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.optimizer import ParamsT

from d3_ros.training.config.train_config import OptimizerConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, Jordan's
ITERATIONS = 5
STEP_RMS = 0.2  # of an update per learning rate, about AdamW's
OUTER = ("conv_in", "conv_out", "time_emb", "attn2.to_k", "attn2.to_v")  # AdamW's, in a UNet


class Muon(torch.optim.AdamW):
    """Muon for parameter groups with `matrices=True`, AdamW for the others.

    Args:
        params: parameter groups; those of matrices have tensors of two dimensions and more.
        momentum: of the matrices' gradients (Nesterov's).
        options: AdamW's; learning rate and weight decay hold for both.
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
        """The gradient with its momentum, as a matrix; channels last, as the weights lie."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # which AdamW looks for in a loaded state
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(state["momentum"], momentum).movedim(1, -1).flatten(1)


def shared_orthogonal(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """`orthogonal` of each; processes that train together compute a part each and exchange them.

    A sixth of a step of d3_nano on a CPU, if every process did all of it.
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
    own = matrices[0].new_zeros(max(lengths), dtype=torch.bfloat16)
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
    """`orthogonal` of each, those of one shape at once: small ones leave a GPU waiting."""
    answers: list[torch.Tensor] = list(matrices)
    for shape in {matrix.shape for matrix in matrices}:
        places = [i for i, matrix in enumerate(matrices) if matrix.shape == shape]
        together = orthogonal(torch.stack([matrices[i] for i in places]))
        for i, answer in zip(places, together, strict=True):
            answers[i] = answer
    return answers


def _owners(matrices: Sequence[torch.Tensor], processes: int) -> list[int]:
    """Which process computes which matrix: the largest first, each by whoever has least to do."""
    work = [min(matrix.shape) * matrix.numel() for matrix in matrices]
    load, owners = [0] * processes, [0] * len(matrices)
    for index in sorted(range(len(matrices)), key=lambda i: -work[i]):
        owners[index] = load.index(min(load))
        load[owners[index]] += work[index]
    return owners


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """(m, n) or (k, m, n) bfloat16, about the nearest semi-orthogonal matrices.

    Their singular values are 0.7 to 1.2: a Newton-Schulz iteration, quintic and not to its end; it
    is the direction that matters.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16)
    is_wide = x.shape[-2] <= x.shape[-1]
    wide = x if is_wide else x.mT
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    fused = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = fused(wide, fused(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if is_wide else wide.mT


def new_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of what is to learn in the model, by `config.kind`.

    Muon gets the UNets' inner weights. What enters and leaves a UNet, what sees only timesteps and
    prompts (gradients of few dimensions, whose rounding errors it would blow up), the VAE's few
    channels, the adapters and everything of one dimension are AdamW's.
    """
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": config.betas,
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    if config.kind == "adamw":
        return torch.optim.AdamW([p for _, p in learned], **options)
    inner = [p for name, p in learned if _inner(name, p)]
    rest = [p for name, p in learned if not _inner(name, p)]
    groups = [{"params": inner, "matrices": True}, {"params": rest, "matrices": False}]
    return Muon([group for group in groups if group["params"]], **options)


def _inner(name: str, weight: nn.Parameter) -> bool:
    return "unets." in name and weight.ndim >= 2 and not any(part in name for part in OUTER)

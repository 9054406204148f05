"""What each optimisation saves, counted on networks without storage: exact, and on any machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from d3_ros.bench.network.architectures import Architecture, random_network
from d3_ros.bench.network.flops import work_by_stage
from d3_ros.network.inference.specialise import EXACT, OPTIMISATIONS, specialise
from d3_ros.types import Task

META = torch.device("meta")


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one frame, stage by stage, after one change or several."""

    change: str
    encode: int
    unet: int
    decode: int

    @property
    def total(self) -> int:
        """Of the whole frame."""
        return self.encode + self.unet + self.decode


def count_operations(
    architecture: Architecture, size: tuple[int, int], tasks: tuple[Task, ...]
) -> Iterator[Operations]:
    """The official way, ours without and with each optimisation, with all, and with the codec."""
    plain = _count(architecture, size, tasks, "plain: one encode for all tasks", None)
    processes = len(tasks)  # each with an encode of its own
    yield Operations(
        "official: a process per task", plain.encode * processes, plain.unet, plain.decode
    )
    yield plain
    for name in OPTIMISATIONS:
        yield _count(architecture, size, tasks, f"plain + {name}", (name,))
    yield _count(architecture, size, tasks, "exact: all but depth_channel", EXACT)
    yield _count(architecture, size, tasks, "fast: exact, tiny codec", EXACT, codec=True)


def _count(
    architecture: Architecture,
    size: tuple[int, int],
    tasks: tuple[Task, ...],
    change: str,
    optimisations: Collection[str] | None,
    codec: bool = False,
) -> Operations:
    network = random_network(architecture, tasks, META, torch.float16, codec)
    if optimisations is not None:
        network = specialise(network, optimisations)
    work = work_by_stage(network, size, tasks)
    return Operations(change, work["encode"].flops, work["unet"].flops, work["decode"].flops)

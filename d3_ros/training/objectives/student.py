"""The network as it learns: one forward pass from images to losses, which DDP can wrap."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from d3_ros.network import D3Network
from d3_ros.training.config.model_config import AdapterConfig
from d3_ros.training.config.train_config import LossConfig, TaskShares
from d3_ros.training.distillation.adapters import FeatureAdapters
from d3_ros.training.distillation.features import feature_channels, tapped
from d3_ros.training.distillation.teacher import LEVELS, NoiseDraw
from d3_ros.training.loading.sample import Batch
from d3_ros.training.objectives.task_losses import alignment_loss, task_losses
from d3_ros.types import Task


@dataclass(frozen=True)
class TeacherTargets:
    """What the teacher shows for one task: its `features` (B · LEVELS, C, h, w) by name at the
    draw's timesteps."""

    features: Mapping[str, torch.Tensor]
    draw: NoiseDraw


class Student(nn.Module):
    """A D3Network and, where there is a teacher, an adapter for every feature.

    Args:
        network: what is trained.
        shares: which tasks, on what share of the images.
        losses: the unit of depth.
        adapters: their sizes; None without a teacher.
    """

    def __init__(
        self,
        network: D3Network,
        shares: TaskShares,
        losses: LossConfig,
        adapters: AdapterConfig | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.shares = shares
        self.losses = losses
        self.adapters = nn.ModuleDict()
        if adapters is not None:
            for task in shares.trained:
                unet = network.unets[network.specs[task].unet]
                self.adapters[task] = FeatureAdapters(feature_channels(unet), adapters)

    def forward(
        self,
        batch: Batch,
        latent: torch.Tensor | None,
        prompts: Mapping[Task, torch.Tensor],
        lessons: Mapping[Task, TeacherTargets],
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch by TASK.LOSS, unweighted, each the mean over the task's images.

        Args:
            batch: images and labels.
            latent: (B, c, h, w) of the images where the VAE does not learn; None: encode here.
            prompts: (n, L, C) embeddings for the images of each task, by task.
            lessons: the teacher's part for the images of each task (`task_rows`), by task.
        """
        network = self.network
        if latent is None:
            latent = network.encode(batch.image.contiguous(memory_format=torch.channels_last))
        rows = {t: task_rows(len(batch), self.shares.share(t)) for t in self.shares.trained}
        raw: dict[str, torch.Tensor] = {}
        for unet_name, tasks in self._by_unet().items():
            # As D3Network.predict_latent does, with prompts that may differ by image; tasks that
            # share a UNet go through it together, which costs less than one after the other.
            unet = network.unets[unet_name]
            features: dict[str, torch.Tensor] = {}
            with tapped(unet, features) if lessons else nullcontext():
                answers = unet(
                    torch.cat([latent[rows[t]] for t in tasks]),
                    torch.cat([network.timesteps[t].expand(len(rows[t])) for t in tasks]),
                    torch.cat([prompts[t] for t in tasks]),
                    return_dict=False,
                )[0]
            counts = [len(rows[t]) for t in tasks]
            parts = {name: feature.split(counts) for name, feature in features.items()}
            for number, (task, answer) in enumerate(zip(tasks, answers.split(counts), strict=True)):
                seen = {name: split[number] for name, split in parts.items()}
                values = self._task_losses(task, answer, batch.rows(rows[task]))
                if task in lessons:
                    values["alignment"] = self._alignment(task, seen, lessons[task])
                raw |= {f"{task}.{name}": value.mean() for name, value in values.items()}
        return raw

    def _by_unet(self) -> dict[str, list[Task]]:
        """The trained tasks by the name of their UNet."""
        by_unet: dict[str, list[Task]] = {}
        for task in self.shares.trained:
            by_unet.setdefault(self.network.specs[task].unet, []).append(task)
        return by_unet

    def _task_losses(
        self, task: Task, answer: torch.Tensor, batch: Batch
    ) -> dict[str, torch.Tensor]:
        decoded = self.network.decode_task(answer, task)
        axes = self.network.specs[task].axes
        return task_losses(task, decoded, batch, axes, self.losses.depth_unit)

    def _alignment(
        self, task: Task, features: Mapping[str, torch.Tensor], lesson: TeacherTargets
    ) -> torch.Tensor:
        repeated = {k: f.repeat_interleave(LEVELS, dim=0) for k, f in features.items()}
        timesteps = lesson.draw.timesteps.flatten().to(next(iter(repeated.values())).device)
        return alignment_loss(self.adapters[task](repeated, timesteps), lesson.features)


def task_rows(count: int, share: float) -> list[int]:
    """The images, of `count`, that a task with this share learns on: spread evenly."""
    return [i for i in range(count) if int((i + 1) * share + 1e-9) > int(i * share + 1e-9)]

"""The D³ objective: one forward pass from images to losses, a module that DDP can wrap."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import nn

from d3_ros.network import D3Network
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.config.model_config import AdapterConfig
from d3_ros.training.config.train_config import LossConfig, TaskShares
from d3_ros.training.distillation.adapters import FeatureAdapters
from d3_ros.training.distillation.features import feature_channels, tapped
from d3_ros.training.distillation.teacher import LEVELS, TeacherTargets
from d3_ros.training.loading.sample import Batch
from d3_ros.training.objectives.task_losses import alignment_loss, task_losses
from d3_ros.types import Task


class Student(nn.Module):
    """The network under training and, with a teacher, an adapter for every feature.

    Args:
        network: the network that is trained.
        shares: the share of the images that each task is trained on.
        losses: their `depth_unit` is used.
        adapters: sizes of the adapters; None without a teacher.
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
        targets: Mapping[Task, TeacherTargets],
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch by TASK.LOSS, unweighted, each the mean over the task's images.

        Args:
            batch: images and labels.
            latent: (B, c, h, w) of the images. None if the VAE is trained: encode here.
            prompts: for each task, (n, L, C) embeddings for its images (`task_rows`).
            targets: for each task, the teacher's targets for its images; empty without a teacher.
        """
        network = self.network
        if latent is None:
            latent = network.encode(batch.image.contiguous(memory_format=torch.channels_last))
        own, features = network.split_features(latent)
        rows = {t: task_rows(len(batch), self.shares.share(t)) for t in self.shares.trained}
        raw: dict[str, torch.Tensor] = {}
        for unet_name, tasks in self._by_unet().items():
            # As D3Network.predict_latent, but each image may have its own prompt. Tasks that share
            # a UNet go through it in one pass, which costs less than one pass each.
            unet = network.unets[unet_name]
            tapped_features: dict[str, torch.Tensor] = {}
            learns = any(weight.requires_grad for weight in unet.parameters())
            tap = tapped(unet, tapped_features) if targets else nullcontext()
            with tap, torch.set_grad_enabled(learns and torch.is_grad_enabled()):
                answers = unet(
                    torch.cat([own[rows[t]] for t in tasks]),
                    torch.cat([network.timesteps[t].expand(len(rows[t])) for t in tasks]),
                    torch.cat([prompts[t] for t in tasks]),
                    return_dict=False,
                )[0]
            counts = [len(rows[t]) for t in tasks]
            parts = {name: feature.split(counts) for name, feature in tapped_features.items()}
            for number, (task, answer) in enumerate(zip(tasks, answers.split(counts), strict=True)):
                seen = {name: split[number] for name, split in parts.items()}
                answer = network.join_features(answer, features[rows[task]])
                values = self._task_losses(task, answer, batch.rows(rows[task]))
                if task in targets:
                    values["alignment"] = self._alignment(task, seen, targets[task])
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
        axes, unit = self.network.specs[task].axes, self.losses.depth_unit
        vae = self.network.vae
        if isinstance(vae, TinyCodec):
            decoded, mixture = vae.decode_with_mixture(answer, task)
            return task_losses(task, decoded, batch, axes, unit, mixture)
        return task_losses(task, self.network.decode_task(answer, task), batch, axes, unit)

    def _alignment(
        self, task: Task, features: Mapping[str, torch.Tensor], targets: TeacherTargets
    ) -> torch.Tensor:
        repeated = {k: f.repeat_interleave(LEVELS, dim=0) for k, f in features.items()}
        timesteps = targets.draw.timesteps.flatten().to(next(iter(repeated.values())).device)
        return alignment_loss(self.adapters[task](repeated, timesteps), targets.features)


def task_rows(count: int, share: float) -> list[int]:
    """Indices of a task's images in a batch of `count`: the `share` (0 to 1), evenly spread."""
    return [i for i in range(count) if int((i + 1) * share + 1e-9) > int(i * share + 1e-9)]

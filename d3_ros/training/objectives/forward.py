"""The forward module of each objective, and its inputs: prompts, noise and teacher targets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from d3_ros.network import D3Network
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.train_config import TaskShares, TrainConfig
from d3_ros.training.distillation.teacher import (
    TeacherTargets,
    draw_noise,
    noised_at,
    teacher_targets,
)
from d3_ros.training.loading.batches import noise_generator
from d3_ros.training.loading.sample import Batch
from d3_ros.training.objectives.pretraining import Autoencoder, DiffusionPrior
from d3_ros.training.objectives.prompts import Prompts
from d3_ros.training.objectives.student import Student, task_rows
from d3_ros.types import Task


def forward_module(config: TrainConfig, network: D3Network, has_teacher: bool) -> nn.Module:
    """The module from a batch to losses that the configuration's objective trains.

    All of them are called as `module(batch, latent, prompts, targets)`; see `Student.forward`.
    """
    if config.objective == "autoencoder":
        return Autoencoder(network)
    if config.objective == "diffusion":
        return DiffusionPrior(network, config.tasks)
    adapters = config.model.adapters if has_teacher else None
    return Student(network, config.tasks, config.losses, adapters)


def task_prompts(prompts: Prompts, shares: TaskShares, batch: Batch) -> dict[Task, torch.Tensor]:
    """For each task, the prompt embeddings (n, L, C) of the images that it is trained on."""
    embedded = {}
    for task in shares.trained:
        rows = task_rows(len(batch), shares.share(task))
        captions = [batch.captions[row] for row in rows]
        embedded[task] = prompts.embed(task, captions, batch.image)
    return embedded


def task_targets(
    teacher: DiffusersModel | None,
    config: TrainConfig,
    latent: torch.Tensor,
    prompts: Mapping[Task, torch.Tensor],
    images: range,
) -> dict[Task, TeacherTargets]:
    """For each task, the teacher's targets on the images that it is trained on.

    They are empty if the objective needs neither a teacher nor noise.

    Args:
        teacher: the frozen UNet. Without it the targets have noise but no features.
        config: the objective, the tasks' shares and the seed of the noise.
        latent: (B, c, h, w) clean latents of the batch.
        prompts: of `task_prompts`.
        images: the numbers of the batch's images in the run; the noise follows from them.
    """
    if teacher is None and config.objective != "diffusion":
        return {}
    targets = {}
    for task, prompt in prompts.items():
        rows = task_rows(len(images), config.tasks.share(task))
        generators = [noise_generator(config.seed, images[row]) for row in rows]
        draw = draw_noise(latent.shape[1:], generators)
        targets[task] = teacher_targets(teacher, latent[rows], draw, prompt)
    return targets


def noised_input(latent: torch.Tensor, config: TrainConfig, images: range) -> torch.Tensor:
    """(B, c, h, w) latents under the noise of `model.input_noise`; clean ones if that is None.

    This is for ablations only: D³-Predictor's input has no noise. `images` are the numbers of the
    images in the run.
    """
    timestep = config.model.input_noise
    if timestep is None:
        return latent
    # The seed differs from that of the teacher's noise.
    generators = [noise_generator(config.seed + 1, number) for number in images]
    noise = torch.stack([torch.randn(latent.shape[1:], generator=g) for g in generators])
    return noised_at(latent, noise, torch.full((len(latent),), timestep))

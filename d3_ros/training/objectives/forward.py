"""What a micro-batch is learned by, under each objective: the learner, prompts, noise, lessons."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from d3_ros.network import D3Network
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.train_config import TaskShares, TrainConfig
from d3_ros.training.distillation.teacher import NoiseDraw, draw_noise, noised_at, teacher_features
from d3_ros.training.loading.batches import noise_generator
from d3_ros.training.loading.sample import Batch, SampleSource
from d3_ros.training.loop.validation import validate
from d3_ros.training.objectives.pretraining import (
    Autoencoder,
    DiffusionPrior,
    validate_autoencoder,
    validate_prior,
)
from d3_ros.training.objectives.prompts import Prompts
from d3_ros.training.objectives.student import Student, TeacherTargets, task_rows
from d3_ros.types import Task


def learner(config: TrainConfig, network: D3Network, has_teacher: bool) -> nn.Module:
    """The forward pass, from images to losses, of the configuration's objective."""
    if config.objective == "autoencoder":
        return Autoencoder(network)
    if config.objective == "diffusion":
        return DiffusionPrior(network, config.tasks)
    adapters = config.model.adapters if has_teacher else None
    return Student(network, config.tasks, config.losses, adapters)


def embed(prompts: Prompts, shares: TaskShares, batch: Batch) -> dict[Task, torch.Tensor]:
    """The prompts of the images that each task learns on."""
    embedded = {}
    for task in shares.trained:
        rows = task_rows(len(batch), shares.share(task))
        captions = [batch.captions[row] for row in rows]
        embedded[task] = prompts.embed(task, captions, batch.image)
    return embedded


def teach(
    teacher: DiffusersModel | None,
    config: TrainConfig,
    latent: torch.Tensor,
    prompts: Mapping[Task, torch.Tensor],
    images: range,
) -> dict[Task, TeacherTargets]:
    """Noise, and what the teacher says to it, by task, for the latents of these images' numbers.

    Without a teacher there is only the noise.
    """
    lessons: dict[Task, TeacherTargets] = {}
    for task, prompt in prompts.items():
        rows = task_rows(len(images), config.tasks.share(task))
        generators = [noise_generator(config.seed, images[row]) for row in rows]
        draw = draw_noise(latent.shape[1:], generators)
        lessons[task] = lesson(teacher, latent[rows], prompt, draw)
    return lessons


def lesson(
    teacher: DiffusersModel | None, latent: torch.Tensor, prompt: torch.Tensor, draw: NoiseDraw
) -> TeacherTargets:
    """The lesson of one draw of noise on its latents."""
    features = {}
    if teacher is not None:
        features = teacher_features(teacher, latent, draw, prompt)
    return TeacherTargets(features, draw)


def noised_input(latent: torch.Tensor, config: TrainConfig, images: range) -> torch.Tensor:
    """The latents of these images' numbers under the noise of `model.input_noise`.

    For the ablation only: what D³-Predictor is about is that it needs none.
    """
    timestep = config.model.input_noise
    assert timestep is not None
    # Another stream than the teacher's noise.
    generators = [noise_generator(config.seed + 1, number) for number in images]
    noise = torch.stack([torch.randn(latent.shape[1:], generator=g) for g in generators])
    return noised_at(latent, noise, torch.full((len(latent),), timestep))


def scored(
    config: TrainConfig, network: D3Network, source: SampleSource, device: torch.device
) -> dict[str, float]:
    """Scores on a test split, of the configuration's objective; empty where there is none."""
    if config.objective == "autoencoder":
        return validate_autoencoder(network, source, device)
    if config.objective == "diffusion":
        return validate_prior(network, source, config.seed, device)
    tasks = config.tasks.trained

    def answer(image: torch.Tensor, index: int) -> dict[Task, torch.Tensor]:
        latent = network.encode(image)
        if config.model.input_noise is not None:
            latent = noised_input(latent, config, range(index, index + 1))
        return network.decode_tasks(network.predict_latents(latent, tasks))

    return validate(network, source, tasks, device, answer)

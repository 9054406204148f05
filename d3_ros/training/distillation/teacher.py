"""The frozen teacher: Stable Diffusion's own UNet, which sees noised latents of the same image.

The student sees the clean latent. Its features are pulled towards the teacher's features at three
noise levels at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler

from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.distillation.features import tapped

LEVELS = 3  # noise levels per image, one from each third of the timesteps
FIRST_TIMESTEP, LAST_TIMESTEP = 1, 999
# Stable Diffusion's noise: the square root of beta grows linearly.
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@dataclass(frozen=True)
class NoiseDraw:
    """The teacher's `timesteps` (B, LEVELS), integers, and `noise` (B, LEVELS, c, h, w)."""

    timesteps: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True)
class TeacherTargets:
    """The teacher's `features` (B · LEVELS, C, h, w) by name under one draw of noise.

    Without a teacher `features` is empty.
    """

    features: Mapping[str, torch.Tensor]
    draw: NoiseDraw


def draw_noise(shape: torch.Size, generators: list[torch.Generator]) -> NoiseDraw:
    """A draw for latents of `shape` (c, h, w), one image per generator (on the CPU).

    Timesteps are uniform integers, one from each third of [1, 999).
    """
    third = (LAST_TIMESTEP - FIRST_TIMESTEP) / LEVELS
    starts = FIRST_TIMESTEP + third * torch.arange(LEVELS)
    draws = [
        (
            (starts + third * torch.rand(LEVELS, generator=generator)).long(),
            torch.randn(LEVELS, *shape, generator=generator),
        )
        for generator in generators
    ]
    timesteps, noise = zip(*draws, strict=True)
    return NoiseDraw(torch.stack(timesteps), torch.stack(noise))


def noised(latent: torch.Tensor, draw: NoiseDraw) -> torch.Tensor:
    """(B, c, h, w) clean latents -> (B · LEVELS, c, h, w), each at its levels of noise."""
    repeated = latent.repeat_interleave(LEVELS, dim=0)
    return noised_at(repeated, draw.noise.flatten(0, 1), draw.timesteps.flatten())


def noised_at(latent: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """(N, c, h, w) latents under `noise` (N, c, h, w), as strong as at `timesteps` (N,)."""
    schedule: DiffusersModel = DDPMScheduler(num_train_timesteps=1000, **NOISE)
    return schedule.add_noise(latent, noise.to(latent), timesteps.to(latent.device))


@torch.no_grad()
def teacher_features(
    teacher: DiffusersModel, latent: torch.Tensor, draw: NoiseDraw, prompt: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The teacher's features, (B · LEVELS, C, h, w) by name.

    Args:
        teacher: the frozen UNet.
        latent: (B, c, h, w) clean, scaled image latents.
        draw: timesteps and noise of these images.
        prompt: (B, L, C) embeddings; the student has the same.
    """
    features: dict[str, torch.Tensor] = {}
    with tapped(teacher, features):
        teacher(
            noised(latent, draw),
            draw.timesteps.flatten().to(latent.device),
            prompt.repeat_interleave(LEVELS, dim=0),
            return_dict=False,
        )
    return features


def teacher_targets(
    teacher: DiffusersModel | None, latent: torch.Tensor, draw: NoiseDraw, prompt: torch.Tensor
) -> TeacherTargets:
    """The targets of one draw; arguments as `teacher_features`. No teacher: the draw alone."""
    features = {} if teacher is None else teacher_features(teacher, latent, draw, prompt)
    return TeacherTargets(features, draw)

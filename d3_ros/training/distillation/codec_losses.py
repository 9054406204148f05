"""The targets, losses and scores of a small codec that is distilled from a bundle's VAE.

The bundle itself gives the targets. The small encoder learns the VAE's latent of an image. Each
task's small decoder learns the VAE's decoding of the task's latent. Its input is the true latent,
or the UNet's answer to the small encoder's latent, which is what it sees at inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from d3_ros.network import D3Network
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.types import Task


@dataclass(frozen=True)
class CodecTargets:
    """The bundle's answers for a batch.

    latent: (B, c, h/f, w/f), the VAE's latents of the images.
    latents: by task, of the same shape, the UNet's answers.
    pictures: by task, (B, 1 or 3, h, w), those answers decoded and clipped to [-1, 1]. Of depth the
        mean over the channels.
    """

    latent: torch.Tensor
    latents: Mapping[Task, torch.Tensor]
    pictures: Mapping[Task, torch.Tensor]


@torch.no_grad()
def codec_targets(teacher: D3Network, images: torch.Tensor) -> CodecTargets:
    """The bundle's answers for (B, 3, h, w) images in [-1, 1]."""
    latent = teacher.encode(images)
    latents = teacher.predict_latents(latent, teacher.tasks)
    pictures = {
        task: decoded.clamp(-1, 1).mean(dim=1, keepdim=True)
        if task == "depth"
        else decoded.clamp(-1, 1)
        for task, decoded in teacher.decode_tasks(latents).items()
    }
    own = {task: teacher.split_features(answer)[0] for task, answer in latents.items()}
    return CodecTargets(teacher.split_features(latent)[0], own, pictures)


def codec_losses(
    codec: TinyCodec,
    teacher: D3Network,
    images: torch.Tensor,
    targets: CodecTargets,
    from_student: torch.Tensor,
    through_unet: bool,
) -> dict[str, torch.Tensor]:
    """The losses by name, unweighted. Latents are compared in units of their own deviation.

    `from_student` (B,) bool: True for images whose decoders see the UNet's answer to the small
    encoder's latent instead of the true latent. With `through_unet` the encoder also learns from
    that answer.
    """
    encoded = codec.encode(images)
    losses = {"latent": _normalised_mse(codec, "image", encoded, targets.latent)}
    with torch.set_grad_enabled(through_unet and torch.is_grad_enabled()):
        predicted = teacher.predict_latents(encoded, teacher.tasks)
    tasks = teacher.tasks
    if through_unet:
        losses["unet"] = torch.stack(
            [_normalised_mse(codec, t, predicted[t], targets.latents[t]) for t in tasks]
        ).mean()
    pixels, edges = [], []
    for task in tasks:
        chosen = from_student[:, None, None, None]
        seen = torch.where(chosen, predicted[task].detach(), targets.latents[task])
        error = codec.decode(seen, task) - targets.pictures[task]
        pixels.append(error.abs().mean())
        across, down = error[..., 2:] - error[..., :-2], error[..., 2:, :] - error[..., :-2, :]
        edges.append(across.abs().mean() + down.abs().mean())
    return {**losses, "pixels": torch.stack(pixels).mean(), "edges": torch.stack(edges).mean()}


@torch.no_grad()
def distance_to_vae(
    teacher: D3Network, codec: TinyCodec, images: Sequence[torch.Tensor]
) -> dict[str, float]:
    """The mean distance of the codec's answers from the VAE's on (3, h, w) images in [-1, 1].

    `depth_mean_abs` is in relative depth (0 to 1), `normals_mean_deg` in degrees. `latent_nmse` is
    the squared error of the image's latent divided by its variance.
    """
    device = next(codec.parameters()).device
    rows = []
    for image in images:
        image = image.to(device)[None]
        targets = codec_targets(teacher, image)
        encoded = codec.encode(image)
        predicted = teacher.predict_latents(encoded, teacher.tasks)
        row = {"latent_nmse": float(_normalised_mse(codec, "image", encoded, targets.latent))}
        for task, latent in predicted.items():
            ours, theirs = codec.decode(latent, task).clamp(-1, 1), targets.pictures[task]
            if task == "depth":
                row["depth_mean_abs"] = float((ours - theirs).abs().mean()) / 2
            else:
                cosine = F.cosine_similarity(ours, theirs, dim=1).clamp(-1, 1)
                row["normals_mean_deg"] = float(torch.rad2deg(torch.arccos(cosine)).mean())
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _normalised_mse(
    codec: TinyCodec, name: str, actual: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    _, deviation = codec.statistics(name)
    return ((actual - wanted) / deviation).square().mean()

"""The targets, losses and scores of a small codec that is distilled from a bundle's VAE.

The bundle itself gives the targets. The small encoder learns the VAE's latent of an image. Each
task's small decoder learns the VAE's decoding of the task's latent. Its input is the true latent,
or the UNet's answer to the small encoder's latent, which is what it sees at inference.

Where the images have labels, the decoders also learn from these. So a decoder with skips can give
edges that the VAE's decoding does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from d3_ros.network import D3Network
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.config.train_config import DepthUnit
from d3_ros.training.loading.sample import Batch
from d3_ros.training.objectives.losses import laplace_mixture
from d3_ros.training.objectives.task_losses import task_losses
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
    labels: Batch | None = None,
    depth_unit: DepthUnit = "pixel",
) -> dict[str, torch.Tensor]:
    """The losses by name, unweighted. Latents are compared in units of their own deviation.

    No loss of a decoder reaches the UNet or the encoder. Skips learn from the decoders' losses.

    Args:
        codec: is trained.
        teacher: the frozen bundle.
        images: (B, 3, h, w) in [-1, 1].
        targets: `codec_targets` of the images.
        from_student: (B,) bool, True for images whose decoders see the UNet's answer to the small
            encoder's latent instead of the true latent.
        through_unet: the encoder also learns from that answer.
        labels: the batch of these images. Its losses (see `task_losses`) are named TASK.LOSS.
        depth_unit: of the labels' depth losses.
    """
    encoded, features = teacher.split_features(codec.encode(images))
    losses = {"latent": _normalised_mse(codec, "image", encoded, targets.latent)}
    with torch.set_grad_enabled(through_unet and torch.is_grad_enabled()):
        predicted = teacher.predict_latents(encoded, teacher.tasks)
    tasks = teacher.tasks
    if through_unet:
        losses["unet"] = torch.stack(
            [_normalised_mse(codec, t, predicted[t], targets.latents[t]) for t in tasks]
        ).mean()
    pixels, edges = [], []
    of_labels: dict[str, torch.Tensor] = {}
    for task in tasks:
        chosen = from_student[:, None, None, None]
        seen = torch.where(chosen, predicted[task].detach(), targets.latents[task])
        decoded, mixture = codec.decode_with_mixture(teacher.join_features(seen, features), task)
        error = decoded - targets.pictures[task]
        pixels.append(error.abs().mean())
        across, down = error[..., 2:] - error[..., :-2], error[..., 2:, :] - error[..., :-2, :]
        edges.append(across.abs().mean() + down.abs().mean())
        if mixture is not None:
            losses["mixture"] = _mixture_loss(mixture, decoded, targets.pictures[task])
        if labels is not None:
            axes = teacher.specs[task].axes
            values = task_losses(task, decoded, labels, axes, depth_unit, mixture)
            of_labels |= {f"{task}.{name}": value.mean() for name, value in values.items()}
    decoders = {"pixels": torch.stack(pixels).mean(), "edges": torch.stack(edges).mean()}
    return {**losses, **decoders, **of_labels}


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
        latent = teacher.split_features(encoded)[0]
        row = {"latent_nmse": float(_normalised_mse(codec, "image", latent, targets.latent))}
        for task, latent in predicted.items():
            ours, theirs = codec.decode(latent, task).clamp(-1, 1), targets.pictures[task]
            if task == "depth":
                row["depth_mean_abs"] = float((ours - theirs).abs().mean()) / 2
            else:
                cosine = F.cosine_similarity(ours, theirs, dim=1).clamp(-1, 1)
                row["normals_mean_deg"] = float(torch.rad2deg(torch.arccos(cosine)).mean())
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _mixture_loss(
    mixture: torch.Tensor, decoded: torch.Tensor, picture: torch.Tensor
) -> torch.Tensor:
    answer, target = decoded[:, 0].float(), picture[:, 0].float()
    everywhere = torch.ones_like(target, dtype=torch.bool)
    return laplace_mixture(mixture.float(), answer, target, everywhere).mean()


def _normalised_mse(
    codec: TinyCodec, name: str, actual: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    _, deviation = codec.statistics(name)
    return ((actual - wanted) / deviation).square().mean()

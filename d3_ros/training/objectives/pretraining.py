"""The objectives of a new small model before the D³ recipe: autoencoder, then diffusion prior.

Each is a forward module from images to losses, with the arguments of `student.Student`. The
autoencoder carries images, depth maps and normal maps through the latent. The prior is an ordinary
diffusion UNet on the latents of images (Ho et al., arXiv 2006.11239): it predicts the noise in
them. It is to the small model what Stable Diffusion is to the official D³-Predictor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional as F

from d3_ros import metrics
from d3_ros.errors import DataError
from d3_ros.network import D3Network
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.train_config import TaskShares
from d3_ros.training.distillation.teacher import LEVELS, TeacherTargets, draw_noise, noised
from d3_ros.training.loading.batches import noise_generator
from d3_ros.training.loading.sample import Batch, SampleSource
from d3_ros.training.objectives import losses
from d3_ros.training.objectives.student import task_rows
from d3_ros.types import Task

SCALED_ON = 64  # images on which the deviation of the latents is measured
DECODED_DEVIATION = 0.4  # of the input of a decoder that squeezes it into (-3, 3)


class Autoencoder(nn.Module):
    """Images, depth targets and normal maps through the VAE and back.

    Args:
        network: its VAE is trained; its UNets take no part.
    """

    def __init__(self, network: D3Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        batch: Batch,
        latent: None,
        prompts: Mapping[Task, torch.Tensor],
        targets: Mapping[Task, TeacherTargets],
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch by KIND.LOSS, unweighted; only `batch` is used.

        Raises:
            DataError: the frames lack depth or normals.
        """
        maps = label_maps(batch, self.network)
        returned = through_vae(self.network, torch.cat([batch.image, *maps.values()]))
        image, *answers = returned.float().chunk(1 + len(maps))
        raw = {"image.mse": F.mse_loss(image, batch.image)}
        for (kind, target), answer in zip(maps.items(), answers, strict=True):
            valid = known(batch, kind)
            raw[f"{kind}.mse"] = losses.masked_mse(answer, target, valid).mean()
            unit, truth = ((x.mean(dim=1) / 2 + 0.5).clamp(0, 1) for x in (answer, target))
            if kind == "depth":
                raw["depth.log_gradient"] = losses.log_gradient(unit, truth, valid).mean()
        return raw


class DiffusionPrior(nn.Module):
    """The UNet's prediction of the noise in latents, at LEVELS noise levels per image.

    Args:
        network: its UNets are trained; its VAE is fixed.
        shares: the share of the images that is seen under each task's prompt.
    """

    def __init__(self, network: D3Network, shares: TaskShares) -> None:
        super().__init__()
        self.network = network
        self.shares = shares

    def forward(
        self,
        batch: Batch,
        latent: torch.Tensor,
        prompts: Mapping[Task, torch.Tensor],
        targets: Mapping[Task, TeacherTargets],
    ) -> dict[str, torch.Tensor]:
        """Losses of (B, c, h, w) latents by TASK.mse, unweighted, under the targets' noise."""
        raw: dict[str, torch.Tensor] = {}
        for task, target in targets.items():
            rows = task_rows(len(batch), self.shares.share(task))
            unet = self.network.unets[self.network.specs[task].unet]
            prompt = prompts[task].repeat_interleave(LEVELS, dim=0)
            timesteps = target.draw.timesteps.flatten().to(latent.device)
            answer = unet(noised(latent[rows], target.draw), timesteps, prompt, return_dict=False)
            noise = target.draw.noise.flatten(0, 1).to(latent)
            raw[f"{task}.mse"] = F.mse_loss(answer[0].float(), noise)
        return raw


def label_maps(batch: Batch, network: D3Network) -> dict[Task, torch.Tensor]:
    """The labels as images, in the network's own output format: (B, 3, h, w) in [-1, 1] by task.

    Raises:
        DataError: the frames lack depth or normals.
    """
    if batch.depth_target is None or batch.normals_target is None:
        raise DataError("objective autoencoder: the frames must have depth and normals")
    if "normals" not in network.specs:
        raise DataError("objective autoencoder: model.start must predict normals, too")
    axes = network.specs["normals"].axes
    assert axes is not None
    signs = batch.normals_target.new_tensor(axes)[:, None, None]
    depth = batch.depth_target[:, None].expand(-1, 3, -1, -1)
    return {"depth": depth, "normals": batch.normals_target * signs}


def known(batch: Batch, task: Task) -> torch.Tensor:
    """(B, h, w) bool: True where the batch has a label of the task."""
    if task == "depth":
        assert batch.depth is not None
        return batch.depth > 0
    assert batch.normals is not None
    return batch.normals.square().sum(dim=1) > 0


def through_vae(network: D3Network, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, h, w) images in [-1, 1], encoded and decoded again, not clipped."""
    return network.decode(network.encode(images.contiguous(memory_format=torch.channels_last)))


@torch.no_grad()
def scale_latents(network: D3Network, source: SampleSource) -> None:
    """Rescale the VAE so that the latents of images have a standard deviation of 1.

    The diffusion's noise schedule is made for latents of deviation 1. AutoencoderTiny's decoder
    squeezes its input into (-3, 3) by a tanh, and far from 0 the slope of that tanh is so small
    that a UNet learns next to nothing through it. So the encoder's last weights shrink and the
    decoder's first weights grow, until the decoder's input has a deviation of `DECODED_DEVIATION`.
    """
    count = min(SCALED_ON, len(source))
    indices = np.linspace(0, len(source) - 1, count).round().astype(int).tolist()
    vae: DiffusersModel = network.vae
    before = float(vae.config.scaling_factor)
    latents = [network.encode(source.sample(i, None).image[None]) / before for i in indices]
    deviation = max(float(torch.cat(latents).float().std()), 1e-6)
    squeezes = isinstance(network.vae, AutoencoderTiny)
    if squeezes:
        shrink = DECODED_DEVIATION / deviation
        last, first = vae.encoder.layers[-1], vae.decoder.layers[0]
        last.weight.mul_(shrink)
        if last.bias is not None:
            last.bias.mul_(shrink)
        first.weight.div_(shrink)
        deviation = DECODED_DEVIATION
    vae.register_to_config(scaling_factor=1 / deviation)


@torch.no_grad()
def validate_autoencoder(
    network: D3Network, source: SampleSource, device: torch.device
) -> dict[str, float]:
    """Errors of the VAE's reconstructions, averaged over all frames of `source`.

    `depth_error` is the mean absolute error of relative depth in [0, 1], `image_error` that of
    pixels in [0, 1], `normals_deg` the mean angle in degrees.
    """
    scores: dict[str, list[float]] = {"depth_error": [], "image_error": [], "normals_deg": []}
    axes = network.specs["normals"].axes
    assert axes is not None
    for index in range(len(source)):
        sample = source.sample(index, None)
        assert sample.depth_target is not None and sample.depth is not None
        assert sample.normals is not None and sample.normals_target is not None
        normals = sample.normals * sample.normals.new_tensor(axes)[:, None, None]
        truth = [sample.image, sample.depth_target.expand(3, -1, -1), normals]
        size = sample.image.shape[1:]
        stacked = torch.cat([F.interpolate(x[None], tuple(size)) for x in truth]).to(device)
        answer = through_vae(network, stacked).float().cpu().clamp(-1, 1)
        stacked = stacked.cpu()
        here = F.interpolate((sample.depth > 0).float()[None, None], tuple(size))[0, 0] > 0
        error = ((answer - stacked) / 2).abs().mean(dim=1)
        scores["image_error"].append(float(error[0].mean()))
        if here.any():
            scores["depth_error"].append(float(error[1][here].mean()))
        vectors, wanted = (x[2].permute(1, 2, 0).numpy() for x in (answer, stacked))
        valid = np.linalg.norm(wanted, axis=2) > 0.5
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-6)
        if valid.any():
            angles = metrics.normal_angles(vectors, wanted, valid)
            scores["normals_deg"].append(float(angles.mean()))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


@torch.no_grad()
def validate_prior(
    network: D3Network, source: SampleSource, seed: int, device: torch.device
) -> dict[str, float]:
    """`noise_error`: mean squared error of the noise (of variance 1) in the latents of `source`."""
    errors = []
    for index in range(len(source)):
        latent = network.encode(source.sample(index, None).image[None].to(device))
        draw = draw_noise(latent.shape[1:], [noise_generator(seed, index)])
        task = network.tasks[0]
        prompt = network.prompt_embedding(task).expand(LEVELS, -1, -1)
        unet = network.unets[network.specs[task].unet]
        timesteps = draw.timesteps.flatten().to(device)
        answer = unet(noised(latent, draw), timesteps, prompt, return_dict=False)[0]
        errors.append(float(F.mse_loss(answer.float().cpu(), draw.noise.flatten(0, 1))))
    return {"noise_error": float(np.mean(errors))} if errors else {}

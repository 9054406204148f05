"""Scores and a picture of the network's predictions on frames that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch

from d3_ros import metrics
from d3_ros.imaging.colour_maps import colour_depth, colour_normals
from d3_ros.imaging.image_file import write_image
from d3_ros.network import D3Network
from d3_ros.network.inference.image_transform import to_depth, to_normals
from d3_ros.training.config.train_config import TrainConfig
from d3_ros.training.loading.sample import Sample, SampleSource
from d3_ros.training.objectives.forward import noised_input
from d3_ros.training.objectives.pretraining import validate_autoencoder, validate_prior
from d3_ros.types import Task

ROWS = 6  # frames in a picture
# Scores of all objectives, lower is better. The first one that exists decides which bundle is best.
SCORES = ("abs_rel", "depth_error", "noise_error", "normals_deg")

Forward: TypeAlias = Callable[[torch.Tensor, int], Mapping[Task, torch.Tensor]]


@dataclass(frozen=True)
class Answer:
    """A frame and the network's decoded images of it, converted to maps as inference does."""

    sample: Sample
    decoded: Mapping[Task, torch.Tensor]
    network: D3Network

    def depth(self, size: tuple[int, int]) -> np.ndarray:
        """(*size) float32 in [0, 1]."""
        return to_depth(self.decoded["depth"], size).cpu().numpy()

    def normals(self, size: tuple[int, int]) -> np.ndarray:
        """(*size, 3) float32 unit vectors in the optical frame, NaN where unknown."""
        axes = self.network.specs["normals"].axes
        assert axes is not None
        return to_normals(self.decoded["normals"], size, axes).cpu().numpy()


def validate(
    network: D3Network,
    source: SampleSource,
    tasks: tuple[Task, ...],
    device: torch.device,
    answer: Forward,
) -> dict[str, float]:
    """Mean scores over all frames of `source`, which are not augmented.

    `answer(image, index)` gives the decoded images by task of the (1, 3, H, W) image with that
    index. `abs_rel` is AbsRel after an affine fit to the true depth, `normals_deg` the mean angle
    in degrees. A score that no frame has labels for is left out.
    """
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    for given in _answers(network, source, range(len(source)), answer, device):
        depth, normals = given.sample.depth, given.sample.normals
        if "depth" in tasks and depth is not None and int((depth > 0).sum()) >= 2:
            metric = depth.numpy()
            height, width = metric.shape
            relative = given.depth((height, width))
            scale, shift = metrics.affine_align(relative, metric, metric > 0)
            scores["abs_rel"].append(metrics.abs_rel(scale * relative + shift, metric, metric > 0))
        if "normals" in tasks and normals is not None:
            truth = normals.permute(1, 2, 0).numpy()
            height, width = truth.shape[:2]
            predicted = given.normals((height, width))
            valid = truth.any(axis=-1) & np.isfinite(predicted).all(axis=-1)
            if valid.any():
                angles = metrics.normal_angles(predicted, truth, valid)
                scores["normals_deg"].append(float(angles.mean()))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def objective_scores(
    config: TrainConfig, network: D3Network, source: SampleSource, device: torch.device
) -> dict[str, float]:
    """The scores of the configuration's objective on all frames of `source`; empty without any."""
    if config.objective == "autoencoder":
        return validate_autoencoder(network, source, device)
    if config.objective == "diffusion":
        return validate_prior(network, source, config.seed, device)
    tasks = config.tasks.trained

    def answer(image: torch.Tensor, index: int) -> dict[Task, torch.Tensor]:
        own, features = network.split_features(network.encode(image))
        noised = noised_input(own, config, range(index, index + 1))
        latent = network.join_features(noised, features)
        return network.decode_tasks(network.predict_latents(latent, tasks))

    return validate(network, source, tasks, device, answer)


def write_picture(
    path: Path,
    network: D3Network,
    source: SampleSource,
    tasks: tuple[Task, ...],
    device: torch.device,
) -> None:
    """Write a grid with one frame per row: image, then for each task truth and prediction.

    The frames are spread over the source. True depth is shown as in the target: 0 near, 1 far.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, ROWS).round().astype(int)).tolist()
    rows = []
    for answer in _answers(network, source, indices, lambda x, _: network(x, tasks), device):
        sample = answer.sample
        image = ((sample.image.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)
        height, width = image.shape[:2]
        tiles = [image.round().astype(np.uint8)]
        if "depth" in tasks:
            truth = np.full((height, width), np.nan, np.float32)
            if sample.depth is not None and sample.depth_target is not None:
                known = _at(sample.depth.numpy(), (height, width)) > 0
                target = sample.depth_target.numpy()
                unit = _at(target, (height, width)) / 2 + 0.5
                truth = np.where(known, unit, np.nan).astype(np.float32)
            tiles += [colour_depth(truth, 0, 1), colour_depth(answer.depth((height, width)), 0, 1)]
        if "normals" in tasks:
            normals = np.zeros((height, width, 3), np.float32)
            if sample.normals is not None:
                vectors = sample.normals.permute(1, 2, 0).numpy()
                normals = _at(vectors, (height, width))
            normals = np.where(normals.any(axis=-1, keepdims=True), normals, np.nan)
            tiles += [colour_normals(normals), colour_normals(answer.normals((height, width)))]
        rows.append(np.hstack(tiles))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.vstack(rows)[..., ::-1])


@torch.no_grad()
def _answers(
    network: D3Network,
    source: SampleSource,
    indices: range | list[int],
    answer: Forward,
    device: torch.device,
) -> Iterator[Answer]:
    """One frame after the other, with the network in eval mode."""
    network.eval()
    try:
        for index in indices:
            sample = source.sample(index, None)
            yield Answer(sample, answer(sample.image[None].to(device), index), network)
    finally:
        network.train()


def _at(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, C) labels at another (height, width), by nearest neighbour."""
    return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)

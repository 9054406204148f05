"""How good the network is by now: scores and a picture of frames that it does not learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from d3_ros.evaluation import metrics
from d3_ros.geometry.colour import colour_depth, colour_normals
from d3_ros.network import D3Network
from d3_ros.training.sample import Sample, SampleSource
from d3_ros.types import Task

ROWS = 6  # frames in a picture
SCORES = ("abs_rel", "normals_deg")  # the first that there is decides which bundle is best


@dataclass(frozen=True)
class Answer:
    """A frame and what the network makes of it, at the network's size: `depth` (H, W) in [0, 1],
    `normals` (H, W, 3) unit vectors in the optical frame; None where the task is not asked for."""

    sample: Sample
    depth: np.ndarray | None
    normals: np.ndarray | None


def validate(
    network: D3Network, source: SampleSource, tasks: tuple[Task, ...], device: torch.device
) -> dict[str, float]:
    """Mean scores over all frames of `source`, as they are.

    `abs_rel` after an affine fit to the truth, without unit; `normals_deg`, the mean angle in
    degrees. A score that no frame has is left out.
    """
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    for answer in _answers(network, source, range(len(source)), tasks, device):
        truth = answer.sample.depth
        if answer.depth is not None and truth is not None and int((truth > 0).sum()) >= 2:
            metric = truth.numpy()
            relative = _at(answer.depth, metric.shape)
            scale, shift = metrics.affine_align(relative, metric, metric > 0)
            scores["abs_rel"].append(metrics.abs_rel(scale * relative + shift, metric, metric > 0))
        if answer.normals is not None and answer.sample.normals is not None:
            normals = answer.sample.normals.permute(1, 2, 0).numpy()
            valid = normals.any(axis=-1)
            if valid.any():
                angles = metrics.normal_angles(_at(answer.normals, valid.shape), normals, valid)
                scores["normals_deg"].append(float(angles.mean()))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def write_picture(
    path: Path,
    network: D3Network,
    source: SampleSource,
    tasks: tuple[Task, ...],
    device: torch.device,
) -> None:
    """A grid, a frame a row: image, then for each task the truth and the network's answer.

    Frames are spread over the source. True depth is shown as it is in the target: near 0, far 1.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, ROWS).round().astype(int)).tolist()
    rows = []
    for answer in _answers(network, source, indices, tasks, device):
        sample = answer.sample
        image = ((sample.image.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)
        height, width = image.shape[:2]
        tiles = [image.round().astype(np.uint8)]
        if answer.depth is not None:
            truth = np.full((height, width), np.nan, np.float32)
            if sample.depth is not None and sample.depth_target is not None:
                known = _at(sample.depth.numpy(), (height, width), cv2.INTER_NEAREST) > 0
                target = sample.depth_target.numpy()
                unit = _at(target, (height, width), cv2.INTER_NEAREST) / 2 + 0.5
                truth = np.where(known, unit, np.nan).astype(np.float32)
            tiles += [colour_depth(truth, 0, 1), colour_depth(answer.depth, 0, 1)]
        if answer.normals is not None:
            normals = np.zeros((height, width, 3), np.float32)
            if sample.normals is not None:
                vectors = sample.normals.permute(1, 2, 0).numpy()
                normals = _at(vectors, (height, width), cv2.INTER_NEAREST)
            normals = np.where(normals.any(axis=-1, keepdims=True), normals, np.nan)
            tiles += [colour_normals(normals), colour_normals(answer.normals)]
        rows.append(np.hstack(tiles))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


@torch.no_grad()
def _answers(
    network: D3Network,
    source: SampleSource,
    indices: range | list[int],
    tasks: tuple[Task, ...],
    device: torch.device,
) -> Iterator[Answer]:
    """One frame after the other; the network is in eval mode meanwhile."""
    network.eval()
    try:
        for index in indices:
            sample = source.sample(index, None)
            decoded = network(sample.image[None].to(device), tasks)
            depth = normals = None
            if "depth" in decoded:
                grey = decoded["depth"][0].float().mean(dim=0) / 2 + 0.5
                depth = grey.clamp(0, 1).cpu().numpy()
            if "normals" in decoded:
                axes = network.specs["normals"].axes
                vectors = decoded["normals"][0].float().permute(1, 2, 0).cpu().numpy() * axes
                length = np.linalg.norm(vectors, axis=-1, keepdims=True)
                normals = (vectors / np.maximum(length, 1e-6)).astype(np.float32)
            yield Answer(sample, depth, normals)
    finally:
        network.train()


def _at(
    array: np.ndarray, size: tuple[int, ...], interpolation: int = cv2.INTER_LINEAR
) -> np.ndarray:
    """(H, W) or (H, W, C) at another (height, width)."""
    if array.shape[:2] == tuple(size):
        return array
    return cv2.resize(array, (size[1], size[0]), interpolation=interpolation)

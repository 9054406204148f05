"""Distillation of a bundle's VAE into a TinyCodec: from any images, without labels.

The bundle itself says what is right. Its VAE's latent of an image is what the small encoder learns;
what its decoder makes of each task's latent is what that task's small decoder learns, from the true
latents and from those that the UNet makes of the small encoder's: what it will see.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from d3_ros.errors import DataError, NonFiniteError
from d3_ros.imaging.image_file import read_rgb
from d3_ros.network import D3Network
from d3_ros.network.bundle.folder import add_codec, load_bundle
from d3_ros.network.inference.specialise import specialise
from d3_ros.network.inference.torch_runtime import choose_device
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.training.config.codec_config import CodecTrainConfig
from d3_ros.training.loading.unlabelled_images import crop, image_files
from d3_ros.training.loop.small_network import he_initialise
from d3_ros.types import Task

CHECKPOINT, LOG, BUNDLE = "checkpoint.pt", "log.jsonl", "bundle"
HELD_OUT_EVERY = 20  # every so manieth image is not trained on, but judged on
JUDGED_IMAGES = 32
STATISTICS_BATCHES = 8
LOG_EVERY = 20


@dataclass(frozen=True)
class CodecTargets:
    """What the bundle says about a batch: latents, and per task latent and clipped picture.

    `latent` (B, c, h/f, w/f); `latents[task]` the same; `pictures[task]` (B, 1 or 3, h, w) in
    [-1, 1], depth as the mean of its clipped channels.
    """

    latent: torch.Tensor
    latents: Mapping[Task, torch.Tensor]
    pictures: Mapping[Task, torch.Tensor]


def distil(config: CodecTrainConfig, output: Path) -> Path:
    """Distil; returns `output/bundle`, the bundle with its codec.

    Goes on from `output/checkpoint.pt` where there is one; the losses of every few steps, and the
    distance to the VAE on images that were not trained on, are in `output/log.jsonl`.

    Raises:
        BundleError, DeviceError, DataError: bundle, device or images are not usable.
        NonFiniteError: the loss became NaN or infinite; the last checkpoint is kept.
    """
    if (output / BUNDLE).exists():
        raise DataError(f"{output / BUNDLE} exists: remove it, or choose another output folder")
    device = choose_device(config.device)
    teacher = specialise(load_bundle(config.model, device=device).network)
    files = image_files(Path(config.data))
    held_out, trained_on = (
        files[::HELD_OUT_EVERY],
        [file for index, file in enumerate(files) if index % HELD_OUT_EVERY],
    )
    _check_size(config, teacher)
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    codec = TinyCodec(_codec_config(config, teacher))
    he_initialise(codec)
    codec.to(device)
    codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(codec).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        codec.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    start = _resume(output, codec, average, optimizer)
    if start == 0:
        _measure_statistics(config, teacher, codec, trained_on)
        average.load_state_dict(codec.state_dict())
    with (
        (output / LOG).open("a") as log,
        tqdm(total=config.steps, initial=start, unit="step", desc="codec") as bar,
    ):
        for step in range(start, config.steps):
            losses = _step(config, teacher, codec, optimizer, trained_on, step)
            _follow(average, codec, min(config.ema_decay, (1 + step) / (10 + step)))
            bar.update()
            if (step + 1) % LOG_EVERY == 0:
                bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
                log.write(json.dumps({"step": step + 1, **losses}) + "\n")
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                distances = judge(teacher, average, held_out[:JUDGED_IMAGES], config.size)
                log.write(json.dumps({"step": step + 1, "against_vae": distances}) + "\n")
                log.flush()
                _save(output, codec, average, optimizer, step + 1)
    print(told(judge(teacher, average, held_out[:JUDGED_IMAGES], config.size)))
    return add_codec(config.model, output / BUNDLE, average)


def _step(
    config: CodecTrainConfig,
    teacher: D3Network,
    codec: TinyCodec,
    optimizer: torch.optim.Optimizer,
    files: Sequence[Path],
    step: int,
) -> dict[str, float]:
    """One step of the optimiser; the losses by name."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    images, from_student = draw(config, files, step)
    device = next(codec.parameters()).device
    images, from_student = images.to(device), from_student.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        losses = codec_losses(
            codec, teacher, images, teach(teacher, images), from_student, config.unet_weight > 0
        )
    weights = {"edges": config.edge_weight, "unet": config.unet_weight}
    total = torch.stack([weights.get(n, 1.0) * loss.float() for n, loss in losses.items()]).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    nn.utils.clip_grad_norm_(codec.parameters(), config.clip_norm)
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if not math.isfinite(sum(values.values())):
        raise NonFiniteError(f"the loss is not finite at step {step}: lower learning_rate")
    optimizer.step()
    return values


@torch.no_grad()
def teach(teacher: D3Network, images: torch.Tensor) -> CodecTargets:
    """What the bundle says about (B, 3, h, w) images in [-1, 1]."""
    latent = teacher.encode(images)
    latents = teacher.predict_latents(latent, teacher.tasks)
    pictures = {
        task: decoded.clamp(-1, 1).mean(dim=1, keepdim=True)
        if task == "depth"
        else decoded.clamp(-1, 1)
        for task, decoded in teacher.decode_tasks(latents).items()
    }
    return CodecTargets(latent, latents, pictures)


def codec_losses(
    codec: TinyCodec,
    teacher: D3Network,
    images: torch.Tensor,
    lesson: CodecTargets,
    from_student: torch.Tensor,
    through_unet: bool,
) -> dict[str, torch.Tensor]:
    """The losses by name, unweighted; latents are compared in units of their own deviation.

    `from_student` (B,) bool: which images' decoders see what the UNet makes of the small encoder's
    latent, rather than the true latent. `through_unet` lets the encoder learn from that, too.
    """
    encoded = codec.encode(images)
    losses = {"latent": _normalised_mse(codec, "image", encoded, lesson.latent)}
    with torch.set_grad_enabled(through_unet and torch.is_grad_enabled()):
        predicted = teacher.predict_latents(encoded, teacher.tasks)
    tasks = teacher.tasks
    if through_unet:
        losses["unet"] = torch.stack(
            [_normalised_mse(codec, t, predicted[t], lesson.latents[t]) for t in tasks]
        ).mean()
    pixels, edges = [], []
    for task in tasks:
        chosen = from_student[:, None, None, None]
        seen = torch.where(chosen, predicted[task].detach(), lesson.latents[task])
        error = codec.decode(seen, task) - lesson.pictures[task]
        pixels.append(error.abs().mean())
        across, down = error[..., 2:] - error[..., :-2], error[..., 2:, :] - error[..., :-2, :]
        edges.append(across.abs().mean() + down.abs().mean())
    return {**losses, "pixels": torch.stack(pixels).mean(), "edges": torch.stack(edges).mean()}


def _normalised_mse(
    codec: TinyCodec, name: str, actual: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    _, deviation = codec.statistics(name)
    return ((actual - wanted) / deviation).square().mean()


@torch.no_grad()
def judge(
    teacher: D3Network, codec: TinyCodec, files: Sequence[Path], size: tuple[int, int]
) -> dict[str, float]:
    """How far the codec's answer is from the VAE's on whole images at `size`, on average.

    `depth_mean_abs` in relative depth (0 to 1); `normals_mean_deg`; `latent_nmse`, the squared
    error of the image's latent over its variance.
    """
    device = next(codec.parameters()).device
    rows = []
    for file in files:
        image = crop(read_rgb(file), size, None).to(device)[None]
        lesson = teach(teacher, image)
        encoded = codec.encode(image)
        predicted = teacher.predict_latents(encoded, teacher.tasks)
        row = {"latent_nmse": float(_normalised_mse(codec, "image", encoded, lesson.latent))}
        for task, latent in predicted.items():
            ours, theirs = codec.decode(latent, task).clamp(-1, 1), lesson.pictures[task]
            if task == "depth":
                row["depth_mean_abs"] = float((ours - theirs).abs().mean()) / 2
            else:
                cosine = F.cosine_similarity(ours, theirs, dim=1).clamp(-1, 1)
                row["normals_mean_deg"] = float(torch.rad2deg(torch.arccos(cosine)).mean())
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def told(distances: Mapping[str, float]) -> str:
    """The distances in a line for people."""
    values = ", ".join(f"{name} {value:.4f}" for name, value in distances.items())
    return f"tiny codec against the VAE, images not trained on: {values}"


def draw(
    config: CodecTrainConfig, files: Sequence[Path], step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 3, h, w) crops in [-1, 1] and (B,) bool of one step; a function of seed and step."""
    rng = np.random.default_rng([config.seed, step])
    chosen = rng.integers(len(files), size=config.batch)
    images = [crop(read_rgb(files[int(i)]), config.size, rng, config.smallest_crop) for i in chosen]
    batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
    return batch, torch.from_numpy(rng.random(config.batch) < 0.5)


def learning_rate(config: CodecTrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warm * (0.01 + 0.99 * cosine)


def _codec_config(config: CodecTrainConfig, teacher: D3Network) -> CodecConfig:
    try:
        return CodecConfig(
            latent_channels=teacher.vae.config.latent_channels,
            width=config.width,
            encoder_blocks=config.encoder_blocks,
            decoder_blocks=config.decoder_blocks,
            tasks=teacher.tasks,
        )
    except ValueError as error:
        raise DataError(str(error)) from error


def _check_size(config: CodecTrainConfig, teacher: D3Network) -> None:
    reduction = 2 ** (len(config.encoder_blocks) - 1)
    if reduction != teacher.size_multiple:
        raise DataError(
            f"encoder_blocks reduce by {reduction}, the VAE of {config.model} by "
            f"{teacher.size_multiple}: give as many levels as it has"
        )
    if any(side % reduction for side in config.size):
        raise DataError(f"size {list(config.size)} must be multiples of {reduction}")


def _measure_statistics(
    config: CodecTrainConfig, teacher: D3Network, codec: TinyCodec, files: Sequence[Path]
) -> None:
    device = next(codec.parameters()).device
    lessons = [
        teach(teacher, draw(config, files, config.steps + i)[0].to(device))
        for i in range(STATISTICS_BATCHES)
    ]
    codec.set_statistics("image", [lesson.latent for lesson in lessons])
    for task in teacher.tasks:
        codec.set_statistics(task, [lesson.latents[task] for lesson in lessons])


@torch.no_grad()
def _follow(average: nn.Module, codec: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(codec.parameters()), 1 - decay)


def _resume(
    output: Path, codec: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    path = output / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=next(codec.parameters()).device)
    try:
        codec.load_state_dict(state["codec"])
        average.load_state_dict(state["average"])
    except RuntimeError as error:
        raise DataError(f"{path} is of another codec: choose another output folder") from error
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _save(
    output: Path,
    codec: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    unfinished = output / f".{CHECKPOINT}.unfinished"
    state = {
        "step": step,
        "codec": codec.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, unfinished)
    unfinished.replace(output / CHECKPOINT)  # whole or not at all

"""The loop that distils a bundle's VAE into a TinyCodec, from any images.

With labelled frames, the codec's decoders also learn from the labels; the UNet stays as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from d3_ros.errors import DataError, NonFiniteError, one_line
from d3_ros.network import D3Network
from d3_ros.network.bundle.folder import add_codec, load_bundle
from d3_ros.network.inference.specialise import specialise
from d3_ros.network.inference.torch_runtime import choose_device
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.training.config.codec_config import CodecTrainConfig
from d3_ros.training.distillation.codec_losses import codec_losses, codec_targets, distance_to_vae
from d3_ros.training.loading.codec_pictures import CodecPictures, open_pictures
from d3_ros.training.loop.add_skips import initialise_skips
from d3_ros.training.loop.checkpoints import CHECKPOINT_ERRORS, all_finite, removed_on_failure
from d3_ros.training.loop.same_settings import check_settings, keep_settings
from d3_ros.training.loop.schedule import learning_rate_factor
from d3_ros.training.loop.small_network import he_initialise
from d3_ros.training.objectives.task_losses import weighted_sum

CHECKPOINT, LOG, BUNDLE = "checkpoint.pt", "log.jsonl", "bundle"
STATISTICS_BATCHES = 8
LOG_EVERY = 20  # steps


def distil(config: CodecTrainConfig, output: Path) -> Path:
    """Train the codec. Returns `output/bundle`, the bundle with its codec.

    The run goes on from `output/checkpoint.pt`, if there is one. `output/log.jsonl` has the losses
    of every few steps and the distance to the VAE on held-out images.

    Raises:
        BundleError, DeviceError, DataError: bundle, device, images or labels are not usable.
        NonFiniteError: a loss or gradient became NaN or infinite. It reached no checkpoint.
    """
    if (output / BUNDLE).exists():
        raise DataError(f"{output / BUNDLE} exists: remove it, or choose another output folder")
    if not config.data:  # as the shipped configuration has it: it would mean the current folder
        raise DataError("data is empty: give data=FOLDER, the folder of the pictures")
    device = choose_device(config.device)
    teacher = specialise(load_bundle(config.model, device=device).network)
    _check_size(config, teacher)
    sizes = _codec_config(config, teacher)
    pictures = open_pictures(config)
    output.mkdir(parents=True, exist_ok=True)
    codec = _new_codec(sizes, config.seed).to(device)
    codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(codec).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        codec.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    start = _resume(output, codec, average, optimizer)
    check_settings(config, output, start or None, print)
    keep_settings(config, output)
    if start == 0:
        _measure_statistics(config, teacher, codec, pictures)
        average.load_state_dict(codec.state_dict())
    distance: dict[str, float] = {}
    with (
        (output / LOG).open("a", encoding="utf-8") as log,
        tqdm(total=config.steps, initial=start, unit="step", desc="codec") as bar,
    ):
        for step in range(start, config.steps):
            losses = _step(config, teacher, codec, optimizer, pictures, step)
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                averages: list[torch.Tensor] = list(average.parameters())
                weights: list[torch.Tensor] = list(codec.parameters())
                torch._foreach_lerp_(averages, weights, 1 - decay)
            bar.update()
            if (step + 1) % LOG_EVERY == 0:
                bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
                log.write(json.dumps({"step": step + 1, **losses}) + "\n")
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                distance = distance_to_vae(teacher, average, pictures.held_out)
                log.write(json.dumps({"step": step + 1, "against_vae": distance}) + "\n")
                log.flush()
                _save(output, codec, average, optimizer, step + 1)
    distance = distance or distance_to_vae(teacher, average, pictures.held_out)
    values = ", ".join(f"{name} {value:.4f}" for name, value in distance.items())
    print(f"tiny codec against the VAE, on held-out images: {values}")
    return add_codec(config.model, output / BUNDLE, average)


def _step(
    config: CodecTrainConfig,
    teacher: D3Network,
    codec: TinyCodec,
    optimizer: torch.optim.Optimizer,
    pictures: CodecPictures,
    step: int,
) -> dict[str, float]:
    """One step of the optimiser, taken only if the gradient is finite. Returns losses by name."""
    rate = config.learning_rate * learning_rate_factor(
        "cosine", step, steps=config.steps, warmup_steps=config.warmup_steps, final_share=0.01
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    batch, from_student = pictures.draw(step)
    labels = config.label_losses
    device = next(codec.parameters()).device
    batch, from_student = batch.to(device), from_student.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        losses = codec_losses(
            codec,
            teacher,
            batch.image,
            codec_targets(teacher, batch.image),
            from_student,
            config.unet_weight > 0,
            batch if labels is not None and config.label_weight > 0 else None,
            labels.depth_unit if labels is not None else "pixel",
        )
    total = _total(config, losses)
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_(codec.parameters(), config.clip_norm)
    for what, value in (("loss", total.detach()), ("gradient", norm)):
        if not math.isfinite(float(value)):
            raise NonFiniteError(f"the {what} is not finite at step {step}: lower learning_rate")
    optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _total(config: CodecTrainConfig, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    weights = {
        "edges": config.edge_weight,
        "unet": config.unet_weight,
        "mixture": config.mixture_weight,
    }
    of_vae = [weights.get(n, 1.0) * loss.float() for n, loss in losses.items() if "." not in n]
    of_labels = {name: loss.float() for name, loss in losses.items() if "." in name}
    total = torch.stack(of_vae).sum()
    if of_labels and config.label_losses is not None:
        total = total + config.label_weight * weighted_sum(of_labels, config.label_losses)
    return total


def _new_codec(sizes: CodecConfig, seed: int) -> TinyCodec:
    torch.manual_seed(seed)
    codec = TinyCodec(sizes)
    if sizes.skips:
        initialise_skips(codec)
    else:
        he_initialise(codec)
    return codec


def _codec_config(config: CodecTrainConfig, teacher: D3Network) -> CodecConfig:
    try:
        return CodecConfig(
            latent_channels=teacher.vae.config.latent_channels,
            width=config.width,
            encoder_blocks=config.encoder_blocks,
            decoder_blocks=config.decoder_blocks,
            tasks=teacher.tasks,
            skips=config.skips or (),
            depth_components=config.depth_components,
            backbone=config.backbone,
            sharpening=config.sharpening,
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
    config: CodecTrainConfig, teacher: D3Network, codec: TinyCodec, pictures: CodecPictures
) -> None:
    device = next(codec.parameters()).device
    targets = [
        codec_targets(teacher, pictures.draw(config.steps + i)[0].image.to(device))
        for i in range(STATISTICS_BATCHES)
    ]
    codec.set_statistics("image", [one.latent for one in targets])
    for task in teacher.tasks:
        codec.set_statistics(task, [one.latents[task] for one in targets])


def _resume(
    output: Path, codec: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    path = output / CHECKPOINT
    if not path.exists():
        return 0
    device = next(codec.parameters()).device
    try:
        state = torch.load(path, weights_only=True, map_location=device)
        codec.load_state_dict(state["codec"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    except CHECKPOINT_ERRORS as error:
        raise DataError(
            f"{path} does not fit this configuration ({one_line(error, 200)}): give another output "
            "folder"
        ) from error


def _save(
    output: Path,
    codec: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Write the checkpoint, whole or not at all.

    Raises:
        NonFiniteError: weights overflowed. The checkpoint before is kept.
        DataError: it cannot be written. The checkpoint before is kept.
    """
    if not all_finite([*codec.parameters(), *average.parameters()]):
        raise NonFiniteError(
            f"the weights are not finite after step {step - 1}: lower learning_rate"
        )
    unfinished = output / f".{CHECKPOINT}.unfinished"
    state = {
        "step": step,
        "codec": codec.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with removed_on_failure(unfinished):
        torch.save(state, unfinished)
        unfinished.replace(output / CHECKPOINT)

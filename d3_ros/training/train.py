"""Training of a small D³-Predictor, end to end: one loop, read from top to bottom.

The VAE's encoder, the UNet, its timesteps and the VAE's decoder learn together from labelled
pixels. Every random number follows from the seed, the step and the process, so that a run that was
cut off goes on as if nothing had happened. On a CPU, one process per core is half as fast again as
one process with as many threads.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from d3_ros.errors import D3Error, NonFiniteError
from d3_ros.network import OFFICIAL_NORMAL_AXES, D3Network, write_bundle
from d3_ros.training import losses
from d3_ros.training.config import LossWeights, TrainConfig
from d3_ros.training.data import Batch, FrameStore, draw_batch, open_store
from d3_ros.training.nano import build_network

CHECKPOINT = "checkpoint.pt"
AVERAGE_EVERY = 5  # steps; the moving average costs as much memory traffic as a third of a step


def train(config: TrainConfig, data: Path, output: Path) -> Path:
    """Train on the frames of `data`; returns the bundle's folder, `output/bundle`.

    Goes on from `output/checkpoint.pt` where there is one. The bundle (moving average of the
    weights) is written with every checkpoint, so that a run can be judged while it goes on.

    Raises:
        DataError: the data folder is not usable.
        D3Error: the loss became NaN or infinite; the last checkpoint is kept.
    """
    open_store(data)  # decoded once, before the processes need it
    output.mkdir(parents=True, exist_ok=True)
    if config.processes == 1:
        _train(0, config, data, output)
        return output / "bundle"
    try:
        torch.multiprocessing.spawn(
            _train_in_group, (config, data, output, os.getpid()), nprocs=config.processes
        )
    except torch.multiprocessing.ProcessRaisedException as error:
        raise D3Error(str(error).strip().splitlines()[-1]) from error
    return output / "bundle"


def _train_in_group(rank: int, config: TrainConfig, data: Path, output: Path, run: int) -> None:
    rendezvous = (output / f".rendezvous-{run}").resolve()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=config.processes
    )
    try:
        _train(rank, config, data, output)
    finally:
        torch.distributed.destroy_process_group()


def _train(rank: int, config: TrainConfig, data: Path, output: Path) -> None:
    """The loop of one process: its share of every batch; the first process also keeps the books."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(config.seed)  # the same weights in every process
    network = build_network(config.model)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = deepcopy(network).eval().requires_grad_(False)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    start = _resume(output, network, average, optimizer)
    store = open_store(data)
    began = time.monotonic()
    with (
        (output / "log.jsonl").open("a") as log,
        tqdm(
            total=config.steps, initial=start, unit="step", desc=config.name, disable=rank > 0
        ) as bar,
    ):
        for step, batch in _batches(config, store, start, rank):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
                decoded = _forward(network, batch, config.normals_share)
            parts = task_losses(decoded, batch, config.losses)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()
            values = _mean_over_processes(parts, parameters, config.processes)
            if not math.isfinite(sum(values.values())):
                raise NonFiniteError(
                    f"the loss is not finite at step {step} ({values}): lower learning_rate; "
                    f"the last checkpoint is {output / CHECKPOINT}"
                )
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            optimizer.step()
            bar.update()
            done = step + 1
            if rank > 0:
                continue
            if done % AVERAGE_EVERY == 0 or done == config.steps:
                decay = min(config.ema_decay**AVERAGE_EVERY, done / (9 * AVERAGE_EVERY + done))
                _follow(average, network, decay)
            if done % 20 == 0:
                bar.set_postfix({k: f"{v:.3f}" for k, v in values.items()}, refresh=False)
                seconds = round(time.monotonic() - began, 1)
                log.write(json.dumps({"step": done, "seconds": seconds, **values}) + "\n")
                log.flush()
            if done % config.checkpoint_every == 0 or done == config.steps:
                _save(output, network, average, optimizer, done)
                _export(output, average, config)


def _mean_over_processes(
    parts: dict[str, torch.Tensor], parameters: list[nn.Parameter], processes: int
) -> dict[str, float]:
    """Average gradients, in place, and losses over the processes; returns the losses."""
    values = torch.stack([value.detach() for value in parts.values()])
    if processes > 1:
        # One message for all: a hundred small ones would cost more than the sum itself.
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([values, *(g.flatten() for g in gradients)])
        torch.distributed.all_reduce(flat)
        flat /= processes
        values = flat[: len(values)]
        offset = len(values)
        for gradient in gradients:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()
    return dict(zip(parts, values.tolist(), strict=True))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warm * (0.01 + 0.99 * cosine)


def task_losses(
    decoded: dict[str, torch.Tensor], batch: Batch, weights: LossWeights
) -> dict[str, torch.Tensor]:
    """The weighted losses of one batch by name.

    `decoded` holds the network's images (B, 3, h, w), about [-1, 1], by task; "normals" may cover
    only the first frames of the batch.
    """
    depth = decoded["depth"].float()
    target = batch.depth_target
    valid = batch.depth_valid
    grey = depth.mean(dim=1)
    unit = (grey / 2 + 0.5).clamp(0, 1)
    # In units of the frame's mean depth, so that a street does not outweigh a table.
    mean = (batch.depth * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
    metric = batch.depth / mean.clamp(min=1e-3)[:, None, None]
    parts = {
        "depth_mse": weights.mse
        * losses.masked_mse(depth, (target * 2 - 1)[:, None], valid).mean(),
        "depth_ssi": weights.scale_shift_invariant
        * losses.scale_shift_invariant_l1(unit, metric, valid).mean(),
        "depth_edge": weights.log_gradient * losses.log_gradient(unit, target, valid).mean(),
    }
    if "normals" in decoded:
        normals = decoded["normals"].float()
        count = len(normals)
        axes = torch.tensor(OFFICIAL_NORMAL_AXES, dtype=torch.float32)[:, None, None]
        truth, seen = batch.normals[:count] * axes, batch.normals_valid[:count]
        parts["normals_mse"] = weights.mse * losses.masked_mse(normals, truth, seen).mean()
        parts["normals_angle"] = (
            weights.normal_angle * losses.normal_angle(normals, truth, seen).mean()
        )
    return parts


def _forward(network: D3Network, batch: Batch, normals_share: float) -> dict[str, torch.Tensor]:
    """Depth of every frame, normals of the first share of them; the image is encoded once."""
    latent = network.encode(batch.image.contiguous(memory_format=torch.channels_last))
    decoded: dict[str, torch.Tensor] = {
        "depth": network.decode(network.predict_latent(latent, "depth"))
    }
    count = round(normals_share * len(latent))
    if count:
        decoded["normals"] = network.decode(network.predict_latent(latent[:count], "normals"))
    return decoded


def _batches(
    config: TrainConfig, store: FrameStore, start: int, rank: int
) -> Iterator[tuple[int, Batch]]:
    """Steps and this process's share of their batches; the next is made while this one is used."""

    def make(step: int) -> Batch:
        stage = config.stage_at(step)
        rng = np.random.default_rng([config.seed, step, rank])
        return draw_batch(store, rng, stage.batch // config.processes, stage.size)

    with ThreadPoolExecutor(1) as worker:
        ahead = [worker.submit(make, start)] if start < config.steps else []
        for step in range(start, config.steps):
            batch = ahead.pop().result()
            if step + 1 < config.steps:
                ahead.append(worker.submit(make, step + 1))
            yield step, batch


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def _resume(
    output: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    path = output / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _save(
    output: Path,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    unfinished = output / f".{CHECKPOINT}.unfinished"
    torch.save(
        {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        },
        unfinished,
    )
    unfinished.replace(output / CHECKPOINT)  # whole or not at all


def _export(output: Path, average: D3Network, config: TrainConfig) -> None:
    write_bundle(
        output / "bundle",
        average,
        name=config.name,
        license="Apache-2.0",
        source=f"trained by d3_ros from scratch on rendered scenes, seed {config.seed}",
        overwrite=True,
    )

"""Training of a D³-Predictor, end to end: one loop, read from top to bottom.

The same loop trains the official network from Stable Diffusion under a teacher, a small one from
nothing, and fine-tunes either: the configuration says which. It runs on one device, on several and
on several machines, as Hugging Face's accelerate (or torchrun) starts it.

Three choices keep a run reproducible. Every random number follows from the seed and the image's
number in the run, not from a generator's hidden state. Every loss is a mean over images, so that a
batch may be divided among processes and accumulated at will. A checkpoint is whole or absent. So a
run that was killed ends with the weights, bit for bit, that it would have had.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path

import cv2
import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available
from diffusers.training_utils import EMAModel
from torch import nn
from tqdm import tqdm

from d3_ros.errors import DataError, NonFiniteError
from d3_ros.network import D3Network, write_bundle
from d3_ros.network.model import DiffusersModel
from d3_ros.training import checkpoints
from d3_ros.training.config import OptimizerConfig, TrainConfig
from d3_ros.training.datasets import open_source
from d3_ros.training.frames import image_numbers, micro_batches, noise_generator
from d3_ros.training.latents import LatentCache
from d3_ros.training.lora import merge_lora
from d3_ros.training.objective import weighted_sum
from d3_ros.training.sample import Batch
from d3_ros.training.start import load_teacher, start_network
from d3_ros.training.student import Lesson, Student, task_rows
from d3_ros.training.teacher import draw_noise, teacher_features
from d3_ros.training.validation import SCORES, validate, write_picture
from d3_ros.types import Task

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # ours, accelerate's
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BEST, LAST = "best", "last"  # bundles in the output folder


def train(config: TrainConfig, output: Path) -> Path:
    """Train; returns the bundle that is best on the data's test split, `output/best`.

    Without a test split it is `output/last`. Goes on from the newest checkpoint in `output` where
    there is one; the loss of every few steps is in `output/log.jsonl`.

    Raises:
        DataError, D3Error: the configuration, the start, the data or the checkpoint is not usable.
        NonFiniteError: the loss became NaN or infinite; the last checkpoint is kept.
    """
    # --- Where this process runs, and what it is one of.
    accelerator = start_accelerator(config, output)
    device, main = accelerator.device, accelerator.is_main_process

    # --- The student, its teacher, and the optimizer of what is learned.
    network = start_network(config)
    teacher = None
    if config.model.teacher is not None:
        teacher = load_teacher(config.model.teacher, DTYPES[config.precision]).to(device)
    torch.manual_seed(config.seed)  # the same adapters in every process
    adapters = config.model.adapters if teacher is not None else None
    student = Student(network, config.tasks, config.losses, adapters)
    learned = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, betas=config.optimizer.betas, weight_decay=config.optimizer.weight_decay
    )
    model, optimizer = accelerator.prepare(student, optimizer)
    ema = None
    if config.ema is not None:
        # Brought up to date every few steps, with the decay of as many.
        decay = config.ema.decay**config.ema.every
        ema = EMAModel(learned_weights(network), decay=decay, foreach=True)

    # --- Where an earlier run stopped, and the data from there on.
    books = checkpoints.resume(accelerator, output, ema)
    test = open_source(config.data, config.stages[-1].size, "test")
    batches = stream(config, accelerator, books.step)
    latents = LatentCache(network, config.latent_cache, output / "latents")
    bar = tqdm(
        total=config.steps, initial=books.step, unit="step", desc=config.name, disable=not main
    )

    for step in range(books.step, config.steps):
        # --- One step: the gradient of the whole batch, micro-batch by micro-batch.
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.optimizer, config.steps, step)
        rounds = image_numbers(config, step, accelerator.num_processes, accelerator.process_index)
        losses: dict[str, torch.Tensor] = {}
        for number, images in enumerate(rounds, start=1):
            batch = next(batches).to(device)
            latent, lessons = None, {}
            with accelerator.autocast():
                if not config.model.train_vae:
                    latent = latents.encode(batch)
                if teacher is not None and latent is not None:
                    lessons = teach(teacher, network, latent, config, images)
            # Processes exchange gradients once, with the last micro-batch.
            with nullcontext() if number == len(rounds) else accelerator.no_sync(model):
                raw = model(batch, latent, lessons)
                raw["total"] = weighted_sum(raw, config.losses)
                accelerator.backward(raw["total"] / len(rounds))
            for name, value in raw.items():
                losses[name] = losses.get(name, 0) + value.detach() / len(rounds)

        # --- Stop before a broken gradient reaches the weights.
        values = mean_over_processes(accelerator, losses)
        if not math.isfinite(values["total"]):
            good = checkpoints.latest(output) or "none, the run had just begun"
            raise NonFiniteError(
                f"the loss is not finite at step {step} ({told(values)}): lower "
                f"optimizer.learning_rate or look at the data; last good checkpoint: {good}"
            )
        accelerator.clip_grad_norm_(learned, config.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        # --- The books: average, log, scores, pictures, checkpoint.
        books.step = done = step + 1
        final = done == config.steps
        if ema is not None and config.ema is not None and (done % config.ema.every == 0 or final):
            ema.step(learned_weights(network))
        bar.update()
        if done % config.every.log == 0 or final:
            bar.set_postfix_str(told(values), refresh=False)
            record(accelerator, output, done, {f"loss/{k}": v for k, v in values.items()})
        if done % config.every.pictures == 0 and main:
            seen = test if len(test) else open_source(config.data, config.stages[-1].size, "train")
            with averaged(network, ema), accelerator.autocast():
                path = output / "pictures" / f"step_{done:08d}.png"
                write_picture(path, network, seen, config.tasks.trained, device)
        if (done % config.every.validation == 0 or final) and main:
            with averaged(network, ema):
                with accelerator.autocast():
                    scores = validate(network, test, config.tasks.trained, device)
                record(accelerator, output, done, {f"test/{k}": v for k, v in scores.items()})
                export(output / LAST, network, config, done)
                score = next((scores[name] for name in SCORES if name in scores), math.inf)
                if score < books.best:
                    books.best = score
                    export(output / BEST, network, config, done)
        if done % config.every.checkpoint == 0 or final:
            checkpoints.save(accelerator, output, books, ema)
    bar.close()
    accelerator.end_training()
    return output / (BEST if (output / BEST).is_dir() else LAST)


def start_accelerator(config: TrainConfig, output: Path) -> Accelerator:
    """accelerate's view of this process: its device, its rank, its precision, its loggers."""
    output.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    accelerator = Accelerator(
        mixed_precision=PRECISIONS[config.precision],
        log_with="tensorboard" if is_tensorboard_available() else None,
        project_dir=output,
    )
    if is_tensorboard_available():
        accelerator.init_trackers("tensorboard")
    for stage in config.stages:
        if stage.batch % (config.micro_batch * accelerator.num_processes):
            raise DataError(
                f"a stage's batch {stage.batch} is not a multiple of micro_batch "
                f"{config.micro_batch} x {accelerator.num_processes} processes"
            )
    return accelerator


def stream(config: TrainConfig, accelerator: Accelerator, start: int) -> Iterator[Batch]:
    """This process's micro-batches from step `start` to the last, each stage at its image size."""
    end = 0
    for stage in config.stages:
        begin, end = end, end + stage.steps
        if start >= end:
            continue
        source = open_source(config.data, stage.size, "train")
        accelerator.print(*source.summary, sep="\n")
        numbers = (
            images
            for step in range(max(start, begin), end)
            for images in image_numbers(
                config, step, accelerator.num_processes, accelerator.process_index
            )
        )
        yield from micro_batches(source, config.seed, numbers, config.workers)


def teach(
    teacher: DiffusersModel,
    network: D3Network,
    latent: torch.Tensor,
    config: TrainConfig,
    images: range,
) -> dict[Task, Lesson]:
    """What the teacher shows, by task, for the latents of the images with these numbers."""
    lessons: dict[Task, Lesson] = {}
    for task in config.tasks.trained:
        rows = task_rows(len(images), config.tasks.share(task))
        generators = [noise_generator(config.seed, images[row]) for row in rows]
        draw = draw_noise(latent.shape[1:], generators)
        prompt = network.prompt_embedding(task).to(latent).expand(len(rows), -1, -1)
        lessons[task] = Lesson(teacher_features(teacher, latent[rows], draw, prompt), draw)
    return lessons


def learning_rate(config: OptimizerConfig, steps: int, step: int) -> float:
    """The rate at `step`, from 0, of `steps`: a linear warm-up, then the schedule's descent."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    left = {
        "constant": 1.0,
        "linear": 1 - step / steps,
        "cosine": 0.5 * (1 + math.cos(math.pi * step / steps)),
    }[config.schedule]
    return config.learning_rate * warm * (config.final_share + (1 - config.final_share) * left)


def learned_weights(network: D3Network) -> list[nn.Parameter]:
    """What of the network is trained; adapters stay behind when training ends."""
    return [p for p in network.parameters() if p.requires_grad]


@contextmanager
def averaged(network: D3Network, ema: EMAModel | None) -> Iterator[None]:
    """The network with the moving average of its weights, where there is one."""
    if ema is None:
        yield
        return
    ema.store(learned_weights(network))
    ema.copy_to(learned_weights(network))
    try:
        yield
    finally:
        ema.restore(learned_weights(network))


def export(folder: Path, network: D3Network, config: TrainConfig, step: int) -> None:
    """Write the network as a plain bundle: whole or not at all, over the one before."""
    if config.model.lora is not None:
        network = deepcopy(network)
        merge_lora(network)
    write_bundle(
        folder,
        network,
        name=config.name,
        license=config.license,
        source=f"trained by d3_ros from {config.model.start or 'random weights'}: "
        f"step {step} of {config.steps}, seed {config.seed}",
        overwrite=True,
    )


def mean_over_processes(
    accelerator: Accelerator, losses: Mapping[str, torch.Tensor]
) -> dict[str, float]:
    """The losses of the whole batch."""
    stacked = torch.stack([value.float() for value in losses.values()])
    mean = accelerator.reduce(stacked, reduction="mean")
    return dict(zip(losses, mean.tolist(), strict=True))


def record(accelerator: Accelerator, output: Path, step: int, values: Mapping[str, float]) -> None:
    """Write numbers to log.jsonl, and to TensorBoard where it is installed."""
    if accelerator.is_main_process and values:
        with (output / "log.jsonl").open("a", encoding="utf-8") as log:
            print(json.dumps({"step": step, **values}), file=log)
    accelerator.log(dict(values), step=step)


def told(values: Mapping[str, float]) -> str:
    """Losses in a few words."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())

"""Training of a D³-Predictor, end to end: one loop, read from top to bottom.

The same loop trains the official network from Stable Diffusion under a teacher, a small one from
nothing, and fine-tunes either: the configuration says which. It runs on one device, on several and
on several machines, as Hugging Face's accelerate (or torchrun) starts it.

Three choices keep a run reproducible. Every random number follows from the seed and the image's
number in the run, not from a generator's hidden state. Every loss is a mean over images, so that a
batch may be divided among processes and accumulated at will. A checkpoint is whole or absent. So a
run that was killed ends with the weights that it would have had; on a CPU, bit for bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available
from diffusers.training_utils import EMAModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from d3_ros.errors import DataError, NonFiniteError
from d3_ros.network import D3Network, write_bundle
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.train_config import OptimizerConfig, TrainConfig
from d3_ros.training.loading.batches import (
    image_numbers,
    micro_batches,
    micro_batches_of_processes,
)
from d3_ros.training.loading.datasets import MixedSource, open_source
from d3_ros.training.loading.latents import LatentCache
from d3_ros.training.loading.sample import Batch
from d3_ros.training.loop import checkpoints
from d3_ros.training.loop.lora import merge_lora
from d3_ros.training.loop.muon import new_optimizer
from d3_ros.training.loop.start import caption_encoder, load_teacher, start_from
from d3_ros.training.loop.validation import SCORES, write_picture
from d3_ros.training.objectives.forward import embed, learner, noised_input, scored, teach
from d3_ros.training.objectives.pretraining import scale_latents
from d3_ros.training.objectives.prompts import Prompts
from d3_ros.training.objectives.task_losses import weighted_sum

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # ours, accelerate's
SMALL_IMAGE = 160 * 224  # pixels
BEST, LAST = "best", "last"  # bundles in the output folder


@dataclass(frozen=True)
class Run:
    """What a run consists of: `model` is the student as accelerate wraps it, around `network`."""

    config: TrainConfig
    output: Path
    accelerator: Accelerator
    network: D3Network
    license: str
    teacher: DiffusersModel | None
    model: nn.Module
    learned: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    latents: LatentCache
    prompts: Prompts
    test: MixedSource
    books: checkpoints.TrainingState


def train(config: TrainConfig, output: Path) -> Path:
    """Train; returns the bundle that is best on the data's test split, `output/best`.

    Without a test split it is `output/last`. Goes on from the newest checkpoint in `output` where
    there is one; the loss of every few steps is in `output/log.jsonl`.

    Raises:
        DataError, D3Error: the configuration, the start, the data or the checkpoint is not usable.
        NonFiniteError: the loss became NaN or infinite; the last checkpoint is kept.
    """
    run = prepare(config, output)
    config, accelerator, books = run.config, run.accelerator, run.books
    batches = stream(config, accelerator, books.step)
    bar = tqdm(
        total=config.steps,
        initial=books.step,
        unit="step",
        desc=config.name,
        disable=not accelerator.is_main_process,
    )
    for step in range(books.step, config.steps):
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(config.optimizer, config.steps, step)
        losses = accumulate(run, batches, step)

        # Stop before a broken gradient reaches the weights.
        if not math.isfinite(losses["total"]):
            good = checkpoints.latest(output) or "none, the run had just begun"
            raise NonFiniteError(
                f"the loss is not finite at step {step} ({told(losses)}): lower "
                f"optimizer.learning_rate or look at the data; last good checkpoint: {good}"
            )
        accelerator.clip_grad_norm_(run.learned, config.optimizer.clip_norm)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)

        # The rest is bookkeeping.
        books.step = done = step + 1
        final = done == config.steps
        every = config.every
        if run.ema is not None and config.ema and (done % config.ema.every == 0 or final):
            run.ema.step(learned_weights(run.network))
        bar.update()
        if done % every.log == 0 or final:
            bar.set_postfix_str(told(losses), refresh=False)
            record(run, {f"loss/{name}": value for name, value in losses.items()})
        if done % every.pictures == 0 and config.objective == "d3":
            draw(run)
        if done % every.validation == 0 or final:
            judge(run)
        if done % every.checkpoint == 0 or final:
            checkpoints.save(accelerator, output, books, run.ema)
    bar.close()
    accelerator.end_training()
    return output / (BEST if (output / BEST).is_dir() else LAST)


def prepare(config: TrainConfig, output: Path) -> Run:
    """Everything as it was when the newest checkpoint was written, or as it begins."""
    accelerator = start_accelerator(config, output)
    start = start_from(config)
    config, network = start.config, start.network
    teacher = None
    if config.model.teacher is not None:
        teacher = load_teacher(config.model.teacher, config.dtype)
        teacher.to(accelerator.device)
    if config.objective == "diffusion":
        scale_latents(network, open_source(config.data, config.size, "train"))
    torch.manual_seed(config.seed)  # the same adapters in every process
    student = learner(config, network, teacher is not None)
    learned = [p for p in student.parameters() if p.requires_grad]
    optimizer = new_optimizer(config.optimizer, student)
    model, optimizer = accelerator.prepare(student, optimizer)
    ema = None
    if config.ema is not None:
        # Brought up to date every few steps, with the decay of as many.
        decay = config.ema.decay**config.ema.every
        ema = EMAModel(learned_weights(network), decay=decay, foreach=True)
    return Run(
        config=config,
        output=output,
        accelerator=accelerator,
        network=network,
        license=config.license or start.license or "",
        teacher=teacher,
        model=model,
        learned=learned,
        optimizer=optimizer,
        ema=ema,
        latents=LatentCache(network, config.latent_cache, output / "latents"),
        prompts=Prompts(network, caption_encoder(config.model)),
        test=open_source(config.data, config.size, "test"),
        books=checkpoints.resume(accelerator, output, ema),
    )


def accumulate(run: Run, batches: Iterator[Batch], step: int) -> dict[str, float]:
    """The gradient of the whole batch, micro-batch by micro-batch; returns its losses."""
    config, accelerator = run.config, run.accelerator
    rounds = image_numbers(config, step, accelerator.num_processes, accelerator.process_index)
    losses: dict[str, torch.Tensor] = {}
    for number, images in enumerate(rounds, start=1):
        batch = next(batches).to(accelerator.device)
        latent, lessons = None, {}
        with accelerator.autocast():
            if not config.model.train_vae:
                latent = run.latents.encode(batch)
            prompts = embed(run.prompts, config.tasks, batch)
            if latent is not None and (run.teacher or config.objective == "diffusion"):
                lessons = teach(run.teacher, config, latent, prompts, images)
            if latent is not None and config.model.input_noise is not None:
                latent = noised_input(latent, config, images)
        # Processes exchange gradients once, with the last micro-batch.
        alone = nullcontext() if number == len(rounds) else accelerator.no_sync(run.model)
        with alone, attention_kernel(batch):  # backward too: it may compute layers again
            raw = run.model(batch, latent, prompts, lessons)
            raw["total"] = weighted_sum(raw, config.losses)
            accelerator.backward(raw["total"] / len(rounds))
        for name, value in raw.items():
            losses[name] = losses.get(name, 0) + value.detach().float() / len(rounds)
    mean = accelerator.reduce(torch.stack(list(losses.values())), reduction="mean")
    return dict(zip(losses, mean.tolist(), strict=True))


def attention_kernel(batch: Batch) -> AbstractContextManager[None]:
    """Plain attention for small images on a CPU, else whatever PyTorch takes.

    Its fused attention goes backward slowly there: without it a whole step of d3_nano takes a
    seventh less. Plain attention needs memory for every pair of pixels, so not for large images.
    """
    if batch.image.device.type == "cpu" and batch.image[0, 0].numel() <= SMALL_IMAGE:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def start_accelerator(config: TrainConfig, output: Path) -> Accelerator:
    """accelerate's view of this process: its device, its rank, its precision, its loggers."""
    output.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    torch.backends.cudnn.benchmark = True  # a stage has one size
    cpu = not torch.accelerator.is_available()
    if cpu and config.precision == "fp16":
        raise DataError("precision fp16 needs a GPU: set precision to bf16 or fp32")
    accelerator = Accelerator(
        cpu=cpu,  # unless it is told, it looks for as many GPUs as there are processes
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
        assert stage.size is not None  # settled when training starts
        data, batches = config.data, micro_batches
        if config.worker_processes:
            data = replace(data, cache_gb=data.cache_gb / config.workers)
            batches = micro_batches_of_processes
        source = open_source(data, stage.size, "train")
        accelerator.print(*source.summary, sep="\n")
        numbers = (
            images
            for step in range(max(start, begin), end)
            for images in image_numbers(
                config, step, accelerator.num_processes, accelerator.process_index
            )
        )
        yield from batches(source, config.seed, numbers, config.workers)


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


def judge(run: Run) -> None:
    """Score the network on the test split, and write it as a bundle: as the last, as the best."""
    if run.accelerator.is_main_process:
        with averaged(run.network, run.ema):
            with run.accelerator.autocast():
                scores = scored(run.config, run.network, run.test, run.accelerator.device)
            export(run, LAST)
            score = next((scores[name] for name in SCORES if name in scores), math.inf)
            if score < run.books.best:
                run.books.best = score
                export(run, BEST)
        record(run, {f"test/{name}": value for name, value in scores.items()})


def draw(run: Run) -> None:
    """A grid of predictions on frames of the test split, or of those trained on without one."""
    if run.accelerator.is_main_process:
        config = run.config
        source = run.test
        if not len(source):
            source = open_source(config.data, config.size, "train")
        path = run.output / "pictures" / f"step_{run.books.step:08d}.png"
        with averaged(run.network, run.ema), run.accelerator.autocast():
            write_picture(path, run.network, source, config.tasks.trained, run.accelerator.device)


def export(run: Run, name: str) -> None:
    """Write the network as a plain bundle: whole or not at all, over the one before."""
    config, network = run.config, run.network
    if config.model.lora is not None:
        network = deepcopy(network)
        merge_lora(network)
    write_bundle(
        run.output / name,
        network,
        name=config.name,
        license=run.license,
        source=f"trained by d3_ros from {config.model.start or 'random weights'}: "
        f"step {run.books.step} of {config.steps}, seed {config.seed}",
        overwrite=True,
    )


def record(run: Run, values: Mapping[str, float]) -> None:
    """Write numbers to log.jsonl, and to TensorBoard where it is installed."""
    if run.accelerator.is_main_process and values:
        with (run.output / "log.jsonl").open("a", encoding="utf-8") as log:
            print(json.dumps({"step": run.books.step, **values}), file=log)
        run.accelerator.log(dict(values), step=run.books.step)


def told(values: Mapping[str, float]) -> str:
    """Losses in a few words."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())

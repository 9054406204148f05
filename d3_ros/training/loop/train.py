"""Training of a D³-Predictor: one loop, read from top to bottom.

The same loop trains the official network from Stable Diffusion under a teacher, trains a small
network from random weights, and fine-tunes either. The configuration says which. Hugging Face's
accelerate (or torchrun) runs it on one device, on several, or on several machines.

A run that is killed at any moment and started again ends with the weights that it would have had
anyway, on a CPU bit for bit. Three rules make this so. Every random number follows from the seed
and the number of the image in the run, never from the hidden state of a generator. Every loss is a
mean over images, so that a batch may be divided among processes and accumulated in any way. A
checkpoint is whole or absent, and has finite numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from d3_ros.errors import NonFiniteError
from d3_ros.training.config.train_config import TrainConfig
from d3_ros.training.loading.batches import image_numbers, run_batches
from d3_ros.training.loading.sample import Batch
from d3_ros.training.loop import checkpoints
from d3_ros.training.loop.results import BEST, LAST, draw, in_words, record, validate_and_export
from d3_ros.training.loop.run import Run, learned_weights, prepare
from d3_ros.training.loop.schedule import learning_rate_factor
from d3_ros.training.objectives.forward import noised_input, task_prompts, task_targets
from d3_ros.training.objectives.task_losses import weighted_sum

SMALL_IMAGE = 160 * 224  # pixels


def train(config: TrainConfig, output: Path) -> Path:
    """Train. Returns the bundle that is best on the data's test split, `output/best`.

    Without a test split it returns `output/last`. The run goes on from the newest checkpoint in
    `output`, if there is one. The losses of every few steps are in `output/log.jsonl`.

    Raises:
        DataError, D3Error: the configuration, the start, the data or the checkpoint is not usable.
        NonFiniteError: a loss, gradient or weight became NaN or infinite. It reached no checkpoint.
    """
    run = prepare(config, output)
    config, accelerator, state, every = run.config, run.accelerator, run.state, run.config.every
    rank, processes = accelerator.process_index, accelerator.num_processes
    batches = run_batches(config, state.step, rank, processes, say=accelerator.print)
    with tqdm(
        total=config.steps,
        initial=state.step,
        unit="step",
        desc=config.name,
        disable=not accelerator.is_main_process,
    ) as bar:
        for step in range(state.step, config.steps):
            # The learning rate of this step.
            rate = config.optimizer.learning_rate * learning_rate_factor(
                config.optimizer.schedule,
                step,
                steps=config.steps,
                warmup_steps=config.optimizer.warmup_steps,
                final_share=config.optimizer.final_share,
            )
            for group in run.optimizer.param_groups:
                group["lr"] = rate * group["factor"]

            # The gradient of the whole batch. It is applied only if it is finite.
            losses = accumulate_gradient(run, batches, step)
            norm = accelerator.clip_grad_norm_(run.learned, config.optimizer.clip_norm)
            refuse_non_finite(run, losses, float(norm))
            run.optimizer.step()
            run.optimizer.zero_grad(set_to_none=True)
            state.step = step + 1

            # The moving average of the weights.
            last = state.step == config.steps
            if run.ema is not None and config.ema and (state.step % config.ema.every == 0 or last):
                run.ema.step(learned_weights(run.network))

            # Log lines, pictures, scores, bundles and checkpoints, each every so many steps.
            bar.update()
            if state.step % every.log == 0 or last:
                bar.set_postfix_str(in_words(losses), refresh=False)
                record(run, {f"loss/{name}": value for name, value in losses.items()})
            if state.step % every.pictures == 0 and config.objective == "d3":
                draw(run)
            validation_is_due = state.step % every.validation == 0 or last
            checkpoint_is_due = state.step % every.checkpoint == 0 or last
            if validation_is_due or checkpoint_is_due:
                refuse_non_finite_weights(run)
            if validation_is_due:
                validate_and_export(run)
            if checkpoint_is_due:
                checkpoints.save(accelerator, output, state, run.ema)
    accelerator.end_training()
    return output / (BEST if (output / BEST).is_dir() else LAST)


def accumulate_gradient(run: Run, batches: Iterator[Batch], step: int) -> dict[str, float]:
    """The gradient of a whole batch, micro-batch by micro-batch. Returns its losses by name."""
    config, accelerator = run.config, run.accelerator
    micro_batches = image_numbers(
        config, step, accelerator.process_index, accelerator.num_processes
    )
    sums: dict[str, torch.Tensor] = {}
    for number, images in enumerate(micro_batches, start=1):
        batch = next(batches).to(accelerator.device)
        latent, targets = None, {}
        with accelerator.autocast():
            prompts = task_prompts(run.prompts, config.tasks, batch)
            if not config.model.train_vae:
                clean = run.latents.encode(batch)
                own, features = run.network.split_features(clean)
                targets = task_targets(run.teacher, config, own, prompts, images)
                noised = noised_input(own, config, images)
                latent = run.network.join_features(noised, features)
        # Processes exchange their gradients once, with the last micro-batch.
        is_last = number == len(micro_batches)
        exchange = nullcontext() if is_last else accelerator.no_sync(run.model)
        # The attention kernel holds for the backward pass, too, which may compute layers again.
        with exchange, attention_kernel(batch):
            losses = run.model(batch, latent, prompts, targets)
            losses["total"] = weighted_sum(losses, config.losses)
            accelerator.backward(losses["total"] / len(micro_batches))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + value.detach().float()
    means = torch.stack(list(sums.values())) / len(micro_batches)
    means = accelerator.reduce(means, reduction="mean")
    return dict(zip(sums, means.tolist(), strict=True))


def attention_kernel(batch: Batch) -> AbstractContextManager[None]:
    """Plain attention for small images on a CPU, PyTorch's choice for all others.

    PyTorch's fused attention has a slow backward pass on a CPU: without it a whole step of d3_nano
    takes a seventh less time. Plain attention needs memory for every pair of pixels, which large
    images do not leave.
    """
    if batch.image.device.type == "cpu" and batch.image[0, 0].numel() <= SMALL_IMAGE:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def refuse_non_finite(run: Run, losses: dict[str, float], gradient_norm: float) -> None:
    """Stop the run before a loss or gradient that is NaN or infinite reaches the weights.

    With fp16, a gradient may overflow because of its loss scale. accelerate then skips the step and
    halves the scale, so that only a scale below 1 is a fault of the run.

    Raises:
        NonFiniteError: with the losses, the remedy and the last good checkpoint.
    """
    scaler = run.accelerator.scaler
    if scaler is not None and scaler.get_scale() >= 1:
        gradient_norm = 0.0
    for what, value in (("loss", losses["total"]), ("gradient", gradient_norm)):
        if not math.isfinite(value):
            raise _diverged(run, f"the {what} is not finite at step {run.state.step}", losses)


def refuse_non_finite_weights(run: Run) -> None:
    """Stop the run before weights, averages or optimiser states that overflowed are written.

    Raises:
        NonFiniteError: with the remedy and the last good checkpoint.
    """
    tensors = [*run.learned, *(run.ema.shadow_params if run.ema is not None else ())]
    for state in run.optimizer.state.values():
        tensors += [value for value in state.values() if torch.is_tensor(value)]
    if not checkpoints.all_finite(tensors):
        raise _diverged(run, f"the weights are not finite after step {run.state.step - 1}", {})


def _diverged(run: Run, what: str, losses: dict[str, float]) -> NonFiniteError:
    good = checkpoints.latest(run.output) or "none, the run had just begun"
    told = f" ({in_words(losses)})" if losses else ""
    return NonFiniteError(
        f"{what}{told}: lower optimizer.learning_rate or look at the data; "
        f"last good checkpoint: {good}"
    )

"""The objects of one training run, as they were at its newest checkpoint or as they begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available
from diffusers.training_utils import EMAModel
from torch import nn

from d3_ros.errors import DataError
from d3_ros.network import D3Network
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.training.config.train_config import TrainConfig
from d3_ros.training.loading.datasets import MixedSource, open_source
from d3_ros.training.loading.latents import LatentCache
from d3_ros.training.loop import checkpoints
from d3_ros.training.loop.muon import new_optimizer
from d3_ros.training.loop.same_settings import check_settings, keep_settings
from d3_ros.training.loop.start import caption_encoder, load_teacher, start_from
from d3_ros.training.objectives.forward import forward_module
from d3_ros.training.objectives.pretraining import scale_latents
from d3_ros.training.objectives.prompts import Prompts

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # ours: accelerate's


@dataclass(frozen=True)
class Run:
    """One run. `model` is the forward module around `network`, as accelerate wraps it.

    `learned` has the trained parameters of `model`: those of the network and of the adapters.
    """

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
    state: checkpoints.TrainingState

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Inside the block, the network has the moving average of its weights, if there is one."""
        if self.ema is None:
            yield
            return
        self.ema.store(learned_weights(self.network))
        self.ema.copy_to(learned_weights(self.network))
        try:
            yield
        finally:
            self.ema.restore(learned_weights(self.network))


def prepare(config: TrainConfig, output: Path) -> Run:
    """Build everything, then load the newest checkpoint in `output`, if there is one.

    Raises:
        DataError, D3Error: the configuration, the start, the data or the checkpoint is not usable.
    """
    accelerator = start_accelerator(config, output)
    start = start_from(config)
    config, network = start.config, start.network
    if accelerator.is_main_process:
        check_settings(config, output, checkpoints.steps_done(output), accelerator.print)
    teacher = None
    if config.model.teacher is not None:
        teacher = load_teacher(config.model.teacher, config.dtype)
        teacher.to(accelerator.device)
    if config.objective == "diffusion":
        scale_latents(network, open_source(config.data, config.size, "train"))
    torch.manual_seed(config.seed)  # so that all processes have the same adapters
    module = forward_module(config, network, teacher is not None)
    learned = [p for p in module.parameters() if p.requires_grad]
    optimizer = new_optimizer(config.optimizer, module)
    model, optimizer = accelerator.prepare(module, optimizer)
    ema = None
    if config.ema is not None:
        # One update every few steps stands for as many: its decay is raised to their number.
        decay = config.ema.decay**config.ema.every
        ema = EMAModel(learned_weights(network), decay=decay, foreach=True)
    run = Run(
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
        state=checkpoints.resume(accelerator, output, ema),
    )
    if accelerator.is_main_process:
        keep_settings(config, output)
    return run


def start_accelerator(config: TrainConfig, output: Path) -> Accelerator:
    """accelerate's view of this process: device, rank, precision and loggers.

    Raises:
        DataError: the precision needs a GPU, or the processes cannot share a batch evenly.
    """
    output.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    torch.backends.cudnn.benchmark = True  # the images of a stage have few sizes
    cpu = not torch.accelerator.is_available()
    if cpu and config.precision == "fp16":
        raise DataError("precision fp16 needs a GPU: set precision to bf16 or fp32")
    accelerator = Accelerator(
        cpu=cpu,  # otherwise accelerate looks for as many GPUs as there are processes
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


def learned_weights(network: D3Network) -> list[nn.Parameter]:
    """The trained parameters of the network, without adapters."""
    return [p for p in network.parameters() if p.requires_grad]

"""The training configuration: typed, checked, unknown keys refused.

`config/training/train_depth.yaml` has all keys and explains them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from d3_ros.data.dataset_config import DataConfig
from d3_ros.errors import DataError
from d3_ros.training.config.yaml_config import build, read_yaml
from d3_ros.training.distillation.adapters import AdapterConfig
from d3_ros.training.objectives.task_losses import LossConfig
from d3_ros.types import TASKS, Task


@dataclass(frozen=True)
class NewModelConfig:
    """Sizes of a small D³-Predictor that starts at random: AutoencoderTiny and one UNet."""

    vae_channels: int
    vae_blocks: tuple[int, ...]  # of the encoder, from full size downwards; mirrored in the decoder
    latent_channels: int
    unet_channels: tuple[int, ...]
    unet_attention: tuple[bool, ...]
    unet_layers: int
    head_width: int
    norm_groups: int
    prompt_width: int


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation of the UNet: matrices of `rank`, scaled by `alpha` / `rank`, beside the
    layers whose names end in one of `targets`."""

    rank: int
    alpha: int
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise DataError("model.lora: rank must be at least 1, targets at least one name")


@dataclass(frozen=True)
class Timesteps:
    """The timestep at which each task's learning begins, 0 to 999.

    Tasks that share a UNet are told apart in all of its layers by theirs; their prompts reach only
    those with attention.
    """

    depth: float
    normals: float

    def __post_init__(self) -> None:
        for task in TASKS:
            if not 0 <= self.of(task) < 1000:
                raise DataError(f"model.timesteps.{task} must be 0 to 999, not {self.of(task)}")

    def of(self, task: Task) -> float:
        """The timestep of one task."""
        return float(getattr(self, task))


@dataclass(frozen=True)
class ModelConfig:
    """What is trained, from which weights, and what helps."""

    start: str | None
    new: NewModelConfig | None
    teacher: str | None
    adapters: AdapterConfig
    captions: bool
    train_vae: bool
    learn_timestep: bool
    timesteps: Timesteps | None
    input_noise: int | None
    lora: LoraConfig | None

    def __post_init__(self) -> None:
        if (self.start is None) == (self.new is None):
            raise DataError("model: give either start (a bundle or a folder) or new (sizes)")
        if self.new is not None and not self.train_vae:
            raise DataError("model: train_vae must be true for a new model")
        if self.input_noise is not None and (self.train_vae or not 0 <= self.input_noise < 1000):
            raise DataError(
                "model.input_noise must be a timestep, 0 to 999, and train_vae false with it"
            )
        if self.teacher is not None and self.train_vae:
            raise DataError(
                "model: a teacher knows only the VAE that it has: set train_vae to false"
            )


@dataclass(frozen=True)
class TaskShares:
    """Share of the images, 0 to 1, that each task is learned on."""

    depth: float
    normals: float

    def __post_init__(self) -> None:
        for task in TASKS:
            if not 0 <= self.share(task) <= 1:
                raise DataError(f"tasks.{task} must be in [0, 1], not {self.share(task)}")
        if not self.trained:
            raise DataError("tasks: at least one share must be above 0")

    def share(self, task: Task) -> float:
        """The share of one task."""
        return float(getattr(self, task))

    @property
    def trained(self) -> tuple[Task, ...]:
        """The tasks with a share."""
        return tuple(task for task in TASKS if self.share(task) > 0)


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one image size (height, width); None: that of the bundle."""

    size: tuple[int, int] | None
    batch: int
    steps: int

    def __post_init__(self) -> None:
        if min(*(self.size or (1,)), self.batch, self.steps) < 1:
            raise DataError("stages: size, batch and steps must be at least 1")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning rate over time.

    `kind` "muon" is `muon.Muon` for the UNets' inner weights and AdamW for the rest.
    """

    kind: Literal["adamw", "muon"]
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float
    warmup_steps: int
    schedule: Literal["constant", "linear", "cosine"]
    final_share: float


@dataclass(frozen=True)
class EmaConfig:
    """Moving average of the weights: decay per step, brought up to date every so many steps."""

    decay: float
    every: int


@dataclass(frozen=True)
class EveryConfig:
    """How often, in steps, what is not learning happens."""

    checkpoint: int
    validation: int
    pictures: int
    log: int

    def __post_init__(self) -> None:
        if min(self.checkpoint, self.validation, self.pictures, self.log) < 1:
            raise DataError("every: each must be at least 1 step")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    name: str
    license: str | None
    objective: Literal["d3", "autoencoder", "diffusion"]
    seed: int
    threads: int
    workers: int
    worker_processes: bool
    precision: Literal["fp32", "bf16", "fp16"]
    gradient_checkpointing: bool
    latent_cache: Literal["none", "memory", "disk"]
    model: ModelConfig
    tasks: TaskShares
    data: DataConfig
    stages: tuple[Stage, ...]
    micro_batch: int
    optimizer: OptimizerConfig
    ema: EmaConfig | None
    losses: LossConfig
    every: EveryConfig

    def __post_init__(self) -> None:
        if not self.stages:
            raise DataError("stages must be at least one")
        if self.worker_processes and self.workers < 1:
            raise DataError("worker_processes: set workers to at least 1 with it")
        if self.objective != "d3" and self.model.train_vae != (self.objective == "autoencoder"):
            wanted = "true" if self.objective == "autoencoder" else "false"
            raise DataError(f"objective {self.objective}: set model.train_vae to {wanted}")
        if self.model.new is not None and self.license is None:
            raise DataError("license must be given for a new model")
        if self.model.new is not None and any(stage.size is None for stage in self.stages):
            raise DataError("stages: a new model has no size of its own: give each stage one")
        if self.model.train_vae and self.latent_cache != "none":
            raise DataError("latent_cache must be none where train_vae is true: latents change")
        for stage in self.stages:
            if self.micro_batch < 1 or stage.batch % self.micro_batch:
                raise DataError(
                    f"micro_batch {self.micro_batch} does not divide a stage's batch {stage.batch}"
                )
        for task in TASKS:
            if (self.micro_batch * self.tasks.share(task)) % 1:
                raise DataError(
                    f"tasks.{task} of {self.micro_batch} images (micro_batch) must be a whole "
                    f"number of images, not {self.micro_batch * self.tasks.share(task)}"
                )

    @property
    def dtype(self) -> torch.dtype:
        """What layers compute in; weights, losses and the optimizer are float32."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            self.precision
        ]

    @property
    def size(self) -> tuple[int, int]:
        """The image size that the bundle is made for: the last stage's.

        Raises:
            ValueError: it is still to be taken from the bundle that training starts from.
        """
        size = self.stages[-1].size
        if size is None:
            raise ValueError("the stages' sizes are not settled: see training.start")
        return size

    def settled(self, size: tuple[int, int]) -> TrainConfig:
        """The configuration with `size` for the stages that leave it to the bundle."""
        return replace(self, stages=tuple(replace(s, size=s.size or size) for s in self.stages))

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)


def find_config(path_or_name: str | Path) -> Path:
    """The YAML file that is meant: a path, or the name of one in the package's config/training.

    Raises:
        DataError: there is no such file; where it was renamed, the message has the new name.
    """
    path = Path(path_or_name).expanduser()
    prefixes = filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    shares = [Path(prefix) / "share" / "d3_ros" for prefix in prefixes]
    folders = [
        share / "config" / "training" for share in (*shares, Path(__file__).resolve().parents[3])
    ]
    shipped = [folder / path.name for folder in folders if len(path.parts) == 1]
    for candidate in (path, *shipped):
        if candidate.is_file():
            return candidate
    today = re.sub(r"^nano_(\d)_", r"nano_0\1_", path.name)
    if any((folder / today).is_file() for folder in folders):
        raise DataError(f"{path}: there is no such file; the recipe is now called {today}")
    raise DataError(f"{path}: there is no such file, nor a recipe of that name in config/training")


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file, with what it inherits, apply `key.subkey=value` overrides, check it.

    `data=FOLDER` is short for that folder as the path of every dataset.

    Raises:
        DataError: the file cannot be read, or a key is unknown, missing or of the wrong type.
    """
    folders = [text.partition("=")[2] for text in overrides if text.startswith("data=")]
    content = read_yaml(path, [text for text in overrides if not text.startswith("data=")])
    if folders:
        for dataset in content["data"]["datasets"]:
            dataset["path"] = folders[-1]
    return build(TrainConfig, content, str(path))

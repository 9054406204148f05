"""What a training configuration says about a run.

`config/training/train_depth.yaml` has all keys and explains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch

from d3_ros.data.dataset_config import DataConfig
from d3_ros.errors import DataError
from d3_ros.training.config.model_config import ModelConfig
from d3_ros.training.config.yaml_config import (
    ClipNorm,
    Count,
    Decay,
    LearningRate,
    Range,
    Seed,
    Share,
    Side,
    Weight,
    build,
    read_yaml,
)
from d3_ros.types import TASKS, Task

DepthUnit: TypeAlias = Literal["metre", "mean", "pixel"]
Schedule: TypeAlias = Literal["constant", "linear", "cosine", "warmup_decay"]


@dataclass(frozen=True)
class TaskShares:
    """The share of the images, 0 to 1, that each task is trained on."""

    depth: Share
    normals: Share

    def __post_init__(self) -> None:
        if not self.trained:
            raise DataError("at least one share must be above 0")

    def share(self, task: Task) -> float:
        """The share of one task."""
        return float(getattr(self, task))

    @property
    def trained(self) -> tuple[Task, ...]:
        """The tasks whose share is above 0."""
        return tuple(task for task in TASKS if self.share(task) > 0)


@dataclass(frozen=True)
class Stage:
    """Steps of a run at one image size (height, width). None: the size of the bundle.

    With `more_sizes`, each step draws one of these sizes or `size`. A size that is listed twice is
    drawn twice as often.
    """

    size: tuple[Side, Side] | None
    batch: Count
    steps: Count
    more_sizes: tuple[tuple[Side, Side], ...] = ()


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning rate over time (`loop.schedule`).

    `kind` "muon" is `loop.muon.Muon` for the UNets' inner weights and AdamW for all others. The
    learning rate of a VAE or codec is `vae_rate` times that of everything else.
    """

    kind: Literal["adamw", "muon"]
    learning_rate: LearningRate
    betas: tuple[Annotated[float, Range(0, 0.999999)], Annotated[float, Range(0, 0.999999)]]
    weight_decay: Share
    clip_norm: ClipNorm
    warmup_steps: Annotated[int, Range(0, 1e9)]
    schedule: Schedule
    final_share: Share
    vae_rate: Annotated[float, Range(0, 100)] = 1.0


@dataclass(frozen=True)
class EmaConfig:
    """The moving average of the weights: `decay` per step, updated every `every` steps."""

    decay: Decay
    every: Count


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses by name, and the unit of the scale-and-shift-invariant depth loss.

    A loss that is left out has weight 0. `mixture` is for decoders that propose several depths.

    `depth_unit` "metre" is the official recipe. "mean" divides by the frame's mean depth, so that a
    street does not outweigh a table. "pixel" divides each error by the pixel's own depth: the loss
    is then AbsRel after the affine fit.
    """

    alignment: Weight = 0.0
    mse: Weight = 0.0
    scale_shift_invariant: Weight = 0.0
    log_gradient: Weight = 0.0
    normal_angle: Weight = 0.0
    depth_unit: DepthUnit = "metre"
    local: Weight = 0.0
    mixture: Weight = 0.0


@dataclass(frozen=True)
class EveryConfig:
    """The number of steps from one checkpoint, validation, picture or log line to the next."""

    checkpoint: Count
    validation: Count
    pictures: Count
    log: Count


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The optional keys are at the end."""

    name: str
    objective: Literal["d3", "autoencoder", "diffusion"]
    seed: Seed
    workers: Annotated[int, Range(0, 256)]
    precision: Literal["fp32", "bf16", "fp16"]
    model: ModelConfig
    tasks: TaskShares
    data: DataConfig
    stages: tuple[Stage, ...]
    micro_batch: Count
    optimizer: OptimizerConfig
    losses: LossConfig
    every: EveryConfig
    license: str | None = None
    threads: Annotated[int, Range(0, 1024)] = 0
    worker_processes: bool = False
    gradient_checkpointing: bool = False
    latent_cache: Literal["none", "memory", "disk"] = "none"
    ema: EmaConfig | None = None

    def __post_init__(self) -> None:
        if self.worker_processes and self.workers < 1:
            raise DataError("worker_processes: set workers to at least 1 with it")
        if self.objective != "d3" and self.model.train_vae != (self.objective == "autoencoder"):
            wanted = "true" if self.objective == "autoencoder" else "false"
            raise DataError(f"objective {self.objective}: set model.train_vae to {wanted}")
        if self.model.teacher is not None and self.losses.alignment == 0:
            raise DataError("model.teacher: give losses.alignment a weight above 0 with it")
        if self.model.new is not None and self.license is None:
            raise DataError("license must be given for a new model")
        if self.model.new is not None and any(stage.size is None for stage in self.stages):
            raise DataError("stages: give each stage a size: a new model has none of its own")
        if self.model.train_vae and self.latent_cache != "none":
            raise DataError("latent_cache must be none while train_vae is true: latents change")
        for stage in self.stages:
            if stage.batch % self.micro_batch:
                raise DataError(
                    f"micro_batch {self.micro_batch} does not divide a stage's batch {stage.batch}"
                )
        for task in TASKS:
            count = self.micro_batch * self.tasks.share(task)
            if abs(count - round(count)) > 1e-9:  # 25 x 0.28 is 7.000000000000001
                raise DataError(
                    f"tasks.{task}: its share of micro_batch {self.micro_batch} must be a whole "
                    f"number of images, not {count:g}"
                )

    @property
    def dtype(self) -> torch.dtype:
        """The type that layers compute in. Weights, losses and the optimiser stay float32."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            self.precision
        ]

    @property
    def size(self) -> tuple[int, int]:
        """The bundle's image size (height, width): that of the last stage.

        Raises:
            ValueError: the size is still to be taken from the bundle that training starts from.
        """
        size = self.stages[-1].size
        if size is None:
            raise ValueError("the stages' sizes are not settled: see loop.start")
        return size

    def settled(self, size: tuple[int, int]) -> TrainConfig:
        """The configuration with `size` in the stages that leave it to the bundle."""
        return replace(self, stages=tuple(replace(s, size=s.size or size) for s in self.stages))

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file, apply `key.subkey=value` overrides, check everything.

    The override `data=FOLDER` sets the path of every dataset.

    Raises:
        DataError: the file cannot be read, or a key or value in it is wrong.
    """
    folders = [text.partition("=")[2] for text in overrides if text.startswith("data=")]
    content = read_yaml(path, [text for text in overrides if not text.startswith("data=")])
    config = build(TrainConfig, content, str(path))
    if folders:
        datasets = tuple(replace(d, path=folders[-1]) for d in config.data.datasets)
        config = replace(config, data=replace(config.data, datasets=datasets))
    return config

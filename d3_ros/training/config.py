"""The training configuration: typed, validated, unknown keys refused. The YAML states every value.

`config/train_d3_nano.yaml` explains the keys; nothing here has a second default.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from d3_ros.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a small D³-Predictor: an AutoencoderTiny and a UNet2DConditionModel."""

    vae_channels: int
    vae_blocks: tuple[int, ...]  # of the encoder, from full size downwards; mirrored in the decoder
    latent_channels: int
    unet_channels: tuple[int, ...]
    unet_attention: tuple[bool, ...]
    unet_layers: int
    head_width: int
    norm_groups: int
    prompt_width: int
    processing_size: tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one image size (height, width)."""

    size: tuple[int, int]
    batch: int
    steps: int


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in `d3_ros.training.losses`."""

    mse: float
    scale_shift_invariant: float
    log_gradient: float
    normal_angle: float


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    name: str
    seed: int
    processes: int
    threads: int
    bf16: bool
    model: ModelConfig
    stages: tuple[Stage, ...]
    normals_share: float
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    ema_decay: float
    checkpoint_every: int
    losses: LossWeights

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that step number `step`, from 0, belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise IndexError("step is beyond the last stage")


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file, apply `key.subkey=value` overrides, check it.

    Raises:
        DataError: the file cannot be read, or a key is unknown, missing or of the wrong type.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    for text in overrides:
        key, equals, value = text.partition("=")
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict):
            raise DataError(f"{text!r}: write an override as key=value with a key of {path}")
        place[last] = yaml.safe_load(value)
    config = _build(TrainConfig, content, str(path))
    if not config.stages or min(s.steps for s in config.stages) < 1:
        raise DataError(f"{path}: stages must be at least one, each with at least one step")
    if config.processes < 1 or any(s.batch % config.processes for s in config.stages):
        raise DataError(f"{path}: every stage's batch must be a multiple of processes")
    if not 0 <= config.normals_share <= 1:
        raise DataError(f"{path}: normals_share must be in [0, 1], not {config.normals_share}")
    return config


def _build(kind: type[T], content: object, where: str) -> T:
    """`content` as the dataclass `kind`, checked key by key."""
    if not isinstance(content, Mapping):
        raise DataError(f"{where} must be a mapping of keys to values")
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(content) - names):
        raise DataError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(names))}")
    if missing := sorted(names - set(content)):
        raise DataError(f"{where}: {missing[0]!r} is missing")
    hints = typing.get_type_hints(kind)
    values = {name: _value(hints[name], content[name], f"{where}: {name}") for name in names}
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise DataError(f"{where} must be a list")
        item, *rest = typing.get_args(hint)
        if rest != [Ellipsis] and len(value) != 1 + len(rest):
            raise DataError(f"{where} must have {1 + len(rest)} entries")
        return tuple(_value(item, v, where) for v in value)
    if is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if hint is float and type(value) in (int, str):
        with suppress(ValueError):  # YAML 1.1 takes 1e-3, without a point, for a text
            return float(value)
    if type(value) is not hint:
        raise DataError(f"{where} must be {hint.__name__}, not {value!r}")
    return value

"""What a configuration says about the distillation of a bundle's VAE into the small codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from d3_ros.training.config.model_config import Blocks, Width
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


@dataclass(frozen=True)
class CodecTrainConfig:
    """One distillation. config/training/train_codec.yaml explains the keys."""

    model: str
    data: str
    seed: Seed
    device: str
    bf16: bool
    width: Width
    encoder_blocks: tuple[Blocks, ...]
    decoder_blocks: tuple[Blocks, ...]
    size: tuple[Side, Side]
    smallest_crop: Annotated[float, Range(0.01, 1)]
    batch: Count
    steps: Count
    learning_rate: LearningRate
    warmup_steps: Annotated[int, Range(0, 1e9)]
    weight_decay: Share
    clip_norm: ClipNorm
    ema_decay: Decay
    edge_weight: Weight
    unet_weight: Weight
    checkpoint_every: Count


def load_codec_config(path: Path, overrides: Sequence[str] = ()) -> CodecTrainConfig:
    """Read a YAML file, apply `key=value` overrides, check everything.

    Raises:
        DataError: the file cannot be read, or a key or value in it is wrong.
    """
    return build(CodecTrainConfig, read_yaml(path, overrides), str(path))

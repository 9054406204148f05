"""What a configuration says about the training of the small codec of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from d3_ros.errors import DataError
from d3_ros.training.config.model_config import (
    BackboneName,
    Blocks,
    Components,
    Sharpening,
    Width,
)
from d3_ros.training.config.train_config import LossConfig
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
    """One training of a codec. config/training/train_codec.yaml explains the keys."""

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
    skips: tuple[Width, ...] | None = None
    depth_components: Components = 1
    mixture_weight: Weight = 0.0
    label_weight: Weight = 0.0
    label_losses: LossConfig | None = None
    backbone: BackboneName | None = None
    sharpening: Sharpening = 0

    def __post_init__(self) -> None:
        of_labels = _positive(self.label_losses)
        if "alignment" in of_labels:
            raise DataError("label_losses.alignment must be 0: no features are compared here")
        if self.label_weight > 0 and not of_labels:
            raise DataError("label_weight is above 0: give one of label_losses a weight above 0")
        learned = self.mixture_weight > 0 or (self.label_weight > 0 and "mixture" in of_labels)
        if self.depth_components > 1 and not learned:
            raise DataError("depth_components is above 1: give mixture_weight a value above 0")


def _positive(losses: LossConfig | None) -> list[str]:
    """The names of the losses whose weight is above 0."""
    if losses is None:
        return []
    names = [field.name for field in fields(losses) if field.name != "depth_unit"]
    return [name for name in names if getattr(losses, name) > 0]


def load_codec_config(path: Path, overrides: Sequence[str] = ()) -> CodecTrainConfig:
    """Read a YAML file, apply `key=value` overrides, check everything.

    Raises:
        DataError: the file cannot be read, or a key or value in it is wrong.
    """
    return build(CodecTrainConfig, read_yaml(path, overrides), str(path))

"""What a training configuration says about the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from d3_ros.errors import DataError
from d3_ros.training.config.yaml_config import Range
from d3_ros.types import Task

Width = Annotated[int, Range(1, 16384)]  # channels
Blocks = Annotated[int, Range(0, 64)]
Layers = Annotated[int, Range(1, 64)]
Components = Annotated[int, Range(1, 8)]  # depths that are proposed for a pixel
Curve = Annotated[float, Range(0.1, 6)]  # by how much near depths have a finer scale, a logarithm
Sharpening = Annotated[int, Range(0, 16)]  # passes that make edges of depth steeper
Margin = Annotated[float, Range(0, 0.5)]  # share of the range of depth
BackboneName: TypeAlias = Literal["efficientnet_lite0"]
TimestepValue = Annotated[float, Range(0, 999)]


@dataclass(frozen=True)
class NewModelConfig:
    """Sizes of a small D³-Predictor that starts from random weights: AutoencoderTiny and one UNet.

    `vae_blocks`: residual blocks of the encoder at each size, full size first; the decoder mirrors
    them. `unet_channels` and `unet_attention` have one entry per size of the UNet.
    """

    vae_channels: Width
    vae_blocks: tuple[Blocks, ...]
    latent_channels: Width
    unet_channels: tuple[Width, ...]
    unet_attention: tuple[bool, ...]
    unet_layers: Layers
    head_width: Width
    norm_groups: Width
    prompt_width: Width

    def __post_init__(self) -> None:
        if len(self.unet_channels) != len(self.unet_attention):
            raise DataError("unet_channels and unet_attention must have the same number of entries")
        for width in self.unet_channels:
            if width % self.norm_groups or width % self.head_width:
                raise DataError(
                    f"unet_channels: {width} is not a multiple of norm_groups {self.norm_groups} "
                    f"and of head_width {self.head_width}"
                )


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation of the UNet: matrices of `rank`, scaled by `alpha` / `rank`, are trained
    beside the layers whose names end in one of `targets`."""

    rank: Width
    alpha: Width
    targets: tuple[str, ...]


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapters from the student's features to the teacher's.

    Each adapter has `depth` gated feed-forward layers, which have `expansion` times the feature's
    channels inside. The embedding of the teacher's timestep has `condition_width` channels and goes
    through `condition_depth` layers, which have `condition_hidden` channels inside.
    """

    depth: Layers
    expansion: Layers
    condition_width: Width
    condition_depth: Layers
    condition_hidden: Width


@dataclass(frozen=True)
class Timesteps:
    """The timestep at which the training of each task begins.

    A UNet that two tasks share sees the task's timestep in all of its layers, but the task's prompt
    only in layers with attention. So timesteps that differ help it to tell the tasks apart.
    """

    depth: TimestepValue
    normals: TimestepValue

    def of(self, task: Task) -> float:
        """The timestep of one task."""
        return float(getattr(self, task))


@dataclass(frozen=True)
class SkipConfig:
    """What a small network gets so that its decoders see the picture; see `loop.add_skips`.

    `channels` of the picture's U-Net from half size downwards, the first also of the decoders at
    half size; `latent_channels` that are added to the latent's; residual `blocks` of the decoders
    at half size; `depth_components`: depths that are proposed for each pixel, of which one is
    chosen. `backbone`: begin the U-Net with a network trained on photographs.
    """

    channels: tuple[Width, ...]
    latent_channels: Annotated[int, Range(0, 1024)]
    blocks: Blocks
    depth_components: Components
    backbone: BackboneName | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The weights that training starts from, which of them it trains, and the teacher.

    start: a bundle (folder or name), or Stable Diffusion (folder or repository); or give `new`.
    new: sizes of a network that starts from random weights.
    teacher: Stable Diffusion, or a folder in its layout, whose frozen UNet teaches.
    adapters: required with a teacher.
    captions: use the frames' captions as prompts. False: the task's fixed prompt.
    train_vae: train the VAE, too.
    learn_timestep: train the timestep. False is for ablations.
    timesteps: where the timesteps begin. None: at the bundle's, or at 261 without one.
    input_noise: for ablations: the timestep whose noise is put on the student's input.
    lora: train low-rank matrices instead of the UNet's own weights.
    skips: let the decoders of a bundle with an AutoencoderTiny see the picture. A bundle whose
        decoders see it already stays as it is.
    train_backbone: train the backbone of the skips, too. False: it stays as photographs taught it.
    sharpening: passes that make the edges of a small network's depth steeper, after training has
        looked at it. None: as many as the bundle has.
    depth_curve: give near depths of a small network a finer scale than far ones: the logarithm of
        how much finer. None: as the bundle has it.
    near_margin: share of the range of a small network's depth that is kept free at the near end,
        so that what is nearer is not clipped; training does not see it. None: as the bundle has it.
    bundle_depth_curve: the `depth_curve` of the bundles that training writes, where it differs from
        the one trained with: real frames may want a straighter scale than rendered ones. None: the
        same.
    train_unet: train the UNet and the timesteps. False: the VAE or codec alone, which costs a
        third.
    """

    start: str | None = None
    new: NewModelConfig | None = None
    teacher: str | None = None
    adapters: AdapterConfig | None = None
    captions: bool = False
    train_vae: bool = False
    learn_timestep: bool = True
    timesteps: Timesteps | None = None
    input_noise: Annotated[int, Range(0, 999)] | None = None
    lora: LoraConfig | None = None
    skips: SkipConfig | None = None
    sharpening: Sharpening | None = None
    depth_curve: Curve | None = None
    near_margin: Margin | None = None
    bundle_depth_curve: Curve | None = None
    train_unet: bool = True
    train_backbone: bool = False

    def __post_init__(self) -> None:
        if (self.start is None) == (self.new is None):
            raise DataError("give either start (a bundle or a folder) or new (sizes)")
        if self.new is not None and not self.train_vae:
            raise DataError("train_vae must be true for a new model")
        if self.input_noise is not None and self.train_vae:
            raise DataError("input_noise needs a fixed VAE: set train_vae to false")
        if self.teacher is not None and self.train_vae:
            raise DataError("a teacher needs the VAE of its own training: set train_vae to false")
        if self.teacher is not None and self.adapters is None:
            raise DataError("a teacher needs adapters: give their sizes")
        if self.skips is not None and not (self.train_vae and self.start is not None):
            raise DataError("skips need a bundle as start, and train_vae: true")
        if self.depth_curve is not None and not self.train_vae:
            raise DataError("depth_curve needs train_vae: true, since the decoder learns it anew")
        if not self.train_unet and not self.train_vae:
            raise DataError("train_unet and train_vae are both false: nothing is trained")

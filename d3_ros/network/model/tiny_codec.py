"""A small codec in place of the VAE: one encoder, and one decoder per task.

The VAE of Stable Diffusion costs four times its UNet. It is distilled into this codec (see
training/loop/distil_codec.py): the encoder computes the VAE's latent of an image, and each decoder
turns the latent of a task into its output, one channel of depth or three of normals.

With skips (see skip_decoder.py) the decoders also see the picture. Its features at half size travel
behind the latent's own channels, folded to the latent's size, so that whatever passes latents on
needs to know nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny
from torch import nn
from torch.nn import functional as F

from d3_ros.network.model.backbone import BACKBONE, LEVEL_CHANNELS
from d3_ros.network.model.depth_curve import LEAST_CURVE, MOST_CURVE, bent
from d3_ros.network.model.edge_sharpening import steeper
from d3_ros.network.model.skip_decoder import PictureFeatures, SkipDecoder, heaviest, unfolded
from d3_ros.types import TASKS, Task

CHANNELS: dict[Task, int] = {"depth": 1, "normals": 3}
MOST_MARGIN = 0.5  # at the near end of depth, as a share of its range
MOST_SHARPENING = 16


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of a TinyCodec.

    `latent_channels`: of the VAE that it stands in for. `width`: channels of every convolution.
    `encoder_blocks`: residual blocks per level, from full size downwards; each further level halves
    the size. `decoder_blocks`: the same from the latent's size upwards; with skips, the last number
    counts blocks at half size, as nothing is computed at full size. `tasks`: which decoders.
    `skips`: channels of the picture's U-Net, from half size downwards; the first are also those of
    the decoders at half size. Empty for a codec whose decoders see the latent alone.
    `depth_components`: depths that the decoder proposes for each pixel; more than one needs skips.
    `backbone`: the name of the network that the picture's U-Net begins with (backbone.py), if any.
    `sharpening`: passes of edge_sharpening.py over the depth. Training does not see them.
    `depth_curve`: how much finer the scale of near depths is, see depth_curve.py; 0: no curve.
    `near_margin`: share of the range of depth that is kept free at the near end, after sharpening.
    What is nearer than the near end, as a floor right before a low camera, is then not clipped.
    """

    latent_channels: int
    width: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    tasks: tuple[Task, ...]
    skips: tuple[int, ...] = ()
    depth_components: int = 1
    backbone: str | None = None
    sharpening: int = 0
    depth_curve: float = 0.0
    near_margin: float = 0.0

    # D3Network reads these from a VAE's configuration; the latents of a codec are scaled already.
    scaling_factor = 1.0
    shift_factor = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError if the sizes are not those of a codec."""
        blocks = (self.encoder_blocks, self.decoder_blocks)
        if not all(
            isinstance(size, int) and size > 0 for size in (self.latent_channels, self.width)
        ):
            raise ValueError("latent_channels and width must be whole numbers above 0")
        if len(blocks[0]) != len(blocks[1]) or not blocks[0]:
            raise ValueError(
                "encoder_blocks and decoder_blocks must have the same number of levels"
            )
        if not all(isinstance(count, int) and count >= 0 for part in blocks for count in part):
            raise ValueError("encoder_blocks and decoder_blocks must be whole numbers")
        if not self.tasks or not set(self.tasks) <= set(TASKS):
            raise ValueError(f"tasks must be some of {', '.join(TASKS)}, got {self.tasks}")
        if not all(isinstance(width, int) and width > 0 for width in self.skips):
            raise ValueError("skips must be whole numbers above 0")
        if self.skips and not 2 <= len(blocks[0]) <= len(self.skips) + 1:
            raise ValueError(
                "skips must reach the latent's size, which is below the image's: give "
                f"{max(1, len(blocks[0]) - 1)} numbers or more"
            )
        if self.skips and self.skips[0] < self.width:
            raise ValueError(
                f"the first of skips, {self.skips[0]}, must be at least width, {self.width}"
            )
        if not (isinstance(self.depth_components, int) and 1 <= self.depth_components <= 8):
            raise ValueError("depth_components must be a whole number from 1 to 8")
        if self.depth_components > 1 and not self.skips:
            raise ValueError("depth_components above 1 needs skips")
        if self.backbone not in (None, BACKBONE):
            raise ValueError(f"backbone must be {BACKBONE} or null, got {self.backbone!r}")
        if self.backbone and not 1 <= len(self.skips) <= len(LEVEL_CHANNELS):
            raise ValueError(f"backbone needs skips, at most {len(LEVEL_CHANNELS)} numbers")
        if not (isinstance(self.sharpening, int) and 0 <= self.sharpening <= MOST_SHARPENING):
            raise ValueError(f"sharpening must be a whole number from 0 to {MOST_SHARPENING}")
        curve = self.depth_curve
        if not isinstance(curve, int | float) or not (
            curve == 0 or LEAST_CURVE <= curve <= MOST_CURVE
        ):
            raise ValueError(f"depth_curve must be 0, or {LEAST_CURVE:g} to {MOST_CURVE:g}")
        if self.depth_curve and not self.skips:
            raise ValueError("depth_curve needs skips")
        margin = self.near_margin
        if not isinstance(margin, int | float) or not 0 <= margin <= MOST_MARGIN:
            raise ValueError(f"near_margin must be 0 to {MOST_MARGIN:g}")

    def as_json(self) -> dict[str, Any]:
        """The JSON object to write, without the keys of optional features that are not used."""
        content = {"_class_name": TinyCodec.__name__, **asdict(self)}
        if not self.skips:
            del content["skips"], content["depth_components"]
        if self.backbone is None:
            del content["backbone"]
        for later in ("sharpening", "depth_curve", "near_margin"):
            if not content[later]:
                del content[later]
        return content

    @classmethod
    def from_json(cls, content: object) -> CodecConfig:
        """Read what `as_json` wrote.

        Raises:
            ValueError: a key is missing, unknown or has a value that makes no sense.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or content.get("_class_name") != TinyCodec.__name__:
            raise ValueError(f"_class_name is not {TinyCodec.__name__}")
        for later in ("backbone", "sharpening", "depth_curve", "near_margin"):
            if later not in content:
                names.remove(later)
        if "skips" not in content:
            names = [name for name in names if name not in ("skips", "depth_components")]
        if content.keys() != {"_class_name", *names}:
            raise ValueError(f"the keys must be _class_name, {', '.join(names)}")
        values: dict[str, Any] = {name: content[name] for name in names}
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


class TinyCodec(nn.Module):
    """Encoder and decoders of `config`; takes the place of the VAE in a D3Network.

    Latents have the scale of the network's. Inside, they are normalised by `statistics`: channel
    means and deviations of the image's latent and of each task's, measured by the distillation.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        channels, widths = config.latent_channels, (config.width,) * len(config.encoder_blocks)
        self.encoder = EncoderTiny(3, channels, config.encoder_blocks, widths, "relu")
        self.decoders = nn.ModuleDict({task: _decoder(config, task) for task in config.tasks})
        self.picture = None
        if config.skips:
            self.picture = PictureFeatures(
                config.skips, channels, self.spatial_compression_ratio, bool(config.backbone)
            )
        for name in ("image", *config.tasks):
            self.register_buffer(f"{name}_mean", torch.zeros(channels))
            self.register_buffer(f"{name}_deviation", torch.ones(channels))

    @property
    def spatial_compression_ratio(self) -> int:
        """Image pixels per latent pixel along one axis."""
        return 2 ** (len(self.config.encoder_blocks) - 1)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) image in [-1, 1] -> (B, c, h/f, w/f) latent, scaled.

        With skips, the picture's features follow behind the `latent_channels`.
        """
        latent, features = self.encode_apart(image)
        if features is None:
            return latent
        return torch.cat([latent, F.pixel_unshuffle(features, self._folding)], dim=1)

    def encode_apart(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`encode`, but the picture's features, (B, c0, h/2, w/2), apart; None without skips."""
        mean, deviation = self.statistics("image")
        if self.picture is None:
            return self.encoder(image) * deviation + mean, None
        features, inward = self.picture(image)
        return (self.encoder(image) + inward) * deviation + mean, features

    def decode(self, latent: torch.Tensor, task: Task) -> torch.Tensor:
        """(B, c, h, w) latent of a task -> (B, 1 or 3, h·f, w·f), about [-1, 1].

        With skips, the latent carries the features of its picture, as `encode` gave them. Of
        several proposed depths the answer is the one that has the greatest weight. Depth is
        sharpened, and gets its margin at the near end.
        """
        return self.decode_apart(*self._apart(latent), task)

    def decode_apart(
        self, latent: torch.Tensor, features: torch.Tensor | None, task: Task
    ) -> torch.Tensor:
        """`decode` for what `encode_apart` gave, the latent replaced by the task's."""
        answer = self._decoded(latent, features, task)
        if task != "depth":
            return answer
        answer = steeper(answer, self.config.sharpening)
        margin = self.config.near_margin
        return answer * (1.0 - margin) + margin if margin else answer

    def _apart(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.picture is None:
            return latent, None
        channels = self.config.latent_channels
        return latent[:, :channels], F.pixel_shuffle(latent[:, channels:], self._folding)

    def _decoded(
        self, latent: torch.Tensor, features: torch.Tensor | None, task: Task
    ) -> torch.Tensor:
        if features is None:
            mean, deviation = self.statistics(task)
            answer = self.decoders[task]((latent - mean) / deviation)
        elif task == "depth" and self.config.depth_components > 1:
            # The depths and the weights; the spreads are not needed.
            components = self.config.depth_components
            mixture = self._decode_skips(latent, features, task, 2 * components)
            answer = unfolded(heaviest(mixture, components, folded=True))
        else:
            answer = unfolded(self._decode_skips(latent, features, task, CHANNELS[task]))
        return bent(answer, self.config.depth_curve) if task == "depth" else answer

    def decode_with_mixture(
        self, latent: torch.Tensor, task: Task
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """For training: the answer before sharpening, and the `depth_mixture` if there is one."""
        if task == "depth" and self.config.depth_components > 1:
            mixture = self.depth_mixture(latent)
            return heaviest(mixture, self.config.depth_components), mixture
        return self._decoded(*self._apart(latent), task), None

    def depth_mixture(self, latent: torch.Tensor) -> torch.Tensor:
        """(B, 3 k, h·f, w·f) of a depth latent: k depths, k log weights, k logs of their spread.

        Only with several `depth_components`. See skip_decoder.py.
        """
        count = self.config.depth_components
        own, features = self._apart(latent)
        assert features is not None  # several depths need skips
        answer = unfolded(self._decode_skips(own, features, "depth", 3 * count))
        return torch.cat([bent(answer[:, :count], self.config.depth_curve), answer[:, count:]], 1)

    def _decode_skips(
        self, latent: torch.Tensor, features: torch.Tensor, task: Task, count: int
    ) -> torch.Tensor:
        """The folded answer of a `SkipDecoder`."""
        mean, deviation = self.statistics(task)
        return self.decoders[task]((latent - mean) / deviation, features, count)

    @property
    def _folding(self) -> int:
        """Pixels of the features at half size per latent pixel along one axis."""
        return self.spatial_compression_ratio // 2

    def statistics(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, c, 1, 1) mean and deviation of the "image" latent, or of a task's."""
        mean, deviation = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_deviation")
        return mean[:, None, None], deviation[:, None, None]

    @torch.no_grad()
    def set_statistics(self, name: str, latents: Sequence[torch.Tensor]) -> None:
        """Measure mean and deviation of (B, c, h, w) latents, channel by channel."""
        together = torch.cat([latent.float().transpose(0, 1).flatten(1) for latent in latents], 1)
        self.get_buffer(f"{name}_mean").copy_(together.mean(dim=1))
        self.get_buffer(f"{name}_deviation").copy_(together.std(dim=1).clamp(min=1e-3))


def _decoder(config: CodecConfig, task: Task) -> nn.Module:
    widths = (config.width,) * len(config.decoder_blocks)
    if config.skips:
        several = task == "depth" and config.depth_components > 1
        outputs = 3 * config.depth_components if several else CHANNELS[task]
        return SkipDecoder(
            config.latent_channels, config.width, config.skips[0], config.decoder_blocks, outputs
        )
    return DecoderTiny(
        in_channels=config.latent_channels,
        out_channels=CHANNELS[task],
        num_blocks=config.decoder_blocks,
        block_out_channels=widths,
        upsampling_scaling_factor=2,
        act_fn="relu",
        upsample_fn="nearest",
    )

"""Gives a small network skips from the picture to its decoders; at first its answers stay the same.

The network's AutoencoderTiny becomes a TinyCodec with the same weights and a decoder per task. What
is new begins without effect: one of the two weights on each new path is zero, the other random.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn

from d3_ros.errors import DataError
from d3_ros.network import D3Network
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.network.model.skip_decoder import PictureFeatures, Residual, SkipDecoder
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.training.config.model_config import SkipConfig
from d3_ros.training.loop.pretrained_backbone import load_pretrained, pretrained_file
from d3_ros.training.loop.small_network import he_initialise
from d3_ros.types import Task

FAINT = 0.1  # factor that makes the random weights of a new last layer small
# How the depths of a mixture begin. The first depth is the heaviest; the others differ from it.
OFFSET = 0.1  # added to the other depths, whose range is [-1, 1]
LOG_WEIGHT = -1.0  # of the other depths; that of the first is 0
LOG_SPREAD = -2.0  # of all depths


def add_skips(network: D3Network, config: SkipConfig) -> D3Network:
    """The network with a TinyCodec of `config` in its VAE's place. Seed torch before.

    Answers stay the same, except in the outermost pixels: there AutoencoderTiny pads with zeros
    between two convolutions that are merged into one here.

    Raises:
        DataError: the VAE is not an AutoencoderTiny of one width and three sizes or more, its
            decoder has residual blocks at full size, or the backbone's weights are not installed.
    """
    if not isinstance(network.vae, AutoencoderTiny):
        raise DataError("model.skips: the start's VAE must be an AutoencoderTiny")
    vae: DiffusersModel = network.vae
    sizes = vae.config
    widths = {*sizes.encoder_block_out_channels, *sizes.decoder_block_out_channels}
    if len(widths) > 1 or sizes.num_decoder_blocks[-1] or len(sizes.num_decoder_blocks) < 3:
        raise DataError("model.skips: the start's VAE must have one width, and no block behind")
    channels = sizes.latent_channels
    codec = TinyCodec(
        CodecConfig(
            latent_channels=channels + config.latent_channels,
            width=widths.pop(),
            encoder_blocks=tuple(sizes.num_encoder_blocks),
            decoder_blocks=(*sizes.num_decoder_blocks[:-1], config.blocks),
            tasks=network.tasks,
            skips=config.channels,
            depth_components=config.depth_components,
            backbone=config.backbone,
        )
    )
    with torch.no_grad():
        _copy_encoder(vae, codec, channels)
        for task in network.tasks:
            _copy_decoder(vae, codec, task)
        unets = {name: _wider(unet, config.latent_channels) for name, unet in network.unets.items()}
    specs = {
        task: replace(spec, timestep=float(network.timesteps[task].detach()))
        for task, spec in network.specs.items()
    }
    prompts = {task: network.prompt_embedding(task) for task in network.tasks}
    return D3Network(codec, unets, specs, prompts)


def _copy_encoder(vae: DiffusersModel, codec: TinyCodec, channels: int) -> None:
    for name, layer in codec.encoder.named_parameters():
        _fill(layer, vae.encoder.get_parameter(name))
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
    for name in ("image", *codec.config.tasks):
        codec.get_buffer(f"{name}_mean").fill_(-shift * scale)
        codec.get_buffer(f"{name}_deviation").fill_(scale)
    assert codec.picture is not None
    he_initialise(codec.picture)
    _begin_with_photographs(codec.picture)
    for part in codec.picture.modules():
        if isinstance(part, Residual):
            part.second.weight.zero_()
    codec.picture.inward.weight[:channels] = 0


def _copy_decoder(vae: DiffusersModel, codec: TinyCodec, task: Task) -> None:
    decoder = codec.decoders[task]
    assert isinstance(decoder, SkipDecoder)
    layers = list(vae.decoder.layers)
    upsampled, last = layers[-2], layers[-1]  # two convolutions at full size, nothing in between
    kept = nn.Sequential(*layers[:-3])
    for (_, new), (_, old) in zip(
        decoder.layers.named_parameters(), kept.named_parameters(), strict=True
    ):
        _fill(new, old)
    he_initialise(decoder.refine)
    for block in decoder.refine:
        block.second.weight.zero_()  # type: ignore[union-attr, operator]
    decoder.skip.weight.zero_()
    assert decoder.skip.bias is not None
    decoder.skip.bias.zero_()
    weight, bias = last.weight, last.bias
    if task == "depth":
        weight, bias = weight.mean(dim=0, keepdim=True), bias.mean(dim=0, keepdim=True)
    joined = 2 * _at_half_size(upsampled.weight, weight)  # AutoencoderTiny's [0, 1] to [-1, 1]
    out = decoder.out
    assert out.bias is not None
    out.weight.mul_(FAINT)
    out.bias.zero_()
    count = codec.config.depth_components if task == "depth" else 1
    rows = joined.repeat(count, 1, 1, 1)
    out.weight[: len(rows)] = 0
    out.weight[: len(rows), : joined.shape[1]] = rows
    out.bias[: len(rows)] = (2 * bias - 1).repeat_interleave(4).repeat(count)
    if count > 1:
        separate_depths(out, count)


@torch.no_grad()
def initialise_skips(codec: TinyCodec) -> None:
    """Random weights for a new codec with skips, whose first answers are faint. Seed torch before.

    See `small_network.he_initialise` for the layers that any codec has. A backbone gets its own.

    Raises:
        DataError: the backbone's weights are not installed.
    """
    he_initialise(codec)
    if codec.picture is not None:
        _begin_with_photographs(codec.picture)
    for task, decoder in codec.decoders.items():
        assert isinstance(decoder, SkipDecoder)
        decoder.out.weight.mul_(FAINT)
        if task == "depth" and codec.config.depth_components > 1:
            separate_depths(decoder.out, codec.config.depth_components)


def _begin_with_photographs(picture: PictureFeatures) -> None:
    """Load a backbone's pretrained weights and freeze them; `model.train_backbone` trains them."""
    if picture.backbone is None:
        return
    load_pretrained(picture.backbone, pretrained_file())
    picture.backbone.requires_grad_(False)


def separate_depths(out: nn.Conv2d, count: int) -> None:
    """Make the `count` depths of a mixture differ at first, the first of them the heaviest.

    `out` is the last layer of the depth decoder. Call this without gradients.
    """
    assert out.bias is not None
    depths, weights, spreads = out.bias.view(3, count, 4)
    depths[1:] += OFFSET
    weights[1:] = LOG_WEIGHT
    spreads += LOG_SPREAD
    out.weight[4 * count : 8 * count] *= FAINT


def _at_half_size(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Upsampling by 2 (nearest) and two 3 x 3 convolutions, as one 3 x 3 convolution before it.

    `first` is (m, c, 3, 3), `second` (outputs, m, 3, 3). The result is (4 outputs, c, 3, 3): its
    four values of an output are a block of 2 x 2 pixels, as `pixel_shuffle` wants them. The two
    convolutions together are one of 5 x 5 pixels, which covers 3 x 3 pixels before the upsampling.
    """
    both = torch.zeros(len(second), first.shape[1], 5, 5)
    for row in range(3):
        for column in range(3):
            tap = torch.einsum("om,mirc->oirc", second[:, :, row, column], first)
            both[:, :, row : row + 3, column : column + 3] += tap
    answer = torch.zeros(len(second), 2, 2, first.shape[1], 3, 3)
    for down in range(2):
        for right in range(2):
            for row in range(5):
                for column in range(5):
                    # The offset from the pixel at half size that holds this one.
                    y, x = (down + row - 2) // 2 + 1, (right + column - 2) // 2 + 1
                    answer[:, down, right, :, y, x] += both[:, :, row, column]
    return answer.flatten(0, 2)


def _wider(unet: DiffusersModel, more: int) -> DiffusersModel:
    """The UNet with more latent channels, which go in without effect."""
    channels = unet.config.in_channels + more
    wider = UNet2DConditionModel.from_config(
        {**unet.config, "in_channels": channels, "out_channels": channels}
    )
    weights = unet.state_dict()
    for name, weight in wider.state_dict().items():
        if name.startswith("conv_out"):
            weight[: len(weights[name])] = weights[name]
        elif weight.shape != weights[name].shape:
            weight.zero_()
            weight[:, : weights[name].shape[1]] = weights[name]
        else:
            weight.copy_(weights[name])
    return wider


def _fill(new: torch.Tensor, old: torch.Tensor) -> None:
    """Copy the weights `old` into the larger `new`. The old outputs ignore the new inputs."""
    if new.ndim == 1:
        new.zero_()
        new[: len(old)] = old
        return
    new[: len(old)] = 0
    new[: len(old), : old.shape[1]] = old

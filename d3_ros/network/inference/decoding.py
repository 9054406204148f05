"""Speeds up the VAE's decoder: folded upsampling, and one last convolution per task."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import torch
from diffusers.models.autoencoders.vae import DecoderTiny
from diffusers.models.upsampling import Upsample2D
from torch import nn

from d3_ros.network.inference.conditioning import TaskRows
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.types import Task


def fold_upsampling(vae: DiffusersModel) -> str:
    """Replace each nearest-neighbour doubling and 3 x 3 convolution by one transposed convolution.

    Each output pixel of the pair depends on only 2 x 2 input pixels. The 3 x 3 weights that apply
    to the same input pixel are added up beforehand: 4 products instead of 9.

    Returns:
        The reason why this VAE cannot be changed; empty if it was.
    """
    found = False
    for module in list(vae.modules()):
        if isinstance(module, Upsample2D) and _is_doubling(module):
            module.conv = folded(module.conv)  # type: ignore[arg-type]  # _is_doubling has looked
            module.interpolate = False
            found = True
        elif isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                if _doubles(module[index]) and _is_3x3(module[index + 1]):
                    module[index + 1] = folded(module[index + 1])  # type: ignore[arg-type]
                    module[index] = nn.Identity()
                    found = True
    return "" if found else "its decoder has no nearest-neighbour doubling"


def folded(convolution: nn.Conv2d) -> nn.ConvTranspose2d:
    """The transposed convolution equal to nearest-neighbour doubling followed by `convolution`.

    Doubling gives pixel i to outputs 2i and 2i + 1. Output j takes it with the 3-tap kernel's
    weights 2i + 1 - j and 2i + 2 - j, so tap t = j - 2i + 1 of the transposed kernel, along either
    axis, is the sum of weights 2 - t and 3 - t: the flipped kernel plus itself moved by one.
    """
    weight = convolution.weight.float().flip(2, 3).transpose(0, 1)  # (in, out, 3, 3)
    wide = weight.new_zeros(*weight.shape[:2], 4, 4)
    for row in (0, 1):
        for column in (0, 1):
            wide[:, :, row : row + 3, column : column + 3] += weight
    with torch.device("meta"):
        transposed = nn.ConvTranspose2d(
            convolution.in_channels,
            convolution.out_channels,
            kernel_size=4,
            stride=2,
            padding=1,
            bias=convolution.bias is not None,
        )
    transposed.weight = nn.Parameter(wide.to(convolution.weight.dtype), requires_grad=False)
    if convolution.bias is not None:
        transposed.bias = convolution.bias
    return transposed


class TaskHeads(nn.Module):
    """The decoder's last convolution, one per task; depth's may have a single channel.

    Args:
        convolution: the last convolution of a plain VAE, which all tasks share.
        tasks: the tasks, in the order of a batch that holds all of them.
        mean_of: tasks that need only the mean over the channels.
        rows: the tasks of the current batch.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        tasks: Sequence[Task],
        mean_of: Collection[Task],
        rows: TaskRows,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            _mean_of_channels(convolution) if task in mean_of else convolution for task in tasks
        )
        self._channels = convolution.out_channels
        self._rows = rows

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> (B, 3, h, w), or (B, 1, h, w) where all images are of a mean task.

        In a mixed batch a mean is repeated in all channels.
        """
        heads = list(self.heads)[self._rows.rows]
        if len(heads) == 1 or all(head is heads[0] for head in heads):
            return heads[0](features)
        parts = zip(heads, features.chunk(len(heads)), strict=True)
        images = [head(part).expand(-1, self._channels, -1, -1) for head, part in parts]
        return torch.cat(images)


def set_task_heads(
    vae: DiffusersModel, tasks: Sequence[Task], mean_of: Collection[Task], rows: TaskRows
) -> str:
    """Give the decoder of `vae` its `TaskHeads`.

    Returns:
        The reason why this VAE cannot be changed; empty if it was.
    """
    if isinstance(vae, TinyCodec):
        return "the tiny codec's decoders are the tasks' own"
    decoder = vae.decoder
    if isinstance(getattr(decoder, "conv_out", None), nn.Conv2d):
        decoder.conv_out = TaskHeads(decoder.conv_out, tasks, mean_of, rows)
    elif isinstance(decoder, DecoderTiny) and isinstance(decoder.layers[-1], nn.Conv2d):
        decoder.layers[-1] = TaskHeads(decoder.layers[-1], tasks, mean_of, rows)
    else:
        return f"no last convolution is known of {type(decoder).__name__}"
    return ""


def _mean_of_channels(convolution: nn.Conv2d) -> nn.Conv2d:
    mean = copy.copy(convolution)  # shallow: same geometry, its own parameters below
    mean._parameters = dict.fromkeys(convolution._parameters)
    mean.out_channels = 1
    for name, values in convolution.named_parameters():
        averaged = values.detach().float().mean(dim=0, keepdim=True).to(values.dtype)
        mean.register_parameter(name, nn.Parameter(averaged, requires_grad=False))
    return mean


def _is_doubling(module: Upsample2D) -> bool:
    plain = module.interpolate and module.norm is None and not module.use_conv_transpose
    return plain and module.name == "conv" and _is_3x3(module.conv)


def _doubles(module: nn.Module) -> bool:
    return isinstance(module, nn.Upsample) and module.mode == "nearest" and module.scale_factor == 2


def _is_3x3(module: object) -> bool:
    return isinstance(module, nn.Conv2d) and (
        (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1))
        and (module.dilation, module.groups, module.padding_mode) == ((1, 1), 1, "zeros")
    )

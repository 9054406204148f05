"""Sets the depth curve of a small network, and adapts its weights so that depth changes little."""

from __future__ import annotations

from dataclasses import replace

import torch

from d3_ros.errors import DataError
from d3_ros.network.model.depth_curve import unbent
from d3_ros.network.model.skip_decoder import SkipDecoder
from d3_ros.network.model.tiny_codec import TinyCodec

KEPT = (-0.8, 0.8)  # depths that stay: the ends of what `data.depth_share: 0.8` uses


@torch.no_grad()
def bend_depth(codec: TinyCodec, curve: float) -> None:
    """Set the codec's `depth_curve`; from then on its depth decoder answers on the curved scale.

    An affine correction of the last layer keeps the two depths `KEPT` as they were. Depths between
    them come out too near until training has corrected them.

    Raises:
        DataError: the codec has another curve already, or no skips.
    """
    if codec.config.depth_curve == curve:
        return
    if codec.config.depth_curve:
        raise DataError(
            f"model.depth_curve: the start has {codec.config.depth_curve:g}, which cannot become "
            f"{curve:g}: leave it out, or give {codec.config.depth_curve:g}"
        )
    decoder = dict(codec.decoders.items()).get("depth")
    if not isinstance(decoder, SkipDecoder):
        raise DataError("model.depth_curve: the start's depth decoder has no skips (model.skips)")
    near, far = (unbent(depth, curve) for depth in KEPT)
    slope = (far - near) / (KEPT[1] - KEPT[0])
    rows = 4 * codec.config.depth_components  # the depths come first, 2 x 2 pixels each
    assert decoder.out.bias is not None
    decoder.out.weight[:rows] *= slope
    decoder.out.bias[:rows] = slope * (decoder.out.bias[:rows] - KEPT[0]) + near
    codec.config = replace(codec.config, depth_curve=curve)

"""A TinyCodec of a few channels with random weights."""

from __future__ import annotations

import torch

from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.types import TASKS

TINY = CodecConfig(4, 8, (0, 0, 1, 1), (1, 1, 0, 0), TASKS)


def tiny_codec(seed: int = 0) -> TinyCodec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = TinyCodec(TINY).eval()
        for name in ("image", *TASKS):
            codec.set_statistics(name, [torch.randn(2, 4, 5, 6) * 2 + 1])
    return codec

"""Edges of depth become steeper, planes stay planes, and training sees nothing of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.skip_network import skip_network

from d3_ros.network.model.edge_sharpening import steeper
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec

ROWS, COLUMNS = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")


def width_px(depth: torch.Tensor, low: float, high: float) -> int:
    """Pixels of the middle row between 10 and 90 % of a step."""
    row = (depth[0, 0, 24] - low) / (high - low)
    return int(((row > 0.1) & (row < 0.9)).sum())


def test_a_soft_edge_becomes_steep_where_it_is() -> None:
    soft = (0.5 * torch.tanh((COLUMNS - 31.5) / 2))[None, None]
    sharp = steeper(soft, 4)
    assert (width_px(soft, -0.5, 0.5), width_px(sharp, -0.5, 0.5)) == (4, 2)
    assert float(sharp.min()) >= float(soft.min())
    assert float(sharp.max()) <= float(soft.max())
    assert bool((sharp[..., :32] < 0).all()), "the edge stays in its place"
    assert bool((sharp[..., 32:] > 0).all())


def test_planes_and_nothing_stay() -> None:
    plane = (0.01 * COLUMNS - 0.012 * ROWS)[None, None]
    torch.testing.assert_close(steeper(plane, 8), plane, atol=1e-5, rtol=0)
    flat = torch.full((1, 1, 9, 12), 0.3)
    torch.testing.assert_close(steeper(flat, 8), flat)
    noise = torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(0))
    assert steeper(noise, 0) is noise
    torch.testing.assert_close(steeper(noise, 3)[1:], steeper(noise[1:], 3))


class Sharpening(torch.nn.Module):
    """Three passes, to be exported."""

    def forward(self, depth: torch.Tensor) -> torch.Tensor:
        return steeper(depth, 3)


@pytest.mark.filterwarnings("ignore")  # the exporter's, of its age
def test_the_exported_graph_answers_the_same(tmp_path: Path) -> None:
    """It pools where PyTorch compares shifted views."""
    path = tmp_path / "graph.onnx"
    noise = torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.onnx.export(
        Sharpening(), (noise,), str(path), input_names=["depth"], opset_version=18, dynamo=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"depth": noise.numpy()})
    np.testing.assert_allclose(answer, steeper(noise, 3).numpy(), rtol=0, atol=1e-5)
    assert {"MaxPool", "AveragePool"} <= {node.op_type for node in onnx.load(path).graph.node}


def sharpened(codec: TinyCodec, passes: int) -> TinyCodec:
    codec.config = replace(codec.config, sharpening=passes)
    return codec


def test_the_codec_sharpens_its_depth_and_training_sees_it_before() -> None:
    codec = skip_network().vae
    assert isinstance(codec, TinyCodec)
    latent = codec.encode(torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1)))
    with torch.inference_mode():
        plain = {task: codec.decode(latent, task) for task in codec.config.tasks}
        sharpened(codec, 3)
        torch.testing.assert_close(codec.decode(latent, "depth"), steeper(plain["depth"], 3))
        assert not torch.equal(codec.decode(latent, "depth"), plain["depth"])
        torch.testing.assert_close(codec.decode(latent, "normals"), plain["normals"])
        torch.testing.assert_close(codec.decode_with_mixture(latent, "depth")[0], plain["depth"])


def test_the_configuration_is_written_only_where_it_is_used() -> None:
    config = skip_network().vae.config
    assert "sharpening" not in config.as_json()
    some = replace(config, sharpening=4)
    assert some.as_json()["sharpening"] == 4
    assert CodecConfig.from_json(some.as_json()) == some
    assert CodecConfig.from_json(config.as_json()) == config
    for wrong in (-1, 17, 0.5):
        with pytest.raises(ValueError, match="sharpening must be a whole number from 0 to 16"):
            replace(config, sharpening=wrong)

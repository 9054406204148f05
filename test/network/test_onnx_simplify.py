"""Simplified ONNX graphs: fewer operators, equal answers for every batch and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.tiny_network import tiny_network
from torch import nn

from d3_ros.network.bundle import onnx_export
from d3_ros.network.bundle.onnx_simplify import simplify
from d3_ros.network.inference.specialise import EXACT, specialise

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's, of shapes and of its age
SHAPES = ((1, 4, 5, 7), (2, 4, 6, 3), (3, 4, 8, 9))
OTHER_SHAPES = ((1, 4, 5, 7), (4, 4, 3, 11), (2, 4, 9, 2))


class Tokens(nn.Module):
    """Attention to a constant that is repeated for every image, with shapes worked out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("key", torch.randn(1, 6, 4))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        batch = image.shape[0]
        tokens = image.flatten(2).transpose(1, 2).unflatten(-1, (2, -1)).transpose(1, 2)
        key = self.get_buffer("key").expand(batch, -1, -1)
        key = key.unflatten(-1, (2, -1)).transpose(1, 2)
        attended = torch.softmax(tokens @ key.transpose(2, 3), dim=-1) @ key
        answer = attended.transpose(1, 2).flatten(2).transpose(1, 2).reshape(image.shape) / 1.0
        return answer + 1


def exported(module: nn.Module, path: Path) -> Any:
    axes = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        module.eval(),
        (torch.zeros(SHAPES[0]),),
        str(path),
        input_names=["given"],
        output_names=["answer"],
        dynamic_axes={"given": axes, "answer": {0: "b", 2: "h", 3: "w"}},
        opset_version=onnx_export.OPSET,
        dynamo=False,
    )
    return onnx.load(path)


def simplified(module: nn.Module, path: Path) -> Any:
    model = exported(module, path)
    simplify(model, [{"given": np.zeros(shape, np.float32)} for shape in SHAPES])
    onnx.checker.check_model(model)
    return model


def operators(model: Any) -> set[str]:
    return {node.op_type for node in model.graph.node}


def assert_answers_of(module: nn.Module, model: Any) -> None:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for shape in OTHER_SHAPES:
        image = torch.randn(shape)
        with torch.inference_mode():
            expected = module(image).numpy()
        (answer,) = session.run(None, {"given": image.numpy()})
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "stride", "padding", "bias"), [(4, 2, 1, True), (2, 2, 0, False), (6, 3, 2, True)]
)
def test_a_transposed_convolution_becomes_a_convolution(
    tmp_path: Path, side: int, stride: int, padding: int, bias: bool
) -> None:
    module = nn.ConvTranspose2d(4, 3, side, stride, padding, bias=bias)
    model = simplified(module, tmp_path / "graph.onnx")
    assert operators(model) - {"Slice"} == {"Conv", "DepthToSpace"}
    assert_answers_of(module, model)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 4, "stride": 2, "groups": 2},
        {"kernel_size": 4, "stride": 2, "output_padding": 1},
        {"kernel_size": 4, "stride": (2, 1)},
    ],
)
def test_others_are_left_as_they_are(tmp_path: Path, options: dict[str, Any]) -> None:
    module = nn.ConvTranspose2d(4, 4, **options)
    model = simplified(module, tmp_path / "graph.onnx")
    assert operators(model) == {"ConvTranspose"}
    assert_answers_of(module, model)


def test_shapes_and_repeated_constants_are_worked_out_beforehand(tmp_path: Path) -> None:
    module = Tokens()
    before = operators(exported(module, tmp_path / "graph.onnx"))
    assert {"Expand", "Div", "Shape", "ConstantOfShape"} <= before
    model = simplified(module, tmp_path / "graph.onnx")
    assert not operators(model) & {"Expand", "Div", "ConstantOfShape", "Equal", "Where", "Mod"}
    # Only the way back to the image needs two sizes that are not known.
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    weights = {tensor.name for tensor in model.graph.initializer}
    assert sum(node.input[1] not in weights for node in reshapes) == 1
    assert_answers_of(module, model)


class Norms(nn.Module):
    """Group norms of an image, and of a list of tokens, whose shapes the exporter looks up."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 4)
        self.norm.weight.data = torch.tensor([0.5, 2.0, -1.0, 3.0])
        self.norm.bias.data = torch.tensor([0.1, 0.2, 0.3, -0.4])
        self.scale = nn.Parameter(torch.randn(4, 4))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = image.shape
        tokens = self.norm(self.norm(image).reshape(batch, channels, height * width))
        mixed = tokens.transpose(1, 2) @ self.scale
        return mixed.reshape(batch, height, width, channels).permute(0, 3, 1, 2) + image


def test_a_group_norm_of_an_image_looks_up_no_shape(tmp_path: Path) -> None:
    module = Norms()
    before = exported(module, tmp_path / "graph.onnx")
    model = simplified(module, tmp_path / "graph.onnx")

    def count(graph_of: Any, kind: str) -> int:
        return sum(node.op_type == kind for node in graph_of.graph.node)

    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert len(norms) == 2
    # What is left are the four sizes of the last reshape, each one operator.
    assert (count(before, "Shape"), count(model, "Shape")) == (6, 4)
    assert not operators(model) & {"Gather", "Unsqueeze"}
    assert_answers_of(module, model)


class Table(nn.Module):
    """Part of a large constant is chosen by a shape that is the same for all inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(400, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.get_buffer("table")[: image.shape[1]]


def test_weights_are_not_taken_for_shapes(tmp_path: Path) -> None:
    module = Table()
    model = simplified(module, tmp_path / "graph.onnx")
    assert "Shape" not in operators(model)
    assert_answers_of(module, model)


def test_graphs_of_a_network_are_simplified() -> None:
    network = specialise(tiny_network(), [name for name in EXACT if name != "channels_last"])
    for _, model in onnx_export.traced_graphs(network, network.tasks):
        assert not operators(model) & {"ConvTranspose", "Expand", "Mod", "Unsqueeze"}

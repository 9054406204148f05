"""Decoders that see the picture: their start, their bundles, and every way to run them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.skip_network import plain_network, skip_network
from helpers.tiny_codec import TINY

from d3_ros.errors import BundleError, DataError
from d3_ros.network import D3Predictor, load_bundle, write_bundle
from d3_ros.network.bundle.manifest import FORMAT_WITH_SKIPS
from d3_ros.network.bundle.onnx_export import export_bundle
from d3_ros.network.inference.specialise import EXACT, specialise
from d3_ros.network.model.skip_decoder import heaviest
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.types import TASKS

IMAGE = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module", params=[False, True], ids=["own layers", "backbone"])
def has_backbone(request: pytest.FixtureRequest) -> bool:
    """Whether the picture's U-Net begins with a backbone."""
    return bool(request.param)


@pytest.fixture(scope="module")
def skip_bundle(has_backbone: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = skip_network(has_backbone=has_backbone)
    folder = tmp_path_factory.mktemp("models") / "skips"
    return write_bundle(
        folder, network, name="skips", license="MIT", source="test", dtype=torch.float32
    )


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- the start -----------------------------------------------------------------------------------


def test_at_first_answers_are_those_of_the_network_without_skips(has_backbone: bool) -> None:
    with torch.inference_mode():
        before = plain_network()(IMAGE)
        after = skip_network(fresh=True, has_backbone=has_backbone)(IMAGE)
    depth = before["depth"].mean(dim=1, keepdim=True)
    assert float(depth.std()) > 0.05  # it says something
    inner = (..., slice(1, -1), slice(1, -1))  # at the border two layers became one
    assert torch.allclose(after["depth"][inner], depth[inner], atol=1e-5)
    assert torch.allclose(after["normals"][inner], before["normals"][inner], atol=1e-5)


def test_every_new_weight_learns_within_two_steps(has_backbone: bool) -> None:
    """A path both of whose weights are zero would never learn."""
    network = skip_network(fresh=True, has_backbone=has_backbone).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        latents = network.predict_latents(network.encode(IMAGE), network.tasks)
        mixture = network.vae.depth_mixture(latents["depth"])
        (mixture.square().mean() + network.decode_tasks(latents)["normals"].mean()).backward()
        optimizer.step()
    idle = [n for n, w in network.vae.named_parameters() if w.grad is None or not w.grad.any()]
    assert [name for name in idle if "backbone" not in name] == []
    assert all("backbone" not in name or name in idle for name, _ in network.vae.named_parameters())


def test_only_an_autoencoder_tiny_gets_skips() -> None:
    from helpers.skip_network import SKIPS
    from helpers.tiny_network import tiny_network

    from d3_ros.training.loop.add_skips import add_skips

    with pytest.raises(DataError, match="must be an AutoencoderTiny"):
        add_skips(tiny_network(), SKIPS)


# --- what they compute ---------------------------------------------------------------------------


def test_the_answer_is_the_heaviest_depth_not_the_mean() -> None:
    depths = torch.tensor([-0.8, 0.1, 0.7]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    weights = torch.tensor(
        [[[0.0, 2.0], [5.0, 0.1]], [[1.0, 1.9], [4.9, 0.1]], [[0.5, 3.0], [0, 0]]]
    )
    answer = heaviest(torch.cat([depths, weights[None]], dim=1), 3)
    assert torch.allclose(answer, torch.tensor([[[[0.1, 0.7], [-0.8, -0.8]]]]))


def test_a_decoder_sees_what_the_latent_does_not() -> None:
    """Two pictures, one latent: the answers differ at full size."""
    network = skip_network()
    with torch.inference_mode():
        latent = network.encode(IMAGE)
        own, features = network.split_features(latent)
        swapped = network.join_features(own, features.flip(0))
        depth = network.decode_task(latent, "depth")
        other = network.decode_task(swapped, "depth")
    assert own.shape == (2, 8, 12, 16)
    assert float((depth - other).abs().mean()) > 0.01


def test_odd_sizes_of_inner_levels(has_backbone: bool) -> None:
    with torch.inference_mode():
        decoded = skip_network(has_backbone=has_backbone)(torch.zeros(1, 3, 52, 60))
    assert decoded["depth"].shape == (1, 1, 52, 60)
    assert decoded["normals"].shape == (1, 3, 52, 60)


def test_specialised_network_answers_the_same(has_backbone: bool) -> None:
    with torch.inference_mode():
        plain = skip_network(has_backbone=has_backbone)(IMAGE)
        fast = specialise(skip_network(has_backbone=has_backbone), EXACT)
        for tasks in (TASKS, TASKS[:1], TASKS[1:]):
            answers = fast(IMAGE, tasks)
            for task in tasks:
                assert torch.allclose(answers[task], plain[task], atol=1e-4)


# --- bundles -------------------------------------------------------------------------------------


def test_bundle_comes_back_and_names_its_format(has_backbone: bool, skip_bundle: Path) -> None:
    assert json.loads((skip_bundle / "bundle.json").read_text())["format"] == FORMAT_WITH_SKIPS
    with torch.inference_mode():
        before = skip_network(has_backbone=has_backbone)(IMAGE)
        after = load_bundle(skip_bundle).network(IMAGE)
    for task in TASKS:
        assert torch.allclose(before[task], after[task], atol=1e-5)


def test_onnx_answers_as_pytorch_does(skip_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported, _ = export_bundle(skip_bundle, tmp_path / "exported")
    assert json.loads((exported / "bundle.json").read_text())["format"] == FORMAT_WITH_SKIPS
    torch_one, onnx_one = (
        D3Predictor.from_pretrained(exported, "cpu", "fp32", size, runtime=name)
        for name, size in (("torch", "44x72"), ("onnx", "44x72"))
    )
    ours, theirs = torch_one(picture()), onnx_one(picture())
    assert np.abs(ours.depth - theirs.depth).max() < 1e-4
    assert np.nanmax(np.abs(ours.normals - theirs.normals)) < 1e-3


def test_a_format_from_the_future_is_refused_in_one_line(skip_bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((skip_bundle / "bundle.json").read_text())
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "bundle.json").write_text(json.dumps({**manifest, "format": 4}))
    with pytest.raises(BundleError, match="has format 4, this d3_ros reads 1 to 3"):
        load_bundle(tmp_path / "later")


# --- configurations ------------------------------------------------------------------------------


def test_a_codec_without_skips_is_written_as_before() -> None:
    content = TINY.as_json()
    assert "skips" not in content
    assert "depth_components" not in content
    assert CodecConfig.from_json(content) == TINY
    assert CodecConfig.from_json(json.loads(json.dumps(content))) == TINY


def test_configuration_with_skips_comes_back(has_backbone: bool) -> None:
    config = skip_network(has_backbone=has_backbone).vae.config
    assert ("backbone" in config.as_json()) == has_backbone
    assert CodecConfig.from_json(json.loads(json.dumps(config.as_json()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skips": (4, 8, 8)}, "at least width"),
        ({"skips": (8, 0)}, "above 0"),
        ({"skips": (8,)}, "reach the latent"),
        ({"depth_components": 2}, "needs skips"),
        ({"skips": (8, 8, 8), "depth_components": 9}, "from 1 to 8"),
        ({"skips": (8, 8, 8), "backbone": "resnet"}, "backbone must be efficientnet_lite0 or null"),
        ({"backbone": "efficientnet_lite0"}, "backbone needs skips, at most 5 numbers"),
        ({"skips": (8,) * 6, "backbone": "efficientnet_lite0"}, "backbone needs skips, at most 5"),
    ],
)
def test_sizes_that_make_no_codec(changes: dict, message: str) -> None:
    sizes = {name: getattr(TINY, name) for name in CodecConfig.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        TinyCodec(CodecConfig(**{**sizes, **changes}))

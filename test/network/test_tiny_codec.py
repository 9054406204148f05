"""The tiny codec: its network, its place in a bundle, its operations, and its distillation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.full_size_network import full_size_network
from helpers.paths import ROOT
from helpers.tiny_codec import TINY, tiny_codec
from helpers.tiny_network import SIZE, tiny_network

from d3_ros.__main__ import main
from d3_ros.bench.network.flops import work_by_stage
from d3_ros.errors import BundleError
from d3_ros.network import D3Network, D3Predictor, load_bundle, write_bundle
from d3_ros.network.bundle.folder import add_codec, has_codec
from d3_ros.network.inference.specialise import specialise
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.training.config.codec_config import load_codec_config
from d3_ros.types import TASKS

CONFIG = ROOT / "config" / "training" / "train_codec.yaml"


def with_codec(network: D3Network, codec: TinyCodec) -> D3Network:
    prompts = {task: network.prompt_embedding(task) for task in network.tasks}
    return D3Network(codec, dict(network.unets.items()), network.specs, prompts).eval()


@pytest.fixture(scope="module")
def codec_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_codec(tiny_bundle, tmp_path_factory.mktemp("models") / "fast", tiny_codec())


def picture(height: int = 48, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- the network ---------------------------------------------------------------------------------


def test_fast_mode_needs_at_most_1_4_tflop() -> None:
    """Depth at 480 x 640 with the official UNet and the codec that is shipped as configuration."""
    shipped = load_codec_config(CONFIG)
    with torch.device("meta"):
        codec = TinyCodec(
            CodecConfig(4, shipped.width, shipped.encoder_blocks, shipped.decoder_blocks, TASKS)
        )
    network = specialise(with_codec(full_size_network(), codec).to("meta").requires_grad_(False))
    work = work_by_stage(network, (480, 640), ["depth"])
    assert 0.9e12 < work["unet"].flops < 0.97e12
    assert sum(stage.flops for stage in work.values()) < 1.4e12
    # The encoder by hand, 64 channels: into full size, a block of three there; three blocks of
    # three at each smaller size, and the convolution on the way to it; out of the smallest.
    pixels = 480 * 640
    expected = 3 * 64 * pixels + 3 * 64 * 64 * pixels
    expected += sum((1 + 9) * 64 * 64 * pixels // 4**level for level in (1, 2, 3))
    expected += 64 * 4 * pixels // 4**3
    assert work["encode"].flops == 2 * 9 * expected


def test_depth_has_one_channel_and_normals_three() -> None:
    network = with_codec(tiny_network(), tiny_codec())
    assert network.size_multiple == 8
    with torch.inference_mode():
        latent = network.encode(torch.zeros(2, 3, *SIZE))
        assert latent.shape == (2, 4, 8, 12)
        decoded = network(torch.zeros(2, 3, *SIZE))
    assert decoded["depth"].shape == (2, 1, *SIZE)
    assert decoded["normals"].shape == (2, 3, *SIZE)


def test_latents_are_in_the_networks_units() -> None:
    """Measured from the latents themselves: channel means and deviations."""
    codec = TinyCodec(TINY)
    latent = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).expand(2, 4, 2, 2) * torch.arange(
        1.0, 5.0
    ).reshape(1, 4, 1, 1)
    codec.set_statistics("depth", [latent[:1], latent[1:]])
    mean, deviation = codec.statistics("depth")
    torch.testing.assert_close(mean.flatten(), torch.tensor([2.0, 4.0, 6.0, 8.0]))
    # Four pixels at 1 and four at 3 times the channel's number: deviation sqrt(8 / 7) times it.
    torch.testing.assert_close(
        deviation.flatten(), (8 / 7) ** 0.5 * torch.tensor([1.0, 2.0, 3.0, 4.0])
    )
    with torch.inference_mode():
        plain = codec.decoders["depth"](torch.zeros(1, 4, 2, 2))
        torch.testing.assert_close(codec.decode(mean.expand(1, 4, 2, 2), "depth"), plain)


def test_specialised_it_is_the_same() -> None:
    images = torch.rand(2, 3, *SIZE) * 2 - 1
    with torch.inference_mode():
        expected = with_codec(tiny_network(), tiny_codec())(images)
        network = specialise(with_codec(tiny_network(), tiny_codec()))
        actual = network(images)
    assert network.skipped == {"batch_decode": "the tiny codec has a decoder per task"}
    for task in TASKS:
        torch.testing.assert_close(actual[task], expected[task], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width must be"),
        ({"encoder_blocks": (1,)}, "same number of levels"),
        ({"decoder_blocks": (1, 1, 1, -1)}, "must be whole numbers"),
        ({"tasks": ()}, "tasks must be some of"),
        ({"tasks": ("matting",)}, "tasks must be some of"),
    ],
)
def test_sizes_that_make_no_codec(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_configuration_as_json() -> None:
    written = json.loads(json.dumps(TINY.as_json()))
    assert CodecConfig.from_json(written) == TINY
    for wrong in ({**written, "depth": 3}, {**written, "_class_name": "Other"}, [1]):
        with pytest.raises(ValueError, match=r"must be _class_name|is not TinyCodec"):
            CodecConfig.from_json(wrong)


def test_a_codec_without_a_tasks_decoder_is_refused() -> None:
    codec = TinyCodec(dataclasses.replace(TINY, tasks=("depth",)))
    with pytest.raises(ValueError, match="tiny codec has no decoder of normals"):
        with_codec(tiny_network(), codec)


# --- in the bundle -------------------------------------------------------------------------------


def test_a_bundle_carries_both(tiny_bundle: Path, codec_bundle: Path) -> None:
    assert has_codec(codec_bundle)
    assert not has_codec(tiny_bundle)
    plain, same = load_bundle(tiny_bundle).network, load_bundle(codec_bundle).network
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    image = torch.rand(1, 3, *SIZE) * 2 - 1
    fast = load_bundle(codec_bundle, codec="tiny").network
    with torch.inference_mode():
        expected = with_codec(plain, tiny_codec().half().float())(image)  # as it is stored
        actual = fast(image)
    for task in TASKS:
        torch.testing.assert_close(actual[task], expected[task], rtol=0, atol=1e-5)


def test_the_predictor_takes_it(codec_bundle: Path) -> None:
    vae, tiny = (
        D3Predictor.from_pretrained(codec_bundle, "cpu", codec=codec)(picture())
        for codec in ("vae", "tiny")
    )
    assert vae.depth is not None
    assert tiny.depth is not None
    assert tiny.depth.shape == vae.depth.shape == (48, 80)
    assert np.abs(tiny.depth - vae.depth).max() > 1e-3
    assert tiny.normals is not None
    np.testing.assert_allclose(np.linalg.norm(tiny.normals, axis=-1), 1, atol=1e-5)


def test_a_bundle_without_one_is_told(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"has no tiny codec: use codec vae, or distil one"):
        D3Predictor.from_pretrained(tiny_bundle, "cpu", codec="tiny")


def test_an_existing_folder_is_not_written_over(tiny_bundle: Path, codec_bundle: Path) -> None:
    with pytest.raises(BundleError, match="exists"):
        add_codec(tiny_bundle, codec_bundle, tiny_codec())


def test_damaged_codecs_are_named(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = add_codec(tiny_bundle, tmp_path / "fast", tiny_codec())
    weights = bundle / "codec" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"codec/diffusion_pytorch_model.safetensors is damaged"):
        load_bundle(bundle)  # whichever codec is asked for
    manifest = json.loads((bundle / "bundle.json").read_text())
    del manifest["sha256"]["codec/diffusion_pytorch_model.safetensors"]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="has no sha256 of codec/diffusion_pytorch_model"):
        load_bundle(bundle)


def test_a_network_without_its_vae_is_no_bundle(codec_bundle: Path, tmp_path: Path) -> None:
    network = load_bundle(codec_bundle, codec="tiny").network
    with pytest.raises(BundleError, match="load it with codec vae"):
        write_bundle(tmp_path / "new", network, name="x", license="x", source="x")
    assert not list(tmp_path.iterdir())


def test_evaluate_says_what_it_gives_up(
    codec_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = tmp_path / "frames"
    for kind in ("rgb", "depth"):
        (frames / kind).mkdir(parents=True)
    ramp = np.tile(np.linspace(1000, 4000, 80).astype(np.uint16), (60, 1))
    for name in ("1", "2"):
        cv2.imwrite(str(frames / "rgb" / f"{name}.png"), picture(60, 80))
        cv2.imwrite(str(frames / "depth" / f"{name}.png"), ramp)
    models = ["--model", str(codec_bundle), "--codec", "tiny", "--against", str(codec_bundle)]
    assert main(["evaluate", *models, "--data", str(frames), "--device", "cpu"]) == 0
    assert f"{codec_bundle} (codec tiny)" in capsys.readouterr().out

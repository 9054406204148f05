"""The small codec of a bundle whose decoders see the picture: training, labels, and every use."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers.backbone_file import write_backbone_file
from helpers.tiny_codec import TINY, tiny_codec
from helpers.tiny_network import SIZE
from helpers.training_configs import (
    CONFIGS,
    distilled_over_an_interruption,
    small_codec_config,
    write_frames,
    write_split_frames,
)
from torch.nn import functional as F

from d3_ros.__main__ import main
from d3_ros.errors import BundleError, DataError
from d3_ros.network import D3Network, D3Predictor, load_bundle
from d3_ros.network.bundle import manifest as bundle_manifest
from d3_ros.network.bundle.folder import add_codec
from d3_ros.network.bundle.manifest import FORMAT, FORMAT_WITH_SKIPS
from d3_ros.network.bundle.onnx_export import export_bundle
from d3_ros.network.inference.specialise import specialise
from d3_ros.network.model.backbone import BACKBONE, Backbone
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.config.codec_config import load_codec_config
from d3_ros.training.distillation.codec_losses import CodecTargets, codec_losses, codec_targets
from d3_ros.training.loading.codec_pictures import open_pictures
from d3_ros.training.loop import add_skips
from d3_ros.training.loop import distil_codec as training
from d3_ros.training.loop.add_skips import initialise_skips
from d3_ros.training.objectives.task_losses import task_losses
from d3_ros.types import TASKS

SKIPS = {"skips": (8, 8, 12), "depth_components": 2}
WITH_SKIPS = dataclasses.replace(TINY, **SKIPS)


def skip_codec(seed: int = 0) -> TinyCodec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = TinyCodec(WITH_SKIPS)
        initialise_skips(codec)
    return codec


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def teacher(tiny_bundle: Path) -> D3Network:
    return specialise(load_bundle(tiny_bundle).network)


@pytest.fixture(scope="module")
def trained(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose codec has skips, distilled in four steps from unlabelled images."""
    folder = tmp_path_factory.mktemp("skips")
    frames = write_frames(folder / "frames")
    return training.distil(small_codec_config(tiny_bundle, frames / "rgb", **SKIPS), folder / "run")


def test_a_codec_begins_with_photographs_and_keeps_them(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Backbone(3)
    file = write_backbone_file(tmp_path / "photographs.pth", known)
    monkeypatch.setattr(add_skips, "pretrained_file", lambda: file)
    frames = write_frames(tmp_path / "frames")
    wanted = small_codec_config(tiny_bundle, frames / "rgb", **SKIPS, backbone=BACKBONE)
    sizes = dataclasses.replace(WITH_SKIPS, backbone=BACKBONE)
    learned = {
        n for n, w in training._new_codec(sizes, seed=1).named_parameters() if w.requires_grad
    }
    assert learned
    assert not any("backbone" in name for name in learned)  # four steps would hardly show it
    bundle = training.distil(wanted, tmp_path / "run")
    codec = load_bundle(bundle, codec="tiny").network.vae
    after = codec.picture.backbone.state_dict()
    assert after.keys() == known.state_dict().keys()
    for name, weight in after.items():
        torch.testing.assert_close(weight, known.state_dict()[name], rtol=1e-3, atol=1e-3)


# --- the losses ----------------------------------------------------------------------------------


def test_skips_learn_from_the_decoders_and_the_encoder_does_not(teacher: D3Network) -> None:
    codec, half = skip_codec(), torch.tensor([True, False])
    losses = codec_losses(
        codec, teacher, images(), codec_targets(teacher, images()), half, through_unet=True
    )
    assert set(losses) == {"latent", "unet", "mixture", "pixels", "edges"}
    decoders = losses["mixture"] + losses["pixels"] + losses["edges"]
    decoders.backward(retain_graph=True)
    assert codec.picture.entry.weight.grad.abs().max() > 0
    assert codec.picture.down[-1][0].weight.grad.abs().max() > 0
    assert not codec.picture.inward.weight.grad.any()  # it leads into the latent
    assert not codec.encoder.layers[0].weight.grad.any()
    (losses["latent"] + losses["unet"]).backward()
    assert codec.picture.inward.weight.grad.abs().max() > 0
    assert codec.encoder.layers[0].weight.grad.abs().max() > 0
    idle = [n for n, w in codec.named_parameters() if w.grad is None or not w.grad.any()]
    assert idle == []
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_latents_are_compared_without_the_features(teacher: D3Network) -> None:
    codec, targets = skip_codec(), codec_targets(teacher, images())
    never = torch.tensor([False, False])
    losses = codec_losses(codec, teacher, images(), targets, never, through_unet=False)
    latent = codec.encode(images())[:, :4]
    expected = (latent - targets.latent).square().mean()  # nothing is measured: deviations are 1
    assert losses["latent"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_labels_are_scored_on_what_the_decoders_answer(
    teacher: D3Network, tiny_bundle: Path, tmp_path: Path
) -> None:
    frames = write_frames(tmp_path / "frames")
    pictures = open_pictures(small_codec_config(tiny_bundle, frames, label_weight=1.0))
    batch, _ = pictures.draw(0)
    codec, targets = skip_codec(), codec_targets(teacher, batch.image)
    never = torch.tensor([False, False])
    losses = codec_losses(codec, teacher, batch.image, targets, never, False, batch, "mean")
    features = codec.encode(batch.image)[:, 4:]
    for task in TASKS:
        latent = torch.cat([targets.latents[task], features], dim=1)
        decoded, mixture = codec.decode_with_mixture(latent, task)
        axes = teacher.specs[task].axes
        for name, value in task_losses(task, decoded, batch, axes, "mean", mixture).items():
            assert losses[f"{task}.{name}"].item() == pytest.approx(value.mean().item(), rel=1e-4)
    assert losses["depth.mixture"].item() != pytest.approx(losses["mixture"].item(), rel=1e-2)
    assert losses["normals.normal_angle"].item() > 0.1


# --- training ------------------------------------------------------------------------------------


def write_steps(folder: Path, count: int = 8) -> Path:
    """Frames of 32 x 48 pixels with a near, dark part and a far, bright one; a sharp edge."""
    rng = np.random.default_rng(3)
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    for number in range(count):
        far = np.arange(48)[None] >= rng.integers(12, 36) + 0.3 * np.arange(32)[:, None]
        cv2.imwrite(str(folder / "rgb" / f"{number}.png"), np.where(far, 230, 25).astype(np.uint8))
        depth = np.where(far, 3000, 1000).astype(np.uint16)
        cv2.imwrite(str(folder / "depth" / f"{number}.png"), depth)
    return folder


def blurred_targets(teacher: D3Network, image: torch.Tensor) -> CodecTargets:
    """A bundle that knows the depth of `write_steps`, but not finer than its latent."""
    targets = codec_targets(teacher, image)
    coarse = F.avg_pool2d(image.mean(dim=1, keepdim=True), 8)
    depth = F.interpolate(coarse, scale_factor=8, mode="bilinear")
    return dataclasses.replace(targets, pictures={**targets.pictures, "depth": depth})


def test_labels_give_edges_that_the_vae_does_not_have(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = write_steps(tmp_path / "frames")
    for module in ("unlabelled_images", "augment"):
        monkeypatch.setattr(f"d3_ros.training.loading.{module}.relit", lambda image, rng: image)
    monkeypatch.setattr(training, "codec_targets", blurred_targets)
    quick = {"learning_rate": 5e-3, "ema_decay": 0.8, "steps": 80, "checkpoint_every": 80}
    quick |= {"unet_weight": 0.0, **SKIPS}
    scores = {}
    for name, weight in (("distilled", 0.0), ("labelled", 1.0)):
        wanted = small_codec_config(tiny_bundle, frames, label_weight=weight, **quick)
        network = load_bundle(training.distil(wanted, tmp_path / name), codec="tiny").network
        judged = open_pictures(small_codec_config(tiny_bundle, frames, label_weight=1.0))
        batch, _ = judged.draw(1000)
        with torch.inference_mode():
            depth = network(batch.image)["depth"]
        values = task_losses("depth", depth, batch, None, "pixel")
        scores[name] = {key: value.mean().item() for key, value in values.items()}
    for loss in ("scale_shift_invariant", "local", "log_gradient"):
        assert scores["labelled"][loss] < 0.6 * scores["distilled"][loss], (loss, scores)


@pytest.mark.parametrize("label_weight", [0.0, 0.5])
def test_a_killed_training_goes_on_bit_for_bit(
    label_weight: float, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = write_frames(tmp_path / "frames")
    wanted = small_codec_config(tiny_bundle, frames, label_weight=label_weight, **SKIPS)
    whole = training.distil(wanted, tmp_path / "whole")
    parts = distilled_over_an_interruption(wanted, tmp_path / "parts", monkeypatch)
    assert (whole / "bundle.json").read_text() == (parts / "bundle.json").read_text()


def test_held_out_frames_are_never_drawn(tiny_bundle: Path, tmp_path: Path) -> None:
    """Colours are the frames' names."""
    for number in range(41):
        for kind, value in (("rgb", number * 5), ("depth", 1000 + np.arange(64).reshape(8, 8))):
            (tmp_path / "frames" / kind).mkdir(parents=True, exist_ok=True)
            label = np.broadcast_to(value, (8, 8))
            kept = label.astype(np.uint16 if kind == "depth" else np.uint8)
            cv2.imwrite(str(tmp_path / "frames" / kind / f"{number:02}.png"), kept)
    wanted = small_codec_config(tiny_bundle, tmp_path / "frames", label_weight=1.0, batch=4)

    def colours(held_out: object) -> list[int]:
        return [round((float(image.mean()) + 1) * 127.5 / 5) for image in held_out]

    assert colours(open_pictures(wanted).held_out) == [0, 20, 40]
    (tmp_path / "frames" / "split.txt").write_text("03 train\n07 train\n11 test\n12 test\n")
    pictures = open_pictures(wanted)
    assert colours(pictures.held_out) == [11, 12]
    again, half = pictures.draw(5)
    assert torch.equal(pictures.draw(5)[0].image, again.image)
    assert not torch.equal(pictures.draw(6)[0].image, again.image)
    assert half.shape == (4,)
    assert again.depth.shape == (4, 32, 48)
    assert again.normals is None


def test_configurations_from_before_mean_what_they_meant(tmp_path: Path, tiny_bundle: Path) -> None:
    content = yaml.safe_load((CONFIGS / "train_codec.yaml").read_text())
    new = (
        "skips",
        "backbone",
        "depth_components",
        "mixture_weight",
        "label_weight",
        "label_losses",
        "sharpening",
    )
    old = tmp_path / "old.yaml"
    old.write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in new}))
    config = load_codec_config(old)
    assert (config.skips, config.depth_components, config.label_weight) == (None, 1, 0)
    assert config.sharpening == 0
    assert config.steps == content["steps"]
    assert training._codec_config(config, load_bundle(tiny_bundle).network).skips == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skips": (8, 8)}, "skips must reach the latent's size.*give 3 numbers or more"),
        ({"skips": (4, 8, 8)}, "the first of skips, 4, must be at least width, 8"),
        ({"skips": None, "depth_components": 2}, "depth_components above 1 needs skips"),
        (
            {"skips": None, "depth_components": 1, "backbone": "efficientnet_lite0"},
            "backbone needs skips",
        ),
        ({"label_weight": 1.0}, "has folder pictures but no depth/ and no normals/"),
    ],
)
def test_what_does_not_fit_is_one_line(
    changes: dict, message: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    (write_frames(tmp_path / "frames") / "depth").rename(tmp_path / "depth")
    (tmp_path / "frames" / "normals").rename(tmp_path / "normals")
    wanted = small_codec_config(tiny_bundle, tmp_path / "frames", **{**SKIPS, **changes})
    with pytest.raises(DataError, match=message) as failure:
        training.distil(wanted, tmp_path / "run")
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["label_weight=1", "label_losses=null"], "give one of label_losses a weight above 0"),
        (["label_losses.alignment=1"], "label_losses.alignment must be 0"),
        (["depth_components=2", "mixture_weight=0"], "give mixture_weight a value above 0"),
        (["skips=[]"], "skips must be a list with at least one entry"),
        (["skips=[0]"], r"skips\[0\] must be 1 to"),
        (["depth_components=9"], "depth_components must be 1 to 8"),
        (["label_weight=-1"], "label_weight must be 0 to"),
    ],
)
def test_configurations_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_codec_config(CONFIGS / "train_codec.yaml", overrides)


# --- bundles -------------------------------------------------------------------------------------


def test_the_bundle_answers_with_both_codecs(trained: Path, tiny_bundle: Path) -> None:
    network = load_bundle(trained, codec="tiny").network
    assert network.vae.config == WITH_SKIPS
    with torch.inference_mode():
        assert network.encode(images()).shape == (2, 4 + 8 * 16, SIZE[0] // 8, SIZE[1] // 8)
    vae, tiny, before = (
        D3Predictor.from_pretrained(bundle, "cpu", codec=codec)(picture())
        for bundle, codec in ((trained, "vae"), (trained, "tiny"), (tiny_bundle, "vae"))
    )
    assert tiny.depth.shape == (60, 80)
    assert np.array_equal(vae.depth, before.depth)
    assert np.abs(tiny.depth - vae.depth).max() > 1e-3


def test_readers_from_before_refuse_it(
    trained: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads((trained / "bundle.json").read_text())["format"] == FORMAT_WITH_SKIPS
    plain = add_codec(tiny_bundle, tmp_path / "plain", tiny_codec())
    assert json.loads((plain / "bundle.json").read_text())["format"] == FORMAT
    monkeypatch.setattr(bundle_manifest, "FORMATS", (1, 2))
    with pytest.raises(BundleError, match="has format 3, this d3_ros reads 1 to 2"):
        load_bundle(trained)
    load_bundle(plain, codec="tiny")


def test_onnx_answers_as_pytorch_does(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported, _ = export_bundle(trained, tmp_path / "exported", codec="tiny")
    torch_one, onnx_one = (
        D3Predictor.from_pretrained(exported, "cpu", "fp32", "48x72", codec="tiny", runtime=name)
        for name in ("torch", "onnx")
    )
    ours, theirs = torch_one(picture()), onnx_one(picture())
    assert float(ours.depth.std()) > 1e-3
    assert np.abs(ours.depth - theirs.depth).max() < 1e-4
    assert np.nanmax(np.abs(ours.normals - theirs.normals)) < 1e-3
    # A new codec does not answer through the graphs of the old one.
    changed = add_codec(exported, tmp_path / "changed", skip_codec())
    assert load_bundle(changed, codec="tiny").network.vae.config == WITH_SKIPS
    assert "onnx" not in json.loads((changed / "bundle.json").read_text())
    assert not (changed / "onnx" / "tiny_fp32").exists()


def test_on_the_command_line(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = write_split_frames(tmp_path / "frames")
    small = ["device=cpu", "size=[32, 32]", "batch=1", "steps=2", "width=8"]
    small += ["encoder_blocks=[0, 0, 0, 1]", "decoder_blocks=[1, 0, 0, 0]"]
    skips = ["skips=[8, 8, 8]", "depth_components=2", "label_weight=0.5"]
    settings = [f"model={tiny_bundle}", f"data={frames}", f"output={tmp_path / 'run'}"]
    config = str(CONFIGS / "train_codec.yaml")
    assert main(["train", "--stage", "codec", "--config", config, *settings, *small, *skips]) == 0
    assert "(folder, train): 3 frames" in capsys.readouterr().out
    bundle = str(tmp_path / "run" / "bundle")
    models = ["--model", bundle, "--codec", "tiny", "--against", bundle]
    assert main(["evaluate", *models, "--data", str(frames), "--device", "cpu"]) == 0
    assert f"{bundle} (codec tiny)" in capsys.readouterr().out

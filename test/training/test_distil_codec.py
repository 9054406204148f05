"""Distillation of a bundle's VAE into the tiny codec: targets, losses, loop, checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.tiny_codec import TINY, tiny_codec
from helpers.tiny_network import SIZE
from helpers.training_configs import distilled_over_an_interruption
from helpers.training_configs import small_codec_config as config

from d3_ros.__main__ import main
from d3_ros.errors import DataError, NonFiniteError
from d3_ros.imaging.image_file import read_rgb
from d3_ros.network import load_bundle
from d3_ros.network.bundle.folder import has_codec
from d3_ros.network.inference.specialise import specialise
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.distillation.codec_losses import (
    codec_losses,
    codec_targets,
    distance_to_vae,
)
from d3_ros.training.loading.unlabelled_images import crop, image_files
from d3_ros.training.loop import distil_codec as training
from d3_ros.types import TASKS

CONFIG = ROOT / "config" / "training" / "train_codec.yaml"


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three pictures, one of them deeper down; and a depth map, which is no picture."""
    folder = tmp_path / "images"
    for name in ("a.png", "walk/b.jpg", "walk/c.png", "depth/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(len(name)).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        large = cv2.resize(blocks, (80, 60), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / name), large)
    return folder


def test_pictures_are_found_and_labels_left_out(images: Path, tmp_path: Path) -> None:
    found = [path.relative_to(images).as_posix() for path in image_files(images)]
    assert found == ["a.png", "walk/b.jpg", "walk/c.png"]
    with pytest.raises(DataError, match="fewer than two images"):
        image_files(images / "depth")


def test_crops_are_in_range_and_follow_from_the_seed() -> None:
    rgb = picture(60, 80)
    first, again = (crop(rgb, (32, 48), np.random.default_rng(1), 0.5) for _ in "ab")
    assert first.shape == (3, 32, 48)
    assert torch.equal(first, again)
    assert first.min() >= -1
    assert first.max() <= 1
    whole = crop(rgb, (60, 80), None)
    np.testing.assert_allclose(whole.permute(1, 2, 0).numpy(), rgb / 127.5 - 1, atol=1e-6)


def test_a_perfect_codec_has_no_loss(tiny_bundle: Path) -> None:
    """Every loss measures a distance to what the bundle says."""
    teacher = specialise(load_bundle(tiny_bundle).network)
    image = torch.rand(2, 3, *SIZE) * 2 - 1
    targets = codec_targets(teacher, image)
    assert targets.pictures["depth"].shape == (2, 1, *SIZE)
    assert targets.pictures["normals"].abs().max() <= 1

    class Perfect(TinyCodec):
        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return targets.latent

        def decode_with_mixture(self, latent: torch.Tensor, task: str) -> tuple[torch.Tensor, None]:
            torch.testing.assert_close(latent, targets.latents[task], rtol=0, atol=1e-4)
            return targets.pictures[task], None

    half = torch.tensor([True, False])
    losses = codec_losses(Perfect(TINY), teacher, image, targets, half, True)
    assert set(losses) == {"latent", "unet", "pixels", "edges"}
    assert all(abs(float(loss)) < 1e-6 for loss in losses.values())


def test_losses_by_hand(tiny_bundle: Path) -> None:
    teacher = specialise(load_bundle(tiny_bundle).network)
    image = torch.rand(1, 3, *SIZE) * 2 - 1
    targets = codec_targets(teacher, image)
    codec = tiny_codec()
    never = torch.tensor([False])
    losses = codec_losses(codec, teacher, image, targets, never, False)
    assert "unet" not in losses
    with torch.no_grad():
        errors = {t: codec.decode(targets.latents[t], t) - targets.pictures[t] for t in TASKS}
        deviation = codec.get_buffer("image_deviation")[:, None, None]
        latent = ((codec.encode(image) - targets.latent) / deviation).pow(2).mean()
    pixels = np.mean([e.abs().mean().item() for e in errors.values()])
    edges = np.mean(
        [
            np.abs(e[..., 2:] - e[..., :-2]).mean() + np.abs(e[..., 2:, :] - e[..., :-2, :]).mean()
            for e in (e.numpy() for e in errors.values())
        ]
    )
    assert losses["pixels"].item() == pytest.approx(pixels, rel=1e-5)
    assert losses["edges"].item() == pytest.approx(edges, rel=1e-5)
    assert losses["latent"].item() == pytest.approx(latent.item(), rel=1e-5)


def test_the_encoder_learns_through_the_unet(tiny_bundle: Path) -> None:
    teacher = specialise(load_bundle(tiny_bundle).network)
    image = torch.rand(1, 3, *SIZE) * 2 - 1
    codec = tiny_codec()
    always = torch.tensor([True])
    losses = codec_losses(codec, teacher, image, codec_targets(teacher, image), always, True)
    losses["unet"].backward(retain_graph=True)
    assert codec.encoder.layers[0].weight.grad.abs().max() > 0
    assert codec.decoders["depth"].layers[0].weight.grad is None
    codec.zero_grad()
    losses["pixels"].backward()  # decoders never pull on the encoder
    assert codec.encoder.layers[0].weight.grad is None
    assert codec.decoders["normals"].layers[0].weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_distillation_comes_closer_to_the_vae(
    tiny_bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sixty steps are too few to learn every light there may be, too.
    monkeypatch.setattr("d3_ros.training.loading.unlabelled_images.relit", lambda image, rng: image)
    quick = {"learning_rate": 5e-3, "ema_decay": 0.8, "steps": 60, "checkpoint_every": 20}
    wanted = config(tiny_bundle, images, **quick)
    bundle = training.distil(wanted, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    distances = [line["against_vae"] for line in lines if "against_vae" in line]
    assert len(distances) == 3
    assert distances[0].keys() == {"latent_nmse", "depth_mean_abs", "normals_mean_deg"}
    assert distances[-1]["depth_mean_abs"] < 0.85 * distances[0]["depth_mean_abs"]
    assert distances[-1]["normals_mean_deg"] < 0.95 * distances[0]["normals_mean_deg"]
    learned = [line for line in lines if "unet" in line]  # random weights have hardly any latent
    assert learned[-1]["unet"] < 0.8 * learned[0]["unet"]
    assert learned[-1]["pixels"] < 0.8 * learned[0]["pixels"]
    # What was judged is what is in the bundle, up to storing it in fp16.
    fast = load_bundle(bundle, codec="tiny").network.vae
    teacher = specialise(load_bundle(bundle).network)
    judged = distance_to_vae(
        teacher, fast, [crop(read_rgb(image_files(images)[0]), wanted.size, None)]
    )
    assert judged["depth_mean_abs"] == pytest.approx(distances[-1]["depth_mean_abs"], abs=2e-3)


def test_a_killed_distillation_goes_on_bit_for_bit(
    tiny_bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = config(tiny_bundle, images)
    whole = training.distil(wanted, tmp_path / "whole")
    parts = distilled_over_an_interruption(wanted, tmp_path / "parts", monkeypatch)
    assert (whole / "bundle.json").read_text() == (parts / "bundle.json").read_text()
    with pytest.raises(DataError, match="bundle exists"):
        training.distil(wanted, tmp_path / "parts")


def test_on_the_command_line(
    tiny_bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"model={tiny_bundle}", f"data={images}", f"output={tmp_path / 'run'}"]
    settings += ["device=cpu", "size=[32, 32]", "batch=1", "steps=2", "width=8", "bf16=true"]
    arguments = ["train", "--stage", "codec", "--config", str(CONFIG)]
    assert main([*arguments, *settings]) == 0
    out = capsys.readouterr().out
    assert "tiny codec against the VAE, on held-out images: latent_nmse" in out
    assert has_codec(tmp_path / "run" / "bundle")
    assert main([*arguments, "output=x", "speed=1"]) == 1
    assert "unknown key 'speed'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_blocks": (1, 1), "decoder_blocks": (1, 1)}, "encoder_blocks reduce by 2"),
        ({"size": (30, 32)}, "must be multiples of 8"),
        ({"decoder_blocks": (1, 1)}, "same number of levels"),
    ],
)
def test_sizes_that_do_not_fit_the_bundle(
    tiny_bundle: Path, images: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        training.distil(config(tiny_bundle, images, **changes), tmp_path / "run")


def test_divergence_stops_the_run(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    wanted = config(tiny_bundle, images, learning_rate=1e30, warmup_steps=0, clip_norm=1e9)
    with pytest.raises(NonFiniteError, match="not finite at step"):
        training.distil(wanted, tmp_path / "run")


def test_a_gradient_that_is_not_finite_is_not_applied(
    tiny_bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint before stays good, and the run goes on from it as if nothing had happened."""
    wanted = config(tiny_bundle, images)
    whole = training.distil(wanted, tmp_path / "whole")
    real, calls = torch.nn.utils.clip_grad_norm_, iter(range(10))

    def poisoned(parameters: Iterable[torch.nn.Parameter], limit: float) -> torch.Tensor:
        parameters = list(parameters)
        if next(calls) == 2:  # the third step; a checkpoint follows the second and the fourth
            parameters[0].grad[0] = math.inf
        return real(parameters, limit)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
        with pytest.raises(NonFiniteError, match="gradient is not finite at step 2: lower"):
            training.distil(wanted, tmp_path / "parts")
    assert not (tmp_path / "parts" / "bundle").exists()
    parts = training.distil(wanted, tmp_path / "parts")
    assert (whole / "bundle.json").read_text() == (parts / "bundle.json").read_text()


def test_a_damaged_checkpoint_is_one_line(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    for content in (b"", b"PK" + bytes(100), b"\x80\x02}."):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "checkpoint.pt").write_bytes(content)
        with pytest.raises(DataError, match="does not fit this configuration") as failure:
            training.distil(config(tiny_bundle, images), tmp_path / "run")
        assert "\n" not in str(failure.value)


def test_a_configuration_without_a_folder_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """An empty path would mean the current folder, with all that is below it."""
    with pytest.raises(DataError, match="data is empty: give data=FOLDER"):
        training.distil(config(tiny_bundle, Path("x"), data=""), tmp_path / "run")

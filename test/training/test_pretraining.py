"""What a small model learns before the D³ recipe: VAE and prior; and the ablations' switches."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.tiny_network import tiny_network
from helpers.training_configs import small_config, write_split_frames
from safetensors.torch import load_file
from torch import nn

from d3_ros.errors import DataError
from d3_ros.network import load_bundle
from d3_ros.training.config.train_config import TaskShares
from d3_ros.training.distillation.teacher import NoiseDraw, TeacherTargets
from d3_ros.training.loading.datasets import open_source
from d3_ros.training.loading.sample import Batch, collate
from d3_ros.training.loop.start import start_from
from d3_ros.training.loop.train import train
from d3_ros.training.objectives.forward import noised_input
from d3_ros.training.objectives.pretraining import (
    Autoencoder,
    DiffusionPrior,
    label_maps,
    scale_latents,
    validate_autoencoder,
)

PRIOR = ("objective=diffusion", "model.new=null", "model.train_vae=false")
D3 = ("model.new=null", "model.train_vae=false")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split_frames(tmp_path_factory.mktemp("frames") / "data")


@pytest.fixture(scope="module")
def chain(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Autoencoder, prior, and a student under that prior: the first three steps of d3_nano."""
    root = tmp_path_factory.mktemp("chain")
    train(small_config(frames, "objective=autoencoder"), root / "vae")
    start = f"model.start={root / 'vae/last'}"
    train(small_config(frames, *PRIOR, start), root / "prior")
    start = f"model.start={root / 'prior/last'}"
    teacher = f"model.teacher={root / 'prior/last'}"
    train(small_config(frames, *D3, start, teacher), root / "student")
    return root


def weights(bundle: Path, part: str) -> dict[str, torch.Tensor]:
    return load_file(next((bundle / part).glob("*.safetensors")))


def same(one: Path, other: Path, part: str) -> bool:
    a, b = weights(one, part), weights(other, part)
    return all(torch.equal(a[name], b[name]) for name in a)


def logged(run: Path, prefix: str) -> set[str]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {key for line in lines for key in line if key.startswith(prefix)}


def test_each_step_trains_its_own_part(chain: Path) -> None:
    vae, prior, student = (chain / name / "last" for name in ("vae", "prior", "student"))
    assert same(prior, student, "vae")
    a, b = weights(vae, "vae"), weights(prior, "vae")
    # Only the scale of its latents was set.
    assert {name for name in a if not torch.equal(a[name], b[name])} == {
        "decoder.layers.0.weight",
        "encoder.layers.3.weight",
        "encoder.layers.3.bias",
    }
    assert not same(vae, prior, "unet") and not same(prior, student, "unet")
    timesteps = [load_bundle(b).network.specs["depth"].timestep for b in (vae, prior, student)]
    assert timesteps[0] == timesteps[1] == 261.0
    assert timesteps[2] != 261.0


def test_each_step_logs_its_own_losses_and_scores(chain: Path) -> None:
    assert logged(chain / "vae", "test/") == {
        "test/depth_error",
        "test/image_error",
        "test/normals_deg",
    }
    assert "loss/image.mse" in logged(chain / "vae", "loss/")
    assert logged(chain / "prior", "test/") == {"test/noise_error"}
    assert logged(chain / "prior", "loss/") == {"loss/depth.mse", "loss/normals.mse", "loss/total"}
    assert "loss/depth.alignment" in logged(chain / "student", "loss/")
    assert logged(chain / "student", "test/") == {"test/abs_rel", "test/normals_deg"}


@torch.no_grad()
def test_prior_sees_latents_of_unit_deviation(chain: Path, frames: Path) -> None:
    network = load_bundle(chain / "prior/last").network
    assert network.vae.config.scaling_factor != 1.0
    source = open_source(small_config(frames).data, (24, 32), "train")
    latents = torch.cat(
        [network.encode(source.sample(i, None).image[None]) for i in range(len(source))]
    )
    # The bundle stores half precision.
    assert float(latents.std()) == pytest.approx(1.0, abs=0.01)
    # What the decoder gets lies where its tanh, of range (-3, 3), is nearly straight.
    assert float(latents.std()) / network.vae.config.scaling_factor == pytest.approx(0.4, abs=0.01)


@torch.no_grad()
def test_scaling_latents_keeps_what_the_autoencoder_does(chain: Path, frames: Path) -> None:
    network = load_bundle(chain / "vae/last").network
    for weight in (network.vae.encoder.layers[-1].weight, network.vae.encoder.layers[-1].bias):
        weight.mul_(0.01)  # far from the squeeze, where it is the identity to 1e-4
    source = open_source(small_config(frames).data, (24, 32), "train")
    image = source.sample(0, None).image[None]
    shrunk = float(network.encode(image).std()) / network.vae.config.scaling_factor
    network.vae.decoder.layers[0].weight.mul_(100)
    before = network.decode(network.encode(image))
    scale_latents(network, source)
    grown = float(network.encode(image).std()) / network.vae.config.scaling_factor
    assert grown > 10 * shrunk
    after = network.decode(network.encode(image))
    assert float((after - before).abs().mean()) < 0.05 * float(before.std())


def batch_of(frames: Path) -> Batch:
    source = open_source(small_config(frames).data, (24, 32), "train")
    return collate([source.sample(i, np.random.default_rng(i)) for i in range(2)])


def test_a_lossless_autoencoder_has_no_loss(frames: Path) -> None:
    network = tiny_network()
    network.encode = network.decode = lambda images: images  # type: ignore[assignment]
    raw = Autoencoder(network)(batch_of(frames), None, {}, {})
    assert {name: float(value) for name, value in raw.items()} == pytest.approx(
        {"image.mse": 0, "depth.mse": 0, "depth.log_gradient": 0, "normals.mse": 0}, abs=1e-6
    )
    source = open_source(small_config(frames).data, (24, 32), "test")
    scores = validate_autoencoder(network, source, torch.device("cpu"))
    assert scores == pytest.approx({"depth_error": 0, "image_error": 0, "normals_deg": 0}, abs=0.05)


def test_label_maps_are_what_the_network_answers_with(frames: Path) -> None:
    batch = batch_of(frames)
    maps = label_maps(batch, tiny_network())
    assert batch.normals is not None
    # The network's normals: y up, z towards the viewer.
    torch.testing.assert_close(maps["normals"][:, 1:], -batch.normals[:, 1:], atol=0.02, rtol=0)
    assert maps["depth"].shape == batch.image.shape


def test_autoencoder_needs_both_labels(frames: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for kind in ("rgb", "depth"):
        (bare / kind).symlink_to(frames / kind)
    with pytest.raises(DataError, match="must have depth and normals"):
        train(small_config(bare, "objective=autoencoder"), tmp_path / "run")


def test_prior_that_knows_the_noise_has_no_loss() -> None:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) noise, solved for the noise."""
    network = tiny_network()
    torch.manual_seed(0)
    latent = torch.randn(2, 4, 4, 4)
    timesteps = torch.tensor([[10, 400, 900], [1, 500, 998]])
    noise = torch.randn(2, 3, 4, 4, 4)
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    left = torch.cumprod(1 - beta, 0).float()

    class Oracle(nn.Module):
        def forward(
            self, x: torch.Tensor, t: torch.Tensor, prompt: torch.Tensor, return_dict: bool
        ) -> tuple[torch.Tensor]:
            share = left[t][:, None, None, None]
            clean = latent.repeat_interleave(3, dim=0)
            return ((x - share.sqrt() * clean) / (1 - share).sqrt(),)

    name = network.specs["depth"].unet
    network.unets[name] = Oracle()
    prompts = {"depth": torch.zeros(2, 3, 8)}
    targets = {"depth": TeacherTargets({}, NoiseDraw(timesteps, noise))}
    batch = Batch(torch.zeros(2, 3, 32, 32), None, None, None, None, (None,) * 2, (None,) * 2)
    raw = DiffusionPrior(network, TaskShares(1.0, 0.0))(batch, latent, prompts, targets)
    assert float(raw["depth.mse"]) < 1e-3


def test_input_noise_is_of_the_timestep_and_follows_from_the_image(frames: Path) -> None:
    latent = torch.zeros(2, 4, 32, 32)
    images = range(10, 12)

    def noised(timestep: int) -> torch.Tensor:
        config = small_config(frames, *D3, "model.start=x", f"model.input_noise={timestep}")
        return noised_input(latent, config, images)

    torch.testing.assert_close(noised(261), noised(261), atol=0, rtol=0)
    assert not torch.equal(noised(261)[0], noised(261)[1])
    assert float(noised(0).std()) == pytest.approx(0.00085**0.5, rel=0.05)
    assert float(noised(999).std()) == pytest.approx(1.0, rel=0.05)


def test_ablations_run_and_differ(chain: Path, frames: Path, tmp_path: Path) -> None:
    start = f"model.start={chain / 'prior/last'}"
    plain = train(small_config(frames, *D3, start), tmp_path / "plain")
    noisy = train(small_config(frames, *D3, start, "model.input_noise=261"), tmp_path / "noisy")
    fixed = train(small_config(frames, *D3, start, "model.learn_timestep=false"), tmp_path / "t")
    assert load_bundle(fixed).network.specs["depth"].timestep == 261.0
    assert load_bundle(plain).network.specs["depth"].timestep != 261.0
    assert not same(plain, noisy, "unet")


def test_tasks_that_share_a_unet_can_have_timesteps_of_their_own(
    chain: Path, frames: Path, tmp_path: Path
) -> None:
    start = f"model.start={chain / 'prior/last'}"
    apart = "model.timesteps={depth: 100, normals: 700}"
    begun = start_from(small_config(frames, *D3, start, apart)).network
    assert {t: float(v.detach()) for t, v in begun.timesteps.items()} == {
        "depth": 100.0,
        "normals": 700.0,
    }
    bundle = load_bundle(train(small_config(frames, *D3, start, apart), tmp_path / "apart"))
    # They are learned from there, at the learning rate.
    assert bundle.network.specs["depth"].timestep == pytest.approx(100, abs=0.1)
    assert bundle.network.specs["normals"].timestep == pytest.approx(700, abs=0.1)


def test_bundles_are_averaged_by_the_script(
    chain: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, output = chain / "prior/last", chain / "student/last", tmp_path / "mean"
    main = runpy.run_path(str(ROOT / "scripts" / "average_bundles.py"))["main"]

    def run(other: Path, output: Path) -> None:
        arguments = [first, other, "--share", "0.75", "--output", output]
        monkeypatch.setattr(sys, "argv", ["average_bundles.py", *map(str, arguments)])
        main()

    run(second, output)
    one, other, mean = (
        dict(load_bundle(path).network.named_parameters()) for path in (first, second, output)
    )
    for name, weight in mean.items():
        expected = 0.25 * one[name] + 0.75 * other[name]
        torch.testing.assert_close(weight, expected, rtol=2e-3, atol=1e-4)  # stored as fp16
    assert any(not torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(SystemExit, match="not of one network"):
        run(tiny_bundle, tmp_path / "none")
    assert not (tmp_path / "none").exists()

"""Training: losses by hand, labels under augmentation, configuration, resumption, divergence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from d3_ros.errors import D3Error, DataError, NonFiniteError
from d3_ros.training import data
from d3_ros.training import train as training
from d3_ros.training.config import LossWeights, ModelConfig, Stage, TrainConfig, load_config

CONFIG = Path(__file__).parents[1] / "config" / "train_d3_nano.yaml"


def _config(**changes: object) -> TrainConfig:
    model = ModelConfig(
        vae_channels=8,
        vae_blocks=(0, 1),
        latent_channels=4,
        unet_channels=(16, 16),
        unet_attention=(False, True),
        unet_layers=1,
        head_width=8,
        norm_groups=4,
        prompt_width=8,
        processing_size=(24, 32),
    )
    config = TrainConfig(
        name="test",
        seed=3,
        processes=1,
        threads=1,
        bf16=False,
        model=model,
        stages=(Stage((16, 16), 2, 2), Stage((24, 32), 2, 2)),
        normals_share=0.5,
        learning_rate=1e-3,
        warmup_steps=1,
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.9,
        checkpoint_every=2,
        losses=LossWeights(8.0, 2.0, 10.0, 3.0),
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames of a wall that recedes to the right: z = 2 + x in ray units, normal in x."""
    root = tmp_path / "data"
    for kind in ("rgb", "depth", "normals"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(1000, 4000, 40).astype(np.uint16), (30, 1))
    normals = np.empty((30, 40, 3), np.uint8)
    normals[:] = np.rint(np.array([-0.8, 0.0, -0.6]) * 127) + 128
    for i in range(3):
        rgb = rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)
        cv2.imwrite(str(root / "rgb" / f"{i}.png"), rgb)
        cv2.imwrite(str(root / "depth" / f"{i}.png"), ramp)
        cv2.imwrite(str(root / "normals" / f"{i}.png"), normals[..., ::-1])
    return root


def test_quantiles_become_zero_and_one() -> None:
    depth = np.arange(101, dtype=np.float32)[None] + 10
    valid = np.ones_like(depth, dtype=bool)
    target = data.quantile_normalised(depth, valid)
    assert target[0, 2] == 0.0  # 2 % of 0..100
    assert target[0, 98] == 1.0
    assert target[0, 50] == pytest.approx(0.5)
    assert target.min() == 0.0
    assert target.max() == 1.0
    assert not data.quantile_normalised(depth, ~valid).any()


def test_mirrored_frames_have_mirrored_labels(folder: Path) -> None:
    """Where depth grows to the left instead of the right, n_x has changed its sign too."""
    store = data.open_store(folder)
    seen = set()
    for draw in range(20):
        batch = data.draw_batch(store, np.random.default_rng(draw), 2, (24, 32))
        for depth, normals in zip(batch.depth, batch.normals, strict=True):
            slope = float(torch.sign(depth[12, -1] - depth[12, 0]))
            seen.add(slope)
            assert normals[0].numpy() == pytest.approx(-0.8 * slope, abs=0.01)
            assert normals[2].numpy() == pytest.approx(-0.6, abs=0.01)
    assert seen == {-1.0, 1.0}


def test_batches_are_in_range_and_follow_from_the_seed(folder: Path) -> None:
    store = data.open_store(folder)
    first, again = (data.draw_batch(store, np.random.default_rng(5), 4, (24, 32)) for _ in "ab")
    assert first.image.shape == (4, 3, 24, 32)
    assert first.image.dtype == torch.float32
    assert first.image.min() >= -1
    assert first.image.max() <= 1
    assert first.depth_valid.all()
    assert float(first.depth_target.min()) == 0.0
    assert float(first.depth_target.max()) == 1.0
    for name in ("image", "depth", "depth_target", "normals"):
        assert torch.equal(getattr(first, name), getattr(again, name))


def test_bad_frames_are_named(folder: Path) -> None:
    (folder / "depth" / "1.png").unlink()
    with pytest.raises(DataError, match=r"depth/1\.png is missing"):
        data.open_store(folder)
    assert not (folder / "packed").exists()
    cv2.imwrite(str(folder / "depth" / "1.png"), np.zeros((9, 9), np.uint16))
    with pytest.raises(DataError, match=r"depth/1: uint16 \(9, 9\), expected"):
        data.open_store(folder)
    with pytest.raises(DataError, match="has no frames"):
        data.open_store(folder / "nowhere")


def test_shipped_configuration() -> None:
    config = load_config(CONFIG, ["stages=[{size: [8, 16], batch: 2, steps: 5}]", "losses.mse=4"])
    assert config.steps == 5
    assert config.stage_at(4).size == (8, 16)
    assert config.losses.mse == 4.0
    assert training.learning_rate(config, config.warmup_steps) <= config.learning_rate


def test_exponents_need_no_point() -> None:
    assert load_config(CONFIG, ["learning_rate=1e-3"]).learning_rate == 0.001


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("speed=1", "unknown key 'speed'"),
        ("losses.depth=1", "unknown key 'depth'"),
        ("seed=abc", "seed must be int"),
        ("bf16=1", "bf16 must be bool"),
        ("stages=[]", "at least one"),
        ("normals_share=1.5", "normals_share must be in"),
        ("processes=3", "multiple of processes"),
        ("nothing", "key=value"),
        ("model.processing_size=[1, 2, 3]", "2 entries"),
    ],
)
def test_wrong_configuration(override: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_config(CONFIG, [override])


def test_missing_key(tmp_path: Path) -> None:
    text = CONFIG.read_text().replace("seed: 1", "")
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError, match="'seed' is missing"):
        load_config(tmp_path / "c.yaml")


def test_a_killed_run_goes_on_bit_for_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.train(_config(), folder, tmp_path / "whole")

    real = training._mean_over_processes
    calls = iter(range(100))

    def killed(*args: Any) -> dict[str, float]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training, "_mean_over_processes", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(_config(), folder, tmp_path / "parts")
    monkeypatch.setattr(training, "_mean_over_processes", real)
    parts = training.train(_config(), folder, tmp_path / "parts")

    states = [
        torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)
        for run in ("whole", "parts")
    ]
    assert states[0]["step"] == states[1]["step"] == 4
    for kind in ("network", "average"):
        for name, tensor in states[0][kind].items():
            assert torch.equal(tensor, states[1][kind][name]), name
    manifests = [(bundle / "bundle.json").read_text() for bundle in (whole, parts)]
    assert manifests[0] == manifests[1]  # the hashes of all weights among it


def test_two_processes_share_a_batch(folder: Path, tmp_path: Path) -> None:
    """They learn one set of weights; the bundle is whole and loads."""
    from d3_ros.network import load_bundle

    config = _config(processes=2, stages=(Stage((16, 16), 4, 2),))
    bundle = load_bundle(training.train(config, folder, tmp_path / "run"))
    assert bundle.network.tasks == ("depth", "normals")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert not list((tmp_path / "run").glob(".rendezvous*"))


def test_a_failure_in_a_process_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(*_: object, **__: object) -> None:
        raise torch.multiprocessing.ProcessRaisedException(
            "-- Process 1 terminated:\nTraceback ...\nNonFiniteError: the loss is not finite", 1, 7
        )

    monkeypatch.setattr(torch.multiprocessing, "spawn", spawn)
    with pytest.raises(D3Error, match=r"^NonFiniteError: the loss is not finite$"):
        training.train(_config(processes=2), folder, tmp_path / "run")


def test_divergence_stops_the_run(folder: Path, tmp_path: Path) -> None:
    config = _config(learning_rate=1e30, warmup_steps=0, clip_norm=1e9)
    with pytest.raises(NonFiniteError, match="not finite at step"):
        training.train(config, folder, tmp_path / "run")


def test_loss_falls_on_one_frame(folder: Path, tmp_path: Path) -> None:
    config = _config(stages=(Stage((24, 32), 2, 40),), checkpoint_every=40)
    training.train(config, folder, tmp_path / "run")
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    first, last = (
        float(line.split('"depth_ssi": ')[1].split(",")[0]) for line in (lines[0], lines[-1])
    )
    assert last < first

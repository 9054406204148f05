"""Small training runs for tests: configurations of a few channels, and frames to train on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT

from d3_ros.training.config.codec_config import CodecTrainConfig, load_codec_config
from d3_ros.training.config.train_config import TrainConfig, load_config

CONFIGS = ROOT / "config" / "training"
NANO = CONFIGS / "nano_01_autoencoder.yaml"
OFFICIAL = CONFIGS / "train_depth.yaml"


def small_config(data: Path, *overrides: str, **changes: Any) -> TrainConfig:
    """A new model of a few channels, both tasks, two stages of two steps, float32, one thread."""
    config = load_config(
        NANO,
        [
            f"data={data}",
            "data.datasets=[{kind: folder, path: data, weight: 1.0, derive_normals: false}]",
            "name=test",
            "objective=d3",
            "seed=3",
            "threads=1",
            "workers=0",
            "precision=fp32",
            "model.new={vae_channels: 8, vae_blocks: [0, 1], latent_channels: 4, "
            "unet_channels: [16, 16], unet_attention: [false, true], unet_layers: 1, "
            "head_width: 8, norm_groups: 4, prompt_width: 8}",
            "model.adapters={depth: 3, expansion: 1, condition_width: 16, condition_depth: 2, "
            "condition_hidden: 24}",
            "tasks={depth: 1.0, normals: 0.5}",
            "losses={alignment: 1, mse: 8, scale_shift_invariant: 2, log_gradient: 20, "
            "normal_angle: 3, depth_unit: mean}",
            "stages=[{size: [16, 16], batch: 2, steps: 2}, {size: [24, 32], batch: 2, steps: 2}]",
            "micro_batch=2",
            "optimizer={learning_rate: 1e-3, warmup_steps: 1}",
            "ema={decay: 0.9, every: 1}",
            "every={checkpoint: 2, validation: 2, pictures: 100, log: 1}",
            *overrides,
        ],
    )
    return dataclasses.replace(config, **changes)


def small_codec_config(bundle: Path, images: Path, **changes: Any) -> CodecTrainConfig:
    """A codec of a few channels for a bundle whose VAE reduces by 8; four steps of two images."""
    small = dataclasses.replace(
        load_codec_config(CONFIGS / "train_codec.yaml"),
        model=str(bundle),
        data=str(images),
        device="cpu",
        bf16=False,
        width=8,
        encoder_blocks=(0, 0, 1, 1),
        decoder_blocks=(1, 1, 0, 0),
        size=(32, 48),
        batch=2,
        steps=4,
        checkpoint_every=2,
        warmup_steps=1,
    )
    return dataclasses.replace(small, **changes)


def distilled_over_an_interruption(
    config: CodecTrainConfig, output: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The bundle of a codec's training that is cut off before its fourth step, and gone on with."""
    from d3_ros.training.loop import distil_codec

    real, calls = distil_codec._step, iter(range(100))

    def killed(*arguments: object) -> dict[str, float]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(distil_codec, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        distil_codec.distil(config, output)
    assert not (output / "bundle").exists()
    monkeypatch.setattr(distil_codec, "_step", real)
    return distil_codec.distil(config, output)


def write_frames(root: Path, count: int = 3) -> Path:
    """Frames of a wall that recedes to the right, its normal (-0.8, 0, -0.6); 30 x 40 pixels."""
    for kind in ("rgb", "depth", "normals"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(1000, 4000, 40).astype(np.uint16), (30, 1))
    normals = np.empty((30, 40, 3), np.uint8)
    normals[:] = np.rint(np.array([-0.8, 0.0, -0.6]) * 127) + 128
    for i in range(count):
        rgb = rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)
        cv2.imwrite(str(root / "rgb" / f"{i}.png"), rgb)
        cv2.imwrite(str(root / "depth" / f"{i}.png"), ramp)
        cv2.imwrite(str(root / "normals" / f"{i}.png"), normals[..., ::-1])
    return root


def write_split_frames(root: Path) -> Path:
    """Three of those frames to train on and one to test on."""
    write_frames(root, count=4)
    (root / "split.txt").write_text("0 train\n1 train\n2 train\n3 test\n")
    return root

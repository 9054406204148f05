"""The training configuration: what is shipped, inheritance, overrides, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import yaml
from helpers.training_configs import CONFIGS, NANO, OFFICIAL

from d3_ros.errors import DataError
from d3_ros.training.config.model_config import ModelConfig
from d3_ros.training.config.recipes import find_config
from d3_ros.training.config.train_config import (
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    load_config,
)
from d3_ros.training.loading.batches import image_numbers
from d3_ros.training.loop.schedule import learning_rate_factor


def test_the_official_recipe() -> None:
    """Against DESIGN's table: the numbers of the paper and its code."""
    config = load_config(OFFICIAL)
    assert config.optimizer.learning_rate == 3e-5
    assert config.optimizer.betas == (0.9, 0.999)
    assert config.optimizer.weight_decay == 0.01
    assert config.optimizer.warmup_steps == 2000
    assert config.optimizer.clip_norm == 1.0
    assert [(s.size, s.batch, s.steps) for s in config.stages] == [((768, 768), 32, 30000)]
    assert config.precision == "bf16"
    weights = config.losses
    assert (weights.alignment, weights.mse, weights.scale_shift_invariant) == (1, 8, 2)
    assert (weights.log_gradient, weights.normal_angle) == (100, 3)
    assert weights.depth_unit == "metre"
    assert config.tasks.trained == ("depth",)
    assert [(d.kind, d.weight) for d in config.data.datasets] == [
        ("hypersim", 0.76),
        ("virtual_kitti", 0.12),
        ("coco", 0.12),
    ]
    adapters = config.model.adapters
    assert (adapters.depth, adapters.expansion) == (3, 1)
    assert config.model.teacher is not None
    normals = load_config(CONFIGS / "train_normals.yaml")
    assert normals.tasks.trained == ("normals",)
    assert normals.losses == config.losses
    assert normals.optimizer == config.optimizer


NAMES = (
    "train_depth",
    "train_normals",
    "nano_01_autoencoder",
    "nano_02_prior",
    "nano_03_teacher",
    "nano_04_small",
    "nano_05_full",
    "nano_06_small",
    "nano_07_full",
    "nano_08_apart",
    "nano_09_worktops",
    "nano_10_long_tables",
    "nano_11_larger",
    "nano_12_gpu",
    "nano_13_whole_frames",
    "finetune",
    "finetune_lora",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_valid_and_can_be_read_alone(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    load_config(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "inherits" not in content
    # Nothing is stated that a left-out key means anyway; train_depth explains these keys.
    if path != OFFICIAL:
        assert not {k for k, v in content.items() if v is None or v is False}
        assert not {k for k, v in content["model"].items() if v is None or v is False}


def test_every_recipe_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {
        *NAMES,
        "train_codec",
    }  # folders: test_recipe


def test_the_official_recipe_states_every_key() -> None:
    def missing(kind: type, content: dict[str, object]) -> set[str]:
        return {field.name for field in dataclasses.fields(kind)} - set(content)

    content = yaml.safe_load(OFFICIAL.read_text(encoding="utf-8"))
    assert not missing(TrainConfig, content)
    assert not missing(ModelConfig, content["model"])
    assert not missing(OptimizerConfig, content["optimizer"])
    assert not missing(LossConfig, content["losses"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nano_1_autoencoder.yaml", "nano_01_autoencoder.yaml"),
        ("config/nano_9_worktops.yaml", "nano_09_worktops.yaml"),
        ("config/train_depth.yaml", "train_depth.yaml"),
        ("config/nano_13_whole_frames.yaml", "nano_13_whole_frames.yaml"),
    ],
)
def test_a_recipe_is_found_by_its_name_and_its_old_name_tells_the_new_one(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)  # an installed one would come first
    assert find_config(new) == CONFIGS / new
    with pytest.raises(DataError, match=f"^{old}: there is no such file; .* is now called {new}$"):
        find_config(old)
    with pytest.raises(DataError, match="nor a recipe of that name"):
        find_config("nano_99.yaml")


def test_an_installed_recipe_comes_before_the_repositorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "share" / "d3_ros" / "config" / "training"
    installed.mkdir(parents=True)
    (installed / "finetune.yaml").write_text("inherits: train_depth.yaml\nseed: 7\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert find_config("finetune.yaml") == installed / "finetune.yaml"
    assert load_config(installed / "finetune.yaml").seed == 7  # its parent is the repository's
    assert find_config("train_depth.yaml") == OFFICIAL


def test_overrides() -> None:
    changes = ["stages=[{size: [8, 16], batch: 16, steps: 5}]", "losses.mse=4"]
    config = load_config(CONFIGS / "nano_04_small.yaml", ["micro_batch=16", *changes])
    assert config.steps == 5
    assert config.stages[0].size == (8, 16)
    assert config.losses.mse == 4.0
    assert config.losses.depth_unit == "mean"  # what was not overridden stays
    assert load_config(NANO, ["optimizer.learning_rate=1e-3"]).optimizer.learning_rate == 0.001
    assert load_config(NANO, ["ema=null"]).ema is None


def test_data_folder_in_short() -> None:
    config = load_config(OFFICIAL, ["data=/frames"])
    assert {dataset.path for dataset in config.data.datasets} == {"/frames"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.timesteps={depth: 261, normals: 1000}",
            r"model\.timesteps\.normals must be 0 to 999, not 1000",
        ),
        ("sead=1", "unknown key 'sead'; did you mean 'seed'"),
        ("losses.mean_square=1", "losses: unknown key 'mean_square'; known: "),
        ("seed=abc", "seed must be int"),
        ("gradient_checkpointing=1", "gradient_checkpointing must be bool"),
        ("precision=int8", "precision must be one of fp32, bf16, fp16, not 'int8'"),
        ("stages=[]", "stages must be a list with at least one entry"),
        ("stages=[{size: [8, 8, 8], batch: 8, steps: 1}]", "size must have 2 entries"),
        (
            "stages=[{size: [8, 8], batch: 8, steps: 0}]",
            r"stages.0.\.steps must be 1 to 1,000,000,000, not 0",
        ),
        ("micro_batch=3", "micro_batch 3 does not divide a stage's batch 32"),
        ("tasks.normals=0.03", "tasks.normals: its share of micro_batch 16 must be a whole"),
        ("model.input_noise=5", "model: input_noise needs a fixed VAE"),
        ("objective=diffusion", "objective diffusion: set model.train_vae to false"),
        ("objective=gan", "objective must be one of d3, autoencoder, diffusion"),
        ("tasks.normals=1.5", "tasks.normals must be 0 to 1, not 1.5"),
        ("tasks={depth: 0.0, normals: 0.0}", "at least one share"),
        ("model.start=d3_nano", "model: give either start .* or new"),
        ("model.teacher=folder", "teacher"),
        ("model.train_vae=false", "train_vae must be true for a new model"),
        ("latent_cache=memory", "latent_cache must be none"),
        (
            "model.lora={rank: 0, alpha: 1, targets: [to_q]}",
            "rank must be 1 to 16,384, not 0",
        ),
        ("every.log=0", r"every\.log must be 1 to 1,000,000,000, not 0"),
        ("nothing", "key=value"),
        ("seed=[", "is not YAML"),
        ("model=5", "model must be a mapping"),
    ],
)
def test_wrong_values(override: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as failure:
        load_config(NANO, [override])
    assert "\n" not in str(failure.value)


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(OFFICIAL.read_text().replace("seed: 42", ""))
    with pytest.raises(DataError, match="'seed' is missing"):
        load_config(path)
    path.write_text("inherits: c.yaml\n")
    with pytest.raises(DataError, match="goes in a circle"):
        load_config(path)
    path.write_text("inherits: gone.yaml\n")
    with pytest.raises(DataError, match=r"inherits gone\.yaml: there is no such file"):
        load_config(path)
    path.write_text("- 1\n")
    with pytest.raises(DataError, match="must be a mapping"):
        load_config(path)


@pytest.mark.parametrize("name", ["train_depth", "train_normals"])
def test_the_official_learning_rate(name: str) -> None:
    """DESIGN, section 2: logarithmic to 3e-5 at step 2,000, then linear to 0 at step 30,000."""
    config = load_config(CONFIGS / f"{name}.yaml")
    optimizer = config.optimizer
    for step, expected in {
        0: 0.0,
        1: math.log(2) / math.log(2000),
        100: 0.607,
        1000: 0.909,
        1999: 1.0,
        2000: 1.0,
        16_000: 0.500,
        29_999: 1 / 28_000,
    }.items():
        factor = learning_rate_factor(
            optimizer.schedule,
            step,
            steps=config.steps,
            warmup_steps=optimizer.warmup_steps,
            final_share=optimizer.final_share,
        )
        assert factor == pytest.approx(expected, abs=5e-4 if 0.1 < expected < 1 else 1e-9), step


def test_a_warm_up_longer_than_the_run() -> None:
    for warmup_steps in (0, 1, 2, 10, 11, 2000):
        factors = [
            learning_rate_factor(
                "warmup_decay", step, steps=10, warmup_steps=warmup_steps, final_share=0.0
            )
            for step in range(10)
        ]
        assert all(0 <= factor <= 1 for factor in factors), warmup_steps


def test_learning_rate_by_hand() -> None:
    # linear: 0.5 + 0.5 (1 - step / 8), times the warm-up's quarters
    factors = [
        learning_rate_factor("linear", step, steps=8, warmup_steps=4, final_share=0.5)
        for step in (0, 1, 4, 6)
    ]
    assert factors == pytest.approx([0.25, 0.5 * (0.5 + 0.5 * 7 / 8), 0.75, 0.625])


def test_images_are_numbered_through_the_run() -> None:
    """Every image once, whichever processes share a step, over the stages' boundary too."""
    config = load_config(
        NANO,
        [
            "stages=[{size: [8, 8], batch: 8, steps: 2}, {size: [8, 8], batch: 16, steps: 2}]",
            "micro_batch=4",
        ],
    )
    assert image_numbers(config, 2, rank=1, processes=2) == [range(20, 24), range(28, 32)]
    for processes in (1, 2):
        seen = [
            number
            for step in range(4)
            for rank in range(processes)
            for images in image_numbers(config, step, rank, processes)
            for number in images
        ]
        assert sorted(seen) == list(range(8 + 8 + 16 + 16))

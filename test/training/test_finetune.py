"""finetune: from a bag to a bundle that is better on frames held out, or to an honest refusal."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.bag_messages import camera_info, compressed, image, write_bag
from helpers.paths import ROOT
from helpers.training_configs import small_config, write_frames
from rosbags.rosbag2 import StoragePlugin

from d3_ros.__main__ import main
from d3_ros.network import load_bundle
from d3_ros.training.loop.finetune import finetune_config
from d3_ros.training.loop.train import train

FRAMES, RATE_HZ = 24, 2
# A new model of a few channels learns the wall's slope in a few steps, from whatever it sees.
QUICK = (
    "stages=[{size: null, batch: 4, steps: 60}]",
    "micro_batch=4",
    "optimizer={learning_rate: 3e-3, warmup_steps: 1}",
    "data.augment=false",
    "ema=null",
    "threads=1",
    "workers=0",
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that has seen nothing but noise."""
    folder = tmp_path_factory.mktemp("start")
    frames = write_frames(folder / "data")
    return train(small_config(frames, "name=untrained"), folder / "run")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walls that recede to the right or to the left, brighter where they are farther; 12 s."""
    rng = np.random.default_rng(0)
    messages = []
    for i in range(FRAMES):
        stamp = 10**18 + i * 10**9 // RATE_HZ
        ramp = np.tile(np.linspace(1, 4, 40), (30, 1))[:, :: rng.choice((-1, 1))]
        noise = rng.integers(0, 40, (30, 40, 3))
        bgr = np.clip(ramp[..., None] * 50 + noise, 0, 255).astype(np.uint8)
        depth = (ramp * 1000).astype("<u2")
        messages += [
            (
                "/camera/image/compressed",
                stamp,
                compressed(stamp, cv2.imencode(".jpg", bgr)[1].tobytes(), "jpeg"),
            ),
            ("/camera/camera_info", stamp, camera_info(stamp, 40, 30)),
            ("/camera/sensor_depth/image", stamp, image(stamp, depth, "16UC1")),
        ]
    return write_bag(tmp_path_factory.mktemp("bag") / "walk", messages, StoragePlugin.SQLITE3)


def command(
    bag: Path, start: Path, output: Path, *settings: str, judge: str | None = "affine_depth"
) -> list[str]:
    options = ["--bag", str(bag), "--model", str(start), "--output", str(output), "--gap", "0.5"]
    options += [] if judge is None else ["--judge", judge]
    return ["finetune", *options, "--min-motion", "0", "--", *QUICK, *settings]


def test_from_a_bag_to_a_better_bundle(
    bag: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine"
    assert main(command(bag, start, output)) == 0
    told = capsys.readouterr().out
    assert "held-out frames: affine_depth.abs_rel 0." in told
    assert f"bundle in {output}, report in" in told
    work = tmp_path / "mine.run"
    assert (work / "report/index.html").is_file()
    assert (work / "data/contact_sheet.png").is_file()
    # Split by time: what is held out comes after all that is trained on.
    lines = [line.split() for line in (work / "data/split.txt").read_text().splitlines()]
    held_out = [name for name, part in lines if part == "test"]
    assert len(held_out) >= 5
    assert min(map(int, held_out)) > max(int(name) for name, part in lines if part == "train")
    new, old = load_bundle(output), load_bundle(start)
    assert new.name == "mine"
    assert new.license == old.license
    assert new.network.tasks == old.network.tasks
    assert new.network.specs["depth"].processing_size == (24, 32)
    # What is there is not overwritten.
    assert main(command(bag, start, output)) == 1
    assert f"{output} exists" in capsys.readouterr().err


def test_what_is_not_better_is_not_called_better(
    bag: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine"
    settings = ("optimizer.learning_rate=0.0", "stages=[{size: null, batch: 4, steps: 1}]")
    assert main(command(bag, start, output, *settings)) == 1
    error = capsys.readouterr().err
    assert "not better than" in error
    assert "is not written" in error
    assert len(error.strip().splitlines()[-1]) < 600
    assert not output.exists()
    assert load_bundle(tmp_path / "mine.run/training/last").name == "mine"
    # What is left of it is not taken for a run of other settings, or of another recording.
    other = ("optimizer.learning_rate=1e-3", "stages=[{size: null, batch: 4, steps: 1}]")
    assert main(command(bag, start, output, *other)) == 1
    assert "is finished, with other settings (optimizer.learning_rate" in capsys.readouterr().err
    again = command(bag, start, output, *settings)
    assert main([*again[:1], "--test-share", "0.6", "--max-depth", "3", *again[1:]]) == 1
    error = capsys.readouterr().err
    assert "was extracted with max_depth_m 65.0, not 3.0, test_share" in error
    assert f"remove {tmp_path / 'mine.run'}" in error
    shutil.copytree(bag, tmp_path / "other_bag")
    assert main(command(tmp_path / "other_bag", start, output, *settings)) == 1
    assert f"was extracted from {bag}" in capsys.readouterr().err


def test_what_became_worse_is_told(
    bag: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The judge decides, by default the metres from points; what another says is told, too."""
    from d3_ros.evaluation.compare import Difference
    from d3_ros.training.loop import finetune as module

    verdicts = {"affine_depth": "worse", "affine_disparity": "better", "sparse_fit": "better"}
    differences = [
        Difference(f"{name}.abs_rel", 7, 0.2, 0.1, -0.1, -0.2, -0.05, verdict)  # type: ignore[arg-type]
        for name, verdict in verdicts.items()
    ]
    one = "stages=[{size: null, batch: 4, steps: 1}]"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "evaluate_bundles", lambda *_, **__: ([], differences))
        assert main(command(bag, start, tmp_path / "a", one, judge=None)) == 0
        told = capsys.readouterr().out
        assert "better on 7 held-out frames: sparse_fit.abs_rel" in told
        assert "but worse: affine_depth.abs_rel 0.2000 before, 0.1000 after" in told
        assert main(command(bag, start, tmp_path / "b", one)) == 1
    assert "not better than" in capsys.readouterr().err
    assert (tmp_path / "a/bundle.json").is_file()
    assert not (tmp_path / "b").exists()


def test_too_few_frames_to_judge_by(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = write_frames(tmp_path / "frames", count=6)
    (frames / "split.txt").write_text("".join(f"{i} train\n" for i in range(5)) + "5 test\n")
    options = ["--data", str(frames), "--model", str(start), "--output", str(tmp_path / "mine")]
    assert main(["finetune", *options]) == 1
    assert "1 frames are held out" in capsys.readouterr().err
    assert not (tmp_path / "mine.run").exists()


def test_each_folder_is_left_out_once(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """scripts/leave_one_out.py: no run has seen the folder that it is scored on."""
    folders = [write_frames(tmp_path / name, count=2) for name in ("kitchen", "hall")]
    arguments = [*map(str, folders), "--output", str(tmp_path / "runs"), "--model", str(start)]
    one = "stages=[{size: null, batch: 2, steps: 1}]"
    monkeypatch.setattr(
        "sys.argv", ["leave_one_out.py", *arguments, "--set", *QUICK, one, "micro_batch=2"]
    )
    runpy.run_path(str(ROOT / "scripts" / "leave_one_out.py"), run_name="__main__")
    told = capsys.readouterr().out
    first, second, whole = re.split(r"\nleft out: \w+, 2 frames\n", told)
    assert f"{folders[1]} (folder, train)" in first
    assert f"{folders[0]} (folder, train)" not in first
    assert f"{folders[0]} (folder, train)" in second
    assert f"{folders[1]} (folder, train)" not in second
    assert re.search(r"\nall, 4 frames\n +affine_depth.abs_rel ", whole)
    # Runs of other settings are not taken for these.
    monkeypatch.setattr("sys.argv", ["leave_one_out.py", *arguments])
    with pytest.raises(SystemExit, match="has runs of other arguments"):
        runpy.run_path(str(ROOT / "scripts" / "leave_one_out.py"), run_name="__main__")


def test_the_configuration_fits_the_bundle(start: Path, tmp_path: Path) -> None:
    config = finetune_config("d3_nano", tmp_path, tmp_path / "mine", None, ["seed=5"])
    assert config.model.lora is None
    assert config.model.start == "d3_nano"
    assert (config.name, config.seed) == ("mine", 5)
    for name in ("20240501", "2024-05-01", "on", "küche: oben"):  # YAML has other ideas of these
        assert finetune_config("d3_nano", tmp_path, tmp_path / name, None, []).name == name
    assert config.data.datasets[0].path == str(tmp_path)
    large = finetune_config(
        "d3_nano",
        tmp_path,
        tmp_path / "mine",
        ROOT / "config" / "training" / "finetune_lora.yaml",
        [],
    )
    assert large.model.lora is not None
    assert large.micro_batch == 1

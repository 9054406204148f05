"""The export command: graphs in the bundle, how far they are from PyTorch, and its faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from d3_ros.__main__ import main
from d3_ros.network import D3Predictor


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        blocks = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(blocks, (80, 60)))
    return folder


def export(bundle: Path, *more: str) -> int:
    return main(["export", "--model", str(bundle), *more])


def test_float_graphs_in_a_new_bundle(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert export(tiny_bundle, "--output", str(output), "--sizes", "32x40") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{output}/onnx/vae_fp32: depth and normals, ")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "mean difference from PyTorch at size bundle",
        "mean difference from PyTorch at size 32x40",
    ]
    for line in lines[1:]:
        assert float(line.split("depth ")[1].split()[0]) < 1e-4
    assert not (tiny_bundle / "onnx").exists()


def test_int8_is_fitted_to_images_and_its_loss_told(
    tiny_bundle: Path, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    arguments = ["--dtype", "int8", "--images", str(images)]
    assert export(folder, *arguments, "--max-loss", "0.5") == 0
    out = capsys.readouterr().out
    loss = float(out.split("depth: mean difference ")[1].split()[0])
    assert 0 < loss < 0.1
    entry = json.loads((folder / "bundle.json").read_text())["onnx"][0]
    assert entry["precision"] == "int8"
    assert 0 < entry["tolerance"] < 1  # from the loss on the self-check
    weights = (folder / "onnx/vae_int8/weights.bin").stat().st_size
    stored = sum(path.stat().st_size for path in folder.glob("[uv]*/*.safetensors"))
    assert weights < stored  # 1 byte a weight and not 2; the small network keeps much in float
    rgb = cv2.cvtColor(cv2.imread(str(images / "5.png")), cv2.COLOR_BGR2RGB)
    ours = D3Predictor.from_pretrained(folder, "cpu", "int8")
    exact = D3Predictor.from_pretrained(folder, "cpu", "fp32", runtime="torch")
    assert ours.precision == "int8"
    actual, expected = ours(rgb).depth, exact(rgb).depth
    assert actual is not None
    assert expected is not None
    assert 0 < np.abs(actual - expected).mean() < 0.3
    before = (folder / "bundle.json").read_text()
    assert export(folder, *arguments, "--max-loss", "1e-9") == 1
    assert "more than --max-loss 1e-09" in capsys.readouterr().err
    assert (folder / "bundle.json").read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"b", "images"}


def test_int8_is_scored_on_labelled_frames(
    tiny_bundle: Path, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    assert export(folder, "--dtype", "int8", "--images", str(images), "--max-loss", "0.5") == 0
    frames = tmp_path / "frames"
    for part in ("rgb", "depth"):
        (frames / part).mkdir(parents=True)
    shutil.copy(images / "5.png", frames / "rgb")
    np.save(frames / "depth" / "5.npy", np.linspace(1, 4, 4800).reshape(60, 80))
    score = ["evaluate", "--model", str(folder), "--data", str(frames), "--dtype"]
    scores = []
    for dtype in ("fp32", "int8"):
        assert main([*score, dtype]) == 0
        scores.append(capsys.readouterr().out)
    assert "affine_depth" in scores[1]
    assert scores[0] != scores[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dtype", "int8"], "--dtype int8 needs --images"),
        (["--dtype", "int8", "--images", "{images}/0.png"], "needs at least 4 images, got 1"),
        (["--dtype", "int8", "--images", "{images}/no.png"], "no.png cannot be read"),
        (["--codec", "tiny"], "has no tiny codec"),
        (["--model", "no_such_model"], "unknown model 'no_such_model'"),
        (["--output", "{images}"], "exists: remove it or choose another folder"),
    ],
)
def test_faults_are_one_line(
    tiny_bundle: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert export(tiny_bundle, *(text.format(images=images) for text in more)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("d3_ros export: ")]) == 1
    assert message in lines[-1]

"""From the official checkpoints to a bundle, with small random networks in the official layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.official_files import (
    END,
    PAD,
    START,
    text_encoder,
    vocabulary,
    write_base,
    write_checkpoint,
)
from helpers.tiny_network import CROSS_ATTENTION_DIM, tiny_network, tiny_unet, tiny_vae

from d3_ros.__main__ import main
from d3_ros.network import PROMPTS, D3Network, D3Predictor, TaskSpec, load_bundle
from d3_ros.network.inference.torch_runtime import TorchRuntime

TIMESTEPS = {"depth": 187.3, "normals": 262.7}


class Official:
    """A published pair of checkpoints with its base, and the network that they hold."""

    def __init__(self, folder: Path) -> None:
        self.parts = tiny_network(seed=3)
        unets = self.parts.unets
        self.base = write_base(
            folder / "base", unets["unet_depth"], self.parts.vae, CROSS_ATTENTION_DIM
        )
        self.depth = self.write(folder / "depth_checkpoint.pth", "depth")
        self.normals = self.write(folder / "normal_checkpoint.pth", "normals")

    def write(self, path: Path, task: str, changes: dict[str, Any] | None = None) -> Path:
        unet = self.parts.unets[f"unet_{task}"]
        return write_checkpoint(path, unet, self.parts.vae, TIMESTEPS[task], changes)

    def arguments(self, output: Path, *more: str) -> list[str]:
        both = ["--depth", str(self.depth), "--normals", str(self.normals)]
        return ["convert", *both, "--base", str(self.base), "--output", str(output), *more]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Official:
    return Official(tmp_path_factory.mktemp("official"))


def expected_embedding(prompt: str) -> torch.Tensor:
    """The prompt through the encoder, its tokens written out by hand: no merges, 77 at most."""
    tokens = [START]
    for word in prompt.lower().replace(".", " .").replace(",", " ,").split():
        tokens += [*word[:-1], f"{word[-1]}</w>"]
    tokens = [*tokens[:76], END]
    tokens += [PAD] * (77 - len(tokens))
    ids = torch.tensor([[vocabulary()[token] for token in tokens]])
    with torch.no_grad():
        return text_encoder(CROSS_ATTENTION_DIM)(ids).last_hidden_state[0]


def expected_network(official: Official) -> D3Network:
    specs = official.parts.specs
    return D3Network(
        official.parts.vae,
        dict(official.parts.unets.items()),
        {
            task: TaskSpec(spec.unet, spec.prompt, (64, 64), TIMESTEPS[task], spec.axes)
            for task, spec in specs.items()
        },
        {task: expected_embedding(PROMPTS[task]) for task in specs},
    )


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_round_trip_reproduces_the_numbers(
    official: Official,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dtype: str,
    tolerance: float,
) -> None:
    output = tmp_path / "d3_sd21"
    assert main(official.arguments(output, "--dtype", dtype)) == 0
    assert f"{output}: depth, normals" in capsys.readouterr().out

    bundle = load_bundle(output)
    assert bundle.name == "d3_sd21"
    assert "Open RAIL" in bundle.license
    assert "depth_checkpoint.pth" in bundle.source
    assert str(tmp_path) not in (output / "bundle.json").read_text()
    assert bundle.network.specs["depth"].processing_size == (64, 64)  # sample_size 8, VAE 8
    assert bundle.network.specs["normals"].axes == (1, -1, -1)
    for task, timestep in TIMESTEPS.items():
        assert bundle.network.specs[task].timestep == np.float32(timestep)  # type: ignore

    expected = D3Predictor(TorchRuntime(expected_network(official)))(picture())
    actual = D3Predictor(TorchRuntime(bundle.network))(picture())
    np.testing.assert_allclose(actual.depth, expected.depth, rtol=0, atol=tolerance)
    if dtype == "fp32":
        np.testing.assert_allclose(actual.normals, expected.normals, rtol=0, atol=1e-3)


def test_prompts_are_embedded_as_the_base_does(official: Official) -> None:
    from d3_ros.network.bundle.prompt_embeddings import prompt_embeddings

    embeddings = prompt_embeddings(official.base, PROMPTS)
    for task, prompt in PROMPTS.items():
        assert embeddings[task].dtype == torch.float32
        torch.testing.assert_close(embeddings[task], expected_embedding(prompt))


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_either_task_alone_is_fine(official: Official, tmp_path: Path, task: str) -> None:
    output = tmp_path / "one"
    file = str(getattr(official, task))
    base = ["--base", str(official.base)]
    assert main(["convert", f"--{task}", file, *base, "--output", str(output)]) == 0
    network = load_bundle(output).network
    assert network.tasks == (task,)
    assert list(network.unets) == [f"unet_{task}"]


def test_without_output_it_is_found_by_name(
    official: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main([*official.arguments(tmp_path)[:-2], "--name", "mine"]) == 0
    assert load_bundle("mine").path == tmp_path / "d3_ros" / "models" / "mine"


# --- faults --------------------------------------------------------------------------------------


def fault(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("d3_ros convert: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"novelty.weight": torch.ones(1)}, "has an unknown tensor novelty.weight"),
        ({"timestep": None}, "has no scalar 'timestep'"),
        ({"d3_predictor.conv_in.bias": None}, "lacks 1 tensors, conv_in.bias among them"),
        ({"ae.ae.quant_conv.bias": None}, "quant_conv.bias"),
        ({"d3_predictor.spare": torch.ones(1)}, "has 1 unknown tensors, spare among them"),
        ({"note": "text"}, "is not a state dict of tensors"),
    ],
)
def test_checkpoints_that_are_not_the_official_ones(
    official: Official,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    path = official.write(tmp_path / "other.pth", "depth", changes)
    output = tmp_path / "out"
    arguments = ["--depth", str(path), "--base", str(official.base), "--output", str(output)]
    answer = fault(["convert", *arguments], capsys)
    assert message in answer
    assert str(path) in answer
    assert not output.exists()


def test_checkpoints_with_different_vaes(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(9)
    path = write_checkpoint(tmp_path / "n.pth", tiny_unet(), tiny_vae(), 261.0)
    arguments = official.arguments(tmp_path / "out")
    arguments[4] = str(path)
    assert "hold different VAEs" in fault(arguments, capsys)


class Unsafe:
    """Unpickling this runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_nothing_pickled_is_run(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap, path = tmp_path / "trap", tmp_path / "unsafe.pth"
    torch.save({"timestep": torch.tensor(1.0), "x": Unsafe(trap)}, path)
    arguments = ["--depth", str(path), "--base", str(official.base)]
    answer = fault(["convert", *arguments, "--output", str(tmp_path / "out")], capsys)
    assert f"{path} cannot be read" in answer
    assert not trap.exists()


def test_files_that_are_not_there(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = official.arguments(tmp_path / "out")
    assert "No such file" in fault([*arguments[:2], "missing.pth", *arguments[3:]], capsys)
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"not a checkpoint")
    answer = fault([*arguments[:2], str(garbage), *arguments[3:]], capsys)
    assert f"{garbage} cannot be read as a PyTorch state dict" in answer
    assert "give --depth FILE" in fault(["convert", *arguments[5:]], capsys)
    taken = official.arguments(tmp_path)
    assert f"{tmp_path} exists" in fault(taken, capsys)


def test_bases_that_are_none(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = official.arguments(tmp_path / "out")
    arguments[6] = "nobody/nothing"
    answer = fault(arguments, capsys)
    assert "neither a folder nor in the local Hugging Face cache" in answer
    assert "d3_ros download" in answer
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments[6] = str(empty)
    assert f"{empty}/vae/config.json cannot be read" in fault(arguments, capsys)
    halfway = write_base(tmp_path / "half", tiny_unet(), tiny_vae(), CROSS_ATTENTION_DIM)
    (halfway / "text_encoder" / "model.safetensors").unlink()
    arguments[6] = str(halfway)
    assert f"{halfway}: tokenizer or text encoder cannot be read" in fault(arguments, capsys)

"""The full-size network against numbers computed with the official D³-Predictor code."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.conformance import VECTORS
from helpers.full_size_network import Weights, full_size_parts
from helpers.official_files import write_base, write_checkpoint

from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, D3Predictor, TaskSpec
from d3_ros.network.bundle.manifest import ONNX_CHECK, ONNX_WEIGHTS, Manifest, OnnxExport
from d3_ros.network.bundle.onnx_export import OPSET, WeightFile, save_graph, traced_graphs
from d3_ros.network.inference.onnx_runtime import OnnxRuntime
from d3_ros.network.inference.specialise import EXACT, specialise
from d3_ros.network.inference.torch_runtime import TorchRuntime
from d3_ros.types import Task

FILES: dict[Task, str] = {"depth": "inference_depth.npz", "normals": "inference_normal.npz"}
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vectors() -> dict[Task, dict[str, Any]]:
    return {task: dict(np.load(VECTORS / name)) for task, name in FILES.items()}


@pytest.fixture(scope="module")
def predictor(sd21_weights: Weights, vectors: dict[Task, dict[str, Any]]) -> D3Predictor:
    """Both tasks on one UNet, as the vectors were made."""
    return D3Predictor(
        TorchRuntime(conformance_network(sd21_weights, vectors), "cpu", torch.float32)
    )


def conformance_network(weights: Weights, vectors: dict[Task, dict[str, Any]]) -> D3Network:
    vae, unet = full_size_parts(weights)
    assert vae.config.scaling_factor == 0.18215
    return D3Network(
        vae,
        {"unet": unet},
        {
            task: TaskSpec(
                unet="unet",
                prompt=PROMPTS[task],
                processing_size=(int(vector["processing_size"]),) * 2,
                timestep=float(vector["timestep"]),
                axes=OFFICIAL_NORMAL_AXES if task == "normals" else None,
            )
            for task, vector in vectors.items()
        },
        {
            task: torch.from_numpy(vector["prompt_embedding"]).float()
            for task, vector in vectors.items()
        },
    )


def assert_close(actual: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("task", FILES)
def test_every_stage_is_the_official_one(
    predictor: D3Predictor,
    vectors: dict[Task, dict[str, Any]],
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages: dict[str, torch.Tensor] = {}

    def record(name: str) -> None:
        method = getattr(predictor.runtime.network, name)

        def recorded(*args: Any) -> torch.Tensor:
            stages[name] = method(*args)
            return stages[name]

        monkeypatch.setattr(predictor.runtime.network, name, recorded)

    for name in ("encode", "predict_latent", "decode"):
        record(name)
    vector = vectors[task]
    check_prediction(predictor, vector, task)
    assert_close(stages["encode"][0], vector["image_latent"])
    assert_close(stages["predict_latent"][0], vector["output_latent"])
    assert_close(stages["decode"][0], vector["decoded"])


def test_the_specialised_network_is_the_official_one(
    sd21_weights: Weights, vectors: dict[Task, dict[str, Any]]
) -> None:
    """With all exact optimisations at once."""
    network = conformance_network(sd21_weights, vectors)
    predictor = D3Predictor(TorchRuntime(network, "cpu", torch.float32, optimisations=EXACT))
    for task, vector in vectors.items():
        check_prediction(predictor, vector, task)


@pytest.mark.skipif(
    "D3_ROS_FULL_SIZE" not in os.environ,
    reason="writes 12 GB and takes minutes; set D3_ROS_FULL_SIZE=1 to run it "
    "(test_convert.py does the same with small networks)",
)
def test_conversion_round_trip_at_full_size(
    sd21_weights: Weights,
    vectors: dict[Task, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Official checkpoints -> `convert` -> bundle: the numbers are still the official ones."""
    from d3_ros.__main__ import main

    vae, unet = full_size_parts(sd21_weights)
    checkpoint = tmp_path / "checkpoint.pth"
    write_checkpoint(checkpoint, unet, vae, float(vectors["depth"]["timestep"]))
    base = write_base(tmp_path / "base", unet, vae, width=8)
    # No text encoder is at hand that gives the vectors' embeddings, so they are handed over here.
    monkeypatch.setattr(
        "d3_ros.network.bundle.prompt_embeddings.prompt_embeddings",
        lambda folder, prompts: {
            task: torch.from_numpy(vectors[task]["prompt_embedding"]).float() for task in prompts
        },
    )
    output = tmp_path / "d3_sd21"
    files = ["--depth", str(checkpoint), "--normals", str(checkpoint), "--base", str(base)]
    assert main(["convert", *files, "--output", str(output), "--dtype", "fp32"]) == 0
    checkpoint.unlink()
    converted = D3Predictor.from_pretrained(output, "cpu", "fp32", processing_size=(128, 128))
    assert converted.runtime.specs["depth"].processing_size == (768, 768)
    for task, vector in vectors.items():
        check_prediction(converted, vector, task)
    shutil.rmtree(output)


@pytest.mark.skipif(
    "D3_ROS_FULL_SIZE" not in os.environ,
    reason="writes 4 GB and takes 12 GB of memory; set D3_ROS_FULL_SIZE=1 to run it "
    "(test_onnx.py does the same with small networks)",
)
def test_onnx_graphs_of_the_official_architecture(
    sd21_weights: Weights, vectors: dict[Task, dict[str, Any]], tmp_path: Path
) -> None:
    """Exported at full width, weights in a file of their own: the numbers are the official ones."""
    network = conformance_network(sd21_weights, vectors)
    network = specialise(network, [name for name in EXACT if name != "channels_last"])
    for task, vector in vectors.items():  # one at a time: both would fill the memory
        export = OnnxExport("vae", "fp32", (task,), 8, 1e-4, OPSET, {})
        folder = tmp_path / export.folder
        folder.mkdir(parents=True)
        with (folder / ONNX_WEIGHTS).open("wb") as file:
            weights = WeightFile(file)
            for name, model in traced_graphs(network, (task,)):
                save_graph(model, folder / name, weights)
                del model
        size = (int(vector["processing_size"]),) * 2
        black = np.zeros((*size, 3), np.uint8)
        np.savez(folder / ONNX_CHECK, image=black, **{str(task): np.float32(0)})
        # The stored answer is not under test here.
        export = dataclasses.replace(export, tolerance=float("inf"))
        digests = {f"{export.folder}/{ONNX_WEIGHTS}": "0" * 64}
        manifest = Manifest("n", "", "", network.specs, digests)
        predictor = D3Predictor(OnnxRuntime(tmp_path, manifest, export))
        check_prediction(predictor, vector, task)
        shutil.rmtree(folder)


def check_prediction(predictor: D3Predictor, vector: dict[str, Any], task: Task) -> None:
    """The result at the image's size is the official one."""
    prediction = predictor(vector["image"], tasks=(task,))
    if task == "depth":
        assert prediction.normals is None
        assert_close(prediction.depth, vector["depth"])
    else:
        assert prediction.depth is None
        assert prediction.normals is not None
        xyz = vector["normal_rgb"].astype(np.float64) * 2 - 1
        length = np.linalg.norm(xyz, axis=-1, keepdims=True)
        # Back to the length before normalising, where the tolerance is stated: signs undone.
        assert_close(prediction.normals * [1, -1, -1] * length, xyz)

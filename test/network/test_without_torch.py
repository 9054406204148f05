"""A robot's environment has no PyTorch: d3_nano predicts all the same, and says what needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT

# As if the packages of scripts/requirements/torch.txt were not installed.
BLOCK = """
import importlib.util, sys
MISSING = ("torch", "diffusers", "transformers", "safetensors", "huggingface_hub", "onnx")
sys.modules.update(dict.fromkeys(MISSING))
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in MISSING else find_spec(name, *a)
"""


def without_torch(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


COMMAND = "from d3_ros.__main__ import main\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), cv2.resize(blocks, (80, 60)))
    return path


def test_predict(image: Path) -> None:
    output = image.parent / "out"
    answer = without_torch(COMMAND, "predict", str(image), "--output", str(output))
    assert answer.returncode == 0, answer.stderr
    assert {path.name for path in output.iterdir()} == {
        "a.ply",
        "a_depth.png",
        "a_depth_color.png",
        "a_normals.png",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "bf16"], "has no ONNX graphs for codec vae in bf16"),
        (["--runtime", "torch"], "runtime torch was asked for"),
    ],
)
def test_what_needs_torch_says_so(image: Path, arguments: list[str], message: str) -> None:
    answer = without_torch(COMMAND, "predict", str(image), *arguments)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert message in answer.stderr
    assert "needs PyTorch here" in answer.stderr
    assert "scripts/requirements/torch.txt" in answer.stderr


def test_the_node_loads_its_network() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2's client library")
    code = """
from d3_ros.ros.node.loading import load_network
from d3_ros.ros.parameters.node_settings import NodeSettings
import d3_ros.ros.predictor_node, d3_ros.demo.__main__, d3_ros.pipeline
from d3_ros.evaluation import run
"""
    answer = without_torch(code)
    assert answer.returncode == 0, answer.stderr

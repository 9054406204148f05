"""The rules of the house that a machine can check: who may import what, one version, one launch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import d3_ros
from d3_ros.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "d3_ros"

ROS = {
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "nav_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rclpy",
    "sensor_msgs",
    "sensor_msgs_py",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "tf2_ros",
}
DATA = {"numpy", "cv2", "tqdm", "yaml", "rosbags"}

# place -> (other places of d3_ros it may import, third-party packages it may import)
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "types": (set(), {"numpy"}),
    "errors": (set(), set()),
    "network": (
        {"types", "errors"},
        {"numpy", "torch", "diffusers", "transformers", "safetensors", "huggingface_hub", "tqdm"},
    ),
    "geometry": ({"types", "errors"}, {"numpy", "cv2", "scipy", "torch"}),
    "pipeline": ({"network", "geometry", "types", "errors"}, {"numpy"}),
    "evaluation": (
        {"network", "geometry", "training", "types", "errors"},
        {"numpy", "cv2", "torch", "scipy", "tqdm"},
    ),
    "training": (
        {"network", "geometry", "evaluation", "types", "errors"},
        {
            "torch",
            "diffusers",
            "safetensors",
            "accelerate",
            "peft",
            "scipy",
            "embreex",
            "h5py",
            *DATA,
        },
    ),
    "demo": ({"geometry", "evaluation", "ros", "types", "errors"}, DATA),
    "ros": (
        {"network", "geometry", "pipeline", "demo", "types", "errors"},
        {"torch", *DATA, *ROS},
    ),
    "commands": (
        {"network", "geometry", "pipeline", "evaluation", "training", "ros", "types", "errors"},
        {"torch", "numpy", "cv2", "tqdm"},
    ),
}


def place_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            assert node.module is not None
            names.append(node.module)
            if node.module == "d3_ros":
                names += [f"d3_ros.{alias.name}" for alias in node.names]
    return names


MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" or path.parent != PACKAGE
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_house(path: Path) -> None:
    place = place_of(path)
    if place == "__main__":
        places, packages = {"errors"}, set[str]()
    else:
        places, packages = MAY_IMPORT[place]
    for name in imported_modules(path):
        top, *rest = name.split(".")
        if top == "d3_ros":
            if rest and rest != ["__version__"]:
                assert rest[0] in places | {place}, f"{place} may not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in packages, f"{place} may not import {name}"


def test_inference_never_imports_training() -> None:
    """A robot without the training packages must still run."""
    code = (
        "import sys, d3_ros.pipeline, d3_ros.network\n"
        "print([m for m in sys.modules if m.startswith(('d3_ros.training', 'embreex', 'rclpy'))])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_one_version_everywhere() -> None:
    package_xml = ElementTree.parse(ROOT / "package.xml").findtext("version")
    setup_py = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    changelog = re.search(r"^(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert setup_py is not None
    assert changelog is not None
    assert {package_xml, setup_py.group(1), changelog.group(1)} == {d3_ros.__version__}


def test_package_xml_names_every_ros_package_that_is_imported() -> None:
    declared = {
        element.text
        for element in ElementTree.parse(ROOT / "package.xml").getroot()
        if element.tag.endswith("depend")
    }
    used = {
        name.split(".")[0]
        for path in [*(PACKAGE / "ros").glob("*.py"), *(ROOT / "launch").glob("*.py")]
        for name in imported_modules(path)
    } & (ROS | {"launch", "launch_ros", "ament_index_python"})
    assert used <= declared
    assert "rclpy" in used


def test_every_command_is_there_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    from d3_ros.__main__ import main

    assert {path.stem for path in (PACKAGE / "commands").glob("*.py")} - {"__init__"} == set(
        COMMANDS
    )
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert name in out
        assert len(out.splitlines()) > 5, f"{name} --help teaches nothing"


def test_the_readme_names_the_commands_that_matter() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("scripts/demo", "scripts/test", "ros2 launch d3_ros predictor.launch.py"):
        assert command in readme

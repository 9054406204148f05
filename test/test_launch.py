"""The launch file: what it promises, and, where ROS's launch is installed, a real `ros2 launch`."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ros_harness import wait_until

from d3_ros.ros.camera import SENSOR_TOPICS
from d3_ros.ros.settings import PARAMETERS
from d3_ros.ros.topics import TOPICS

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch" / "predictor.launch.py"
INPUTS = {"image", "camera_info", *(topic for _, topic in SENSOR_TOPICS.values())}

# launch/ of this repository is a folder of that name, too: ask for what only the real one has.
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch and launch_ros come with a ROS installation",
)


def strings(tree: ast.AST) -> set[str]:
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}


def test_the_launch_file_starts_what_is_installed_with_parameters_that_exist() -> None:
    tree = ast.parse(LAUNCH.read_text(encoding="utf-8"))
    calls = {
        node.func.id: node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    node = {k.arg: k.value for k in calls["LifecycleNode"].keywords}
    assert ast.literal_eval(node["package"]) == "d3_ros"
    assert f"{ast.literal_eval(node['executable'])} = d3_ros.ros.predictor_node:main" in (
        ROOT / "setup.py"
    ).read_text(encoding="utf-8")
    remapped = {ast.literal_eval(pair.elts[0]) for pair in node["remappings"].elts}
    assert remapped == INPUTS
    (overrides,) = (
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.DictComp)
        and "given" in ast.dump(n)
        and isinstance(n.generators[0].iter, ast.Tuple)
    )
    assert set(ast.literal_eval(overrides.generators[0].iter)) <= set(PARAMETERS)
    assert {"configuring", "inactive"} <= strings(tree)


def test_rviz_shows_topics_that_the_node_publishes() -> None:
    config = yaml.safe_load((ROOT / "config" / "predictor.rviz").read_text(encoding="utf-8"))
    shown = {
        display["Topic"]["Value"]: display["Class"].split("/")[1]
        for display in config["Visualization Manager"]["Displays"]
        if "Topic" in display
    }
    kinds = {
        "image": "Image",
        **{name.replace("~", "predictor"): kind.__name__ for name, kind in TOPICS.items()},
    }
    assert {name: kinds[name] for name in shown} == shown
    assert "predictor/points" in shown


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix that has this source tree as the package d3_ros, as colcon would install it."""
    prefix = tmp_path / "install"
    share, libexec = prefix / "share" / "d3_ros", prefix / "lib" / "d3_ros"
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "d3_ros"
    for folder in (share, libexec, marker.parent):
        folder.mkdir(parents=True)
    marker.touch()
    for name in ("launch", "config"):
        shutil.copytree(ROOT / name, share / name)  # ros2 launch does not follow links
    executable = libexec / "predictor"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} -m d3_ros.ros.predictor_node "$@"\n')
    executable.chmod(0o755)
    others = os.environ.get("AMENT_PREFIX_PATH", "")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}{os.pathsep}{others}".rstrip(os.pathsep))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return prefix


def launch_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("predictor_launch", LAUNCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def actions_with(**arguments: str) -> list[Any]:
    """What the launch file would do with these arguments."""
    from launch import LaunchContext

    module, context = launch_module(), LaunchContext()
    for argument in module.generate_launch_description().get_launch_arguments():
        argument.execute(context)
    context.launch_configurations.update(arguments)
    return module.start(context)


@needs_launch
@pytest.mark.usefixtures("installed")
def test_arguments_decide_what_is_started() -> None:
    from launch_ros.actions import LifecycleNode, Node

    kinds = [type(action).__name__ for action in actions_with()]
    assert kinds == ["RegisterEventHandler", "RegisterEventHandler", "LifecycleNode"]
    assert [type(a) for a in actions_with(autostart="false")] == [LifecycleNode]
    # It comes back by itself, without events that would get lost with the old process.
    assert [type(a) for a in actions_with(respawn="true")] == [LifecycleNode]
    (viewer,) = (a for a in actions_with(rviz="true") if type(a) is Node)
    assert viewer.node_package == "rviz2"


@needs_launch
@pytest.mark.parametrize(
    ("image", "camera_info"),
    [("/a/image_raw", "/a/camera_info"), ("image", "camera_info"), ("a/b/c", "a/b/camera_info")],
)
def test_the_calibration_is_beside_the_image(image: str, camera_info: str) -> None:
    assert launch_module().camera_info_beside(image) == camera_info


@pytest.mark.skipif(shutil.which("ros2") is None, reason="ros2 launch comes with ROS")
@needs_launch
@pytest.mark.usefixtures("installed")
def test_ros2_launch_configures_and_activates_the_node(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as out:
        launch = subprocess.Popen(
            [
                *("ros2", "launch", "d3_ros", "predictor.launch.py"),
                *(f"model:={tiny_bundle}", "device:=cpu", "namespace:=front"),
                "image:=/camera/image_raw",
            ],
            cwd=tmp_path,
            env={**os.environ, "ROS_DOMAIN_ID": str(os.getpid() % 100 + 1)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        line = "active, waiting for '/camera/image_raw'"
        wait_until(lambda: line in log.read_text() or launch.poll() is not None, "activation", 90.0)
        assert line in log.read_text(), log.read_text()
        launch.send_signal(signal.SIGINT)
        assert launch.wait(30) == 0, log.read_text()
    finally:
        launch.kill()
        launch.wait()
    assert "[front.predictor]" in log.read_text()
    assert "finished cleanly" in log.read_text()

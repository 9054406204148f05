"""What `colcon build` installs: the files, and an executable that runs as the node."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("colcon_core") is None,
    reason="colcon is not installed in this environment",
)


def colcon() -> str:
    beside_python = Path(sys.executable).with_name("colcon")
    return str(beside_python) if beside_python.exists() else "colcon"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install prefix of the package, built by colcon from the files that git knows."""
    workspace = tmp_path_factory.mktemp("workspace")
    source = workspace / "src" / "d3_ros"
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(ROOT / name)
    built = subprocess.run(
        [colcon(), "build"], cwd=workspace, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return workspace / "install" / "d3_ros"


def installed_environment(prefix: Path) -> dict[str, str]:
    """The environment that sourcing the workspace's setup file gives."""
    printed = subprocess.run(
        ["bash", "-c", f". '{prefix.parent}/setup.bash' && env -0"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    return dict(line.split("=", 1) for line in printed.split("\0") if "=" in line)


def test_colcon_test_runs_the_tests_beside_broken_plugins(prefix: Path, tmp_path: Path) -> None:
    """ROS installs pytest plugins of these names, which new releases of pytest cannot load.

    The workspace is sourced: tests of the source's configurations find these, not the installed.
    """
    for name in ("launch_testing", "launch_ros", "launch_pytest"):
        information = tmp_path / f"{name}_plugin-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}_plugin\n")
        (information / "entry_points.txt").write_text(f"[pytest11]\n{name} = no_such_module\n")
    environment = installed_environment(prefix)
    paths = [str(tmp_path), *filter(None, [environment.get("PYTHONPATH")])]
    tested = subprocess.run(
        [
            *(colcon(), "test", "--pytest-args", "test/test_metrics.py"),
            *("test/training/test_training_config.py", "-k", "test_metrics or found_by_its_name"),
        ],
        cwd=prefix.parents[1],
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    result = ElementTree.parse(prefix.parents[1] / "build" / "d3_ros" / "pytest.xml").getroot()
    suite = next(result.iter("testsuite"))
    assert int(suite.attrib["tests"]) > 3
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0"


def test_share_holds_launch_config_and_models(prefix: Path) -> None:
    share = prefix / "share" / "d3_ros"
    for name in (
        "package.xml",
        "launch/predictor.launch.py",
        "launch/synthetic.launch.py",
        "config/presets/realsense.yaml",
        "config/predictor.yaml",
        "config/predictor.rviz",
        "config/training/finetune.yaml",
        "models/d3_nano/bundle.json",
    ):
        assert (share / name).is_file(), name
    assert (prefix / "share/ament_index/resource_index/packages/d3_ros").is_file()


def test_the_installed_command_line_runs(prefix: Path) -> None:
    answer = subprocess.run(
        [str(prefix / "lib/d3_ros/d3_ros"), "--help"],
        env=installed_environment(prefix),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "predict" in answer.stdout


def test_the_installed_node_loads_the_installed_model(prefix: Path, tmp_path: Path) -> None:
    """The executable starts outside the source tree, becomes active and stops at SIGTERM."""
    environment = installed_environment(prefix)
    log = tmp_path / "log"
    with log.open("w") as out:
        node = subprocess.Popen(
            [str(prefix / "lib/d3_ros/predictor"), "--ros-args", "-p", "autostart:=true"],
            cwd=tmp_path,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: "active" in log.read_text() or node.poll() is not None, "activation")
        finally:
            node.terminate()
            code = node.wait(PATIENCE_S)
    assert "active" in log.read_text(), log.read_text()
    assert str(prefix) in log.read_text(), "the model did not come from the installed share folder"
    assert code == 0, log.read_text()

"""The launch files under ROS's own `ros2 launch` and `ros2 param`: exit codes, logs, stopping."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from helpers.launched import Ros2Launch, install, needs_launch, needs_ros2, ros2

pytestmark = [pytest.mark.ros, needs_launch, needs_ros2]

PREDICTOR, SYNTHETIC = "predictor.launch.py", "synthetic.launch.py"
ACTIVE = "active, waiting for"
DRIVING = "a robot drives through a room"
# After this time of shutting down the launch sends SIGTERM to what still runs, and logs it. A node
# that hears Ctrl-C needs 2 s; on a machine that is busy with other things, several times that.
ORDERLY_S = 30
DIRECT = ("--no-daemon", "--spin-time", "5")
Launch = Callable[..., Ros2Launch]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Where `ros2` finds the package."""
    return install(tmp_path / "install")


@pytest.fixture
def start(tmp_path: Path, env: dict[str, str], tiny_bundle: Path) -> Iterator[Launch]:
    """Starts a launch file with a small model."""
    running: list[Ros2Launch] = []

    def launch(file: str, *arguments: str, **more: str) -> Ros2Launch:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        common = (f"model:={tiny_bundle}", "device:=cpu", f"sigterm_timeout:={ORDERLY_S}")
        running.append(Ros2Launch(folder, file, *common, *arguments, env={**env, **more}))
        return running[-1]

    yield launch
    for started in running:
        started.__exit__()


@pytest.mark.parametrize(
    ("file", "argument", "line"),
    [
        (PREDICTOR, "imgae:=/a", "has no argument imgae:=; did you mean image:=?"),
        (PREDICTOR, "foo:=bar", "has no argument foo:=; there are autostart"),
        (SYNTHETIC, "foo:=bar", "has no argument foo:=; there are autostart"),
        (PREDICTOR, "ground.camera_height:=0.35", "is a parameter of the node"),
        (PREDICTOR, "log_level:=verbose", "log_level:=verbose must be one of"),
        (SYNTHETIC, "log_level:=verbose", "log_level:=verbose must be one of"),
        (SYNTHETIC, "width:=abc", "width:=abc must be a whole number"),
        (SYNTHETIC, "width:=5", "width:=5 must be in [16, 4096] pixels, got 5"),
        (PREDICTOR, "dtype:=fp99", "dtype:=fp99 must be one of auto, fp32"),
        (SYNTHETIC, "device:=foo", "device:=foo must be one of auto, cpu"),
        (PREDICTOR, "model:=nope", "model:=nope: unknown model 'nope': there are"),
        (PREDICTOR, "name:=a-b", "Invalid node name"),
        (SYNTHETIC, "namespace:=a-b", "Invalid namespace"),
        (PREDICTOR, "params_file:=/no/such.yaml", "params_file:=/no/such.yaml: "),
        (SYNTHETIC, "params_file:=/no/such.yaml", "params_file:=/no/such.yaml: "),
    ],
)
def test_a_wrong_argument_ends_the_launch_with_1(
    start: Launch, file: str, argument: str, line: str
) -> None:
    launch = start(file, argument)
    assert launch.wait() == 1
    assert line in launch.output
    assert "Traceback" not in launch.output
    assert "process started" not in launch.output


@pytest.mark.parametrize(
    ("when", "arguments"),
    [("process started", ()), (ACTIVE, ()), ("process started", ("autostart:=false",))],
    ids=["before configure", "active", "without autostart"],
)
def test_a_node_that_dies_ends_the_launch_with_1(
    start: Launch, when: str, arguments: tuple[str, ...]
) -> None:
    launch = start(PREDICTOR, *arguments)
    launch.wait_for(when)
    os.kill(launch.pid_of("predictor"), signal.SIGKILL)
    assert launch.wait() == 1
    assert "the node /predictor was ended by signal 9" in launch.output
    assert "Traceback" not in launch.output


@pytest.mark.parametrize("dies", ["synthetic_camera", "predictor"])
def test_either_node_of_the_synthetic_launch_ends_it_with_1(start: Launch, dies: str) -> None:
    launch = start(SYNTHETIC, "width:=64", "height:=48", "autostart:=false")
    launch.wait_for(DRIVING)
    launch.wait_for("[predictor]: starting")
    os.kill(launch.pid_of(dies), signal.SIGKILL)
    assert launch.wait() == 1
    assert f"the node /{dies} was ended by signal 9" in launch.output
    assert launch.output.count("process has finished cleanly") == 1  # the other one
    assert launch.stopped_in_order


@pytest.mark.parametrize("predictor", ["true", "false"])
def test_a_camera_that_cannot_start_ends_the_launch_with_1(
    start: Launch, tmp_path: Path, predictor: str
) -> None:
    (tmp_path / "install" / "lib" / "d3_ros" / "synthetic_camera").write_text("#!/bin/sh\nexit 3\n")
    launch = start(SYNTHETIC, f"predictor:={predictor}")
    assert launch.wait() == 1
    assert "the node /synthetic_camera failed with exit code 3" in launch.output
    assert "Traceback" not in launch.output
    assert launch.stopped_in_order


def test_a_node_that_is_told_to_end_ends_the_launch_with_0(start: Launch) -> None:
    launch = start(PREDICTOR)
    launch.wait_for(ACTIVE)
    os.kill(launch.pid_of("predictor"), signal.SIGTERM)
    assert launch.wait() == 0, launch.output


def test_a_file_that_ros_cannot_read_ends_the_launch_with_1(start: Launch, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**: {ros__parameters: {model: [1, a]}}")
    launch = start(PREDICTOR, f"params_file:={mine}")
    assert launch.wait() == 1
    assert "the node /predictor failed with exit code 1" in launch.output


def test_with_respawn_a_node_that_died_comes_back_active(start: Launch) -> None:
    launch = start(PREDICTOR, "respawn:=true")
    launch.wait_for(ACTIVE)
    os.kill(launch.pid_of("predictor"), signal.SIGKILL)
    launch.wait_for(ACTIVE, times=2)
    launch.interrupt()
    assert launch.wait() == 0, launch.output


@pytest.mark.parametrize("when", ["loading model", ACTIVE])
def test_ctrl_c_that_reaches_the_launch_alone_stops_three_nodes(start: Launch, when: str) -> None:
    launches = [start(PREDICTOR, f"namespace:={name}") for name in ("a", "b", "c")]
    for launch in launches:
        launch.wait_for(when)
    for launch in launches:
        launch.interrupt()
    for launch in launches:
        assert launch.wait() == 0, launch.output
        assert "Traceback" not in launch.output
        assert launch.stopped_in_order, launch.output


def test_debug_is_for_this_node_and_time_comes_from_the_file(
    start: Launch, env: dict[str, str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**: {ros__parameters: {use_sim_time: true}}")
    launch = start(PREDICTOR, "log_level:=debug", f"params_file:={mine}", "namespace:=front")
    launch.wait_for(ACTIVE)
    time = ros2(env, "param", "get", *DIRECT, "/front/predictor", "use_sim_time")
    launch.interrupt()
    assert launch.wait() == 0, launch.output
    assert re.search(r"\[DEBUG\] \[[\d.]+\] \[front\.predictor\]: parameters", launch.output)
    assert "[rcl" not in launch.output
    assert time.stdout == "Boolean value is: True\n"


def test_a_failed_configure_keeps_the_node_and_the_launch_running(
    start: Launch, env: dict[str, str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**: {ros__parameters: {depth: {encoding: 8UC1}}}")
    launch = start(PREDICTOR, f"params_file:={mine}")
    launch.wait_for("configure failed: parameter 'depth.encoding' must be one of")
    model = ros2(env, "param", "get", *DIRECT, "/predictor", "model")
    assert model.stdout.startswith("String value is: ")
    launch.interrupt()
    assert launch.wait() == 0, launch.output
    assert launch.stopped_in_order


def test_without_rviz_the_launch_warns_and_goes_on(start: Launch) -> None:
    launch = start(PREDICTOR, "rviz:=true")
    launch.wait_for("the package rviz2 is not installed; the predictor starts without it")
    launch.wait_for(ACTIVE)
    launch.interrupt()
    assert launch.wait() == 0, launch.output


def test_the_launch_sets_the_profile_of_fast_dds(start: Launch, tmp_path: Path) -> None:
    def variables(launch: Ros2Launch) -> dict[str, str]:
        launch.wait_for(ACTIVE)
        text = Path(f"/proc/{launch.pid_of('predictor')}/environ").read_text(encoding="utf-8")
        launch.interrupt()
        assert launch.wait() == 0, launch.output
        return dict(line.partition("=")[::2] for line in text.split("\0"))

    name = "FASTRTPS_DEFAULT_PROFILES_FILE"
    mine = tmp_path / "mine.xml"
    mine.write_text('<dds xmlns="http://www.eprosima.com"><profiles/></dds>')
    assert variables(start(PREDICTOR))[name].endswith("share/d3_ros/config/fastdds.xml")
    assert variables(start(PREDICTOR, **{name: str(mine)}))[name] == str(mine)


def test_the_node_accepts_its_own_dump_and_explains_what_cannot_be_deleted(
    start: Launch, env: dict[str, str], tmp_path: Path
) -> None:
    launch = start(PREDICTOR, "cameras:=front,rear", "image:=/f/image,/r/image")
    launch.wait_for(ACTIVE)
    dump = ros2(env, "param", "dump", *DIRECT, "/predictor")
    assert yaml.safe_load(dump.stdout)["/predictor"]["ros__parameters"]["model"]
    mine = tmp_path / "dump.yaml"
    mine.write_text(dump.stdout)
    loaded = ros2(env, "param", "load", *DIRECT, "/predictor", str(mine))
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert "Set parameter model successful" in loaded.stdout
    assert "Set parameter cameras successful" in loaded.stdout
    deleted = ros2(env, "param", "delete", *DIRECT, "/predictor", "scale.hold_s")
    assert "parameter 'scale.hold_s' cannot be deleted" in deleted.stderr

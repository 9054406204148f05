"""The life of the node: every transition, bad configurations, and a process that stays up."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.paths import ROOT
from helpers.ros_harness import Robot, StandIn, ros_context
from helpers.waiting import PATIENCE_S, wait_until
from rclpy.parameter import Parameter

from d3_ros.errors import DeviceError
from d3_ros.pipeline import DepthPipeline, FrameRequest
from d3_ros.ros.node.loading import load_network
from d3_ros.ros.topics import DEPTH, NORMALS, RELATIVE
from d3_ros.types import D3Prediction, DepthFrame

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)


def test_every_transition_twice() -> None:
    with Robot(topics=(RELATIVE,), start=False) as robot:
        for _ in range(2):
            assert robot.state() == "unconfigured"
            assert robot.change("configure")
            assert robot.state() == "inactive"
            assert robot.image.get_subscription_count() == 0, "inactive, and listens"
            for _ in range(2):
                assert robot.change("activate")
                assert robot.state() == "active"
                robot.wait_until_connected()
                robot.wait_for(RELATIVE, robot.show().header)
                assert robot.change("deactivate")
                wait_until(lambda: not robot.image.get_subscription_count(), "no subscription")
            assert robot.change("cleanup")
            name = f"{robot.namespace}/predictor/depth/relative"
            wait_until(lambda: not robot.peer.count_publishers(name), "no publisher is left")  # noqa: B023
        assert robot.change("unconfigured_shutdown")
        assert robot.state() == "finalized"


@pytest.mark.parametrize("state", ["inactive", "active"])
def test_shutdown_releases_from_any_state(state: str) -> None:
    with Robot(topics=(RELATIVE,), start=False) as robot:
        assert robot.change("configure")
        if state == "active":
            assert robot.change("activate")
        assert robot.change(f"{state}_shutdown")
        assert robot.state() == "finalized"
        assert robot.node._session is None
        name = f"{robot.namespace}/predictor/depth/relative"
        wait_until(lambda: not robot.peer.count_publishers(name), "no publisher is left")


def test_cleanup_frees_the_network() -> None:
    networks: list[Any] = []

    def load(settings: object, say: object) -> StandIn:
        network = StandIn()
        networks.append(weakref.ref(network))
        return network

    with Robot(topics=(), load=load) as robot:
        assert robot.change("deactivate")
        assert robot.change("cleanup")
        gc.collect()
        assert networks[0]() is None


def test_transitions_do_not_wait_for_the_network() -> None:
    network = StandIn()
    go_on = threading.Event()
    left: list[bool] = []
    network.before = lambda: left.append(go_on.wait(PATIENCE_S))
    with Robot(network, topics=(RELATIVE,)) as robot:
        header = robot.show().header
        wait_until(lambda: network.asked, "the image is in the network")
        assert robot.change("deactivate")
        assert robot.state() == "inactive"
        assert not left, "the image is still in the network"
        go_on.set()
        # Its answer comes into an inactive node: nothing is published.
        assert robot.change("activate")
        robot.wait_until_connected()
        network.before = lambda: None
        robot.wait_for(RELATIVE, robot.show().header)
        assert not robot.answers(RELATIVE, header)


def test_a_frame_from_before_an_activation_leaves_the_new_scale_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finished: list[float] = []
    finish = DepthPipeline.finish

    def counted(
        pipeline: DepthPipeline, request: FrameRequest, prediction: D3Prediction
    ) -> DepthFrame:
        finished.append(request.stamp)
        return finish(pipeline, request, prediction)

    monkeypatch.setattr(DepthPipeline, "finish", counted)
    network = StandIn()
    go_on = threading.Event()
    network.before = lambda: bool(go_on.wait(PATIENCE_S))
    with Robot(network, topics=(RELATIVE,)) as robot:
        robot.show()
        wait_until(lambda: network.asked, "the image is in the network")
        assert robot.change("deactivate")
        assert robot.change("activate")
        go_on.set()
        robot.wait_until_connected()
        robot.wait_for(RELATIVE, robot.show().header)
        assert len(finished) == 1, "the image of the second activation alone"


def test_a_frame_that_outlives_cleanup_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3_ros.ros.node.predictor_node.LAST_FRAME_S", 0.2)
    network = StandIn()
    go_on = threading.Event()
    network.before = lambda: go_on.wait(PATIENCE_S) and None
    with Robot(network, topics=(RELATIVE,)) as robot:
        robot.show()
        wait_until(lambda: network.asked, "the image is in the network")
        assert robot.change("deactivate")
        assert robot.change("cleanup")
        robot.wait_for_line("still busy after 0.2 s")
        go_on.set()
        robot.settle(1)
        assert robot.state() == "unconfigured"
        assert not robot.received[RELATIVE]
        assert not robot.said("Traceback")


def failing(*errors: Exception | None) -> Callable[..., StandIn]:
    """A loader that raises these, one a call, and works where it is None."""
    left = list(errors)

    def load(settings: object, say: object) -> StandIn:
        error = left.pop(0)
        if error is not None:
            raise error
        return StandIn()

    return load


def test_a_failed_configure_is_one_line_and_can_be_tried_again() -> None:
    error = DeviceError("device 'cuda' is not there: use device cpu")
    with Robot(topics=(RELATIVE,), load=failing(error, None), start=False) as robot:
        assert not robot.change("configure")
        assert robot.wait_for_line("configure failed") == f"configure failed: {error}"
        assert robot.state() == "unconfigured"
        assert robot.change("configure")
        assert robot.change("activate")
        robot.wait_until_connected()
        robot.wait_for(RELATIVE, robot.show().header)


def test_a_programming_mistake_in_a_transition_keeps_its_traceback() -> None:
    with Robot(topics=(), load=failing(KeyError("oops"), None), start=False) as robot:
        assert not robot.change("configure")
        wait_until(lambda: robot.said("configure failed", "Traceback", "KeyError: 'oops'"), "it")
        assert robot.state() == "unconfigured"
        assert robot.change("configure")


def test_an_error_on_the_way_down_releases_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    with Robot(topics=()) as robot:
        session = robot.node._session

        def fail() -> None:
            raise RuntimeError("stuck")

        monkeypatch.setattr(session, "deactivate", fail)
        assert not robot.change("deactivate")
        monkeypatch.undo()
        wait_until(lambda: robot.said("deactivate failed", "stuck"), "the traceback")
        assert robot.state() in ("unconfigured", "finalized")
        assert robot.node._failure == "deactivate failed: RuntimeError: stuck", "for diagnostics"


# With the real network


@pytest.fixture
def damaged_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, folder)
    weights = next((folder / "unet_depth").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0xFF
    weights.write_bytes(content)
    return folder


def configure_fails(parameters: dict[str, Any], *words: str) -> None:
    """Configuring with these fails in one line with these words, and the node lives."""
    with Robot(topics=(), parameters=parameters, load=load_network, start=False) as robot:
        assert not robot.change("configure")
        line = robot.wait_for_line("configure failed: ", *words)
        assert robot.said("configure failed") == [line]
        assert robot.state() == "unconfigured"


def test_an_unknown_model_is_told() -> None:
    configure_fails({"model": "no_such_model"}, "unknown model 'no_such_model'")


def test_a_model_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    configure_fails({"model": str(tmp_path / "nothing")}, str(tmp_path / "nothing"))


def test_a_damaged_bundle_is_told(damaged_bundle: Path) -> None:
    configure_fails({"model": str(damaged_bundle)}, str(damaged_bundle), "is damaged")


def test_a_missing_cuda_is_told(tiny_bundle: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    parameters = {"model": str(tiny_bundle), "device": "cuda"}
    configure_fails(parameters, "device 'cuda' is not there", "use device cpu")


def test_a_wrong_processing_size_is_told(tiny_bundle: Path) -> None:
    parameters = {"model": str(tiny_bundle), "device": "cpu", "processing_size": "33x77"}
    configure_fails(parameters, "processing size 33x77", "multiples")


def test_a_real_network_from_image_to_depth_and_normals(tiny_bundle: Path) -> None:
    parameters = {"model": str(tiny_bundle), "device": "cpu"}
    with Robot(
        topics=(RELATIVE, NORMALS, DEPTH), parameters=parameters, load=load_network
    ) as robot:
        image = robot.new_image()
        robot.show(image)
        relative = robot.wait_for(RELATIVE, image.header)
        normals = robot.wait_for(NORMALS, image.header)
        assert (relative.width, relative.height) == (image.width, image.height)
        assert (normals.width, normals.encoding) == (image.width, "32FC3")
        assert robot.said("loading model", str(tiny_bundle))
        assert robot.said("ready: depth and normals on cpu in fp32")
        result = robot.node.set_parameters([Parameter("dtype", value="bf16")])[0]
        assert not result.successful


# As processes of their own


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen, Path]]]:
    """Start `python -m d3_ros.ros.predictor_node` with parameters; its process and its log."""
    processes = []

    def start_node(**parameters: object) -> tuple[subprocess.Popen, Path]:
        log = tmp_path / "log"
        arguments = [a for n, v in parameters.items() for a in ("-p", f"{n}:={v}")]
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "d3_ros.ros.predictor_node", "--ros-args", *arguments],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
        return process, log

    yield start_node
    for process in processes:
        process.kill()
        process.wait()


def test_the_process_survives_a_bad_configuration_and_ends_at_ctrl_c(start: Any) -> None:
    process, log = start(model="no_such_model", autostart="true")
    wait_until(lambda: "unknown model 'no_such_model'" in log.read_text(), "the line")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0, log.read_text()
    assert log.read_text().count("configure failed") == 1
    assert "Traceback" not in log.read_text()


def test_arguments_that_ros_cannot_read_are_one_line() -> None:
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "d3_ros.ros.predictor_node"),
            *("--ros-args", "--params-file", "/no/such/file.yaml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    *_, line = answer.stderr.splitlines()  # rcl has a word of its own before
    assert line.startswith("predictor: ")
    assert "/no/such/file.yaml" in line
    assert "Traceback" not in answer.stderr

"""The node's process ends with 0 and without a traceback at whatever moment it is told to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import rclpy
from helpers.paths import ROOT
from helpers.waiting import PATIENCE_S, wait_until

from d3_ros.ros.node import predictor_node
from d3_ros.ros.node import process as node_process

pytestmark = pytest.mark.ros


def handles_signals(process: subprocess.Popen[bytes]) -> bool:
    """Whether the node handles signals by now.

    Before, while Python itself starts, Linux ends the process at SIGTERM, and Python at SIGINT.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def code_under_signals(process: subprocess.Popen[bytes], *numbers: int) -> int:
    """The exit code of a process that gets the signals again and again until it has ended."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        for number in numbers:
            process.send_signal(number)
        time.sleep(0.01)
    return process.wait(1.0)


@pytest.fixture
def start(tmp_path: Path, tiny_bundle: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the node's process with the words of `parameters`; its output is in tmp_path/log."""
    processes: list[subprocess.Popen[bytes]] = []

    def start_node(*parameters: str, ignore: bool = False) -> subprocess.Popen[bytes]:
        words = [word for parameter in parameters for word in ("-p", parameter)]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "d3_ros.ros.predictor_node", "--ros-args"),
                    *("-p", f"model:={tiny_bundle}", "-p", "device:=cpu", *words),
                ],
                cwd=ROOT,
                env={**os.environ, "ROS_LOG_DIR": str(tmp_path)},
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
                if ignore
                else None,
            )
        processes.append(process)
        return process

    yield start_node
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("module", ["predictor_node", "synthetic.synthetic_camera"])
def test_help_starts_no_node(module: str) -> None:
    command = [sys.executable, "-m", f"d3_ros.ros.{module}", "--help"]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert told.stdout.startswith("usage: ")
    assert "ros2 launch d3_ros" in told.stdout.replace("\n", " ")


# Seconds after the handler is there: during the imports of rclpy and torch, while the network is
# loaded, and later. Each is a moment; none of them is an assumption about the machine.
@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.2, 2.5])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_at_any_moment(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, number: int, after_s: float
) -> None:
    process = start("autostart:=true")
    wait_until(lambda: handles_signals(process), "the process handles signals")
    time.sleep(after_s)
    process.send_signal(number)
    code = process.wait(PATIENCE_S)
    output = (tmp_path / "log").read_text(encoding="utf-8")
    assert (code, "Traceback" in output) == (0, False), output


def test_signals_that_repeat_change_nothing(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """As launch does after Ctrl-C in a terminal, which all processes hear."""
    process = start("autostart:=true")
    log = tmp_path / "log"
    wait_until(lambda: "active, waiting for" in log.read_text(encoding="utf-8"), "it is active")
    assert code_under_signals(process, signal.SIGINT, signal.SIGINT, signal.SIGTERM) == 0
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_a_parent_that_ignores_ctrl_c_does_not_make_the_node_deaf(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Shells start background jobs with SIGINT ignored."""
    process = start("autostart:=true", ignore=True)
    log = tmp_path / "log"
    wait_until(lambda: "active, waiting for" in log.read_text(encoding="utf-8"), "it is active")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("line", ["", "a robot drives through a room"], ids=["room", "rendering"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_the_synthetic_camera_at_any_moment(tmp_path: Path, number: int, line: str) -> None:
    """While it makes the room, and while it renders a large image, which takes long."""
    log = tmp_path / "log"
    module = "d3_ros.ros.synthetic.synthetic_camera"
    size = ("-p", "width:=1920", "-p", "height:=1080", "-p", "image_rate:=50.0")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--ros-args", *size],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: handles_signals(process) and line in log.read_text(), line)
        assert code_under_signals(process, number) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()


def test_lists_without_entries_are_told_in_one_line(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """`-p cameras:=[]`: the process lives, and configure says what is wrong."""
    process = start("cameras:=[]", "autostart:=true")
    log = tmp_path / "log"
    line = (
        "configure failed: parameter 'cameras': must be different names, or one empty one, got []"
    )
    wait_until(lambda: line in log.read_text(encoding="utf-8"), line)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_what_the_end_of_ros_leaves_half_made_goes_without_a_word() -> None:
    """An executor that rclpy could not finish: its destructor fails, which Python would print."""
    script = (
        "import rclpy, sys\n"
        "from rclpy.executors import SingleThreadedExecutor\n"
        "from d3_ros.ros.termination import Termination\n"
        "class Broken:\n"
        "    def __del__(self): raise ValueError('while ROS runs')\n"
        "if sys.argv[1:]: Termination().clean_up_is_needed()\n"
        "rclpy.init(); Broken(); rclpy.shutdown()\n"
        "try: SingleThreadedExecutor()\n"
        "except Exception as error: print(error)\n"
    )
    ours, plain = (
        subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
        )
        for words in (["ours"], [])
    )
    assert ours.stdout == plain.stdout != ""
    assert "while ROS runs" in ours.stderr, "other faults are still told"
    assert "Executor" in plain.stderr, "what is kept back is there"
    assert "Executor" not in ours.stderr


def test_a_signal_while_rclpy_makes_the_node_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """rclpy's own handler ends the context, so that its constructor of the node fails."""

    def interrupted() -> None:
        rclpy.shutdown()
        raise RuntimeError("error creating node: the given context is not valid")

    monkeypatch.setattr(predictor_node, "PredictorNode", interrupted)
    nothing = SimpleNamespace(clean_up_is_needed=lambda: None, ignore=lambda: None)
    assert node_process.run([], nothing) == 0


def test_a_process_that_is_busy_ends_after_a_moment(tmp_path: Path) -> None:
    """A signal raises nothing, so what cannot be interrupted is ended by a timer."""
    code = (
        "import time\n"
        "from d3_ros.ros.termination import Termination\n"
        "termination = Termination()\n"
        "termination.install()\n"
        "termination.clean_up_is_needed()\n"
        "print('busy', flush=True)\n"
        "while True:\n"
        "    time.sleep(0.05)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"busy\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def in_own_mounts(script: str) -> list[str]:
    """A command that runs a script with mounts of its own; skips where that is refused."""
    command = ["unshare", "--mount", "sh", "-c"]
    allowed = shutil.which("unshare") and subprocess.run(
        [*command, "mount -t tmpfs -o size=16k none /dev/shm"], capture_output=True, check=False
    )
    if not allowed or allowed.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    return [*command, script]


NODE = f"exec {sys.executable} -m d3_ros.ros.predictor_node --ros-args -p autostart:=true"


def test_a_full_shared_memory_is_one_line(tmp_path: Path) -> None:
    """Without the line, the system ends the process with SIGBUS in a library that rclpy loads."""
    script = (
        f"mount -t tmpfs -o size=16k none /dev/shm && head -c 16384 /dev/zero > /dev/shm/a; {NODE}"
    )
    told = subprocess.run(
        in_own_mounts(script), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 1, told
    assert told.stderr.startswith("predictor: /dev/shm is full")
    assert told.stderr.count("\n") == 1


def test_a_full_disk_for_ros_s_log_files_does_not_stop_the_node(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    log, full = tmp_path / "log", tmp_path / "full"
    full.mkdir()
    script = (
        f"mount -t tmpfs -o size=16k none {full} && head -c 16384 /dev/zero > {full}/a; "
        f"export ROS_LOG_DIR={full}; {NODE} -p model:={tiny_bundle} -p device:=cpu"
    )
    with log.open("wb") as out:
        process = subprocess.Popen(
            in_own_mounts(script), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        line = "active, waiting for"
        wait_until(lambda: line in log.read_text() or process.poll() is not None, line)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()

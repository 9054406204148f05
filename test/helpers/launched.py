"""The package as `ros2 launch` finds it, and `ros2` commands with upstream's own code."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.waiting import PATIENCE_S, wait_until

# launch/ of this repository is a folder of that name, too: ask for what only the real one has.
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch and launch_ros come with a ROS installation, or by PYTHONPATH (CONTRIBUTING.md)",
)
needs_ros2 = pytest.mark.skipif(
    any(importlib.util.find_spec(n) is None for n in ("ros2cli", "ros2launch", "ros2param")),
    reason="ros2 launch and ros2 param come with a ROS installation, or by PYTHONPATH "
    "(CONTRIBUTING.md)",
)
ROS2 = (sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())")


def install(prefix: Path) -> dict[str, str]:
    """Make a prefix that has this source tree as the package d3_ros; what the environment needs."""
    share, libexec = prefix / "share" / "d3_ros", prefix / "lib" / "d3_ros"
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "d3_ros"
    for folder in (share, libexec, marker.parent):
        folder.mkdir(parents=True)
    marker.touch()
    for name in ("launch", "config"):
        shutil.copytree(ROOT / name, share / name)  # ros2 launch does not follow links
    for name, module in (
        ("predictor", "predictor_node"),
        ("synthetic_camera", "synthetic.synthetic_camera"),
    ):
        executable = libexec / name
        executable.write_text(f'#!/bin/sh\nexec {sys.executable} -m d3_ros.ros.{module} "$@"\n')
        executable.chmod(0o755)
    paths = {"AMENT_PREFIX_PATH": prefix, "PYTHONPATH": ROOT}
    return {
        name: os.pathsep.join(filter(None, [str(path), os.environ.get(name)]))
        for name, path in paths.items()
    }


class Ros2Launch:
    """A running `ros2 launch d3_ros FILE ARGUMENTS`; use it in a `with` block."""

    def __init__(self, folder: Path, file: str, *arguments: str, env: dict[str, str]) -> None:
        self._log = folder / "launch.log"
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [*ROS2, "launch", "d3_ros", file, *arguments],
                cwd=folder,
                env={**os.environ, "ROS_LOG_DIR": str(folder), "PYTHONUNBUFFERED": "1", **env},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Tests in the background have SIGINT ignored, and `ros2 launch` would be deaf.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def __enter__(self) -> Ros2Launch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # with all that it started
            self._process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, line: str, times: int = 1) -> None:
        """Wait until its output has `line` so often; fail if it ends before."""
        wait_until(
            lambda: self.output.count(line) >= times or self._process.poll() is not None, line
        )
        assert self.output.count(line) >= times, self.output

    def pid_of(self, node: str) -> int:
        """Process id of the last process started as `node`."""
        found = re.findall(rf"\[{node}-\d+\]: process started with pid \[(\d+)\]", self.output)
        return int(found[-1])

    @property
    def stopped_in_order(self) -> bool:
        """Whether no process needed the launch's SIGTERM or SIGKILL after SIGINT."""
        return "escalating to" not in self.output

    def interrupt(self) -> None:
        """SIGINT to the launch alone, as a service manager or `kill` sends it."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait(PATIENCE_S)


def ros2(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run one `ros2` command to its end."""
    return subprocess.run(
        [*ROS2, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

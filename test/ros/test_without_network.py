"""The node as a process that has no network but the loopback device."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.ros
ALONE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def can_be_alone() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_be_alone(), reason="network namespaces are not permitted here")
def test_the_node_becomes_active_without_a_network(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as out:
        node = subprocess.Popen(
            [
                *(*ALONE, sys.executable, "-m", "d3_ros.ros.predictor_node"),
                *("--ros-args", "-p", "autostart:=true", "-p", "device:=cpu"),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ROS_LOG_DIR": str(tmp_path)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "active" in log.read_text() or node.poll() is not None, "activation")
        assert "active, waiting for" in log.read_text(), log.read_text()
        node.send_signal(signal.SIGINT)
        assert node.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        node.kill()
        node.wait()

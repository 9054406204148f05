"""ROS 2 child processes: started together, watched, and ended whatever happens.

It also finds the package's own files (`shipped`) and a ROS domain that nobody uses (`free_domain`).
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from d3_ros.ros.fast_dds import profile_variables

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
# From domain 102 on, the ports of DDS overlap with the ephemeral ports of Linux.
DOMAINS = range(1, 102)


class Child:
    """One process with its own session, whose output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: dict[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as file:
            # In its own session, Ctrl-C does not reach it: the demo ends its children in order.
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True
            )

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll()

    def wait(self) -> None:
        """Wait until it ends."""
        self._process.wait()

    def stop(self, patience_s: float = 5.0) -> None:
        """End it by SIGINT, then SIGTERM, then SIGKILL; returns when it has ended."""
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.exit_code is not None:
                return
            self._process.send_signal(signal_number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-count:])


class Family:
    """Child processes that all end when the `with` block ends."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._children: dict[str, Child] = {}

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *_: object) -> None:
        with _signals_held():
            for child in reversed(self._children.values()):
                child.stop()

    def start_module(self, name: str, module: str, *arguments: str) -> Child:
        """Start `python -m module arguments`."""
        return self.start(name, [sys.executable, "-m", module, *arguments])

    def start(self, name: str, command: Sequence[str]) -> Child:
        """Start a command; its log is NAME.log."""
        # An interruption between the two lines would leave a process that nobody ends.
        with _signals_held():
            child = Child(name, command, self._folder / f"{name}.log", self._env)
            self._children[name] = child
        return child

    def child(self, name: str) -> Child | None:
        """The child of this name, if it was started."""
        return self._children.get(name)


def only_this_machine() -> dict[str, str]:
    """The environment variable that keeps ROS 2 processes from the network."""
    # It changed with Iron; each distribution warns of the other's variable.
    if os.environ.get("ROS_DISTRO") == "humble":
        return {"ROS_LOCALHOST_ONLY": "1"}
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@contextmanager
def _signals_held() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM after the block, so that they cannot interrupt it.

    A new process has the default handlers: these are no blocked signals, which it would inherit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    held: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if held:
            signal.raise_signal(held[0])


def private_environment(domain: int, log_folder: Path) -> dict[str, str]:
    """Environment for ROS 2 processes in a domain of their own, on this machine only."""
    paths = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **profile_variables(shipped("config/fastdds.xml"), os.environ),
        "ROS_DOMAIN_ID": str(domain),
        "ROS_LOG_DIR": str(log_folder),
        "RCUTILS_COLORIZED_OUTPUT": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        **only_this_machine(),
    }


def shipped(path: str) -> Path | None:
    """A file of the package, in the source tree or installed under share/."""
    folders = [PACKAGE_PARENT, *(p / "share" / "d3_ros" for p in PACKAGE_PARENT.parents)]
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def free_domain() -> int:
    """A ROS domain whose ports are not in use on this machine."""
    domains = random.SystemRandom().sample(DOMAINS, len(DOMAINS))
    return next((domain for domain in domains if _is_free(domain)), domains[0])


def wait_briefly() -> None:
    """Pause between two checks of the children."""
    time.sleep(0.1)


def _is_free(domain: int) -> bool:
    """Whether the ports of the domain's discovery and first participant can be bound."""
    first = 7400 + 250 * domain  # DDS-RTPS 9.6.1: PB + DG * domain
    for port in (first, first + 10, first + 11):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True

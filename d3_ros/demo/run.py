"""The whole demo: it starts node, player and recorder as processes, then writes the report."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from d3_ros.data.played_frame import FrameSource, SourceOptions
from d3_ros.data.sources import open_source
from d3_ros.demo.arguments import source_argv
from d3_ros.demo.recording import RELATIVE, Recording
from d3_ros.demo.report import MADE_BY, RunInfo, output_files, table, write_report
from d3_ros.errors import D3Error, DataError
from d3_ros.evaluation.output_folder import claim_output
from d3_ros.network.bundle.manifest import read_manifest
from d3_ros.ros.child_processes import (
    Child,
    Family,
    free_domain,
    private_environment,
    shipped,
    wait_briefly,
)
from d3_ros.ros.fast_dds import has_shared_memory

NAMESPACE, NODE = "/camera", "predictor"
# Short inputs are played several times, so that a rate can be measured.
LEAST_FRAMES, MOST_FRAMES = 40, 600
# A frame's other outputs follow its depth: the recorder is done when nothing has come for so long.
QUIET_S, MOST_QUIET_WAIT_S = 1.0, 15.0
# rviz2 needs this long to open its window before the first frames.
VIEWER_START_S = 3.0


class DemoError(D3Error):
    """A process of the demo failed, or nothing came back."""


@dataclass(frozen=True)
class DemoOptions:
    """What the user asked for.

    `rate`: "auto", "source" or Hz; None chooses by the source. `frames`: how many images to send; 0
    plays the source once, or several times if it is short. `pictures`: how many frames to show.
    `timeout_s`: for everything from the start of the processes to the report.
    """

    source: SourceOptions
    output: Path
    model: str = "d3_nano"
    device: str = "auto"
    rate: float | str | None = None
    frames: int = 0
    pictures: int = 6
    timeout_s: float = 900.0
    view: bool = False


def run(options: DemoOptions) -> None:
    """Run the demo, write the report and print its summary.

    Raises:
        D3Error: the input cannot be read, a process failed, or no depth came back.
    """
    source = open_source(options.source)
    # A source without stamps has no rate of its own: there the node sets the pace.
    rate = options.rate or ("auto" if source.rate_hz is None else "source")
    if rate == "source" and source.rate_hz is None:
        raise DataError(f"{options.source.path}: its frames have no times: say --rate auto or HZ")
    total = options.frames or default_frames(len(source))
    read_manifest(options.model)  # a wrong name is told before any process is started
    output = options.output
    claim_output(output, MADE_BY, output_files(options.pictures))
    say(f"input    {source.title}")
    for warning in source.warnings:
        say(f"         note: {warning}")
    with tempfile.TemporaryDirectory(prefix="d3_ros_demo_") as folder:
        recording = Recording(Path(folder))
        domain = free_domain()
        if not has_shared_memory():
            say("note     /dev/shm is too small for images: some will get lost between processes")
        say(f"node     {options.model} on {options.device}")
        say(f"         {domain_note(domain, os.environ.get('ROS_DOMAIN_ID'))}")
        with Family(output, private_environment(domain, Path(folder) / "ros_log")) as family:
            _play(family, options, recording, rate, total, all_depth=has_truth(source))
            say("writing  pictures and report")
            info = RunInfo(
                model=options.model,
                device=device_in_use(output / "node.log") or options.device,
                rate=str(rate),
                log_file="node.log",
            )
            report = write_report(output, recording, source, info, pictures=options.pictures)
            print(table(report), flush=True)
            if report["frames"] == 0:
                raise DemoError(
                    f"no depth came back from {report['sent']} frames; see {output / 'node.log'}"
                )
            say(f"done     open {output / 'index.html'}")
            if options.view:
                _wait_for_viewer(family)


def domain_note(domain: int, of_user: str | None) -> str:
    """Which ROS domain the demo runs in, and how to look on."""
    replaced = f"instead of your ROS_DOMAIN_ID={of_user}, " if of_user else ""
    return f"{replaced}in a domain of its own: look on with ROS_DOMAIN_ID={domain} ros2 topic list"


def default_frames(length: int) -> int:
    """How many images to send of a source of this length: whole rounds, within limits."""
    return min(length * math.ceil(LEAST_FRAMES / length), MOST_FRAMES)


def has_truth(source: FrameSource) -> bool:
    """Whether the first frame has depth to score with. Raises D3Error if it cannot be read."""
    return next(iter(source)).truth is not None


def device_in_use(node_log: Path) -> str:
    """The device that `auto` chose, from the node's log; empty if the log does not name it."""
    said = re.search(r"ready: .*? on (.+) in (\w+)", node_log.read_text(encoding="utf-8"))
    return "" if said is None else f"{said[1]}, {said[2]}"


def say(text: str) -> None:
    """One line of progress."""
    print(f"demo: {text}", flush=True)


def _play(
    family: Family,
    options: DemoOptions,
    recording: Recording,
    rate: float | str,
    total: int,
    *,
    all_depth: bool,
) -> None:
    """Start the processes, wait for the player to end, and let the recorder finish."""
    deadline = time.monotonic() + options.timeout_s
    if options.view:
        start_viewer(family)
    recorder = family.start_module(
        "recorder",
        "d3_ros.demo.recorder",
        *(str(recording.folder), "--namespace", NAMESPACE, "--node", NODE),
        *("--frames", str(options.pictures), *(["--all-depth"] if all_depth else [])),
    )
    node = family.start_module(
        "node",
        "d3_ros.ros.predictor_node",
        *("--ros-args", "-r", f"__ns:={NAMESPACE}", "-p", "autostart:=true"),
        *("-p", f"model:={options.model}", "-p", f"device:={options.device}"),
    )
    player = family.start_module(
        "player",
        "d3_ros.demo.player",
        *source_argv(options.source),
        *("--namespace", NAMESPACE, "--node", NODE, "--rate", str(rate)),
        *("--frames", str(total), "--sent", str(recording.sent_log)),
        *("--wait", str(options.timeout_s)),
    )
    progress = Progress(recording, total)
    while player.exit_code is None:
        for child in (node, recorder):
            if child.exit_code is not None:
                raise _failure(child, child)
        if time.monotonic() > deadline:
            raise DemoError(
                f"not done after {options.timeout_s:g} s: a smaller model, fewer --frames or a "
                f"longer --timeout may help; see {node.log}"
            )
        progress.show()
        wait_briefly()
    progress.end()
    if player.exit_code != 0:
        raise _failure(player, node)
    _let_finish(recording)
    recorder.stop()
    if recorder.exit_code != 0:
        raise _failure(recorder, recorder)
    if not options.view:
        node.stop()


def _let_finish(recording: Recording) -> None:
    """Wait until no more stamped outputs arrive."""
    started = quiet_since = time.monotonic()
    count = len(recording.received())
    while time.monotonic() - quiet_since < QUIET_S:
        if time.monotonic() - started > MOST_QUIET_WAIT_S:
            return
        wait_briefly()
        now_there = len(recording.received())
        if now_there != count:
            count, quiet_since = now_there, time.monotonic()


def _failure(failed: Child, cause: Child) -> DemoError:
    """Show the end of the logs that matter; the error itself is one line."""
    for child in dict.fromkeys((cause, failed)):
        say(f"the end of {child.log}:")
        for line in child.last_lines().splitlines():
            print(f"    {line}", flush=True)
    return DemoError(f"the {failed.name} ended with exit code {failed.exit_code}; its log is above")


class Progress:
    """One line that is rewritten on a terminal, one line every few seconds elsewhere."""

    def __init__(self, recording: Recording, total: int) -> None:
        self._recording = recording
        self._total = total
        self._live = sys.stdout.isatty()
        self._period_s = 0.5 if self._live else 5.0
        self._shown_at = -math.inf
        self._started = time.monotonic()

    def show(self) -> None:
        """Show the progress, at most once per period."""
        now = time.monotonic()
        if now - self._shown_at < self._period_s:
            return
        self._shown_at = now
        sent = len(self._recording.sent())
        arrived = [row for row in self._recording.received() if row.topic == RELATIVE]
        if sent == 0:
            text = f"starting {now - self._started:.0f} s"
        else:
            text = f"playing  {sent}/{self._total} sent, {len(arrived)} back"
            if arrived:
                text += f", {arrived[-1].latency_ms:.0f} ms after the camera"
        if trouble := self._trouble():
            text += f"; node: {trouble}"
        if self._live:
            print(f"\r\033[Kdemo: {text}", end="", flush=True)
        else:
            say(text)

    def _trouble(self) -> str:
        """The node's last message on ~/status, if it is a warning or an error."""
        status = [row.values for row in self._recording.reported() if row.topic == "status"]
        return str(status[-1]["message"]) if status and status[-1]["level"] > 0 else ""

    def end(self) -> None:
        """Leave the line as it is."""
        if self._live:
            print(flush=True)


def start_viewer(family: Family) -> None:
    """Open rviz2 where there is one; say so where there is none."""
    rviz2 = shutil.which("rviz2")
    if rviz2 is None:
        say("--view: no rviz2 on this machine (source a ROS 2 desktop installation); going on")
        return
    config = shipped("config/predictor.rviz")
    family.start("rviz2", [rviz2, *(["-d", str(config)] if config else [])])
    time.sleep(VIEWER_START_S)


def _wait_for_viewer(family: Family) -> None:
    """Keep the last results in rviz2 until its window is closed."""
    viewer = family.child("rviz2")
    if viewer is not None and viewer.exit_code is None:
        say("view     close rviz2, or press Ctrl-C, to end")
        viewer.wait()

"""The demo as its user runs it: three processes over DDS, and how it ends when something fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.waiting import PATIENCE_S, wait_until

from d3_ros.demo.__main__ import main
from d3_ros.demo.report import output_files
from d3_ros.demo.run import default_frames, device_in_use, domain_note, start_viewer
from d3_ros.network import D3Predictor
from d3_ros.ros.child_processes import DOMAINS, Family, free_domain, private_environment

DEMO = [sys.executable, "-m", "d3_ros.demo"]
KEYS = {"frames", "model", "depth_hz", "latency_ms", "dropped", "abs_rel", "delta1"}


@pytest.fixture(scope="module")
def measured_folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, with just the depth that the tiny network predicts: z = 1 m + 3 m x relative."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    predictor = D3Predictor.from_pretrained(tiny_bundle, device="cpu")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        rgb = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)
        relative = predictor(rgb, tasks=("depth",)).depth
        assert relative is not None
        millimetres = np.rint(1000 * (1.0 + 3.0 * relative)).astype(np.uint16)
        cv2.imwrite(str(folder / "rgb" / f"{name}.png"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / "depth" / f"{name}.png"), millimetres)
    return folder


@pytest.mark.ros
def test_the_demo_end_to_end(tiny_bundle: Path, measured_folder: Path, tmp_path: Path) -> None:
    """What the node is given lies on its own prediction, so its metric depth must be right."""
    output = tmp_path / "out"
    command = [*DEMO, "--input", str(measured_folder), "--model", str(tiny_bundle)]
    command += ["--intrinsics", "120", "120", "63.5", "47.5", "--points", "200", "--device", "cpu"]
    command += ["--frames", "7", "--pictures", "2", "--output", str(output), "--timeout", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr

    report = json.loads((output / "report.json").read_text())
    assert report.keys() >= KEYS
    assert report["model"] == str(tiny_bundle)
    assert report["device"] == "cpu, fp32"
    assert report["sent"] == 7
    assert report["frames"] + report["dropped"] == 7
    assert report["frames"] >= 5
    assert set(report["scale_states"]) <= {"measured", "held"}
    assert 0.0 <= report["abs_rel"] < 0.01
    assert report["delta1"] > 0.99
    assert report["coverage"] > 0.9
    assert 0.0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"] < 60_000
    assert report["depth_hz"] > 0.0
    assert report["topics"]["points"]["messages"] >= 3
    assert report["diagnostics"], "the node's own figures"

    for frame in ("frame_1", "frame_2"):
        for what in (
            "colour",
            "depth",
            "measured",
            "normals",
            "cloud_above",
            "cloud_oblique",
            "strip",
        ):
            picture = cv2.imread(str(output / f"{frame}_{what}.png"))
            assert picture is not None, what
            assert picture.std() > 3, f"{what} shows nothing"
    vertices = int((output / "cloud.ply").read_bytes().split(b"element vertex ")[1].split()[0])
    assert vertices > 0.9 * 96 * 128
    assert (output / "index.html").stat().st_size > 50_000
    assert "AbsRel" in done.stdout
    assert str(output / "index.html") in done.stdout


@pytest.mark.ros
def test_a_damaged_model_is_told_with_the_nodes_own_words(
    tiny_bundle: Path, measured_folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_bundle, tmp_path / "model")
    damaged = next(model.rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    command = [*DEMO, "--input", str(measured_folder), "--model", str(model)]
    command += ["--output", str(tmp_path / "out"), "--timeout", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert damaged.name in done.stdout, "the end of the node's log"
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "index.html").exists()


def children_of(pid: int) -> dict[int, str]:
    """Process id -> command line."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(child): Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for child in found
    }


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


@pytest.mark.ros
@pytest.mark.parametrize(
    ("victim", "how", "exit_code", "says"),
    [
        ("demo", signal.SIGINT, 130, "demo: interrupted"),
        ("demo", signal.SIGTERM, 130, "demo: interrupted"),
        ("predictor_node", signal.SIGKILL, 1, "the node ended with exit code -9"),
    ],
)
def test_no_process_is_left_behind(
    victim: str,
    how: signal.Signals,
    exit_code: int,
    says: str,
    tiny_bundle: Path,
    measured_folder: Path,
    tmp_path: Path,
) -> None:
    command = [*DEMO, "--input", str(measured_folder), "--model", str(tiny_bundle)]
    command += ["--output", str(tmp_path / "out")]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would everything that it starts.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as demo:

        def three_programs() -> dict[int, str]:
            found = children_of(demo.pid)
            # Right after the fork a child still has the demo's command line.
            forked = "-m d3_ros.demo " in " ".join(found.values())
            return found if len(found) == 3 and not forked else {}

        wait_until(three_programs, "the demo starts its processes")
        children = three_programs()
        target = next((pid for pid, command_line in children.items() if victim in command_line), 0)
        os.kill(demo.pid if victim == "demo" else target, how)
        said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == exit_code, said
    assert says in said
    assert "Traceback" not in said
    assert not [line for pid, line in children.items() if is_running(pid)]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["--input", "/no/such/place"], 1, "demo: /no/such/place: no such file or folder"),
        (["--rate", "fast"], 2, "'fast' is not auto, source or a rate"),
        (["--points", "many"], 2, "'many' is not a whole number"),
        (["--frames", "-3"], 2, "--frames"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], exit_code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == exit_code
    assert says in capsys.readouterr().err


def test_a_folder_has_no_rate_of_its_own(
    measured_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    code = main(
        ["--input", str(measured_folder), "--rate", "source", "--output", str(tmp_path / "out")]
    )
    signal.signal(signal.SIGTERM, before)
    assert code == 1
    assert "its frames have no times" in capsys.readouterr().err


def test_short_inputs_are_played_in_whole_rounds() -> None:
    assert [default_frames(n) for n in (1, 5, 30, 40, 45, 5000)] == [40, 40, 60, 40, 45, 600]


@pytest.mark.parametrize("name", ["index.html", "report.json", "cloud.ply", "frame_1_depth.png"])
def test_the_demo_replaces_no_file_of_the_users(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine")
    before = signal.getsignal(signal.SIGTERM)
    code = main(["--output", str(tmp_path)])
    signal.signal(signal.SIGTERM, before)
    assert code == 1
    assert f"{name} was not written by the d3_ros demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_every_picture_of_a_run_is_listed_for_the_next_one() -> None:
    names = output_files(2)
    assert {"index.html", "cloud.ply", "node.log", "frame_1_colour.png"} <= set(names)
    assert {"frame_2_strip.png", "frame_2_error.png", "frame_2_cloud_above.png"} <= set(names)
    assert "frame_3_strip.png" not in names


def test_a_wrong_model_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Family, "start", lambda *_: pytest.fail("a process was started"))
    before = signal.getsignal(signal.SIGTERM)
    code = main(["--model", "d3_nan", "--output", str(tmp_path / "out")])
    signal.signal(signal.SIGTERM, before)
    assert code == 1
    error = capsys.readouterr().err
    assert "d3_nan" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_domain_is_told() -> None:
    assert "ROS_DOMAIN_ID=9 ros2 topic list" in domain_note(9, None)
    assert "instead of your ROS_DOMAIN_ID=42" in domain_note(9, "42")


def test_children_see_each_other_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    domain = free_domain()
    assert domain in DOMAINS
    env = private_environment(domain, tmp_path)
    assert env["ROS_DOMAIN_ID"] == str(domain)
    assert "ROS_LOCALHOST_ONLY" in env or env["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert env["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(ROOT / "config" / "fastdds.xml")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml")
    mine = private_environment(domain, tmp_path)
    assert mine["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/mine.xml"


def test_a_stubborn_child_ends_too(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with Family(tmp_path, dict(os.environ)) as family:
        child = family.start("stubborn", [sys.executable, "-c", code])
        wait_until(lambda: "ready" in child.last_lines() or child.exit_code, "the child is ready")
        child.stop(patience_s=0.3)
        assert child.exit_code == -signal.SIGTERM


def test_an_interruption_while_a_child_starts_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the process exists and before the family knows it."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    # The processes of a parallel test run ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), Family(tmp_path, dict(os.environ)) as family:
            family.start("sleeper", ["sleep", "60"])
        assert started[0].poll() is not None, "the child has ended"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_view_opens_rviz2_on_our_topics_or_says_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("d3_ros.demo.run.VIEWER_START_S", 0.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with Family(tmp_path, {"ROS_DOMAIN_ID": "7"}) as family:
        start_viewer(family)
        assert family.child("rviz2") is None
    assert "no rviz2 on this machine" in capsys.readouterr().out
    stand_in = tmp_path / "rviz2"
    stand_in.write_text('#!/bin/sh\necho "$ROS_DOMAIN_ID $*"\n')
    stand_in.chmod(0o755)
    with Family(tmp_path, {"ROS_DOMAIN_ID": "7"}) as family:
        start_viewer(family)
        viewer = family.child("rviz2")
        assert viewer is not None
        viewer.wait()
    assert viewer.last_lines() == f"7 -d {ROOT / 'config' / 'predictor.rviz'}"


def test_the_device_is_read_from_the_nodes_log(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("[INFO] [1.0] [camera.predictor]: ready: depth on cuda:0 in float16\n")
    assert device_in_use(log) == "cuda:0, float16"
    log.write_text("[INFO] ready: depth and normals on cpu (ONNX Runtime, x86_64) in fp32\n")
    assert device_in_use(log) == "cpu (ONNX Runtime, x86_64), fp32"
    log.write_text("nothing\n")
    assert device_in_use(log) == ""

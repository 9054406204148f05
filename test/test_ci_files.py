"""Dockerfile and the example workflow cannot run here: their paths and commands are tested."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import pairwise
from typing import Any

import pytest
import yaml
from helpers.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
ENTRY = ROOT / "scripts" / "container_entry"
IN_WORKSPACE = "src/d3_ros/"


def instructions() -> list[tuple[str, str]]:
    """(name, words) of each instruction, without comments; continued lines are joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    return [(n, rest) for n, _, rest in (line.partition(" ") for line in text.splitlines()) if n]


def commands(job: dict[str, Any]) -> str:
    """All shell commands of a job."""
    return "\n".join(step.get("run", "") for step in job["steps"])


def jobs() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]


def test_the_image_copies_what_exists_and_runs_what_exists() -> None:
    copied = [words.split()[0] for name, words in instructions() if name == "COPY"]
    assert copied == ["package.xml", "scripts/requirements", "."]
    for path in re.findall(rf"{IN_WORKSPACE}([\w./]+)", DOCKERFILE):
        assert (ROOT / path).exists(), path
    entry = dict(instructions())["ENTRYPOINT"]
    assert entry == f'["/ws/{IN_WORKSPACE}{ENTRY.relative_to(ROOT)}"]'
    assert os.access(ENTRY, os.X_OK)
    subprocess.run(["bash", "-n", ENTRY], check=True)


def test_the_image_keeps_the_usual_rules() -> None:
    """What hadolint looks at: a pinned base, one layer without package lists, no root, no cache."""
    names = [name for name, _ in instructions()]
    words = dict(instructions())
    assert words["FROM"] == "ros:${ROS_DISTRO}-ros-base"
    assert ("ARG", "ROS_DISTRO=jazzy") in instructions()
    assert ("ARG", "WITH_TORCH=0") in instructions()
    assert "pipefail" in words["SHELL"]
    assert "ADD" not in names
    assert "sudo" not in DOCKERFILE
    for name, line in instructions():
        if name == "RUN" and "apt-get" in line:
            assert line.index("apt-get update") < line.index("apt-get install -y --no-install-rec")
            assert "rm -rf /var/lib/apt/lists/*" in line
        if name == "RUN" and "pip install" in line:
            assert line.count("pip install") == line.count("pip install --no-cache-dir")
    user = names.index("USER")
    assert words["USER"] not in ("root", "0")
    assert names.index("ENTRYPOINT") > user
    assert not any(name == "RUN" for name in names[user:])
    assert all(path.startswith("/") for name, path in instructions() if name == "WORKDIR")


def test_the_image_leaves_environments_and_results_out() -> None:
    ignored = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    folders = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()}
    assert folders - ignored == {"__pycache__", "*.egg-info"}
    assert {".git", "**/__pycache__"} <= ignored


def test_the_workflow_runs_every_distribution_as_a_robot_does() -> None:
    ros = jobs()["ros"]
    assert ros["strategy"]["matrix"]["distribution"] == ["humble", "jazzy", "kilted", "lyrical"]
    steps = commands(ros)
    order = ["rosdep install", "colcon build", "colcon test ", "colcon test-result"]
    assert all(steps.index(a) < steps.index(b) for a, b in pairwise(order))
    for path in re.findall(rf"{IN_WORKSPACE}([\w./]+)", steps):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", sorted(jobs()))
def test_a_job_has_a_limit_and_only_commands_that_exist(name: str) -> None:
    job = jobs()[name]
    assert job["timeout-minutes"] <= 60
    assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", s["uses"]) for s in job["steps"] if "uses" in s)
    for command in re.findall(r"(?m)^(scripts/\w+)", commands(job)):
        assert os.access(ROOT / command, os.X_OK), command
    for option in re.findall(r"scripts/test (--\w+)", commands(job)):
        assert option in (ROOT / "scripts" / "test").read_text(encoding="utf-8")
    for launched in re.findall(r"ros2 launch d3_ros (\S+)", commands(job)):
        assert (ROOT / "launch" / launched).is_file()


def test_both_say_that_nobody_has_run_them() -> None:
    assert "no image of it has been run" in DOCKERFILE.replace("\n# ", " ")
    assert "has not been run by the maintainers" in WORKFLOW.read_text(encoding="utf-8")


def test_a_newer_patch_release_of_the_distributions_numpy_is_taken() -> None:
    """Humble has NumPy 1.21.5; ONNX Runtime for its Python refuses that, and takes 1.21.6."""
    for name in ("scripts/setup", "Dockerfile", ".github/workflows/ci.yml"):
        text = (ROOT / name).read_text()
        assert 'print(f"numpy~={numpy.__version__}")' in text, name
        assert "numpy==" not in text, name

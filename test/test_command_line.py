"""`python -m d3_ros`: every failure is one line, whatever raised it."""

from __future__ import annotations

import errno
import subprocess
import sys
import types
from pathlib import Path

import pytest

from d3_ros.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]


def command_that_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `render` raise."""

    def run(_: object) -> int:
        raise error

    module = types.ModuleType("stand_in", "A command.")
    module.run, module.add_arguments = run, lambda parser: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "d3_ros.commands.render", module)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/disk/a.ply"),
            "d3_ros render: /disk/a.ply: No space left on device",
        ),
        (OSError("strange"), "d3_ros render: strange"),
        (
            ModuleNotFoundError("no", name="torch.nn"),
            f"d3_ros render: the Python package 'torch.nn' is not installed for {sys.executable}",
        ),
    ],
)
def test_a_failure_is_one_line(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_that_raises(error, monkeypatch)
    assert main(["render"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert told.count("\n") == 1


def test_a_module_of_ours_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    command_that_raises(ModuleNotFoundError("no", name="d3_ros.gone"), monkeypatch)
    with pytest.raises(ModuleNotFoundError):
        main(["render"])


def test_a_reader_that_ends_is_no_traceback() -> None:
    code = "import sys; from d3_ros.__main__ import main; sys.exit(main(['--help']))"
    command = f'{sys.executable} -c "{code}" | true'
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_every_command_has_a_module() -> None:
    for name in COMMANDS:
        assert (ROOT / "d3_ros" / "commands" / f"{name}.py").is_file()


EVALUATE = ["evaluate", "--data", "nowhere"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "x.json"], "--json would have no effect: it belongs to --scale"),
        (["--csv", "x.csv"], "--csv would have no effect: it belongs to --scale"),
        (["--seeds", "9"], "--seeds would have no effect"),
        (["--limit", "9"], "--limit would have no effect"),
        (["--time"], "--time measures the alignment: give --scale too"),
        (["--scale", "--output", "x"], "--output would have no effect: it is not for --scale"),
        (["--scale", "--against", "x"], "--against would have no effect"),
        (["--scale", "--points", "9"], "--points would have no effect"),
        (["--scale", "--limit", "0"], "--limit and --seeds must be at least 1"),
        (["--scale", "--seeds", "-1"], "--limit and --seeds must be at least 1"),
        (["--scale", "--csv", "."], ". cannot be written: name a file"),
        (["--scale", "--json", "no/folder/x.json"], "no/folder/x.json cannot be written"),
    ],
)
def test_evaluate_ignores_no_option(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EVALUATE, *arguments]) == 1
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "name"),
    [("d3_ros.ros.predictor_node", "predictor"), ("d3_ros.demo", "demo")],
)
def test_a_python_without_the_packages_is_one_line(module: str, name: str) -> None:
    """-S leaves out site-packages, where all of them are."""
    told = subprocess.run(
        [sys.executable, "-S", "-m", module],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert told.stderr.startswith(f"{name}: the Python package '")
    assert told.stderr.count("\n") == 1
    assert ".venv/bin/python" in told.stderr

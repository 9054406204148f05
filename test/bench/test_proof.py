"""The proof of a GPU, on the CPU with a small network: resumable, plain about what did not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d3_ros.__main__ import main
from d3_ros.bench.network import proof
from d3_ros.errors import NonFiniteError

ARGUMENTS = ["--device", "cpu", "--size", "80x60", "--sizes", "64x64"]
STEPS = 8  # six checks, two rows


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modes, no warm-up."""
    monkeypatch.setattr("d3_ros.bench.network.measuring.WARM_UP_RUNS", 0)
    monkeypatch.setattr(proof.run, "available_modes", lambda bundle: ["exact", "depth-anything-S"])


def prove(folder: Path, *more: str) -> int:
    return main(["bench", "--proof", str(folder), *ARGUMENTS, *more])


def test_a_proof_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove(tmp_path, "--minutes", "-1") == 1  # no step begins
    assert "run this again to go on" in capsys.readouterr().out
    assert f"0 of {STEPS} steps are done" in (tmp_path / "proof.md").read_text()

    assert prove(tmp_path) == 0
    first = json.loads((tmp_path / "proof.json").read_text())
    assert len(first["steps"]) == STEPS
    page = (tmp_path / "proof.md").read_text()
    assert "**No GPU ran this**" in page
    assert "| CUDA graphs against eager | not_run there is no CUDA device |" in page
    assert "mean_depth_difference" in page
    assert "exact" in page.split("```")[1]

    capsys.readouterr()
    first["steps"].pop("CUDA graphs against eager")
    (tmp_path / "proof.json").write_text(json.dumps(first))
    assert prove(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["CUDA graphs against eager"]

    first["about"]["device"] = "another"
    (tmp_path / "proof.json").write_text(json.dumps(first))
    assert prove(tmp_path) == 1
    assert "is of another machine or setting" in capsys.readouterr().err
    (tmp_path / "proof.json").write_text("{")
    assert prove(tmp_path) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_step_that_fails_is_told_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    precision = proof.Proof._precision

    def fail(self: object, dtype: str) -> dict[str, object]:
        raise NonFiniteError("not finite")

    monkeypatch.setattr(proof.Proof, "_precision", fail)
    assert prove(tmp_path) == 1
    steps = json.loads((tmp_path / "proof.json").read_text())["steps"]
    assert steps["fp16 against fp32"] == {"error": "not finite", "passed": False}
    assert len(steps) == STEPS

    monkeypatch.setattr(proof.Proof, "_precision", precision)
    capsys.readouterr()
    assert prove(tmp_path) == 0  # what failed is tried again, and nothing else
    lines = capsys.readouterr().out.splitlines()
    assert sum("against fp32: mean_depth_difference" in line for line in lines) == 2


def test_a_device_that_answers_no_longer_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After some errors CUDA refuses everything to this process: the next one goes on."""
    monkeypatch.setattr(proof, "_cleared", lambda device: "an illegal memory access")
    assert prove(tmp_path) == 1
    assert "run this again to go on" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "proof.json").read_text())["steps"]) == 1

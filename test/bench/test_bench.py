"""bench: the table's arithmetic by hand, and every mode once, small, on the CPU."""

from __future__ import annotations

import json
import math
import mmap
from pathlib import Path

import pytest
import torch
from helpers.tiny_network import tiny_network

from d3_ros.__main__ import main
from d3_ros.bench.network import measuring, run, table
from d3_ros.bench.network.architectures import SD21, SMALL, random_network
from d3_ros.bench.network.flops import Work
from d3_ros.bench.network.measuring import Roofline, Times
from d3_ros.bench.network.run import BenchStage, Result, Row
from d3_ros.network import D3Network, write_bundle
from d3_ros.network.bundle.onnx_export import export_bundle
from d3_ros.network.inference.specialise import OPTIMISATIONS
from d3_ros.types import TASKS

SMALL_RUN = ["--device", "cpu", "--frames", "1", "--size", "80x60"]


SIZES = ["--architecture", "small", "--sizes", "64x64", "--rival-size", "64", "--outputs", "both"]


@pytest.fixture
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3_ros.bench.network.measuring.WARM_UP_RUNS", 0)


@pytest.mark.usefixtures("no_warm_up")
@pytest.mark.filterwarnings("ignore::UserWarning:transformers.*")
def test_every_mode_small_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    assert main(["bench", *SMALL_RUN, *SIZES, "--cameras", "1", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    report = json.loads(file.read_text())
    assert report["machine"]["torch"] == torch.__version__
    assert "TFLOP/s in a matrix product" in out
    assert min(report["roofline"].values()) > 0
    results = {row["mode"]: row for row in report["results"]}
    assert results.keys() == {"plain", "exact", "fast", *run.RIVALS}
    for mode, row in results.items():
        assert mode in out
        assert 0 < row["times"]["p50"] <= row["times"]["p95"]
        assert row["peak_mib"] > 0
        stages = {stage["name"]: stage for stage in row["stages"]}
        if mode in run.OURS:
            assert list(stages) == ["image in", "encode", "unet", "decode", "answer out"]
            flops = sum(stage["work"]["flops"] for stage in stages.values() if stage["work"])
            assert flops == row["work"]["flops"]
    flops = {mode: row["work"]["flops"] for mode, row in results.items()}
    assert flops["fast"] < flops["exact"] < flops["plain"] < flops["official"]
    assert results["official"]["official_over_this"] == 1
    assert results["marigold"]["official_over_this"] is None  # depth alone is no comparison


@pytest.mark.usefixtures("no_warm_up")
def test_two_cameras_are_twice_the_work(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    arguments = ["--modes", "exact", "marigold", "--cameras", "2", "1", "--json", str(file)]
    assert main(["bench", *SMALL_RUN, *SIZES, *arguments]) == 0
    work = {
        (row["mode"], row["cameras"]): row["work"]["flops"]
        for row in json.loads(file.read_text())["results"]
    }
    assert len(work) == 4
    assert work["exact", 2] == 2 * work["exact", 1]
    assert work["marigold", 2] == 2 * work["marigold", 1]


def test_a_bundle_is_measured_in_its_own_modes(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tiny_bundle), "--sizes", "32x32", "--outputs", "depth"]
    assert main(["bench", *SMALL_RUN, *arguments, "--cameras", "1"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "32x32" in line]
    assert list(dict.fromkeys(rows)) == ["plain", "exact"]  # it has no codec


def test_a_bundle_of_one_task_is_measured_by_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tiny_network()
    depth = D3Network(
        network.vae,
        {"unet_depth": network.unets["unet_depth"]},
        {"depth": network.specs["depth"]},
        {"depth": network.prompt_embedding("depth")},
    )
    folder = write_bundle(tmp_path / "one", depth, name="one", license="", source="")
    arguments = ["--model", str(folder), "--sizes", "32x32", "--cameras", "1"]
    assert main(["bench", *SMALL_RUN, *arguments]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "32x32" in line]
    assert rows
    assert not any("depth+normals" in row for row in rows)
    assert main(["bench", *SMALL_RUN, *arguments, "--outputs", "both"]) == 1
    assert "has depth only: see --outputs" in capsys.readouterr().err


@pytest.mark.usefixtures("no_warm_up")
def test_onnx_and_pytorch_in_turn(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = export_bundle(tiny_bundle, tmp_path / "onnx")
    arguments = ["--model", str(folder), "--sizes", "32x32", "--outputs", "both", "--in-turn"]
    assert main(["bench", *SMALL_RUN, *arguments, "--cameras", "1", "--providers", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "ONNX on cpu" in printed
    rows = [line.split()[0] for line in printed.splitlines() if "32x32" in line]
    assert list(dict.fromkeys(rows)) == ["plain", "exact", "onnx"]


@pytest.mark.usefixtures("no_warm_up")
def test_frames_alternate() -> None:
    order: list[str] = []
    frames = [lambda: order.append("a"), lambda: order.append("b")]
    assert len(measuring.time_in_turn(frames, torch.device("cpu"), 3)) == 2
    assert order == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modes", "onnx", "--architecture", "small"], "mode onnx runs the ONNX graphs of a"),
        (["--modes", "warp"], "unknown mode warp: choose of plain, exact, fast, onnx, onnx-int8"),
        (["--sizes", "big"], "--sizes big: give HEIGHTxWIDTH"),
        (["--size", "4:3"], "--size 4:3: give WIDTHxHEIGHT"),
        (["--frames", "0"], "--frames and --cameras must be at least 1"),
        (["--model", "nowhere"], "unknown model 'nowhere'"),
        (["--model", "d3_nano", "--architecture", "small"], "random ones: give one"),
        (["--model", "d3_nano", "--modes", "fast", "--sizes", "64x64"], "has no tiny codec"),
        (
            ["--modes", "exact", "--providers", "cpu"],
            "--providers are ONNX Runtime's: give --modes",
        ),
        (
            ["--model", "d3_nano", "--modes", "onnx", "--sizes", "64x64", "--providers", "warp"],
            "provider 'warp' is not in this ONNX Runtime, which has",
        ),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--device", "cpu", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_operations_are_counted_change_by_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "flops.json"
    arguments = ["--flops", "--architecture", "small", "--sizes", "64x64", "--outputs", "both"]
    assert main(["bench", *arguments, "--json", str(file)]) == 0
    rows = {row["change"]: row for row in json.loads(file.read_text())["operations"]}
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("64x64")]
    assert len(lines) == len(rows)
    official, plain, *changes, exact, fast = rows.values()
    assert lines[0].endswith("100.0%")
    assert [row["change"] for row in changes] == [f"plain + {name}" for name in OPTIMISATIONS]
    assert official["encode"] == 2 * plain["encode"]
    saved = {row["change"][8:]: _total(plain) - _total(row) for row in changes}
    assert {name for name, count in saved.items() if count} == {
        *("time", "prompt", "upsampling", "depth_channel")
    }
    assert _total(exact) == _total(plain) - sum(saved.values()) + saved["depth_channel"]
    assert _total(fast) < _total(exact)


def _total(row: dict[str, int]) -> int:
    return row["encode"] + row["unet"] + row["decode"]


def test_rows_are_those_that_make_sense() -> None:
    both, depth = TASKS, ("depth",)
    rows = run.rows(["exact", "official", "marigold"], [(64, 64), (32, 32)], [depth, both], [1])
    assert rows == [
        Row("exact", (64, 64), depth, 1),
        Row("exact", (64, 64), both, 1),
        Row("exact", (32, 32), depth, 1),
        Row("exact", (32, 32), both, 1),
        Row("official", None, depth, 1),
        Row("official", None, both, 1),
        Row("marigold", None, depth, 1),
    ]


def test_percentiles_and_roofline_by_hand() -> None:
    assert measuring.Times.of([1.0, 2.0, 3.0]) == Times(2.0, pytest.approx(2.9))
    roofline = Roofline(flops_per_s=1e12, bytes_per_s=1e9)
    assert roofline.fastest_ms(Work(flops=2_000_000_000, bytes=1_000_000)) == pytest.approx(2.0)
    assert roofline.fastest_ms(Work(flops=2_000_000_000, bytes=5_000_000)) == pytest.approx(5.0)


def result(mode: str, p50: float, stages: tuple[BenchStage, ...] = (), cameras: int = 1) -> Result:
    work = Work(4_000_000_000_000, 10**9)
    return Result(mode, "768x768", TASKS, cameras, Times(p50, p50 + 1), work, 1234.5, stages)


def test_lines_by_hand() -> None:
    official, ours = result("official", 100.0), result("exact", 40.0)
    other = result("exact", 80.0, cameras=2)
    cells = table.line(ours, [official, ours, other]).split()
    # 4 TFLOP in 40 ms are 100 TFLOP/s; the official way takes 2.5 times as long.
    assert cells == [
        *("exact", "768x768", "depth+normals", "1", "40.00", "41.00", "25.0"),
        *("4.000", "100", "1234", "2.50x"),
    ]
    assert math.isnan(table.against_official(other, [official, ours, other]))
    assert table.line(other, [official, other]).split()[-1] == "1234"


def test_stage_lines_by_hand() -> None:
    stages = (
        BenchStage("unet", Times(10.0, 11.0), Work(2_000_000_000_000, 10**9)),
        BenchStage("decode", Times(30.0, 31.0), Work(2_000_000_000, 10**10)),
        BenchStage("answer out", Times(1.0, 2.0), None),
    )
    roofline = Roofline(flops_per_s=400e12, bytes_per_s=1e12)
    unet, decode, out = (
        line.split()[3:] for line in table.stage_lines(result("exact", 41.0, stages), roofline)
    )
    assert unet == ["unet", "10.00", "11.00", "2000.0", "200", "5.00", "arithmetic", "2.0x"]
    assert decode == ["decode", "30.00", "31.00", "2.0", "0.0667", "10.00", "traffic", "3.0x"]
    assert out == ["answer", "out", "1.00", "2.00"]


def test_memory_is_the_peak_since_then() -> None:
    watch = measuring.MemoryWatch(torch.device("cpu"))
    before = watch.peak_mib()
    with mmap.mmap(-1, 64 * 2**20) as block:  # new pages, whatever the process has freed before
        block.write(b"1" * len(block))
        assert watch.peak_mib() > before + 32


def test_the_small_architecture_has_the_same_blocks() -> None:
    assert SMALL.unet.keys() == SD21.unet.keys()
    assert SMALL.unet["down_block_types"] == SD21.unet["down_block_types"]
    assert SMALL.vae["up_block_types"] == SD21.vae["up_block_types"]
    network = random_network(SMALL, TASKS, torch.device("cpu"), torch.bfloat16, codec=True)
    assert {parameter.dtype for parameter in network.unets.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in network.parameters())

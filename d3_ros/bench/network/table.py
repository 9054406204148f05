"""What the benchmark found, as text for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from d3_ros.bench.network.flops import Work
from d3_ros.bench.network.measuring import Roofline
from d3_ros.bench.network.operations import Operations
from d3_ros.bench.network.run import Result

ROW = "{:<17}{:<9}{:<15}{:>3}{:>10}{:>9}{:>8}{:>8}{:>9}{:>10}{:>12}"
STAGE = "{:<17}{:<9}{:<15}{:<11}{:>9}{:>9}{:>9}{:>9}{:>13}  {:<11}{:>7}"


OPERATIONS = "{:<9}{:<15}{:<34}{:>10}{:>10}{:>10}{:>10}{:>9}"


def operations_heading() -> str:
    """The columns of `operations_line`."""
    return OPERATIONS.format(
        *("size", "outputs", "GFLOP of a frame", "encode", "unet", "decode", "all", "share")
    )


def operations_line(
    size: tuple[int, int], tasks: Sequence[str], counted: Operations, official: Operations
) -> str:
    """One row of counted operations; its last column is the share of the official way's."""
    return OPERATIONS.format(
        f"{size[0]}x{size[1]}",
        "+".join(tasks),
        counted.change,
        *(f"{n / 1e9:.2f}" for n in (counted.encode, counted.unet, counted.decode, counted.total)),
        f"{counted.total / official.total:.1%}",
    )


def header(machine: Mapping[str, str], roofline: Roofline, about: str) -> str:
    """The machine, its limits, and what is measured."""
    lines = [", ".join(f"{key} {value}" for key, value in machine.items()), about]
    lines.append(
        f"probed: {roofline.flops_per_s / 1e12:.3g} TFLOP/s in a matrix product, "
        f"{roofline.bytes_per_s / 1e9:.3g} GB/s in a copy"
    )
    return "\n".join(lines)


def heading() -> str:
    """The columns of `line`."""
    return ROW.format(
        *("mode", "size", "outputs", "cam", "p50 ms", "p95 ms", "Hz/cam", "TFLOP", "TFLOP/s"),
        *("peak MiB", "vs official"),
    )


def line(result: Result, results: Sequence[Result]) -> str:
    """One row; its last column is how many times as long the official way takes."""
    p50_s = result.times.p50 / 1e3
    ratio = against_official(result, results)
    return ROW.format(
        result.mode,
        result.size,
        "+".join(result.tasks),
        result.cameras,
        f"{result.times.p50:.2f}",
        f"{result.times.p95:.2f}",
        f"{1 / p50_s:.1f}",
        f"{result.work.flops / 1e12:.3f}",
        f"{result.work.flops / 1e12 / p50_s:.3g}",
        f"{result.peak_mib:.0f}",
        "" if math.isnan(ratio) else f"{ratio:.2f}x",
    )


def stage_lines(result: Result, roofline: Roofline) -> list[str]:
    """Where the time of a row goes, and how far from the device's limits each stage is.

    `at least` is the roofline: the time of its arithmetic or of its traffic, the longer one.
    """
    lines = []
    for stage in result.stages:
        cells = ["", "", "", "", ""]
        if stage.work is not None:
            least_ms = roofline.fastest_ms(stage.work)
            bound = "arithmetic" if _is_arithmetic(stage.work, roofline) else "traffic"
            cells = [
                f"{stage.work.flops / 1e9:.1f}",
                f"{stage.work.flops / 1e9 / stage.times.p50:.3g}",
                f"{least_ms:.2f}",
                bound,
                f"{stage.times.p50 / least_ms:.1f}x",
            ]
        lines.append(
            STAGE.format(
                result.mode,
                result.size,
                "+".join(result.tasks),
                stage.name,
                f"{stage.times.p50:.2f}",
                f"{stage.times.p95:.2f}",
                *cells,
            )
        )
    return lines


def stage_heading() -> str:
    """The columns of `stage_lines`."""
    return STAGE.format(
        *("mode", "size", "outputs", "stage", "p50 ms", "p95 ms", "GFLOP", "TFLOP/s"),
        *("at least ms", "bound by", "gap"),
    )


def against_official(result: Result, results: Sequence[Result]) -> float:
    """Time of the official way over this row's, for the same outputs; NaN where there is none."""
    for other in results:
        same = (other.tasks, other.cameras) == (result.tasks, result.cameras)
        if other.mode == "official" and same:
            return other.times.p50 / result.times.p50
    return math.nan


def report(
    machine: Mapping[str, str], roofline: Roofline, results: Sequence[Result]
) -> dict[str, Any]:
    """All of it as a JSON object."""

    def row(result: Result) -> dict[str, Any]:
        ratio = against_official(result, results)
        return {
            **dataclasses.asdict(result),
            "official_over_this": None if math.isnan(ratio) else ratio,
        }

    return {
        "machine": dict(machine),
        "roofline": dataclasses.asdict(roofline),
        "results": [row(result) for result in results],
    }


def _is_arithmetic(work: Work, roofline: Roofline) -> bool:
    return work.flops / roofline.flops_per_s >= work.bytes / roofline.bytes_per_s

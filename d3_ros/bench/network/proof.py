"""The proof of a GPU: one run that checks numbers, graphs and memory, and measures the table.

Every step's result is written to DIR/proof.json when the step is done, so a run that was cut off
goes on where it stopped; a step that ended with an error is tried again then. DIR/proof.md is the
same for people. Without a GPU the steps run on the CPU with a small network; what needs CUDA is
then marked as not run.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from d3_ros.bench.network import run, table
from d3_ros.bench.network.architectures import random_network
from d3_ros.bench.network.flops import Work
from d3_ros.bench.network.measuring import (
    MemoryWatch,
    Times,
    machine,
    probe_roofline,
    time_in_turn,
)
from d3_ros.errors import DataError, one_line
from d3_ros.imaging.image_file import write_whole
from d3_ros.network import D3Predictor
from d3_ros.network.bundle.onnx_export import check_image
from d3_ros.network.inference.onnx_runtime import available_providers
from d3_ros.network.inference.specialise import EXACT
from d3_ros.network.inference.torch_runtime import DTYPES, TorchRuntime
from d3_ros.types import TASKS, D3Prediction, Task

StepResult: TypeAlias = dict[str, Any]
NOT_RUN = {"not_run": "there is no CUDA device"}
# Mean differences from float32 that half precision may have with random weights.
DEPTH_BOUND, NORMALS_BOUND_DEG = 0.005, 2.0
MOST_MEMORY_MIB = 5 * 1024  # depth and normals in fp16, see docs/performance.md
MOST_TEST_S = 180.0
CUDA_TESTS = Path(__file__).parents[3] / "test" / "network" / "test_cuda.py"


@dataclass(frozen=True)
class Proof:
    """One proof.

    `setting` says where and with which network; `sizes` are the processing sizes of the table, the
    first one that of the checks. No step begins after `minutes`.
    """

    folder: Path
    setting: run.Setting
    sizes: list[tuple[int, int]]
    minutes: float

    def steps(self) -> dict[str, Callable[[], StepResult]]:
        """Every step by name, in order."""
        steps: dict[str, Callable[[], StepResult]] = {
            f"{name} against fp32": lambda name=name: self._precision(name)  # type: ignore[misc]
            for name in ("fp16", "bf16")
        }
        steps["CUDA graphs against eager"] = self._graphs
        steps["memory, depth and normals, fp16"] = self._memory
        steps["test/network/test_cuda.py"] = self._tests
        steps["d3_nano on ONNX Runtime with CUDA"] = self._onnx
        modes = run.available_modes(None)
        outputs: list[tuple[Task, ...]] = [("depth",), TASKS]
        cameras = [1, 2]
        if not self._on_cuda:  # a few rows show that the command works
            outputs, cameras = [TASKS], [1]
        rows = run.rows(modes, self.sizes, outputs, cameras)
        for row in sorted(rows, key=lambda row: row.mode != "official"):
            size = "its own size" if row.size is None else f"{row.size[0]}x{row.size[1]}"
            name = f"{row.mode}, {size}, {'+'.join(row.tasks)}, cameras: {row.cameras}"
            steps[name] = lambda row=row: self._row(row)  # type: ignore[misc]
        return steps

    @property
    def _on_cuda(self) -> bool:
        return self.setting.device.type == "cuda"

    def _predict(self, dtype: str, optimised: bool, graphs: bool = True) -> D3Prediction:
        rgb = check_image(self.setting.image_size)
        return self._predictor(dtype, optimised, graphs)(rgb)

    def _predictor(self, dtype: str, optimised: bool, graphs: bool) -> D3Predictor:
        device, precision = self.setting.device, DTYPES[dtype]
        network = random_network(self.setting.sizes, TASKS, device, precision)
        names = EXACT if optimised else ()
        return D3Predictor(TorchRuntime(network, device, precision, names, graphs), self.sizes[0])

    def _precision(self, dtype: str) -> StepResult:
        """The specialised network in half precision against the plain one in float32."""
        exact, half = self._predict("fp32", optimised=False), self._predict(dtype, optimised=True)
        assert exact.depth is not None and half.depth is not None
        assert exact.normals is not None and half.normals is not None
        cosine = np.clip((exact.normals * half.normals).sum(axis=-1), -1, 1)
        depth = float(np.abs(exact.depth - half.depth).mean())
        angle = float(np.degrees(np.nanmean(np.arccos(cosine))))
        result = {"mean_depth_difference": depth, "mean_normals_difference_deg": angle}
        if not self._on_cuda:  # the bounds are those of the large network
            return result
        factor = 8 if dtype == "bf16" else 1  # 8 bits of mantissa, not 11
        close = depth < factor * DEPTH_BOUND and angle < factor * NORMALS_BOUND_DEG
        return {**result, "passed": close}

    def _graphs(self) -> StepResult:
        """The same network as a CUDA graph and without: equal bit for bit."""
        if not self._on_cuda:
            return NOT_RUN
        graph, eager = (self._predict("fp16", True, graphs) for graphs in (True, False))
        assert graph.depth is not None and eager.depth is not None
        assert graph.normals is not None and eager.normals is not None
        pairs = ((graph.depth, eager.depth), (graph.normals, eager.normals))
        equal = all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
        return {"equal_bits": equal, "passed": equal}

    def _memory(self) -> StepResult:
        if not self._on_cuda:
            return NOT_RUN
        predictor = self._predictor("fp16", optimised=True, graphs=True)
        watch = MemoryWatch(self.setting.device)  # making random weights is no part of it
        predictor.warm_up(self.setting.image_size)
        peak = watch.peak_mib()
        return {"peak_mib": peak, "passed": peak < MOST_MEMORY_MIB}

    def _tests(self) -> StepResult:
        if not self._on_cuda:
            return NOT_RUN
        if not CUDA_TESTS.is_file():
            return {"not_run": "an installed package has no tests: run it from the source tree"}
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CUDA_TESTS)],
            capture_output=True,
            text=True,
            check=False,
            timeout=MOST_TEST_S,
        )
        last = (answer.stdout.strip().splitlines() or [answer.stderr[-200:]])[-1]
        return {"summary": last, "passed": answer.returncode == 0}

    def _onnx(self) -> StepResult:
        """The bundled model on ONNX Runtime's CUDA provider: its self-check, and a frame's time."""
        if find_spec("onnxruntime") is None or "cuda" not in available_providers():
            return {"not_run": "the installed ONNX Runtime has no CUDA provider"}
        predictor = D3Predictor.from_pretrained("d3_nano", runtime="onnx", providers=["cuda"])
        rgb = np.zeros((*self.setting.image_size, 3), np.uint8)
        device = self.setting.device
        (times,) = time_in_turn([lambda: predictor(rgb)], device, self.setting.frames)
        return {"p50_ms": times.p50, "p95_ms": times.p95, "passed": True}

    def _row(self, row: run.Row) -> StepResult:
        (result,) = run.measure(self.setting, [row])
        return {"result": dataclasses.asdict(result), "passed": True}


def prove(proof: Proof, tell: Callable[[str], object]) -> bool:
    """Run the steps that are still to do; whether all are done and passed.

    Args:
        proof: what to run.
        tell: gets a line about each step.

    Raises:
        DataError: the folder cannot be written, or holds the proof of another machine or setting.
    """
    path = proof.folder / "proof.json"
    about = {
        "device": machine(proof.setting.device)["device"].split(" at ")[0],
        "architecture": proof.setting.architecture,
        "sizes": [list(size) for size in proof.sizes],
        "frames": proof.setting.frames,
    }
    content = _read(path, about)
    began = time.monotonic()
    steps = proof.steps()
    fresh = [name for name in steps if name not in content["steps"]]
    # Last: an error that breaks the device would keep the others from ever being run.
    failed = [name for name in steps if "error" in content["steps"].get(name, {})]
    for name in (*fresh, *failed):
        if time.monotonic() - began > 60 * proof.minutes:
            tell(f"{proof.minutes:g} minutes are over: run this again to go on")
            break
        try:
            content["steps"][name] = steps[name]()
        except Exception as error:  # a CUDA error, for one: the other steps are wanted all the same
            content["steps"][name] = {"error": one_line(error), "passed": False}
        write_whole(path, json.dumps(content, indent=2) + "\n")
        tell(f"{name}: {_short(content['steps'][name])}")
        if fault := _cleared(proof.setting.device):
            # CUDA refuses this process everything after such an error: a new one goes on.
            tell(f"the GPU does not answer ({fault}): run this again to go on")
            return False
        content["machine"].append({"step": name, **machine(proof.setting.device)})
    write_whole(path, json.dumps(content, indent=2) + "\n")
    write_whole(proof.folder / "proof.md", _page(content, proof, len(steps)))
    done = content["steps"].values()
    return len(done) == len(steps) and all(step.get("passed", True) for step in done)


def _cleared(device: torch.device) -> str:
    """Give a step's memory back; what is wrong with the device, or nothing."""
    gc.collect()
    if device.type != "cuda":
        return ""
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except RuntimeError as error:
        return one_line(error)
    return ""


def _read(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return {"about": dict(about), "machine": [], "steps": {}}
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["about"] == about and isinstance(content["steps"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"--proof {path.parent}: {one_line(error)}") from error
    if not known:
        raise DataError(f"{path} is of another machine or setting: name another folder")
    return content


def _short(step: StepResult) -> str:
    if "result" in step:
        return f"{step['result']['times']['p50']:.2f} ms"
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in step.items()
    )


def _page(content: Mapping[str, Any], proof: Proof, count: int) -> str:
    """The proof as Markdown."""
    steps, machines = content["steps"], content["machine"]
    lines = ["# Proof", "", f"{len(steps)} of {count} steps are done.", ""]
    if proof.setting.device.type != "cuda":
        lines += ["**No GPU ran this**: the CPU did, with a small network. Times mean nothing.", ""]
    for latest in machines[-1:]:
        lines += [", ".join(f"{key} {value}" for key, value in latest.items()), ""]
    lines += ["| step | result |", "| --- | --- |"]
    lines += [
        f"| {name} | {_short(step)} |" for name, step in steps.items() if "result" not in step
    ]
    results = [run.Result(**_typed(step["result"])) for step in steps.values() if "result" in step]
    if results:
        rows = [table.heading(), *(table.line(result, results) for result in results)]
        probed = probe_roofline(proof.setting.device, proof.setting.dtype)
        stages = [text for result in results for text in table.stage_lines(result, probed)]
        lines += ["", "```", *rows, "", table.stage_heading(), *stages, "```"]
    return "\n".join(lines) + "\n"


def _typed(result: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `Result` from JSON."""

    def work(value: dict[str, Any] | None) -> Work | None:
        return None if value is None else Work(**value)

    stages = tuple(
        run.BenchStage(stage["name"], Times(**stage["times"]), work(stage["work"]))
        for stage in result["stages"]
    )
    return {
        **result,
        "tasks": tuple(result["tasks"]),
        "times": Times(**result["times"]),
        "work": work(result["work"]),
        "stages": stages,
    }

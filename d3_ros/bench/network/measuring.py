"""Times, memory and the machine's own limits, measured the same way on CUDA and on the CPU."""

from __future__ import annotations

import datetime
import gc
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from d3_ros import __version__
from d3_ros.bench.network.flops import Work
from d3_ros.network.inference.torch_runtime import WARM_UP_RUNS, deterministic_algorithms

PACKAGES = ("torch", "diffusers", "transformers", "onnxruntime", "numpy")
MIB = 1024**2


@dataclass(frozen=True)
class Times:
    """Milliseconds of one piece of work over its runs."""

    p50: float
    p95: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Times:
        """Percentiles of single runs."""
        p50, p95 = np.percentile(milliseconds, (50, 95))
        return cls(float(p50), float(p95))


@dataclass(frozen=True)
class Roofline:
    """What the device can do at most, as probed: operations and bytes per second."""

    flops_per_s: float
    bytes_per_s: float

    def fastest_ms(self, work: Work) -> float:
        """Time that `work` takes at least: arithmetic and traffic overlap, the longer counts."""
        return max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s) * 1e3


def time_in_turn(
    frames: Sequence[Callable[[], object]], device: torch.device, count: int
) -> list[Times]:
    """Wall-clock milliseconds of `count` runs of each frame, in turn, after some to warm up."""
    for frame in frames:
        for _ in range(WARM_UP_RUNS):
            frame()
    synchronize(device)
    milliseconds: list[list[float]] = [[] for _ in frames]
    for _ in range(count):
        for frame, measured in zip(frames, milliseconds, strict=True):
            began = time.perf_counter()
            frame()
            synchronize(device)
            measured.append((time.perf_counter() - began) * 1e3)
    return [Times.of(measured) for measured in milliseconds]


def time_stage(stage: Callable[[], object], device: torch.device, count: int, graph: bool) -> Times:
    """Time of one stage by itself; as a CUDA graph where the frame runs as one."""
    with torch.inference_mode(), deterministic_algorithms():
        if not (graph and device.type == "cuda"):
            return time_in_turn([stage], device, count)[0]
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                stage()
        torch.cuda.current_stream(device).wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            stage()
        return time_in_turn([captured.replay], device, count)[0]


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class MemoryWatch:
    """Peak memory in MiB from its creation on: the device's, or the process's on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):  # Linux: lets the peak begin anew at what is resident now
                Path("/proc/self/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        """NaN where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device) / MIB
        status = Path("/proc/self/status")
        match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text() if status.is_file() else "")
        return int(match[1]) / 1024 if match else float("nan")


def probe_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """The best of a few large matrix products, and of a few large copies."""
    cuda = device.type == "cuda"
    side, size = (8192, 2**30) if cuda else (1536, 2**27)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in "ab")
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best_s(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(8):
            began = time.perf_counter()
            run()
            synchronize(device)
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    with torch.inference_mode():
        product_s, copy_s = best_s(lambda: a @ b), best_s(lambda: target.copy_(source))
    return Roofline(2 * side**3 / product_s, 2 * size / copy_s)


def machine(device: torch.device) -> dict[str, str]:
    """Device, clocks as they are now, driver, versions of what computes, and the date."""
    described = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "device": _cpu(),
        "d3_ros": __version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        described["device"] = torch.cuda.get_device_name(device)
        described["cuda"] = str(torch.version.cuda)
        described |= _nvidia_smi(device)
    else:
        described["threads"] = str(torch.get_num_threads())
        described["load"] = f"{os.getloadavg()[0]:.1f}"
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            described[package] = importlib.metadata.version(package)
    return described


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    name = re.search(r"model name\s*: (.+)", text)
    clock = re.search(r"cpu MHz\s*: ([\d.]+)", text)
    described = f"{name[1].strip() if name else platform.machine()}, {os.cpu_count()} cores"
    return described + (f" at {float(clock[1]):.0f} MHz" if clock else "")


def _nvidia_smi(device: torch.device) -> dict[str, str]:
    """Clocks and limits as nvidia-smi reads them; nothing where it is missing (Jetson)."""
    fields = ("clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "driver_version")
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    # By its own name: CUDA_VISIBLE_DEVICES may have renumbered the devices.
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    chosen = f"GPU-{uuid}" if uuid is not None else str(device.index or 0)
    query = [tool, f"--id={chosen}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}

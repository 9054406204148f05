"""The benchmark: every mode at every size, one after the other, each alone on the device."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from d3_ros.bench.network import rivals
from d3_ros.bench.network.architectures import ARCHITECTURES, Architecture, random_network
from d3_ros.bench.network.flops import Work, counted, work_by_stage
from d3_ros.bench.network.measuring import MemoryWatch, Times, time_frames, time_stage
from d3_ros.errors import DataError
from d3_ros.network.bundle.folder import Codec, has_codec, load_bundle
from d3_ros.network.inference import image_transform as image
from d3_ros.network.inference.predictor import D3Predictor
from d3_ros.network.inference.specialise import EXACT
from d3_ros.network.inference.torch_runtime import HostLink, TorchRuntime
from d3_ros.network.model.d3_network import D3Network
from d3_ros.types import Task

OURS = {
    "plain": "diffusers' modules as they come",
    "exact": "specialised at load time, same numbers; one CUDA graph",
    "fast": "the same with the tiny codec instead of the VAE",
}
RIVALS = {
    "official": "as the authors' code runs it: bf16, eager, text encoder at each frame",
    "marigold": "diffusers' Marigold, one step, fp16",
    "depth-anything-S": "Depth Anything V2 S of transformers, fp16",
    "depth-anything-B": "Depth Anything V2 B of transformers, fp16",
    "depth-anything-L": "Depth Anything V2 L of transformers, fp16",
}
# Sides at which the others see an image, for a network that was trained at 768.
DEPTH_ANYTHING_SHARE = 518 / 768


@dataclass(frozen=True)
class Setting:
    """What is measured, and where.

    `bundle` (a name or a folder), or random weights of the `architecture`. `image_size` (height,
    width) is the camera's; `rival_size` the side of the square that the official way and Marigold
    see.
    """

    bundle: str | None
    architecture: str
    device: torch.device
    dtype: torch.dtype
    image_size: tuple[int, int]
    rival_size: int
    frames: int

    @property
    def sizes(self) -> Architecture:
        """The architecture by its name."""
        return ARCHITECTURES[self.architecture]


@dataclass(frozen=True)
class BenchStage:
    """One stage of one of our modes: its time, and its work where that is arithmetic."""

    name: str
    times: Times
    work: Work | None


@dataclass(frozen=True)
class Result:
    """One row: a mode at a size. Times are of one frame of every camera, one after the other."""

    mode: str
    size: str
    tasks: tuple[Task, ...]
    cameras: int
    times: Times
    work: Work
    peak_mib: float
    stages: tuple[BenchStage, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row that is to be measured."""

    mode: str
    size: tuple[int, int] | None  # None: the rival's own
    tasks: tuple[Task, ...]
    cameras: int


def rows(
    modes: list[str],
    sizes: list[tuple[int, int]],
    tasks: list[tuple[Task, ...]],
    cameras: list[int],
) -> list[Row]:
    """All that make sense: a rival has one size, and only the official way has normals."""
    found = []
    for mode in modes:
        for size in sizes if mode in OURS else [None]:
            for outputs in tasks if mode in OURS or mode == "official" else [("depth",)]:
                found += [Row(mode, size, outputs, count) for count in cameras]  # type: ignore[arg-type]
    return found


def measure(setting: Setting, wanted: list[Row]) -> Iterator[Result]:
    """Measure row by row; what a row needs is built before it and freed after it."""
    rgb = np.random.default_rng(0).integers(0, 256, (*setting.image_size, 3), dtype=np.uint8)
    for row in wanted:
        yield _ours(setting, row, rgb) if row.mode in OURS else _rival(setting, row, rgb)
        gc.collect()


def _ours(setting: Setting, row: Row, rgb: np.ndarray) -> Result:
    assert row.size is not None
    optimised = row.mode != "plain"
    network = _network(setting, row)
    runtime = TorchRuntime(
        network, setting.device, setting.dtype, EXACT if optimised else (), graphs=optimised
    )
    predictor = D3Predictor(runtime, row.size)
    one_frame = sum(work_by_stage(runtime.network, row.size, row.tasks).values(), Work(0, 0))

    def frame() -> None:
        for _ in range(row.cameras):
            predictor(rgb, row.tasks)

    watch = MemoryWatch(setting.device)
    times = time_frames(frame, setting.device, setting.frames)
    peak = watch.peak_mib()
    stages = _stages(setting, row, runtime, rgb, optimised) if row.cameras == 1 else ()
    size = f"{row.size[0]}x{row.size[1]}"
    work = Work(one_frame.flops * row.cameras, one_frame.bytes * row.cameras)
    return Result(row.mode, size, row.tasks, row.cameras, times, work, peak, stages)


def _network(setting: Setting, row: Row) -> D3Network:
    device, dtype, fast = setting.device, setting.dtype, row.mode == "fast"
    if setting.bundle is None:
        return random_network(setting.sizes, row.tasks, device, dtype, codec=fast)
    codec: Codec = "tiny" if fast else "vae"
    return load_bundle(setting.bundle, device=device, dtype=dtype, codec=codec).network


def _stages(
    setting: Setting, row: Row, runtime: TorchRuntime, rgb: np.ndarray, graph: bool
) -> tuple[BenchStage, ...]:
    """Each stage by itself, on what the stage before it gives."""
    size, network = row.size, runtime.network
    assert size is not None
    link = HostLink(setting.device)
    image_size = (rgb.shape[0], rgb.shape[1])
    work = work_by_stage(network, size, row.tasks)
    with torch.inference_mode():
        seen = image.to_network(link.upload([rgb])[0], size).to(setting.dtype)
        latent = network.encode(seen)
        latents = network.predict_latents(latent, row.tasks)
        decoded = network.decode_tasks(latents)

    def answer() -> object:
        return link.download([runtime.finish(t, d, image_size) for t, d in decoded.items()])

    stages: Mapping[str, Callable[[], object]] = {
        "image in": lambda: image.to_network(link.upload([rgb])[0], size).to(setting.dtype),
        "encode": lambda: network.encode(seen),
        "unet": lambda: network.predict_latents(latent, row.tasks),
        "decode": lambda: network.decode_tasks(latents),
        "answer out": answer,
    }
    return tuple(
        BenchStage(
            name,
            time_stage(stage, setting.device, setting.frames, graph and name in work),
            work.get(name),
        )
        for name, stage in stages.items()
    )


def _rival(setting: Setting, row: Row, rgb: np.ndarray) -> Result:
    side, device, sizes = setting.rival_size, setting.device, setting.sizes
    if row.mode == "official":
        way = rivals.official_way(sizes, row.tasks, side, device)
    elif row.mode == "marigold":
        way = rivals.marigold(sizes, side, device)
    else:
        side = round(side * DEPTH_ANYTHING_SHARE)
        way = rivals.depth_anything(sizes, row.mode[-1], side, device)

    def frame() -> None:
        for _ in range(row.cameras):
            way(rgb)

    with torch.inference_mode():
        _, work = counted(frame)
    watch = MemoryWatch(device)
    times = time_frames(frame, device, setting.frames)
    return Result(row.mode, str(side), row.tasks, row.cameras, times, work, watch.peak_mib())


def available_modes(bundle: str | None) -> list[str]:
    """The modes that make sense: all with random weights; a bundle's own, fast where it can."""
    if bundle is None:
        return [*OURS, *RIVALS]
    return [mode for mode in OURS if mode != "fast" or has_codec(bundle)]


def check_modes(modes: list[str]) -> None:
    """Raises DataError when a mode is unknown."""
    if unknown := [mode for mode in modes if mode not in OURS and mode not in RIVALS]:
        raise DataError(f"unknown mode {unknown[0]}: choose of {', '.join([*OURS, *RIVALS])}")

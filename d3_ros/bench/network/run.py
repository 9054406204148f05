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
from d3_ros.bench.network.measuring import MemoryWatch, Times, time_in_turn, time_stage
from d3_ros.errors import DataError
from d3_ros.network.bundle.folder import has_codec, load_bundle
from d3_ros.network.bundle.manifest import Codec, read_manifest
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
    "onnx": "the bundle's ONNX graphs on ONNX Runtime, float",
    "onnx-int8": "the same, INT8",
}
ONNX_DTYPES = {"onnx": "fp32", "onnx-int8": "int8"}
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
    see. `providers` are ONNX Runtime's, in order of preference; empty: by the device.
    """

    bundle: str | None
    architecture: str
    device: torch.device
    dtype: torch.dtype
    image_size: tuple[int, int]
    rival_size: int
    frames: int
    providers: tuple[str, ...] = ()

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


def measure(setting: Setting, wanted: list[Row], in_turn: bool = False) -> Iterator[Result]:
    """Measure row by row; what a row needs is built before it and freed after it.

    `in_turn`: the modes of one size, outputs and cameras are in memory together, and their frames
    alternate. So all of them meet the same other load of the machine.
    """
    rgb = np.random.default_rng(0).integers(0, 256, (*setting.image_size, 3), dtype=np.uint8)
    groups: dict[object, list[Row]] = {}
    for row in wanted:
        kind = (row.size, row.tasks, row.cameras) if in_turn else row
        groups.setdefault(kind, []).append(row)
    for group in groups.values():
        watch = MemoryWatch(setting.device)
        built = [_built(setting, row, rgb) for row in group]
        times = time_in_turn([one.frame for one in built], setting.device, setting.frames)
        peak = watch.peak_mib()
        for row, one, of_row in zip(group, built, times, strict=True):
            work = Work(one.work.flops * row.cameras, one.work.bytes * row.cameras)
            stages = one.stages() if row.cameras == 1 else ()
            yield Result(row.mode, one.size, row.tasks, row.cameras, of_row, work, peak, stages)
        del built
        gc.collect()


@dataclass(frozen=True)
class _Built:
    """A mode in memory: what runs one frame of every camera, and its work for one camera."""

    size: str
    frame: Callable[[], None]
    work: Work
    stages: Callable[[], tuple[BenchStage, ...]] = tuple


def _built(setting: Setting, row: Row, rgb: np.ndarray) -> _Built:
    if row.mode in RIVALS:
        return _rival(setting, row, rgb)
    assert row.size is not None
    optimised = row.mode != "plain"
    network = _network(setting, row)
    runtime = TorchRuntime(
        network, setting.device, setting.dtype, EXACT if optimised else (), graphs=optimised
    )
    predictor = D3Predictor(runtime, row.size)
    work = sum(work_by_stage(runtime.network, row.size, row.tasks).values(), Work(0, 0))
    if row.mode in ONNX_DTYPES:
        assert setting.bundle is not None  # rows() has looked
        predictor = D3Predictor.from_pretrained(
            setting.bundle,
            setting.device.type,
            ONNX_DTYPES[row.mode],
            row.size,
            runtime="onnx",
            providers=setting.providers,
        )

    def frame() -> None:
        for _ in range(row.cameras):
            predictor(rgb, row.tasks)

    def stages() -> tuple[BenchStage, ...]:
        return _stages(setting, row, runtime, rgb, optimised)

    size = f"{row.size[0]}x{row.size[1]}"
    return _Built(size, frame, work, tuple if row.mode in ONNX_DTYPES else stages)


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


def _rival(setting: Setting, row: Row, rgb: np.ndarray) -> _Built:
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
        _, work = counted(lambda: way(rgb))
    return _Built(str(side), frame, work)


def available_modes(bundle: str | None) -> list[str]:
    """The modes that make sense: all with random weights; a bundle's own, fast where it can."""
    if bundle is None:
        return [mode for mode in OURS if mode not in ONNX_DTYPES] + [*RIVALS]
    onnx = {e.precision for e in read_manifest(bundle)[1].onnx if e.codec == "vae"}
    modes = [mode for mode in OURS if mode != "fast" or has_codec(bundle)]
    return [mode for mode in modes if mode not in ONNX_DTYPES or ONNX_DTYPES[mode] in onnx]


def check_modes(modes: list[str], bundle: str | None) -> None:
    """Check the names of modes.

    Raises:
        DataError: a mode is unknown, or needs a bundle.
    """
    for mode in modes:
        if mode not in OURS and mode not in RIVALS:
            raise DataError(f"unknown mode {mode}: choose of {', '.join([*OURS, *RIVALS])}")
        if mode in ONNX_DTYPES and bundle is None:
            raise DataError(f"mode {mode} runs the ONNX graphs of a bundle: name it with --model")

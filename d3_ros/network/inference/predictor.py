"""D3Predictor: one RGB image in, affine-invariant depth and surface normals out."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import torch

from d3_ros.errors import DataError, DeviceError, NonFiniteError
from d3_ros.network.bundle.folder import Codec, load_bundle
from d3_ros.network.inference import image_transform as image
from d3_ros.network.inference.latency import LatencyState, SizeController
from d3_ros.network.inference.processing_size import choose_size, size_ladder
from d3_ros.network.inference.specialise import EXACT, specialise
from d3_ros.network.inference.torch_runtime import HostLink, NetworkRunner
from d3_ros.network.model.d3_network import D3Network
from d3_ros.types import D3Prediction, Task

MEASURED_FRAMES = 3  # per size, when sizes are measured for a target latency
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class D3Predictor:
    """A loaded D³-Predictor on its device.

    Deterministic: the same image gives the same answer. Not thread-safe: one worker per predictor.

    Args:
        network: the network; it is moved to `device`, cast to `dtype` and frozen.
        device: where to compute.
        dtype: what to compute in; the transform in and the post-processing are float32 anyway.
        processing_size: see `d3_ros.network.inference.processing_size`; None is "bundle".
        optimisations: names out of `OPTIMISATIONS` in specialise.py; with any, the modules of
            `network` are taken over and it cannot be used any longer.
        graphs: on CUDA, run the network as a CUDA graph.
        target_latency_ms: choose the processing size by it, see latency.py: one that
            keeps the image's aspect ratio and has at most about the pixels of `processing_size`.
            The time of a whole call counts. None: `processing_size` it is.

    Raises:
        DataError: the processing size makes no sense for this network, or the target none at all.
    """

    def __init__(
        self,
        network: D3Network,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        processing_size: tuple[int, int] | str | None = None,
        *,
        optimisations: Collection[str] = (),
        graphs: bool = True,
        target_latency_ms: float | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.network = network.to(self.device, dtype).eval().requires_grad_(False)
        if optimisations:
            self.network = specialise(self.network, optimisations)
        self._run = NetworkRunner(self.network, self.device, graphs)
        self._link = HostLink(self.device)
        self._wanted_size = _as_text(processing_size)
        if target_latency_ms is not None and not target_latency_ms > 0:
            raise DataError(f"target latency must be above 0 ms, got {target_latency_ms}")
        self._target_ms = target_latency_ms
        self._controllers: dict[tuple[int, int], SizeController] = {}  # by size of the images
        for task in network.tasks:
            self.processing_size(task, (480, 640))  # a wrong size is told now, not at an image

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        processing_size: tuple[int, int] | str | None = None,
        *,
        codec: Codec = "vae",
        optimisations: Collection[str] = EXACT,
        target_latency_ms: float | None = None,
    ) -> D3Predictor:
        """Load a model bundle by path or by name.

        Args:
            path_or_name: bundle folder, or a name such as "d3_nano".
            device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
            dtype: "auto" (fp16 on CUDA, fp32 on the CPU), "fp16", "bf16" or "fp32".
            processing_size: (height, width), "HxW", "aspect", "aspect:N" or "bundle" (None).
            codec: "vae", or "tiny" for the small one distilled from it, where the bundle has it:
                a quarter of the operations, and not quite the same answer.
            optimisations: what to specialise, see specialise.py; () is the plain way.
            target_latency_ms: choose the processing size by the time of a call, see
                `d3_ros.network.inference.latency`, up to `processing_size`; None: that it is.

        Raises:
            BundleError: there is no such bundle, or it is damaged.
            DeviceError: the device is not there, or the network does not fit into its memory.
            DataError: the processing size makes no sense for this network.
        """
        where = choose_device(device)
        precision = choose_dtype(dtype, where)
        with _memory_told(where):
            bundle = load_bundle(path_or_name, device=where, dtype=precision, codec=codec)
            return cls(
                bundle.network,
                where,
                precision,
                processing_size,
                optimisations=optimisations,
                target_latency_ms=target_latency_ms,
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What this predictor can predict."""
        return self.network.tasks

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        return _name(self.dtype)

    def processing_size(self, task: Task, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which the network sees an image of `image_size` (height, width)."""
        if image_size in self._controllers:
            return self._controllers[image_size].size
        return self._asked_size(task, image_size)

    def _asked_size(self, task: Task, image_size: tuple[int, int]) -> tuple[int, int]:
        trained_size = self.network.specs[task].processing_size
        return choose_size(self._wanted_size, image_size, trained_size, self.network.size_multiple)

    @property
    def latency(self) -> dict[tuple[int, int], LatencyState]:
        """What the choice by latency does, by (height, width) of the images.

        Empty without a target; images of a size are in it once they were warmed up or seen.
        """
        return {size: controller.state for size, controller in dict(self._controllers).items()}

    def warm_up(self, image_size: tuple[int, int] = (480, 640), images: int = 1) -> None:
        """Predict black images of (height, width), so that the first real ones are not slow.

        Where CUDA graphs are captured, batches of up to `images` with each choice of tasks.
        Under a target latency, every size that keeps the image's aspect ratio is warmed up and
        measured; images of another size are measured anew when the first of them comes.

        Raises:
            DeviceError: the device has too little memory.
            NonFiniteError: the network cannot run in this dtype.
        """
        black = [np.zeros((*image_size, 3), np.uint8)]
        if self._target_ms is None:
            self._warm_up(black, images)
            return
        largest = max((self._asked_size(task, image_size) for task in self.tasks), key=prod)
        measured = []
        for size in size_ladder(image_size, largest):
            self._controllers[image_size] = SizeController([(size, 0.0)], self._target_ms)
            self._warm_up(black, images)
            milliseconds = [self._timed(black, self.tasks)[1] for _ in range(MEASURED_FRAMES)]
            measured.append((size, statistics.median(milliseconds)))
        self._controllers[image_size] = SizeController(measured, self._target_ms)

    def _warm_up(self, black: list[np.ndarray], images: int) -> None:
        self._predict(black, self.tasks)
        if self._run.captures:
            for count in range(1, images + 1):
                for tasks in dict.fromkeys([self.tasks, *((task,) for task in self.tasks)]):
                    self._predict(black * count, tasks)

    def __call__(self, rgb: np.ndarray, tasks: Iterable[Task] | None = None) -> D3Prediction:
        """Predict one image.

        Args:
            rgb: (H, W, 3) uint8 RGB, any size.
            tasks: what to predict; None means everything this predictor can.

        Returns:
            depth (H, W) float32 in [0, 1] and/or normals (H, W, 3) float32, at the image's size.

        Raises:
            ValueError: `rgb` is not such an array, or a task is not one of `tasks`.
            NonFiniteError: the network answered with NaN or infinity.
            DeviceError: the device ran out of memory.
        """
        return self.predict_batch([rgb], tasks)[0]

    def predict_batch(
        self, images: Sequence[np.ndarray], tasks: Iterable[Task] | None = None
    ) -> list[D3Prediction]:
        """Predict several images; those of the same size go through the network together.

        Args, answers and errors are those of `__call__`, for each image.
        """
        wanted = self._check_tasks(tasks)
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, rgb in enumerate(images):
            _check_image(rgb)
            by_size.setdefault((rgb.shape[0], rgb.shape[1]), []).append(index)
        predictions: dict[int, D3Prediction] = {}
        for size, indices in by_size.items():
            if self._target_ms is not None and size not in self._controllers:
                self.warm_up(size)
            together, milliseconds = self._timed([images[index] for index in indices], wanted)
            if size in self._controllers:
                self._controllers[size].observe(milliseconds)
            predictions.update(zip(indices, together, strict=True))
        return [predictions[index] for index in range(len(images))]

    def _timed(
        self, images: Sequence[np.ndarray], tasks: tuple[Task, ...]
    ) -> tuple[list[D3Prediction], float]:
        began = time.perf_counter()
        predictions = self._predict(images, tasks)
        return predictions, (time.perf_counter() - began) * 1e3

    def _predict(self, images: Sequence[np.ndarray], tasks: tuple[Task, ...]) -> list[D3Prediction]:
        """Predict images of the same size."""
        size = (images[0].shape[0], images[0].shape[1])
        count = len(images)
        with torch.inference_mode(), _memory_told(self.device):
            pixels = self._link.upload(images)
            order: list[Task] = []
            finite: list[torch.Tensor] = []
            answers: list[torch.Tensor] = []  # of each task, of each image
            for task, decoded in self._decode(pixels, tasks):
                order.append(task)
                finite.append(torch.isfinite(decoded).all().float())
                answers += [self.finish(task, decoded[i : i + 1], size) for i in range(count)]
            arrays = self._link.download([*finite, *answers])
        for task, flag in zip(order, arrays, strict=False):
            if not flag:
                raise NonFiniteError(
                    f"the network's {task} is not finite in {_name(self.dtype)}: "
                    "use dtype bf16 or fp32, or another model"
                )
        results = [
            dict(zip(order, arrays[len(order) + i :: count], strict=True)) for i in range(count)
        ]
        return [D3Prediction(depth=r.get("depth"), normals=r.get("normals")) for r in results]

    def _decode(
        self, pixels: torch.Tensor, tasks: tuple[Task, ...]
    ) -> Iterator[tuple[Task, torch.Tensor]]:
        """Per task the decoded (N, c, h, w) images; tasks of the same size run together."""
        for size, together in self._by_processing_size(pixels.shape[1:3], tasks).items():
            network_input = torch.cat([image.to_network(one, size) for one in pixels])
            yield from self._run(network_input.to(self.dtype), tuple(together)).items()

    def _by_processing_size(
        self, image_size: Sequence[int], tasks: tuple[Task, ...]
    ) -> dict[tuple[int, int], list[Task]]:
        by_size: dict[tuple[int, int], list[Task]] = {}
        for task in tasks:
            size = self.processing_size(task, (image_size[0], image_size[1]))
            by_size.setdefault(size, []).append(task)
        return by_size

    def finish(self, task: Task, decoded: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """The network's (1, c, h, w) image of a task -> what `D3Prediction` holds, at `size`."""
        if task == "depth":
            return image.to_depth(decoded, size)
        axes = self.network.specs[task].axes
        assert axes is not None  # D3Network checks it
        return image.to_normals(decoded, size, axes)

    def _check_tasks(self, tasks: Iterable[Task] | None) -> tuple[Task, ...]:
        wanted = self.tasks if tasks is None else tuple(tasks)
        if not wanted or not set(wanted) <= set(self.tasks):
            raise ValueError(f"tasks must be some of {', '.join(self.tasks)}, got {wanted}")
        return wanted


def _check_image(rgb: np.ndarray) -> None:
    if not isinstance(rgb, np.ndarray) or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"rgb must be an (H, W, 3) array, got {getattr(rgb, 'shape', rgb)}")
    if rgb.dtype != np.uint8:
        raise ValueError(f"rgb must be uint8, got {rgb.dtype}")


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" means.

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise DeviceError(f"device '{name}' is not one of auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            built = "" if torch.backends.cuda.is_built() else " (this torch is a CPU build)"
            raise DeviceError(
                f"device '{name}' is not there: torch sees {count} CUDA devices{built}; install "
                "the driver and a CUDA build of torch, or use device cpu"
            )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch dtype that "auto", "fp16", "bf16" or "fp32" means on `device`.

    "auto" is fp16 on CUDA: its 11 bits keep depth steps that bf16's 8 bits would merge.

    Raises:
        DeviceError: there is no such dtype.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"dtype '{name}' is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


@contextmanager
def _memory_told(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(
            f"{device} has too little free memory for this network: use dtype fp16, a smaller "
            "processing size, or a smaller model"
        ) from error


def _as_text(processing_size: tuple[int, int] | str | None) -> str:
    if processing_size is None:
        return "bundle"
    if isinstance(processing_size, str):
        return processing_size
    height, width = processing_size
    return f"{height}x{width}"


def _name(dtype: torch.dtype) -> str:
    return next(name for name, value in DTYPES.items() if value is dtype)

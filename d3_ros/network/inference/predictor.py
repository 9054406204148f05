"""D3Predictor: one RGB image in, affine-invariant depth and surface normals out.

The predictor checks its arguments and chooses the processing size; a `Runtime` computes. Needs no
torch itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Iterable, Sequence
from math import prod
from pathlib import Path

import numpy as np

from d3_ros.errors import DataError
from d3_ros.network.bundle.manifest import Codec
from d3_ros.network.inference.choose_runtime import RuntimeName, load_runtime
from d3_ros.network.inference.latency import LatencyState, SizeController
from d3_ros.network.inference.processing_size import Size, choose_size, size_ladder
from d3_ros.network.inference.runtime import Runtime
from d3_ros.types import D3Prediction, Task

MEASURED_FRAMES = 3  # per size, when sizes are measured for a target latency


class D3Predictor:
    """A loaded D³-Predictor on its device.

    Deterministic: the same image gives the same answer. Not thread-safe: one worker per predictor.

    Args:
        runtime: computes the network.
        processing_size: see `d3_ros.network.inference.processing_size`; None is "bundle".
        target_latency_ms: choose the processing size by the measured time of a whole call (see
            latency.py). Sizes keep the image's aspect ratio and have at most about the pixels of
            `processing_size`. None: always `processing_size`.

    Raises:
        DataError: the processing size or the target makes no sense for this network.
    """

    def __init__(
        self,
        runtime: Runtime,
        processing_size: Size | str | None = None,
        *,
        target_latency_ms: float | None = None,
    ) -> None:
        self.runtime = runtime
        self._wanted_size = _as_text(processing_size)
        if target_latency_ms is not None and not target_latency_ms > 0:
            raise DataError(f"target latency must be above 0 ms, got {target_latency_ms}")
        self._target_ms = target_latency_ms
        self._controllers: dict[Size, SizeController] = {}  # by size of the images
        for task in self.tasks:
            self.processing_size(task, (480, 640))  # a wrong size fails now, not at an image

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        processing_size: Size | str | None = None,
        *,
        codec: Codec = "vae",
        optimisations: Collection[str] | None = None,
        target_latency_ms: float | None = None,
        runtime: RuntimeName = "auto",
        providers: Sequence[str] = (),
        threads: int = 0,
    ) -> D3Predictor:
        """Load a model bundle by path or by name.

        Args:
            path_or_name: bundle folder, or a name such as "d3_nano".
            device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
            dtype: "auto" (fp16 on CUDA with PyTorch, else fp32), "fp16", "bf16" or "fp32"; "int8"
                with an ONNX export of it.
            processing_size: (height, width), "HxW", "aspect", "aspect:N" or "bundle" (None).
            codec: "vae", or "tiny" for the small one distilled from it, where the bundle has it:
                a quarter of the operations, and not quite the same answer.
            optimisations: what to specialise, see specialise.py; None is all that is exact, () is
                nothing.
            target_latency_ms: choose the processing size by the time of a call, up to
                `processing_size`; see `D3Predictor`.
            runtime: "torch", "onnx" (ONNX Runtime), or "auto": ONNX where the bundle has graphs for
                `dtype` and `codec` and onnxruntime is installed, unless PyTorch has a GPU.
            providers: ONNX execution providers in order of preference: "cpu", "cuda", "tensorrt",
                "openvino", "coreml"; empty: by `device`.
            threads: of ONNX Runtime; 0 is one per core.

        Raises:
            BundleError: there is no such bundle, or it is damaged.
            DeviceError: the runtime or the device is not there, the network does not fit into its
                memory, or the self-check of the ONNX graphs failed on it.
            DataError: the processing size makes no sense for this network.
        """
        loaded = load_runtime(
            path_or_name, device, dtype, codec, optimisations, runtime, providers, threads
        )
        return cls(loaded, processing_size, target_latency_ms=target_latency_ms)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What this predictor can predict."""
        return tuple(self.runtime.specs)

    @property
    def precision(self) -> str:
        """What the network computes in: fp32, fp16, bf16 or int8."""
        return self.runtime.precision

    @property
    def device(self) -> str:
        """Where the network runs, for people."""
        return self.runtime.device

    def processing_size(self, task: Task, image_size: Size) -> Size:
        """(height, width) at which the network sees an image of `image_size` (height, width)."""
        if image_size in self._controllers:
            return self._controllers[image_size].size
        return self._asked_size(task, image_size)

    def _asked_size(self, task: Task, image_size: Size) -> Size:
        trained_size = self.runtime.specs[task].processing_size
        return choose_size(self._wanted_size, image_size, trained_size, self.runtime.size_multiple)

    @property
    def latency(self) -> dict[Size, LatencyState]:
        """State of the choice by latency, by (height, width) of the images.

        Empty without a target. An image size appears once it was warmed up or seen.
        """
        return {size: controller.state for size, controller in dict(self._controllers).items()}

    def warm_up(self, image_size: Size = (480, 640), images: int = 1) -> None:
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
        if self.runtime.captures:
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
        by_size: dict[Size, list[int]] = {}
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
        image_size = (images[0].shape[0], images[0].shape[1])
        sizes = {task: self.processing_size(task, image_size) for task in tasks}
        answers = self.runtime.predict(images, sizes)
        depth, normals = answers.get("depth"), answers.get("normals")
        return [
            D3Prediction(
                depth=None if depth is None else depth[index],
                normals=None if normals is None else normals[index],
            )
            for index in range(len(images))
        ]

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


def _as_text(processing_size: Size | str | None) -> str:
    if processing_size is None:
        return "bundle"
    if isinstance(processing_size, str):
        return processing_size
    height, width = processing_size
    return f"{height}x{width}"

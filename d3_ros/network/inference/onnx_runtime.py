"""The network on ONNX Runtime; needs no PyTorch.

The graphs are those that `python -m d3_ros export` wrote into the bundle. Before the first image,
the stored self-check runs on the device: its answer must be that of the machine that exported.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from d3_ros.errors import BundleError, DeviceError, one_line
from d3_ros.network.bundle.lookup import user_cache
from d3_ros.network.bundle.manifest import (
    ONNX_CHECK,
    ONNX_ENCODER,
    ONNX_JOINT,
    ONNX_WEIGHTS,
    Manifest,
    OnnxExport,
)
from d3_ros.network.inference.processing_size import LARGEST_SIDE, Size
from d3_ros.network.inference.runtime import SHORTEST_NORMAL, not_finite
from d3_ros.network.model.task_spec import TaskSpec
from d3_ros.types import Task

logger = logging.getLogger(__name__)

PROVIDERS: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
ERRORS_ONLY = 3  # ONNX Runtime's log level
BAND_ROWS = 48  # of an image, worked on together


class OnnxRuntime:
    """The ONNX graphs of a bundle on one execution provider; a `Runtime` of `D3Predictor`.

    Args:
        folder: the bundle's.
        manifest: its content; the files were checked.
        export: which of its exports.
        provider: a key of `PROVIDERS`.
        threads: of one operation; 0 is as many as there are cores. Idle threads sleep.

    Raises:
        BundleError: a graph cannot be loaded.
        DeviceError: the provider is not there, or the self-check failed on it.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        export: OnnxExport,
        provider: str = "cpu",
        threads: int = 0,
    ) -> None:
        self._specs = {task: manifest.tasks[task] for task in export.tasks}
        self._export = export
        self._provider = provider
        graphs = {"encode": ONNX_ENCODER} | {str(task): f"{task}.onnx" for task in export.tasks}
        graphs |= {"joint": ONNX_JOINT} if export.joint else {}
        own = folder / export.folder
        key = manifest.sha256[f"{export.folder}/{ONNX_WEIGHTS}"][:16]
        self._sessions = {
            name: _session(own / file, provider, threads, key) for name, file in graphs.items()
        }
        difference = self._difference(own / ONNX_CHECK)
        if not difference <= export.tolerance:
            raise DeviceError(
                f"{self.device}: the self-check of {folder} differs by {difference:.2g} on average "
                f"(at most {export.tolerance:.2g}): use another provider, or runtime torch"
            )

    @property
    def specs(self) -> Mapping[Task, TaskSpec]:
        """How each task is computed."""
        return self._specs

    @property
    def size_multiple(self) -> int:
        """Processing sizes must be multiples of this many pixels."""
        return self._export.size_multiple

    @property
    def precision(self) -> str:
        """fp32, fp16 or int8."""
        return self._export.precision

    @property
    def device(self) -> str:
        """The execution provider."""
        return f"{self._provider} (ONNX Runtime, {platform.machine()})"

    @property
    def captures(self) -> bool:
        """False: a new batch size costs nothing."""
        return False

    def predict(
        self, images: Sequence[np.ndarray], sizes: Mapping[Task, Size]
    ) -> dict[Task, list[np.ndarray]]:
        """See `Runtime.predict`."""
        image_size = (images[0].shape[0], images[0].shape[1])
        answers: dict[Task, list[np.ndarray]] = {}
        for size in dict.fromkeys(sizes.values()):
            tasks = [task for task in sizes if sizes[task] == size]
            decoded = self._decode(np.stack([to_input(rgb, size) for rgb in images]), tasks)
            for task, outputs in decoded.items():
                if not np.isfinite(outputs).all():
                    raise not_finite(task, self.precision)
                answers[task] = [self._finish(task, output, image_size) for output in outputs]
        return answers

    def _decode(self, images: np.ndarray, tasks: Sequence[Task]) -> dict[Task, np.ndarray]:
        """(N, 3, h, w) in [-1, 1] -> per task (N, c, h, w), depth about [0, 1]."""
        encoded = self._run("encode", [images])
        if self._export.joint and len(images) == 1 and {*tasks} == {*self._export.tasks}:
            return dict(zip(self._export.tasks, self._run("joint", encoded), strict=True))
        return {task: self._run(task, encoded)[0] for task in tasks}

    def _run(self, name: str, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        session = self._sessions[name]
        names = [given.name for given in session.get_inputs()]
        try:
            return session.run(None, dict(zip(names, values, strict=True)))
        except Exception as error:
            if "alloc" in str(error).lower() or "out of memory" in str(error).lower():
                raise DeviceError(
                    f"{self.device} has too little free memory for this network: use a smaller "
                    "processing size or a smaller model"
                ) from error
            raise

    def _finish(self, task: Task, output: np.ndarray, size: Size) -> np.ndarray:
        if task == "depth":
            return to_depth(output, size)
        axes = self._specs[task].axes
        assert axes is not None  # the manifest was checked
        return to_normals(output, size, axes)

    def _difference(self, path: Path) -> float:
        """Largest mean absolute difference of a task's output from the stored one; NaN if none."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                check = {name: stored[name] for name in ("image", *self._specs)}
            pixels = check["image"]
            size = (pixels.shape[0], pixels.shape[1])
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or max(size) > LARGEST_SIDE:
                raise ValueError(f"its image is {pixels.dtype} of {pixels.shape}")
            image, tasks = to_input(pixels, size)[None], list(self._specs)
            answers = [self._decode(image, tasks)]
            if self._export.joint:  # then that was not of the single graphs
                answers += [self._decode(image, [task]) for task in tasks]
            return max(
                float(np.abs(output[0] - check[task]).mean())
                for decoded in answers
                for task, output in decoded.items()
            )
        except DeviceError:
            raise
        except Exception as error:
            raise BundleError(f"{path}: the self-check cannot run: {one_line(error)}") from error


def to_input(rgb: np.ndarray, size: Size) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (3, *size) float32 in [-1, 1]; bilinear, no antialias."""
    resized = _resize(rgb.astype(np.float32), size)
    return np.ascontiguousarray((resized / 127.5 - 1).transpose(2, 0, 1))


def to_depth(output: np.ndarray, size: Size) -> np.ndarray:
    """(3 or 1, h, w) about [0, 1] -> (*size,) float32 in [0, 1], affine-invariant, 0 near."""
    depth, *others = (_resize(channel, size) for channel in output)
    np.clip(depth, 0, 1, out=depth)
    for channel in others:
        depth += np.clip(channel, 0, 1, out=channel)
    depth /= len(output)
    return depth


def to_normals(output: np.ndarray, size: Size, axes: tuple[int, int, int]) -> np.ndarray:
    """(3, h, w) about [-1, 1] -> (*size, 3) float32 unit vectors in the optical frame.

    The same as `image_transform.to_normals`, band by band: what is between stays in the cache.
    """
    vectors = _resize(cv2.merge([*output]), size)
    for top in range(0, size[0], BAND_ROWS):
        band = vectors[top : top + BAND_ROWS]
        np.clip(band, -1, 1, out=band)
        squares = cv2.transform(cv2.multiply(band, band), np.ones((1, 3), np.float32))
        length = cv2.sqrt(squares, dst=squares)
        length[length < SHORTEST_NORMAL] = np.nan
        cv2.divide(band, cv2.merge([sign * length for sign in axes]), dst=band)
    return vectors


def _resize(image: np.ndarray, size: Size) -> np.ndarray:
    """(h, w) or (h, w, 3) float32 -> the same of `size`, a copy."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def load_onnx_runtime(
    folder: Path, manifest: Manifest, export: OnnxExport, providers: Sequence[str], threads: int
) -> OnnxRuntime:
    """The runtime on the first provider that works.

    Args:
        folder: the bundle's.
        manifest: its content; the files were checked.
        export: which of its exports.
        providers: keys of `PROVIDERS` in order of preference; empty: CUDA where this ONNX Runtime
            has it, then the CPU, and what fails is logged.
        threads: see `OnnxRuntime`.

    Raises:
        BundleError: a graph cannot be loaded.
        DeviceError: a provider that was asked for is not there or fails its self-check.
    """
    available = available_providers()
    for name in providers:
        if name not in available:
            raise DeviceError(
                f"provider '{name}' is not in this ONNX Runtime, which has {', '.join(available)}: "
                "name one of these, or install a build that has it"
            )
    candidates = list(providers) or [name for name in ("cuda", "cpu") if name in available]
    for number, name in enumerate(candidates):
        try:
            return OnnxRuntime(folder, manifest, export, name, threads)
        except DeviceError as error:
            if number + 1 == len(candidates):
                raise
            logger.warning("%s; trying %s", error, candidates[number + 1])
    raise DeviceError("this ONNX Runtime has no execution provider: install another build")


def available_providers() -> list[str]:
    """The keys of `PROVIDERS` that the installed ONNX Runtime offers."""
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in offered]


def _session(path: Path, provider: str, threads: int, key: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    # Threads that wait by spinning take the cores from everything else on a robot.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings: dict[str, object] = {}
    if provider == "tensorrt":  # its engines take minutes to build
        cache = user_cache().with_name("tensorrt") / key
        settings = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[(PROVIDERS[provider], settings)]
        )
    except Exception as error:  # one class per status of the library
        raise BundleError(
            f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__} on {provider}: "
            f"{one_line(error, 200)}"
        ) from error
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise DeviceError(f"provider '{provider}' could not start: see ONNX Runtime's message")
    return session

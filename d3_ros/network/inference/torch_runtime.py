"""The network on PyTorch: pixels to the device, the network as one CUDA graph, one answer back.

On the CPU the same calls do the same work without graphs, pinned memory and streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from d3_ros.errors import DeviceError
from d3_ros.network.bundle.folder import load_bundle
from d3_ros.network.bundle.manifest import Codec
from d3_ros.network.inference import image_transform as image
from d3_ros.network.inference.device_names import check_device_name
from d3_ros.network.inference.processing_size import Size
from d3_ros.network.inference.runtime import not_finite
from d3_ros.network.inference.specialise import EXACT, specialise
from d3_ros.network.model.d3_network import D3Network
from d3_ros.network.model.task_spec import TaskSpec
from d3_ros.types import Task

logger = logging.getLogger(__name__)

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WARM_UP_RUNS = 3  # before a capture: cuDNN and cuBLAS choose their algorithms, caches fill
Decoded: TypeAlias = dict[Task, torch.Tensor]


class TorchRuntime:
    """A D3Network on a PyTorch device; a `Runtime` of `D3Predictor`.

    Args:
        network: moved to `device`, cast to `dtype` and frozen. With any optimisation its modules
            are taken over, and it cannot be used any longer.
        device: where to compute.
        dtype: what to compute in. Image transform and post-processing are float32 in any case.
        optimisations: names out of `OPTIMISATIONS` in specialise.py.
        graphs: on CUDA, run the network as a CUDA graph.
    """

    def __init__(
        self,
        network: D3Network,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        optimisations: Collection[str] = (),
        graphs: bool = True,
    ) -> None:
        self._device = torch.device(device)
        self._dtype = dtype
        self.network = network.to(self._device, dtype).eval().requires_grad_(False)
        if optimisations:
            self.network = specialise(self.network, optimisations)
        self.runner = NetworkRunner(self.network, self._device, graphs)
        self._link = HostLink(self._device)

    @property
    def specs(self) -> Mapping[Task, TaskSpec]:
        """How each task is computed."""
        return self.network.specs

    @property
    def size_multiple(self) -> int:
        """Processing sizes must be multiples of this many pixels."""
        return self.network.size_multiple

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        return next(name for name, dtype in DTYPES.items() if dtype is self._dtype)

    @property
    def device(self) -> str:
        """The device's name in PyTorch."""
        return str(self._device)

    @property
    def captures(self) -> bool:
        """Whether each new batch size and choice of tasks costs the time of a capture."""
        return self.runner.captures

    def predict(
        self, images: Sequence[np.ndarray], sizes: Mapping[Task, Size]
    ) -> dict[Task, list[np.ndarray]]:
        """See `Runtime.predict`."""
        image_size = (images[0].shape[0], images[0].shape[1])
        count = len(images)
        with torch.inference_mode(), memory_told(self._device):
            pixels = self._link.upload(images)
            order: list[Task] = []
            finite: list[torch.Tensor] = []
            answers: list[torch.Tensor] = []  # of each task, of each image
            for task, decoded in self._decode(pixels, sizes):
                order.append(task)
                finite.append(torch.isfinite(decoded).all().float())
                answers += [self.finish(task, one, image_size) for one in decoded.split(1)]
            arrays = self._link.download([*finite, *answers])
        for task, flag in zip(order, arrays, strict=False):
            if not flag:
                raise not_finite(task, self.precision)
        results = iter(arrays[len(order) :])
        return {task: [next(results) for _ in range(count)] for task in order}

    def _decode(
        self, pixels: torch.Tensor, sizes: Mapping[Task, Size]
    ) -> Iterator[tuple[Task, torch.Tensor]]:
        """Per task the decoded (N, c, h, w) images; tasks of the same size run together."""
        for size in dict.fromkeys(sizes.values()):
            tasks = tuple(task for task in sizes if sizes[task] == size)
            network_input = torch.cat([image.to_network(one, size) for one in pixels])
            yield from self.runner(network_input.to(self._dtype), tasks).items()

    def finish(self, task: Task, decoded: torch.Tensor, size: Size) -> torch.Tensor:
        """The network's (1, c, h, w) image of a task -> what `D3Prediction` holds, at `size`."""
        if task == "depth":
            return image.to_depth(decoded, size)
        axes = self.network.specs[task].axes
        assert axes is not None  # D3Network checks it
        return image.to_normals(decoded, size, axes)


def load_torch_runtime(
    path_or_name: str | Path,
    device: str,
    dtype: str,
    codec: Codec,
    optimisations: Collection[str] | None,
) -> TorchRuntime:
    """Load a bundle onto a device; arguments and errors as in `D3Predictor.from_pretrained`."""
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    with memory_told(where):
        bundle = load_bundle(path_or_name, device=where, dtype=precision, codec=codec)
        wanted = EXACT if optimisations is None else optimisations
        return TorchRuntime(bundle.network, where, precision, wanted)


class HostLink:
    """Copies between host and device: pinned and asynchronous where that is CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pinned = device.type == "cuda"
        self._staging = torch.empty(0, dtype=torch.uint8)

    def upload(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """N times (H, W, 3) uint8 of any strides, perhaps read-only -> (N, H, W, 3) on the device.

        All uploads share one host buffer, which a copy may still be reading on return; on the CPU
        the result is the buffer. So call `download`, which waits, before the next upload.
        """
        shape = (len(images), *images[0].shape)
        if self._staging.shape != shape:
            self._staging = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        for row, rgb in zip(self._staging.numpy(), images, strict=True):
            np.copyto(row, rgb)
        return self._staging.to(self.device, non_blocking=True)

    def download(self, answers: Sequence[torch.Tensor]) -> list[np.ndarray]:
        """float32 tensors of the device -> arrays of the caller's own, all in one copy."""
        if not self._pinned:
            return [answer.numpy(force=True) for answer in answers]
        packed = torch.cat([answer.flatten() for answer in answers])
        host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        parts = host.split([answer.numel() for answer in answers])
        return [part.view(a.shape).numpy() for part, a in zip(parts, answers, strict=True)]


class NetworkRunner:
    """Runs a network, on CUDA as one graph per image size and choice of tasks.

    A graph is captured the first time that its size and tasks are seen; do that in a warm-up. Not
    thread-safe.

    Args:
        network: the network, in eval mode on its device.
        device: where it is.
        graphs: capture CUDA graphs where the device is CUDA.
    """

    def __init__(self, network: D3Network, device: torch.device, graphs: bool = True) -> None:
        self.network = network
        self.device = device
        self._graphs = graphs and device.type == "cuda"
        self._pool: Any = None
        self._captured: dict[object, Callable[[torch.Tensor], Decoded]] = {}

    @property
    def captures(self) -> bool:
        """Whether every new size, batch and choice of tasks costs the time of a capture."""
        return self._graphs

    def __call__(self, image: torch.Tensor, tasks: tuple[Task, ...]) -> Decoded:
        """(N, 3, h, w) in [-1, 1] in the network's dtype -> decoded image per task.

        The answer lives in the graph's memory: it is good until the next call.
        """
        with deterministic_algorithms():
            if not self._graphs:
                return self.network(image, tasks)
            kind = (image.shape, tasks)
            if kind not in self._captured:
                try:
                    self._captured[kind] = self._capture(image, tasks)
                except torch.cuda.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    self._graphs = False
                    reason = str(error).splitlines()[0]
                    logger.warning("no CUDA graph can be captured, running without: %s", reason)
                    return self.network(image, tasks)
            return self._captured[kind](image)

    def _capture(
        self, image: torch.Tensor, tasks: tuple[Task, ...]
    ) -> Callable[[torch.Tensor], Decoded]:
        held = image.clone()
        here, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                self.network(held, tasks)
        here.wait_stream(side)
        # One pool for all graphs: they never run at once, so they may share their scratch memory.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads of the process may go on using the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            decoded = self.network(held, tasks)

        def replay(image: torch.Tensor) -> Decoded:
            held.copy_(image)
            graph.replay()
            return decoded

        return replay


def deterministic_algorithms() -> AbstractContextManager[None]:
    """cuDNN measures which algorithm is fastest, among those that always give the same answer."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=True, deterministic=True, allow_tf32=False
    )


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" means.

    Raises:
        DeviceError: it is not there.
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
def memory_told(device: torch.device) -> Iterator[None]:
    """Turn PyTorch's out-of-memory error into a `DeviceError`."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(
            f"{device} has too little free memory for this network: use dtype fp16, a smaller "
            "processing size, or a smaller model"
        ) from error

"""How a frame runs on its device: pixels up, the network as one CUDA graph, one answer down.

On the CPU the same calls do the same work without graphs, pinned memory and streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np
import torch

from d3_ros.network.model.d3_network import D3Network
from d3_ros.types import Task

logger = logging.getLogger(__name__)

WARM_UP_RUNS = 3  # before a capture: cuDNN and cuBLAS choose their algorithms, caches fill
Decoded: TypeAlias = dict[Task, torch.Tensor]


class HostLink:
    """Copies between host and device: pinned and asynchronous where that is CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pinned = device.type == "cuda"
        self._staging = torch.empty(0, dtype=torch.uint8)

    def upload(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """N times (H, W, 3) uint8 of any strides, perhaps read-only -> (N, H, W, 3) on the device.

        The buffer behind it is used again by the next upload: `download` in between.
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

"""What `D3Predictor` needs of the library that computes the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from d3_ros.errors import NonFiniteError
from d3_ros.network.inference.processing_size import Size
from d3_ros.network.model.task_spec import TaskSpec
from d3_ros.types import Task

SHORTEST_NORMAL = 1e-3  # a shorter vector has no direction


class Runtime(Protocol):
    """What computes the network on a device. Not thread-safe."""

    @property
    def specs(self) -> Mapping[Task, TaskSpec]:
        """How each task is computed."""
        ...

    @property
    def size_multiple(self) -> int:
        """Processing sizes must be multiples of this many pixels."""
        ...

    @property
    def precision(self) -> str:
        """fp32, fp16, bf16 or int8."""
        ...

    @property
    def device(self) -> str:
        """Where it computes, for people."""
        ...

    @property
    def captures(self) -> bool:
        """Whether each new batch size and choice of tasks is slow once: warm all of them up."""
        ...

    def predict(
        self, images: Sequence[np.ndarray], sizes: Mapping[Task, Size]
    ) -> dict[Task, list[np.ndarray]]:
        """Predict images of one size.

        Args:
            images: (H, W, 3) uint8 RGB each.
            sizes: the tasks wanted, and the processing size (height, width) of each.

        Returns:
            By task, an array for each image: depth (H, W), normals (H, W, 3), float32.

        Raises:
            NonFiniteError: the network answered with NaN or infinity.
            DeviceError: the device has too little memory.
        """
        ...


def not_finite(task: Task, precision: str) -> NonFiniteError:
    """The error of a runtime whose network answered with NaN or infinity."""
    return NonFiniteError(
        f"the network's {task} is not finite in {precision}: use dtype bf16 or fp32, or another "
        "model"
    )

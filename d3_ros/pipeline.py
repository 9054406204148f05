"""The order of things: image -> network -> scale -> metric depth and normals.

The one place that knows in which order the parts run. No ROS here: the node, the command line and
the benchmarks call the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import numpy as np

from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.normals import normals_from_depth
from d3_ros.types import CameraIntrinsics, D3Prediction, DepthFrame, Task

Output = Literal["relative", "metric", "normals"]


class Predictor(Protocol):
    """What the pipeline needs of a network: `D3Predictor`, or a stand-in in tests."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can predict."""
        ...

    def __call__(self, rgb: np.ndarray, tasks: tuple[Task, ...] | None = None) -> D3Prediction:
        """Predict the asked-for tasks (all, when None) for one (H, W, 3) uint8 image."""
        ...


class DepthPipeline:
    """One camera's chain from colour to metric depth and normals, with its scale state.

    Args:
        predictor: the network.
        aligner: what puts relative depth to scale.
        stage: gives, for the name of each stage that runs, a context to run it in; for measuring.
    """

    def __init__(
        self,
        predictor: Predictor,
        aligner: ScaleAligner | None = None,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.predictor = predictor
        self.aligner = aligner if aligner is not None else ScaleAligner()
        self._stage = stage

    def __call__(
        self,
        rgb: np.ndarray,
        *,
        stamp: float,
        intrinsics: CameraIntrinsics | None = None,
        sparse: np.ndarray | None = None,
        outputs: Collection[Output] = ("relative", "metric", "normals"),
    ) -> DepthFrame:
        """Predict one frame and put it to scale.

        Args:
            rgb: (H, W, 3) uint8.
            stamp: acquisition time in seconds; orders the frames for the temporal scale state.
            intrinsics: the camera at this image's size. Needed only where normals must be computed
                from depth, because the model has none; without it they are None.
            sparse: (H, W) float32 sensor z-depth in metres, NaN where there is none.
            outputs: what the caller will use; nothing else is computed. The scale state advances
                on every call, so that a late subscriber does not start from nothing.

        Raises:
            ValueError: an array has the wrong shape or dtype (the message says which).
        """
        from_network = "normals" in outputs and "normals" in self.predictor.tasks
        with self._stage("network"):
            prediction = self.predictor(
                rgb, tasks=("depth", "normals") if from_network else ("depth",)
            )
        relative = prediction.depth
        assert relative is not None  # asked for above

        with self._stage("scale alignment"):
            fit = self.aligner.update(relative, sparse, stamp=stamp)

        from_geometry = "normals" in outputs and not from_network and intrinsics is not None
        metric = None
        if fit.ok and ("metric" in outputs or from_geometry):
            with self._stage("metric depth"):
                metric = fit.apply(relative)

        normals = prediction.normals
        if from_geometry and metric is not None:
            # Affine-invariant depth bends planes, so without a scale there are no honest normals.
            assert intrinsics is not None
            with self._stage("normals from depth"):
                normals = normals_from_depth(metric, intrinsics)

        return DepthFrame(
            relative=relative,
            metric=metric if "metric" in outputs else None,
            normals=normals,
            fit=fit,
        )

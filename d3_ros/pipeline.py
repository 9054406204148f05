"""The order of things: image -> network -> scale -> metric depth and normals.

The one place that knows in which order the parts run. No ROS here: the node, the command line and
the benchmarks call the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from d3_ros.geometry.alignment import AlignmentSettings, GroundAligner, ScaleAligner
from d3_ros.geometry.fusion import fuse
from d3_ros.geometry.normals import normals_from_depth
from d3_ros.types import (
    CameraIntrinsics,
    CameraMounting,
    D3Prediction,
    DepthFrame,
    Task,
)

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


@dataclass(frozen=True)
class FusionOptions:
    """How measured depth is let through: as for `d3_ros.geometry.fusion.fuse`."""

    tolerance: float
    blend_px: int


class DepthPipeline:
    """One camera's chain from colour to metric depth and normals, with its scale state.

    `aligner`, `ground` and `fusion` may be replaced between two calls, or during one, which then
    uses either.

    Args:
        predictor: the network.
        aligner: what puts relative depth to scale with sensor depth.
        ground: what does it with the floor, where no sensor does and the mounting is known.
        fusion: let a sensor's own depth through where the prediction agrees with it.
        stage: gives, for the name of each stage that runs, a context to run it in; for measuring.
    """

    def __init__(
        self,
        predictor: Predictor,
        aligner: ScaleAligner | None = None,
        ground: GroundAligner | None = None,
        fusion: FusionOptions | None = None,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.predictor = predictor
        self.aligner = aligner if aligner is not None else ScaleAligner()
        self.ground = ground if ground is not None else GroundAligner()
        self.fusion = fusion
        self._stage = stage
        self._sensor_gave_scale = False

    def __call__(
        self,
        rgb: np.ndarray,
        *,
        stamp: float,
        intrinsics: CameraIntrinsics | None = None,
        sparse: np.ndarray | None = None,
        missing: str = "no sensor depth",
        mounting: CameraMounting | None = None,
        outputs: Collection[Output] = ("relative", "metric", "normals"),
    ) -> DepthFrame:
        """Predict one frame and put it to scale.

        Args:
            rgb: (H, W, 3) uint8.
            stamp, intrinsics, sparse, missing, mounting, outputs: as for `finish`.

        Raises:
            ValueError: an array has the wrong shape or dtype (the message says which).
        """
        tasks = self.tasks_for(outputs, sparse=sparse, mounting=mounting)
        with self._stage("network"):
            prediction = self.predictor(rgb, tasks=tasks)
        return self.finish(
            rgb,
            prediction,
            stamp=stamp,
            intrinsics=intrinsics,
            sparse=sparse,
            missing=missing,
            mounting=mounting,
            outputs=outputs,
        )

    def tasks_for(
        self,
        outputs: Collection[Output],
        *,
        sparse: np.ndarray | None,
        mounting: CameraMounting | None,
    ) -> tuple[Task, ...]:
        """What the network should predict for `finish`, with the same arguments."""
        # One pass for both tasks is cheaper than a second one for the floor.
        for_floor = mounting is not None and sparse is None and not self._sensor_gave_scale
        if "normals" in self.predictor.tasks and ("normals" in outputs or for_floor):
            return ("depth", "normals")
        return ("depth",)

    def finish(
        self,
        rgb: np.ndarray,
        prediction: D3Prediction,
        *,
        stamp: float,
        intrinsics: CameraIntrinsics | None = None,
        sparse: np.ndarray | None = None,
        missing: str = "no sensor depth",
        mounting: CameraMounting | None = None,
        outputs: Collection[Output] = ("relative", "metric", "normals"),
    ) -> DepthFrame:
        """Put a prediction to scale.

        Args:
            rgb: the image, for a second pass of the network where `prediction` lacks what the
                scale from the floor needs.
            prediction: of this image, with depth.
            stamp: acquisition time in seconds; orders the frames for the temporal scale state.
            intrinsics: the camera at this image's size. Needed only for the scale from the floor,
                and where normals must be computed from depth because the model has none; without
                it there are none.
            sparse: (H, W) float32 sensor z-depth in metres, NaN where there is none.
            missing: why `sparse` is None, for the fit's reason.
            mounting: the camera over the floor, for frames that no sensor gives a scale.
            outputs: what the caller will use; nothing else is computed. The scale state advances
                on every call, so that a late subscriber does not start from nothing.

        Raises:
            ValueError: an array has the wrong shape or dtype (the message says which).
        """
        has_normals = "normals" in self.predictor.tasks
        relative, predicted_normals = prediction.depth, prediction.normals
        if relative is None:
            raise ValueError("the prediction has no depth")

        aligner = self.aligner
        with self._stage("scale alignment"):
            fit = aligner.update(relative, sparse, stamp, missing)
        self._sensor_gave_scale = fit.ok
        if not fit.ok and mounting is not None:
            if has_normals and predicted_normals is None:
                with self._stage("network, again for the floor"):
                    predicted_normals = self.predictor(rgb, tasks=("normals",)).normals
            with self._stage("scale from the floor"):
                floor = self.ground.update(relative, predicted_normals, intrinsics, mounting, stamp)
            # Why no sensor gave a scale, and where the floor gave none either, why not.
            fit = replace(floor, reason="; ".join(filter(None, [fit.reason, floor.reason])))

        from_geometry = "normals" in outputs and not has_normals and intrinsics is not None
        metric = None
        if fit.ok and ("metric" in outputs or from_geometry):
            with self._stage("metric depth"):
                metric = fit.apply(relative)

        normals = predicted_normals if "normals" in outputs else None
        if from_geometry and metric is not None and intrinsics is not None:
            # Affine-invariant depth bends planes, so without a scale there are no honest normals.
            with self._stage("normals from depth"):
                normals = normals_from_depth(metric, intrinsics)

        wanted = metric if "metric" in outputs else None
        frame = DepthFrame(relative=relative, metric=wanted, normals=normals, fit=fit)
        fusion = self.fusion
        if fusion and sparse is not None and frame.metric is not None and fit.state == "measured":
            with self._stage("fusion"):
                frame = _fused(frame, sparse, aligner.settings, fusion)
        return frame


def _fused(
    frame: DepthFrame, sparse: np.ndarray, settings: AlignmentSettings, options: FusionOptions
) -> DepthFrame:
    """The frame with the sensor's own depth where the prediction agrees with it."""
    assert frame.metric is not None
    in_range = (sparse >= settings.min_depth) & (sparse <= settings.max_depth)
    measured = np.where(in_range, sparse, np.float32(np.nan))
    fusion = fuse(frame.metric, measured, options.tolerance, options.blend_px)
    return replace(
        frame,
        metric=fusion.depth,
        fused_pixels=fusion.kept,
        disagreeing_pixels=fusion.disagreeing,
    )

"""The order of the parts: image -> network -> scale -> metric depth and normals. No ROS here.

`FrameRequest` holds everything about one image, `DepthPipeline` turns it into a `DepthFrame`.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from d3_ros.geometry.alignment import AlignmentSettings, CameraView, GroundAligner, ScaleAligner
from d3_ros.geometry.fusion import fuse
from d3_ros.geometry.ground import MAX_TILT_RAD, MIN_SHARE
from d3_ros.geometry.normals import normals_from_depth
from d3_ros.types import (
    CameraIntrinsics,
    CameraMounting,
    D3Prediction,
    DepthFit,
    DepthFrame,
    Task,
)

Output = Literal["relative", "metric", "uncertainty", "normals"]
ALL_OUTPUTS: frozenset[Output] = frozenset({"relative", "metric", "uncertainty", "normals"})


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
class FloorOptions:
    """When pixels count as floor: as for `d3_ros.geometry.ground.floor_depth`; radians."""

    max_tilt_rad: float = MAX_TILT_RAD
    min_share: float = MIN_SHARE


@dataclass(frozen=True)
class FusionOptions:
    """When measured depth replaces predicted depth: as for `d3_ros.geometry.fusion.fuse`."""

    tolerance: float
    blend_px: int


@dataclass(frozen=True)
class ScaleSettings:
    """How predictions become metres. Without `fusion`, metric depth is predicted depth only.

    Metres whose expected error (1 sigma) is a larger share of them than `max_relative_sigma` become
    NaN; 0: none.
    """

    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    floor: FloorOptions = field(default_factory=FloorOptions)
    fusion: FusionOptions | None = None
    max_relative_sigma: float = 0.0


@dataclass(frozen=True)
class FrameRequest:
    """One image, everything that is known about it, and what is wanted of it.

    Attributes:
        rgb: (H, W, 3) uint8.
        stamp: acquisition time in seconds; orders the frames for the temporal scale state.
        intrinsics: the camera at this image's size. Needed for the scale from the floor, and for
            normals where the model predicts none.
        sparse: (H, W) float32 sensor z-depth in metres, NaN where there is none; None without any.
        missing: why `sparse` is None, for the fit's reason.
        mounting: the camera over the floor, for frames that get no scale from a sensor.
        view: where the camera is in a frame that does not move with the robot; sensor points of
            earlier frames are then carried into this one. None: they are not.
        outside: (H, W) bool, pixels that show nothing of the scene (the robot itself, or beyond the
            edge of a rectified image): all outputs are NaN there. None where every pixel does.
        outputs: what the caller will use; nothing else is computed. The scale state advances with
            every frame, so that a late subscriber finds one.
        settings: as of this frame. A change of `alignment` or `floor` starts the scale anew.
    """

    rgb: np.ndarray
    stamp: float
    intrinsics: CameraIntrinsics | None = None
    sparse: np.ndarray | None = None
    missing: str = "no sensor depth"
    mounting: CameraMounting | None = None
    view: CameraView | None = None
    outside: np.ndarray | None = None
    outputs: Set[Output] = ALL_OUTPUTS
    settings: ScaleSettings = field(default_factory=ScaleSettings)


class _ScaleState:
    """The temporal scale state of one camera under one set of settings."""

    def __init__(self, settings: ScaleSettings) -> None:
        alignment, floor = asdict(settings.alignment), settings.floor
        self.settings = settings
        self.aligner = ScaleAligner(**alignment)
        self.ground = GroundAligner(floor.max_tilt_rad, floor.min_share, **alignment)
        self.sensor_gave_scale = False

    def fits(self, settings: ScaleSettings) -> bool:
        """Whether these settings ask for the same scale."""
        mine = self.settings
        return (settings.alignment, settings.floor) == (mine.alignment, mine.floor)


class DepthPipeline:
    """One camera's chain from colour to metric depth and normals, with its scale state.

    `__call__` is `plan`, the network, `finish`. A caller that sends the images of several cameras
    through the network in one batch calls `plan` and `finish` itself.

    Args:
        predictor: the network.
        stage: gives, for the name of each stage that runs, a context to run it in; for measuring.
    """

    def __init__(
        self,
        predictor: Predictor,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.predictor = predictor
        self._stage = stage
        self._scale: _ScaleState | None = None

    def __call__(self, request: FrameRequest) -> DepthFrame:
        """Predict one frame and turn its relative depth into metres.

        Raises:
            ValueError: an array has the wrong shape or dtype (the message says which).
        """
        tasks = self.plan(request)
        with self._stage("network"):
            prediction = self.predictor(request.rgb, tasks=tasks)
        return self.finish(request, prediction)

    def reset(self) -> None:
        """Forget the scale; may be called from any thread, and holds from the next frame on."""
        self._scale = None

    def plan(self, request: FrameRequest) -> tuple[Task, ...]:
        """The tasks that the network should predict for `finish`."""
        scale = self._scale
        sensor_gave_scale = scale is not None and scale.sensor_gave_scale
        # The scale from the floor needs normals. One pass for both tasks is cheaper than two.
        for_floor = (
            request.mounting is not None and request.sparse is None and not sensor_gave_scale
        )
        if "normals" in self.predictor.tasks and ("normals" in request.outputs or for_floor):
            return ("depth", "normals")
        return ("depth",)

    def finish(self, request: FrameRequest, prediction: D3Prediction) -> DepthFrame:
        """Turn the prediction for this request's image into the outputs that it asks for.

        Args:
            request: the frame.
            prediction: of this image, with depth. Where the scale from the floor needs normals
                that it lacks, the network is called once more.

        Raises:
            ValueError: an array has the wrong shape or dtype (the message says which).
        """
        relative, predicted_normals = prediction.depth, prediction.normals
        if relative is None:
            raise ValueError("the prediction has no depth")
        scale = self._scale_state(request.settings)
        with self._stage("scale alignment"):
            fit = scale.aligner.update(
                relative,
                request.sparse,
                request.stamp,
                request.missing,
                request.rgb,
                request.view,
            )
        scale.sensor_gave_scale = fit.ok
        if not fit.ok and request.mounting is not None:
            fit, predicted_normals = self._scale_from_floor(
                request, relative, predicted_normals, scale.ground, fit.reason
            )
        outputs, intrinsics = request.outputs, request.intrinsics
        from_geometry = (
            "normals" in outputs
            and "normals" not in self.predictor.tasks
            and intrinsics is not None
        )
        metric = None
        in_metres = bool(outputs & {"metric", "uncertainty"})
        if fit.ok and (in_metres or from_geometry):
            with self._stage("metric depth"):
                metric = fit.apply(relative)
        normals = predicted_normals if "normals" in outputs else None
        if from_geometry and metric is not None and intrinsics is not None:
            # Affine-invariant depth bends planes: without a scale, its normals would be wrong.
            with self._stage("normals from depth"):
                normals = normals_from_depth(metric, intrinsics)
        frame = DepthFrame(relative=relative, metric=None, normals=normals, fit=fit)
        if metric is not None and in_metres:
            frame = self._fused(self._with_uncertainty(frame, metric, request), request)
        return _blanked(frame, request)

    def _scale_state(self, settings: ScaleSettings) -> _ScaleState:
        scale = self._scale
        if scale is None or not scale.fits(settings):
            scale = self._scale = _ScaleState(settings)
        return scale

    def _scale_from_floor(
        self,
        request: FrameRequest,
        relative: np.ndarray,
        normals: np.ndarray | None,
        ground: GroundAligner,
        why_no_sensor: str,
    ) -> tuple[DepthFit, np.ndarray | None]:
        """The fit to the floor, and its normals; predicts them first where they are missing."""
        assert request.mounting is not None
        if normals is None and "normals" in self.predictor.tasks:
            with self._stage("network, again for the floor"):
                normals = self.predictor(request.rgb, tasks=("normals",)).normals
        with self._stage("scale from the floor"):
            seen = None if normals is None else _blanked_plane(normals, request.outside)
            fit = ground.update(relative, seen, request.intrinsics, request.mounting, request.stamp)
        # Why no sensor gave a scale and, where the floor gave none either, why not.
        reason = "; ".join(filter(None, [why_no_sensor, fit.reason]))
        return replace(fit, reason=reason), normals

    def _with_uncertainty(
        self, frame: DepthFrame, metric: np.ndarray, request: FrameRequest
    ) -> DepthFrame:
        """The frame with metres, and with their expected error where something needs it.

        Metres whose expected error is above `max_relative_sigma` become NaN.
        """
        limit = request.settings.max_relative_sigma
        fused = request.settings.fusion is not None
        if not (limit > 0 or fused or "uncertainty" in request.outputs):
            return replace(frame, metric=metric)
        with self._stage("uncertainty"):
            sigma = frame.fit.sigma(frame.relative, metric)
            if limit > 0:
                unsure = sigma > np.float32(limit) * metric
                metric, sigma = _blanked_plane(metric, unsure), _blanked_plane(sigma, unsure)
        return replace(frame, metric=metric, uncertainty=sigma)

    def _fused(self, frame: DepthFrame, request: FrameRequest) -> DepthFrame:
        """The frame with the sensor's own depth where the prediction agrees with it."""
        options, sparse = request.settings.fusion, request.sparse
        if options is None or sparse is None or frame.metric is None:
            return frame
        if frame.fit.state != "measured":
            return frame
        alignment = request.settings.alignment
        with self._stage("fusion"):
            in_range = (sparse >= alignment.min_depth) & (sparse <= alignment.max_depth)
            measured = np.where(in_range, sparse, np.float32(np.nan))
            fusion = fuse(
                frame.metric,
                measured,
                options.tolerance,
                options.blend_px,
                sigma_m=frame.uncertainty,
            )
        return replace(
            frame,
            metric=fusion.depth,
            uncertainty=fusion.sigma,
            fused_pixels=fusion.kept,
            disagreeing_pixels=fusion.disagreeing,
        )


def _blanked(frame: DepthFrame, request: FrameRequest) -> DepthFrame:
    """The frame with NaN where the image shows nothing of the scene, and only what is asked for."""
    outputs, outside = request.outputs, request.outside
    metric = frame.metric if "metric" in outputs else None
    uncertainty = frame.uncertainty if "uncertainty" in outputs else None
    return replace(
        frame,
        relative=_blanked_plane(frame.relative, outside),
        metric=None if metric is None else _blanked_plane(metric, outside),
        uncertainty=None if uncertainty is None else _blanked_plane(uncertainty, outside),
        normals=None if frame.normals is None else _blanked_plane(frame.normals, outside),
    )


def _blanked_plane(plane: np.ndarray, outside: np.ndarray | None) -> np.ndarray:
    """The plane itself, or a copy of it with NaN outside."""
    if outside is None:
        return plane
    plane = plane.copy()
    plane[outside] = np.nan
    return plane

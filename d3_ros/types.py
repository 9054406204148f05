"""The values that travel between the parts of d3_ros.

Frozen dataclasses over numpy arrays, so that the network, the geometry, the ROS layer and the
command line agree on shapes, units and frames without importing each other.

Frames: everything spatial is in the camera's *optical* frame (REP 103): x right, y down, z forward.
Pixels: (0, 0) is the centre of the first pixel; u counts columns, v counts rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

DistortionModel = Literal["none", "plumb_bob", "rational_polynomial", "equidistant"]
ScaleState = Literal["measured", "held", "ground", "relative"]
Task = Literal["depth", "normals"]

TASKS: tuple[Task, ...] = ("depth", "normals")


@dataclass(frozen=True)
class CameraIntrinsics:
    """A camera's projection at one image size, in pixels.

    `distortion` holds the coefficients of `distortion_model` in the order of
    sensor_msgs/CameraInfo.d; it is empty for an ideal (rectified) pinhole camera. Hashable, so that
    whatever is costly to derive from it (a map of rays) can be cached.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: DistortionModel = "none"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"camera size must be positive, got {self.width} x {self.height}")
        if not (self.fx > 0 and self.fy > 0):
            raise ValueError(f"focal lengths must be positive, got fx={self.fx}, fy={self.fy}")

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) float64 camera matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraIntrinsics:
        """The camera of a crop of its image; `x`, `y`: column and row of the crop's first pixel."""
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def resized(self, width: int, height: int) -> CameraIntrinsics:
        """The same camera after its image was resized to `width` x `height`.

        Pixel centres sit at integers, so the principal point moves by half-pixel terms:
        cx' = (cx + 0.5) sx - 0.5.
        """
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )


@dataclass(frozen=True)
class CameraMounting:
    """How a camera is mounted over a level floor.

    `height_m`: of the optical centre above the floor, metres. `up`: unit vector away from the
    floor, in the optical frame; (0, -1, 0) for a camera that looks level.
    """

    height_m: float
    up: tuple[float, float, float] = (0.0, -1.0, 0.0)


@dataclass(frozen=True)
class D3Prediction:
    """What D³-Predictor says about one image; a field is None when its task was not asked for.

    `depth`: (H, W) float32 in [0, 1], affine-invariant z-depth, 0 near, 1 far; values at either
    end are saturated. `normals`: (H, W, 3) float32 unit vectors in the optical frame, facing the
    camera (a wall seen head-on is (0, 0, -1)), as the network predicts them: none is turned
    afterwards. NaN where it gives no direction.
    """

    depth: np.ndarray | None
    normals: np.ndarray | None


@dataclass(frozen=True)
class DepthFit:
    """How relative depth becomes metres in one frame.

    `state` is *measured* (fitted to this frame's sensor depth), *held* (an earlier fit, still
    fresh), *ground* (from the camera's height over the floor) or *relative* (no scale: `apply`
    refuses). `ok` is true in every state but *relative*; `reason` says in one line why this
    frame's sensor depth was not used. In *measured* it is empty or says what limits the result:
    the network contradicts the sensor, or all points lie at one depth.

    `scale` and `shift` are the affine map z = scale * relative + shift in metres.
    `inlier_ratio`, `abs_rel` (expected mean relative error of the whole image) and
    `held_out_abs_rel` (mean `|z - z_sensor| / z_sensor` on points held out of the fit) are NaN when
    nothing was measured. `age_s` is the age of the fit, 0 when measured.
    `to_metres`, when present, replaces the affine map (another domain, a local correction); it
    gives NaN where it is not to be trusted. `relative_error`, when present, maps metres (H, W) to
    their expected relative error.
    """

    ok: bool
    state: ScaleState
    reason: str = ""
    scale: float = float("nan")
    shift: float = float("nan")
    inlier_ratio: float = float("nan")
    abs_rel: float = float("nan")
    held_out_abs_rel: float = float("nan")
    points: int = 0
    age_s: float = 0.0
    to_metres: Callable[[np.ndarray], np.ndarray] | None = None
    relative_error: Callable[[np.ndarray], np.ndarray] | None = None

    def apply(self, relative: np.ndarray) -> np.ndarray:
        """Turn (H, W) float32 relative depth into (H, W) float32 metres.

        NaN where the result is not to be trusted: saturated or non-finite relative depth, and
        whatever the map sends to zero or behind the camera. A torch tensor gives a tensor on the
        same device.

        Raises:
            ValueError: the fit has no scale (`ok` is false).
        """
        if not self.ok:
            raise ValueError(f"this fit has no metric scale: {self.reason or self.state}")
        if self.to_metres is not None:
            return self.to_metres(relative)
        metric = relative * float(self.scale) + float(self.shift)
        trusted = (relative > 0.0) & (relative < 1.0) & (metric > 0.0)
        metric[~trusted] = float("nan")
        return metric

    def sigma(self, relative: np.ndarray, metric: np.ndarray | None = None) -> np.ndarray:
        """Expected error (1 sigma) of `apply(relative)`, (H, W) float32 metres.

        It grows away from what was measured, at steps of depth and with the age of the fit. NaN
        where there are no metres, and everywhere if the fit does not know its error.

        Args:
            relative: (H, W) float32 relative depth.
            metric: `apply(relative)`, where the caller has it already.

        Raises:
            ValueError: the fit has no scale (`ok` is false).
        """
        if metric is None:
            metric = self.apply(relative)
        if self.relative_error is None:
            return np.full(metric.shape, np.nan, np.float32)
        return metric * self.relative_error(metric)


@dataclass(frozen=True)
class DepthFrame:
    """Everything the pipeline knows about one image; a field is None when it was not asked for.

    `relative`: (H, W) float32 in [0, 1]. `metric`: (H, W) float32 metres, NaN invalid; None also
    when the scale is unknown. `normals`: (H, W, 3) float32 unit vectors, optical frame, NaN where
    unknown. `uncertainty`: (H, W) float32 metres, the expected error (1 sigma) of `metric`, NaN
    where that is NaN. `fit`: how `metric` came about. `fused_pixels`: how many of `metric` are a
    sensor's own measurements; `disagreeing_pixels`: how many measured ones were left out because
    the prediction contradicts them (both 0 without fusion).
    """

    relative: np.ndarray
    metric: np.ndarray | None
    normals: np.ndarray | None
    fit: DepthFit
    uncertainty: np.ndarray | None = None
    fused_pixels: int = 0
    disagreeing_pixels: int = 0

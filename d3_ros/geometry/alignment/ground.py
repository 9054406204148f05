"""Metric scale of a robot without depth sensors: the floor stands in for the sensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from d3_ros.geometry.alignment.aligner import ScaleAligner
from d3_ros.geometry.ground import MAX_TILT_RAD, MIN_SHARE, floor_depth
from d3_ros.types import CameraIntrinsics, CameraMounting, DepthFit

# One floor pixel in so many columns and rows is enough for two numbers.
STRIDE = 4


class _FloorScale(ScaleAligner):
    """A floor always recedes: points without a slope are no floor."""

    _needs_slope = True


class GroundAligner:
    """Puts affine-invariant depth to metric scale by the floor; holds one camera's state.

    Args:
        max_tilt_rad: as for `floor_depth`, in radians.
        min_share: as for `floor_depth`.
        **settings: fields of `AlignmentSettings`. The local correction is left out: what is known
            lies on one plane, and bending the rest to it would be a guess.
    """

    def __init__(
        self, max_tilt_rad: float = MAX_TILT_RAD, min_share: float = MIN_SHARE, **settings: Any
    ):
        self._floor = {"max_tilt_deg": float(np.rad2deg(max_tilt_rad)), "min_share": min_share}
        self._aligner = _FloorScale(**{**settings, "local_correction": False})

    def update(
        self,
        relative: np.ndarray,
        normals: np.ndarray | None,
        intrinsics: CameraIntrinsics | None,
        mounting: CameraMounting,
        stamp: float,
    ) -> DepthFit:
        """Fit to this frame's floor, or hold the last fit, or say that there is no scale.

        Args:
            relative: (H, W) float32 affine-invariant depth in [0, 1].
            normals: (H, W, 3) float32 unit normals, optical frame, or None where unknown.
            intrinsics: the camera at this image's size, or None where unknown.
            mounting: its height over the floor, and the upward direction.
            stamp: acquisition time in seconds.

        Returns:
            A fit in state *ground*, *held* or *relative*. Its `abs_rel` and
            `held_out_abs_rel` are NaN: no sensor measured.

        Raises:
            ValueError: the sizes differ.
        """
        reason, depth = "", None
        if intrinsics is None:
            reason = "no calibrated camera"
        elif normals is None:
            reason = "the model predicts no normals"
        else:
            floor = floor_depth(
                normals, intrinsics, mounting.height_m, up=mounting.up, **self._floor
            )
            reason = floor.reason
            if floor.depth is not None:
                depth = np.full_like(floor.depth, np.nan)
                depth[::STRIDE, ::STRIDE] = floor.depth[::STRIDE, ::STRIDE]
        fit = self._aligner.update(relative, depth, stamp, missing=reason)
        fit = replace(fit, abs_rel=float("nan"), held_out_abs_rel=float("nan"))
        if fit.state == "measured":
            return replace(fit, state="ground")
        return replace(fit, reason=f"floor: {fit.reason}")

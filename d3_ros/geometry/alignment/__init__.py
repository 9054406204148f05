"""Metric scale for affine-invariant depth: from a sensor (`ScaleAligner`), from the floor
(`GroundAligner`), and their `AlignmentSettings`. `CameraView` tells where the camera is."""

from d3_ros.geometry.alignment.aligner import ScaleAligner
from d3_ros.geometry.alignment.carried_points import CameraView
from d3_ros.geometry.alignment.ground import GroundAligner
from d3_ros.geometry.alignment.settings import AlignmentSettings

__all__ = ["AlignmentSettings", "CameraView", "GroundAligner", "ScaleAligner"]

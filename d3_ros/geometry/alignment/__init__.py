"""Metric scale for affine-invariant depth: `ScaleAligner` and its `AlignmentSettings`."""

from d3_ros.geometry.alignment.aligner import ScaleAligner
from d3_ros.geometry.alignment.settings import AlignmentSettings

__all__ = ["AlignmentSettings", "ScaleAligner"]

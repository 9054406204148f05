"""The metric scale of one frame for the diagnostics, and the message on ~/scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from std_msgs.msg import Float32MultiArray, MultiArrayDimension, MultiArrayLayout

from d3_ros.ros.node.inputs.matched_inputs import SENSORS, Sensor
from d3_ros.types import DepthFit

FIELDS = (
    "state",
    "scale",
    "shift",
    "inlier_ratio",
    "abs_rel",
    "points",
    "age_s",
    "expires_s",
    "sources",
    "fused_pixels",
    "disagreeing_pixels",
)
# `state` is an index of this tuple, from no scale to the best.
STATES = ("relative", "ground", "held", "measured")


@dataclass(frozen=True)
class ScaleReport:
    """What is kept of one frame for the statistics, without its images.

    `fit`: its scale. `sensors`: number of pixels that each sensor measured of this image.
    `fused_pixels` and `disagreeing_pixels` are as in DepthFrame. `normal_angle`: median angle in
    radians between the network's normals and those of the metric depth, of the latest frame that
    had both; NaN before.
    """

    fit: DepthFit
    sensors: Mapping[Sensor, int] = field(default_factory=dict)
    fused_pixels: int = 0
    disagreeing_pixels: int = 0
    normal_angle: float = math.nan

    def expires_s(self, hold_s: float) -> float:
        """Seconds until a held scale is given up; NaN in the other states."""
        return max(hold_s - self.fit.age_s, 0.0) if self.fit.state == "held" else math.nan


def scale_message(report: ScaleReport, hold_s: float) -> Float32MultiArray:
    """`FIELDS` as numbers, named in the layout.

    `sources` is a sum: 1 where sensor_depth/image measured something of this image, 2 for points,
    4 for the scan.
    """
    row = {
        **vars(report.fit),
        "state": STATES.index(report.fit.state),
        "expires_s": report.expires_s(hold_s),
        "sources": sum(1 << SENSORS.index(sensor) for sensor in report.sensors),
        "fused_pixels": report.fused_pixels,
        "disagreeing_pixels": report.disagreeing_pixels,
    }
    size = len(FIELDS)
    return Float32MultiArray(
        layout=MultiArrayLayout(
            dim=[MultiArrayDimension(label=" ".join(FIELDS), size=size, stride=size)]
        ),
        data=[float(row[name]) for name in FIELDS],
    )


def read_scale_message(message: Float32MultiArray) -> dict[str, float]:
    """Name -> number of a ~/scale message; `state` is an index of STATES."""
    return dict(zip(message.layout.dim[0].label.split(), message.data, strict=True))

"""The parameters of the outputs: the part of the table in `settings` that says what they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from d3_ros.ros.parameters.parameter_row import check_range, row


def _max_rate(topics: str) -> Any:
    """The parameter `max_rate` of a group of outputs."""
    return row(
        0.0,
        f"Highest rate of {topics}; 0: every frame",
        "always",
        low=0.0,
        high=100.0,
        unit="Hz",
    )


@dataclass(frozen=True)
class OutputSettings:
    """Parameters `output.*`."""

    rectified: bool = row(
        False,
        "Rectify the image by camera_info (K, D, R to P) before it is predicted, so that all "
        "outputs are those of a pinhole camera without distortion",
        "always",
    )


@dataclass(frozen=True)
class DepthSettings:
    """Parameters `depth.*`."""

    encoding: str = row(
        "32FC1",
        "Pixels of ~/depth/image: 32FC1 is metres, 16UC1 is millimetres with 0 for unknown",
        "always",
        choices=("32FC1", "16UC1"),
    )
    max_rate: float = _max_rate("~/depth/image, ~/rgb/image and their camera_info")


@dataclass(frozen=True)
class RelativeSettings:
    """Parameters `relative.*`."""

    max_rate: float = _max_rate("~/depth/relative")


@dataclass(frozen=True)
class NormalsSettings:
    """Parameters `normals.*`."""

    max_rate: float = _max_rate("~/normals/image")


@dataclass(frozen=True)
class NavPointsSettings:
    """Parameters `points.nav.*`."""

    stride: int = row(
        8,
        "~/points/nav has the nearest point of each block of this many rows and columns",
        "always",
        low=1,
        high=64,
        unit="pixels",
    )
    voxel_size: float = row(
        0.05,
        "~/points/nav has one point of each cube of this size; 0: all",
        "always",
        low=0.0,
        high=10.0,
        unit="m",
    )
    min_range: float = row(
        0.0,
        "Points nearer to the camera are not in ~/points/nav",
        "always",
        low=0.0,
        high=100.0,
        unit="m",
    )
    max_range: float = row(
        10.0,
        "Points farther from the camera are not in ~/points/nav",
        "always",
        low=0.1,
        high=1000.0,
        unit="m",
    )
    clear_range: float = row(
        0.0,
        "Put a point at this distance where the camera surely sees farther, for a costmap to clear "
        "along the way to it: above the costmap's obstacle_max_range, else it is an obstacle; 0: "
        "none",
        "always",
        low=0.0,
        high=1000.0,
        unit="m",
    )
    max_rate: float = _max_rate("~/points/nav")

    def __post_init__(self) -> None:
        check_range(self.min_range, self.max_range)
        if 0 < self.clear_range < self.max_range:
            raise ValueError(
                f"clear_range {self.clear_range} must be 0 or at least max_range {self.max_range}: "
                "a costmap that marks what lies beyond it would mark it as an obstacle"
            )


@dataclass(frozen=True)
class PointsSettings:
    """Parameters `points.*`."""

    normals: bool = row(
        False,
        "Give the points of ~/points normals; doubles their size and needs the normals network",
        "always",
    )
    stride: int = row(
        1,
        "~/points has every stride-th pixel of every stride-th row",
        "always",
        low=1,
        high=64,
        unit="pixels",
    )
    min_range: float = row(
        0.0,
        "Points nearer to the camera are NaN in ~/points",
        "always",
        low=0.0,
        high=100.0,
        unit="m",
    )
    max_range: float = row(
        1000.0,
        "Points farther from the camera are NaN in ~/points",
        "always",
        low=0.1,
        high=1000.0,
        unit="m",
    )
    remove_flying: bool = row(
        False,
        "Leave points that hang between two surfaces at a depth edge out of both clouds",
        "always",
    )
    max_rate: float = _max_rate("~/points")
    nav: NavPointsSettings = field(default_factory=NavPointsSettings)

    def __post_init__(self) -> None:
        check_range(self.min_range, self.max_range)


@dataclass(frozen=True)
class ColorSettings:
    """Parameters `color.*`."""

    max_rate: float = row(
        5.0, "Highest rate of the two colour images", "always", low=0.1, high=100.0, unit="Hz"
    )
    jpeg_quality: int = row(
        80,
        "Quality of the JPEGs of ~/depth/color/compressed and ~/normals/color/compressed",
        "always",
        low=1,
        high=100,
    )

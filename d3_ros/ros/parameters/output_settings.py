"""The parameters of the outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from d3_ros.errors import DataError
from d3_ros.imaging.image_region import Rectangle, read_rectangle
from d3_ros.ros.parameters.parameter_row import check_range
from d3_ros.settings import setting


def _max_rate(topics: str) -> Any:
    """The parameter `max_rate` of a group of outputs."""
    return setting(0.0, f"Highest rate of {topics}; 0: every frame", low=0.0, high=100.0, unit="Hz")


@dataclass(frozen=True)
class OutputSettings:
    """Parameters `output.*`."""

    rectified: bool = setting(
        False,
        "Rectify the image by camera_info (K, D, R to P) before the network sees it: all outputs "
        "are then those of a pinhole camera without distortion",
    )


@dataclass(frozen=True)
class CompressedDepthSettings:
    """Parameters `depth.compressed.*`; named as those of compressed_depth_image_transport."""

    depth_max: float = setting(
        100.0,
        "Depth from here on is unknown in ~/depth/image/compressedDepth",
        low=1.0,
        high=1000.0,
        unit="m",
    )
    depth_quantization: float = setting(
        100.0,
        "Resolution of ~/depth/image/compressedDepth as 32FC1: a depth z is at most z*z / "
        "(depth_quantization * depth_quantization) metres too large, and depth nearer than "
        "depth_quantization * depth_quantization / 65535 metres is unknown",
        low=1.0,
        high=150.0,
    )


@dataclass(frozen=True)
class DepthSettings:
    """Parameters `depth.*`."""

    encoding: str = setting(
        "32FC1",
        "Pixels of ~/depth/image: 32FC1 is metres, 16UC1 is millimetres with 0 for unknown",
        choices=("32FC1", "16UC1"),
    )
    max_relative_sigma: float = setting(
        0.0,
        "Depth whose expected error (1 sigma) is a larger share of it than this is unknown in "
        "~/depth/image and in both clouds: 0.2 keeps depth that is known to 20 %; 0: keep all",
        low=0.0,
        high=10.0,
    )
    max_rate: float = _max_rate(
        "~/depth/image, its compressedDepth, ~/depth/uncertainty, ~/rgb/image and their camera_info"
    )
    compressed: CompressedDepthSettings = field(default_factory=CompressedDepthSettings)


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

    stride: int = setting(
        8,
        "~/points/nav has the nearest point of each block of stride x stride pixels",
        low=1,
        high=64,
        unit="pixels",
    )
    voxel_size: float = setting(
        0.05,
        "~/points/nav has one point in each cube of this side; 0: every point",
        low=0.0,
        high=10.0,
        unit="m",
    )
    min_range: float = setting(
        0.0, "Points nearer to the camera are not in ~/points/nav", low=0.0, high=100.0, unit="m"
    )
    max_range: float = setting(
        10.0,
        "Points farther from the camera are not in ~/points/nav",
        low=0.1,
        high=1000.0,
        unit="m",
    )
    clear_range: float = setting(
        0.0,
        "Put a point at this distance where the camera surely sees farther, so that a costmap "
        "clears the way to it. It must be above the costmap's obstacle_max_range, else the costmap "
        "marks it as an obstacle; 0: no such points",
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

    normals: bool = setting(
        False,
        "Give the points of ~/points normals, which doubles their size; where the model predicts "
        "no normals, they are derived from the metric depth",
    )
    sigma: bool = setting(
        False,
        "Give the points of ~/points a field sigma: the expected error of their z in metres",
    )
    stride: int = setting(
        1,
        "~/points has every stride-th pixel of every stride-th row",
        low=1,
        high=64,
        unit="pixels",
    )
    min_range: float = setting(
        0.0, "Points nearer to the camera are NaN in ~/points", low=0.0, high=100.0, unit="m"
    )
    max_range: float = setting(
        1000.0, "Points farther from the camera are NaN in ~/points", low=0.1, high=1000.0, unit="m"
    )
    region: str = setting(
        "",
        "Both clouds hold only this rectangle of the image: x y width height in pixels of the full "
        "image, as in image.mask; of the rectified one with output.rectified. Empty: all",
    )
    remove_flying: bool = setting(
        False, "Remove points that hang between two surfaces at a depth edge from both clouds"
    )
    max_rate: float = _max_rate("~/points")
    nav: NavPointsSettings = field(default_factory=NavPointsSettings)

    def __post_init__(self) -> None:
        check_range(self.min_range, self.max_range)
        try:
            _ = self.region_rectangle
        except DataError as error:
            raise ValueError(str(error)) from error

    @property
    def region_rectangle(self) -> Rectangle | None:
        """`region` in pixels of the sensor's full image; None: the clouds hold all of it."""
        return read_rectangle(self.region, "points.region")


@dataclass(frozen=True)
class ColorSettings:
    """Parameters `color.*`."""

    max_rate: float = setting(
        5.0, "Highest rate of the two colour images", low=0.1, high=100.0, unit="Hz"
    )
    jpeg_quality: int = setting(
        80,
        "Quality of the JPEGs of ~/depth/color/compressed and ~/normals/color/compressed",
        low=1,
        high=100,
    )

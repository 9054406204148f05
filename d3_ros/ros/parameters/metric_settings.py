"""The parameters of the metric scale: sensor depth, fusion and floor."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from d3_ros.geometry.fusion import BLEND_PX, TOLERANCE
from d3_ros.geometry.ground import MAX_TILT_RAD, MIN_SHARE
from d3_ros.geometry.rigid import rigid_transform
from d3_ros.geometry.sparse_depth import HIDDEN_RATIO, MAX_RANGE_M, MIN_RANGE_M
from d3_ros.ros.parameters.parameter_row import check_range
from d3_ros.settings import setting


@dataclass(frozen=True)
class ExtrinsicSettings:
    """Parameters `sensor_depth.points.*` and `sensor_depth.scan.*`."""

    T_camera_sensor: str = setting(
        "",
        "Where the sensor is: x y z (m) and the unit quaternion qx qy qz qw that map its points "
        "into the camera's optical frame; empty: looked up in tf",
    )

    def __post_init__(self) -> None:
        _ = self.matrix

    @property
    def matrix(self) -> np.ndarray | None:
        """(4, 4) T_camera_sensor; None where it is left to tf."""
        text = self.T_camera_sensor
        return _rigid(text) if text.strip() else None


@lru_cache(maxsize=8)
def _rigid(text: str) -> np.ndarray:
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
        if len(numbers) != 7:
            raise ValueError(f"got {len(numbers)} numbers")
        return rigid_transform(numbers[:3], numbers[3:])
    except ValueError as error:
        raise ValueError(
            f"T_camera_sensor must be 7 numbers, x y z qx qy qz qw: {error}"
        ) from error


@dataclass(frozen=True)
class SensorDepthSettings:
    """Parameters `sensor_depth.*`."""

    tolerance: float = setting(
        0.05,
        "Largest difference of stamps between an image and the sensor depth used for it",
        low=0.0,
        high=1.0,
        unit="s",
    )
    max_age: float = setting(
        0.2,
        "Largest difference of stamps of sensor_depth/points and sensor_depth/scan where tf knows "
        "the robot's motion between the stamps (through fixed_frame)",
        low=0.0,
        high=10.0,
        unit="s",
    )
    fixed_frame: str = setting(
        "odom",
        "Frame of tf that does not move with the robot, by which its motion between a sensor's "
        "stamp and the image's is undone; empty, or unknown to tf: the robot is assumed to stand "
        "still",
    )
    carry: bool = setting(
        False,
        "Carry sensor points of earlier images into this one by the camera's motion, which tf "
        "knows through fixed_frame: steadier depth, and more of the scene for few points",
    )
    min_range: float = setting(
        MIN_RANGE_M,
        "Points of a cloud or scan nearer to their sensor are not used",
        low=0.0,
        high=100.0,
        unit="m",
    )
    max_range: float = setting(
        MAX_RANGE_M,
        "Points of a cloud or scan farther from their sensor are not used",
        low=0.1,
        high=1000.0,
        unit="m",
    )
    hidden_ratio: float = setting(
        HIDDEN_RATIO,
        "A projected point is not used, because a nearer surface hides it, if it is farther by "
        "this share than its neighbours on both sides",
        low=0.01,
        high=1.0,
    )
    hidden_window: float = setting(
        1.0 / 64.0,
        "How far away in the image these neighbours may be, as a share of the image's width; "
        "0: no point counts as hidden",
        low=0.0,
        high=0.1,
    )
    points: ExtrinsicSettings = field(default_factory=ExtrinsicSettings)
    scan: ExtrinsicSettings = field(default_factory=ExtrinsicSettings)

    def __post_init__(self) -> None:
        check_range(self.min_range, self.max_range)


@dataclass(frozen=True)
class FusionSettings:
    """Parameters `fusion.*`."""

    enabled: bool = setting(
        False, "Output the measurement itself where a sensor measured and the prediction agrees"
    )
    tolerance: float = setting(
        TOLERANCE,
        "Largest |prediction - sensor| / sensor of pixels that agree. Pixels within 2 sigma of the "
        "prediction's expected error agree, too",
        low=0.001,
        high=1.0,
    )
    blend: int = setting(
        BLEND_PX,
        "Width of the border in which measured depth is blended into predicted depth",
        low=0,
        high=200,
        unit="pixels",
    )


@dataclass(frozen=True)
class GroundSettings:
    """Parameters `ground.*`."""

    camera_height: float = setting(
        0.0,
        "Height of the camera above a level floor; it gives the scale where no sensor does. 0: not "
        "known",
        low=0.0,
        high=100.0,
        unit="m",
    )
    camera_tilt: float = setting(
        0.0, "Angle by which the camera looks down", low=-1.5, high=1.5, unit="rad"
    )
    frame: str = setting(
        "",
        "Frame of tf whose x-y plane is the floor (base_footprint); the camera's height and tilt "
        "are then looked up in tf. Empty: camera_height and camera_tilt are used",
    )
    max_tilt: float = setting(
        MAX_TILT_RAD,
        "Largest angle between the normal of a floor pixel and the upward direction",
        low=0.01,
        high=0.8,
        unit="rad",
    )
    min_share: float = setting(
        MIN_SHARE, "Smallest share of the image that must be floor", low=0.001, high=1.0
    )

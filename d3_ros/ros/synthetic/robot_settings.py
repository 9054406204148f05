"""All parameters of the node `synthetic_camera`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from d3_ros.errors import DataError
from d3_ros.geometry.camera import is_distorted
from d3_ros.ros.parameters.parameter_row import ParameterError, ParameterRow, rows_of
from d3_ros.settings import setting
from d3_ros.types import CameraIntrinsics


@dataclass(frozen=True)
class SyntheticSettings:
    """All parameters, checked; a field's name is the parameter's."""

    seed: int = setting(
        0,
        "Seed of the room's colours and furniture, the start of the path, and the noise",
        low=0,
        high=2**31 - 1,
        when="start",
    )
    width: int = setting(640, "Width of the image", low=16, high=4096, unit="pixels", when="start")
    height: int = setting(
        480, "Height of the image", low=16, high=4096, unit="pixels", when="start"
    )
    field_of_view: float = setting(
        1.2,
        "Horizontal angle of view, without distortion",
        low=0.2,
        high=2.6,
        unit="rad",
        when="start",
    )
    distortion: str = setting(
        "",
        'Lens distortion, plumb_bob: "k1 k2 p1 p2" or "k1 k2 p1 p2 k3"; empty: none',
        when="start",
    )
    camera_height: float = setting(
        0.5, "Height of the camera above the floor", low=0.1, high=2.4, unit="m", when="start"
    )
    camera_pitch: float = setting(
        0.1, "Downward tilt of the camera", low=-0.7, high=0.7, unit="rad", when="start"
    )
    image_rate: float = setting(
        10.0,
        "Rate of image, camera_info, truth/* and sensor_depth/image",
        low=0.1,
        high=100.0,
        unit="Hz",
    )
    speed: float = setting(
        0.4,
        "Speed of the robot on its path; 0: it stands still",
        low=0.0,
        high=2.0,
        unit="m/s",
        when="start",
    )
    sensor_share: float = setting(
        0.005,
        "Share of the pixels that sensor_depth/image measures; 0: it is not published",
        low=0.0,
        high=1.0,
    )
    scan_rate: float = setting(
        10.0, "Rate of sensor_depth/scan; 0: it is not published", low=0.0, high=100.0, unit="Hz"
    )
    scan_beams: int = setting(
        720, "Readings of a scan, over a full turn", low=8, high=7200, unit="readings", when="start"
    )
    points_rate: float = setting(
        10.0, "Rate of sensor_depth/points; 0: it is not published", low=0.0, high=100.0, unit="Hz"
    )
    points_rings: int = setting(
        16,
        "Rings of the LiDAR, 30 degrees from lowest to highest",
        low=1,
        high=128,
        unit="rings",
        when="start",
    )
    noise: float = setting(
        0.01,
        "Noise of every range and depth reading, 1 sigma, as a share of the reading",
        low=0.0,
        high=0.2,
    )
    max_range: float = setting(
        8.0, "Range of the depth sensor, scanner and LiDAR", low=0.5, high=100.0, unit="m"
    )
    odometry_rate: float = setting(
        30.0,
        "Rate of odom and transforms; more are published at the stamp of every sensor message",
        low=1.0,
        high=200.0,
        unit="Hz",
    )

    def intrinsics(self) -> CameraIntrinsics:
        """The camera; its principal point is the middle of the image.

        Raises:
            ParameterError: `distortion` is not a list of 4 or 5 numbers.
        """
        focal = self.width / 2 / np.tan(self.field_of_view / 2)
        try:
            coefficients = tuple(float(word) for word in self.distortion.replace(",", " ").split())
            camera = CameraIntrinsics(
                self.width,
                self.height,
                focal,
                focal,
                (self.width - 1) / 2,
                (self.height - 1) / 2,
                "plumb_bob" if coefficients else "none",
                coefficients,
            )
            is_distorted(camera)
        except (ValueError, DataError) as error:
            raise ParameterError(
                f"parameter 'distortion' is {self.distortion!r}: {error}"
            ) from error
        return camera


PARAMETERS: dict[str, ParameterRow] = {row.name: row for row in rows_of(SyntheticSettings)}


def synthetic_settings(values: Mapping[str, object]) -> SyntheticSettings:
    """Check values by name.

    Raises:
        ParameterError: a value is of the wrong type or range.
    """
    checked = {name: entry.checked(values[name]) for name, entry in PARAMETERS.items()}
    settings = SyntheticSettings(**checked)  # type: ignore[arg-type]
    settings.intrinsics()
    return settings

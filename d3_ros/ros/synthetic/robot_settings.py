"""Every parameter of the node `synthetic_camera` in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from d3_ros.errors import DataError
from d3_ros.geometry.camera import is_distorted
from d3_ros.ros.parameters.parameter_row import ParameterError, ParameterRow, row
from d3_ros.types import CameraIntrinsics


@dataclass(frozen=True)
class SyntheticSettings:
    """All parameters, checked; a field's name is the parameter's."""

    seed: int = row(
        0,
        "Draws the room's colours and furniture, the start and the noise",
        "start",
        low=0,
        high=2**31 - 1,
    )
    width: int = row(640, "Width of the image", "start", low=16, high=4096, unit="pixels")
    height: int = row(480, "Height of the image", "start", low=16, high=4096, unit="pixels")
    field_of_view: float = row(
        1.2, "Horizontal angle of view, without distortion", "start", low=0.2, high=2.6, unit="rad"
    )
    distortion: str = row(
        "", 'Lens distortion, plumb_bob: "k1 k2 p1 p2" or "k1 k2 p1 p2 k3"; empty: none', "start"
    )
    camera_height: float = row(
        0.5, "Height of the camera above the floor", "start", low=0.1, high=2.4, unit="m"
    )
    camera_pitch: float = row(
        0.1, "How far the camera looks down", "start", low=-0.7, high=0.7, unit="rad"
    )
    image_rate: float = row(
        10.0,
        "Rate of image, camera_info and what belongs to them",
        "always",
        low=0.1,
        high=100.0,
        unit="Hz",
    )
    speed: float = row(
        0.4,
        "Speed of the robot on its way round; 0 stands still",
        "start",
        low=0.0,
        high=2.0,
        unit="m/s",
    )
    sensor_share: float = row(
        0.005,
        "Share of the pixels that sensor_depth/image measures; 0: it is not published",
        "always",
        low=0.0,
        high=1.0,
    )
    scan_rate: float = row(
        10.0,
        "Rate of sensor_depth/scan; 0: it is not published",
        "always",
        low=0.0,
        high=100.0,
        unit="Hz",
    )
    scan_beams: int = row(
        720, "Readings of a scan, once round", "start", low=8, high=7200, unit="readings"
    )
    points_rate: float = row(
        10.0,
        "Rate of sensor_depth/points; 0: it is not published",
        "always",
        low=0.0,
        high=100.0,
        unit="Hz",
    )
    points_rings: int = row(
        16,
        "Rings of the LiDAR, 30 degrees from lowest to highest",
        "start",
        low=1,
        high=128,
        unit="rings",
    )
    noise: float = row(
        0.01,
        "Noise of every range and depth reading, one sigma, as a share of it",
        "always",
        low=0.0,
        high=0.2,
    )
    max_range: float = row(
        8.0,
        "Reach of the depth sensor, scanner and LiDAR",
        "always",
        low=0.5,
        high=100.0,
        unit="m",
    )
    odometry_rate: float = row(
        30.0,
        "Rate of odom and of the transforms, besides those at the sensors' own stamps",
        "always",
        low=1.0,
        high=200.0,
        unit="Hz",
    )

    def intrinsics(self) -> CameraIntrinsics:
        """The camera; its principal point is the middle of the image.

        Raises:
            ParameterError: `distortion` is no set of coefficients.
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


PARAMETERS: dict[str, ParameterRow] = {
    entry.name: ParameterRow(entry.name, entry.default, **entry.metadata["row"])  # type: ignore[arg-type]
    for entry in fields(SyntheticSettings)
}


def synthetic_settings(values: Mapping[str, object]) -> SyntheticSettings:
    """Check values by name.

    Raises:
        ParameterError: a value is of the wrong type or range.
    """
    checked = {name: entry.checked(values[name]) for name, entry in PARAMETERS.items()}
    settings = SyntheticSettings(**checked)  # type: ignore[arg-type]
    settings.intrinsics()
    return settings

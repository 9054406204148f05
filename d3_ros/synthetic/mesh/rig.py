"""The camera that frames are rendered for, and its mounting on the robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from d3_ros.data.plain_folder import INTRINSICS, read_intrinsics
from d3_ros.errors import DataError, one_line
from d3_ros.geometry.camera import lens_distortion
from d3_ros.synthetic.mesh.scenes import Viewpoint
from d3_ros.types import CameraIntrinsics

ROLL_SPREAD_RAD = 0.01  # floors and mounts are not quite level
ASPECT_TOLERANCE = 0.01
HEIGHT_LIMITS_M = (0.03, 2.1)  # below every ceiling


@dataclass(frozen=True)
class Mounting:
    """Ranges (low, high) of the height above the floor, metres, and the downward tilt, degrees.

    Raises:
        DataError: a range is reversed or out of bounds.
    """

    height_m: tuple[float, float]
    tilt_deg: tuple[float, float]

    def __post_init__(self) -> None:
        for what, (low, high), (least, most) in (
            ("height", self.height_m, HEIGHT_LIMITS_M),
            ("tilt", self.tilt_deg, (-80.0, 80.0)),
        ):
            if not least <= low <= high <= most:
                raise DataError(
                    f"camera {what} {low:g} to {high:g} must rise within {least:g} to {most:g}"
                )

    def drawn(self, rng: np.random.Generator) -> Mounting:
        """A fixed mounting, drawn from the ranges."""
        height, tilt = rng.uniform(*self.height_m), rng.uniform(*self.tilt_deg)
        return Mounting((height, height), (tilt, tilt))

    def view(
        self, proposed: Viewpoint, rng: np.random.Generator, floor_z: float = 0.0
    ) -> Viewpoint:
        """The proposed view with the height above the floor (at `floor_z`) and this tilt."""
        one = self.drawn(rng)
        ahead = proposed.target - proposed.eye
        yaw, tilt = np.arctan2(ahead[1], ahead[0]), np.radians(one.tilt_deg[0])
        eye = np.array([proposed.eye[0], proposed.eye[1], floor_z + one.height_m[0]])
        direction = np.array(
            [np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), -np.sin(tilt)]
        )
        return Viewpoint(eye, eye + direction, float(rng.normal(0, ROLL_SPREAD_RAD)))


@dataclass(frozen=True)
class Rig:
    """What takes the pictures: `size` (width, height) in pixels; `camera` at that size, or None for
    a random one each frame; `mounting`, or None for whatever suits the scene; `lidar_rings`: of the
    LiDAR beside the camera in a walk, 0 = none (`lidar.py`)."""

    size: tuple[int, int]
    camera: CameraIntrinsics | None = None
    mounting: Mounting | None = None
    lidar_rings: int = 0

    @property
    def given(self) -> bool:
        """Whether the user gave intrinsics or a mounting."""
        return self.camera is not None or self.mounting is not None


def make_rig(
    size: tuple[int, int] | None, camera: CameraIntrinsics | None, mounting: Mounting | None
) -> Rig:
    """A rig at `size`, or else at the camera's own; the camera is scaled to it.

    Raises:
        DataError: neither is given, or the camera would be stretched.
    """
    if camera is None:
        if size is None:
            raise DataError("a size in pixels is needed where there is no camera")
        return Rig(size, None, mounting)
    if size is None:
        return Rig((camera.width, camera.height), camera, mounting)
    scaled = camera.resized(*size)
    if abs(scaled.fx / scaled.fy / (camera.fx / camera.fy) - 1) > ASPECT_TOLERANCE:
        raise DataError(
            f"a camera of {camera.width} x {camera.height} cannot give {size[0]} x {size[1]} "
            "pixels: another aspect ratio"
        )
    return Rig(size, scaled, mounting)


def read_camera(path: Path) -> CameraIntrinsics:
    """A camera from a file.

    Args:
        path: an intrinsics.json of a plain folder (its first camera), or the YAML file that ROS's
            camera_calibration writes (K and D).

    Raises:
        DataError: it cannot be read, or is neither.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".json":
        cameras = read_intrinsics(path.parent) if path.name == INTRINSICS else {}
        if not cameras:
            raise DataError(f"{path} names no camera; it must be called {INTRINSICS}")
        return next(iter(cameras.values()))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _calibration(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: not a ROS camera calibration ({type(error).__name__}: {one_line(error)}): "
            "it needs image_width, image_height, camera_matrix and distortion_coefficients"
        ) from error


def _calibration(content: Mapping[str, Any]) -> CameraIntrinsics:
    k = [float(value) for value in content["camera_matrix"]["data"]]
    model, lens = lens_distortion(
        content.get("distortion_model", "plumb_bob"), content["distortion_coefficients"]["data"]
    )
    camera = CameraIntrinsics(
        int(content["image_width"]), int(content["image_height"]), k[0], k[4], k[2], k[5]
    )
    return replace(camera, distortion_model=model, distortion=lens)

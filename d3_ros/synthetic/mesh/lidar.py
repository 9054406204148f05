"""A LiDAR beside the camera of a walk, for recordings with two sensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.mesh.ray_caster import RayCaster
from d3_ros.synthetic.room.sensors import OPTICAL_IN_BODY, RangeLimits, lidar_rays

LIMITS = RangeLimits(nearest=0.3, farthest=60.0, noise=0.005)
# The LiDAR stands 12 cm above the camera, 8 cm behind it and 3 cm to its right, and looks ahead.
T_CAMERA_LIDAR = np.eye(4)
T_CAMERA_LIDAR[:3, :3] = OPTICAL_IN_BODY.T
T_CAMERA_LIDAR[:3, 3] = (0.03, -0.12, -0.08)


@dataclass(frozen=True)
class Sweep:
    """One turn of the LiDAR: `points` (N, 3) float32 metres in its frame (x forward, y left, z up),
    and the (N,) uint16 `ring` of each, 0 lowest."""

    points: np.ndarray
    rings: np.ndarray


def take_sweep(
    caster: RayCaster,
    T_world_camera: np.ndarray,  # noqa: N803
    rings: int,
    rng: np.random.Generator,
) -> Sweep:
    """What the LiDAR measures at the moment of a picture; the whole turn at one instant."""
    rays, ring = lidar_rays(rings)
    pose = T_world_camera @ T_CAMERA_LIDAR
    ranges = caster.ranges(pose[:3, 3], pose[:3, :3] @ rays)
    readings = LIMITS.read(ranges, rng)
    hit = np.isfinite(readings)
    return Sweep((rays[:, hit] * readings[hit]).T, ring[hit])

"""The synthetic robot's camera and LiDAR in its room, without ROS: images, sweeps, calibration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.room.scene import RoomScene
from d3_ros.synthetic.room.sensors import T_BASE_LIDAR, RangeLimits, camera_pose, lidar_rays
from d3_ros.synthetic.room.walk import Loop
from d3_ros.types import CameraIntrinsics

FOCAL = 230.0
CAMERA = CameraIntrinsics(320, 240, FOCAL, FOCAL, 159.5, 119.5)
T_BASE_CAMERA = camera_pose(0.5, 0.1)
T_CAMERA_LIDAR = np.linalg.inv(T_BASE_CAMERA) @ T_BASE_LIDAR


@dataclass(frozen=True)
class RoomFrame:
    """`rgb` (240, 320, 3) uint8 and (N, 3) `points` in the LiDAR's frame."""

    rgb: np.ndarray
    points: np.ndarray


def room_frames(count: int, seed: int = 1, rings: int = 48) -> Iterator[RoomFrame]:
    """`count` places along the robot's way; 0.5 % noise of the ranges."""
    scene, way, rng = RoomScene(seed), Loop(2.2, 1.4), np.random.default_rng(seed)
    rays, _ = lidar_rays(rings)
    for number in range(count):
        pose = way.at(number * way.length / count, 1.0).T_world_base
        rgb = scene.colours(scene.look(CAMERA, pose @ T_BASE_CAMERA))
        lidar = pose @ T_BASE_LIDAR
        ranges = scene.cast(lidar[:3, 3], lidar[:3, :3] @ rays)
        readings = RangeLimits(0.1, 30.0, 0.005).read(ranges, rng)
        hit = np.isfinite(readings)
        yield RoomFrame(rgb, (rays[:, hit] * readings[hit]).T)

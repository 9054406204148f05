"""The robot's sensors: where they are mounted, and the readings of scanner and LiDAR.

Frames (REP 103, 105): base_link on the floor below the robot, x forward, z up; scanner and LiDAR as
the robot; the camera's optical frame x right, y down, z forward. A reading is exact but for the
noise that is asked for, and a sweep is taken at one instant: nothing needs deskewing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.room.scene import RoomScene

# (4, 4) poses in base_link; the camera's depends on how it is mounted: camera_pose.
T_BASE_SCANNER = np.array([[1, 0, 0, 0.1], [0, 1, 0, 0], [0, 0, 1, 0.25], [0, 0, 0, 1.0]])
T_BASE_LIDAR = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.8], [0, 0, 0, 1.0]])
CAMERA_AHEAD_M = 0.15
# Axes of the optical frame, as columns, in a body frame that looks along x.
OPTICAL_IN_BODY = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
# Elevations of the LiDAR's rings, radians, as of common LiDARs with 16 rings.
LIDAR_LOWEST, LIDAR_HIGHEST = np.deg2rad(-15.0), np.deg2rad(15.0)
LIDAR_AZIMUTHS = 720


@dataclass(frozen=True)
class RangeLimits:
    """Range limits of a sensor in metres, and its noise as a share of the range (1 sigma)."""

    nearest: float
    farthest: float
    noise: float = 0.0

    def read(self, ranges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N,) float32 readings of true ranges by REP 117: -inf too near, +inf out of range."""
        noise = rng.standard_normal(ranges.shape, np.float32) * np.float32(self.noise)
        read = ranges * (1 + noise)
        read[read < self.nearest] = -np.inf
        read[read > self.farthest] = np.inf
        return read


def camera_pose(height_m: float, pitch: float) -> np.ndarray:
    """(4, 4) pose of the optical frame in base_link; `pitch`: radians, positive looks down."""
    c, s = np.cos(pitch), np.sin(pitch)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]) @ OPTICAL_IN_BODY
    pose[:3, 3] = (CAMERA_AHEAD_M, 0.0, height_m)
    return pose


def scan_angles(beams: int) -> np.ndarray:
    """(beams,) float32 angles of one turn, from -pi, anticlockwise."""
    return (-np.pi + 2 * np.pi / beams * np.arange(beams)).astype(np.float32)


def scan_ranges(scene: RoomScene, T_world_scanner: np.ndarray, beams: int) -> np.ndarray:  # noqa: N803
    """(beams,) float32 true ranges in the scanner's x-y plane, at `scan_angles`."""
    angles = scan_angles(beams)
    rays = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)])
    return scene.cast(T_world_scanner[:3, 3], T_world_scanner[:3, :3] @ rays)


def lidar_rays(rings: int) -> tuple[np.ndarray, np.ndarray]:
    """(3, N) unit directions in the LiDAR's frame, and the (N,) uint16 ring of each, 0 lowest."""
    elevation = np.linspace(LIDAR_LOWEST, LIDAR_HIGHEST, rings)
    azimuth = 2 * np.pi / LIDAR_AZIMUTHS * np.arange(LIDAR_AZIMUTHS)
    e, a = (grid.ravel() for grid in np.meshgrid(elevation, azimuth, indexing="ij"))
    rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    return rays.astype(np.float32), np.repeat(np.arange(rings, dtype=np.uint16), LIDAR_AZIMUTHS)


def sparse_depth(
    depth_m: np.ndarray, share: float, limits: RangeLimits, rng: np.random.Generator
) -> np.ndarray:
    """(H, W) float32 z-depth at a random `share` of the pixels, NaN elsewhere and out of reach."""
    sparse = np.full(depth_m.shape, np.nan, np.float32)
    at = rng.permutation(depth_m.size)[: round(share * depth_m.size)]
    read = limits.read(depth_m.take(at), rng)
    sparse.reshape(-1)[at] = np.where(np.isfinite(read), read, np.float32(np.nan))
    return sparse

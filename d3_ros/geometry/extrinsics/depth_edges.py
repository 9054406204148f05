"""Where the depth that a sensor measures jumps: the outlines of near things.

The points may have any order: rings of a LiDAR, a solid-state LiDAR's pattern, one plane of a
scanner, or the pixels of a depth camera. Neighbours are found by their direction from the sensor.
Directions are those of a camera at the sensor's place that looks as the real camera does. There,
inverse z-depth is linear on a plane, so a floor that runs away from the sensor is no edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from d3_ros.geometry.camera import ray_map
from d3_ros.types import CameraIntrinsics

# More points than these are thinned: it keeps the search for neighbours below 0.1 s.
MAX_POINTS = 40_000
# A point's neighbour is looked for among its NEIGHBOURS nearest directions, at most REACH away
# (tangent of the angle). Distances across the searched direction count STRETCH times.
NEIGHBOURS, REACH, STRETCH = 8, 0.05, 4.0
# An edge between points farther apart than this (tangent) is not well known, and weighs less.
PRECISE = 0.01
# A jump is at least this, in metres and as a share of the nearer depth.
MIN_JUMP_M, MIN_JUMP_SHARE = 0.1, 0.1
# A jump of this share of the nearer depth has weight 1, and larger ones have it, too.
FULL_JUMP_SHARE = 0.5
# Tangent of the widest angle off the optical axis at which edges are looked for.
WIDEST = 2.0


@dataclass(frozen=True)
class DepthEdges:
    """The edges in one measurement, in metres in the sensor's frame.

    `points`: (N, 3) float64, on the edge, at the depth of the nearer surface. `across`: (N, 3),
    a small step from there over the edge, towards the farther surface. `weights`: (N,) in (0, 1].
    """

    points: np.ndarray
    across: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)


def depth_edges(points_xyz: np.ndarray, R_camera_sensor: np.ndarray) -> DepthEdges:  # noqa: N803
    """The depth edges among points that are in front of the camera.

    Args:
        points_xyz: (N, 3) metres in the sensor's frame; not finite = no point. Not changed.
        R_camera_sensor: (3, 3) turns the sensor's axes into the optical frame's.

    Returns:
        the edges; there may be none.
    """
    seen = np.asarray(points_xyz, np.float64) @ np.asarray(R_camera_sensor, np.float64).T
    with np.errstate(invalid="ignore"):
        ahead = (seen[:, 2] > 0.05) & (np.abs(seen[:, :2]).max(axis=1) < WIDEST * seen[:, 2])
    seen = seen[ahead]
    if len(seen) > MAX_POINTS:
        seen = seen[:: -(-len(seen) // MAX_POINTS)]
    if len(seen) <= NEIGHBOURS:
        return DepthEdges(np.empty((0, 3)), np.empty((0, 3)), np.empty(0))
    inverse = 1.0 / seen[:, 2]
    tangents = seen[:, :2] * inverse[:, None]
    near, step, weights = _jumps(tangents, inverse, *_neighbours(tangents))
    middle = tangents[near] + 0.5 * step
    depth = seen[near, 2:]
    on_edge = np.concatenate([middle, np.ones_like(depth)], axis=1) * depth
    across = np.concatenate([step, np.zeros_like(depth)], axis=1) * depth
    return DepthEdges(on_edge @ R_camera_sensor, across @ R_camera_sensor, weights)


def depth_image_points(depth_m: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """The points of a depth image for `depth_edges`: every second or third of a large one.

    Args:
        depth_m: (H, W) z-depth in metres; NaN and values <= 0 = none.
        intrinsics: its camera, at its size.

    Returns:
        (N, 3) float32 metres in the optical frame.
    """
    step = int(np.ceil(np.sqrt(np.count_nonzero(depth_m > 0) / MAX_POINTS))) or 1
    depth = depth_m[::step, ::step]
    points = ray_map(intrinsics)[::step, ::step] * depth[..., None]
    return points[depth > 0]


def _neighbours(tangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(4, N) index of the nearest point to the right, below, left and above, and its distance.

    Distances are tangents; infinite where there is no neighbour. Rings of a LiDAR are farther apart
    than the points on one, so either direction is searched with the other one stretched.
    """
    found = np.empty((4, len(tangents)), np.intp)
    lengths = np.empty((4, len(tangents)))
    rows = np.arange(len(tangents))
    for axis in (0, 1):
        stretched = tangents * np.where(np.arange(2) == axis, 1.0, STRETCH)
        _, index = cKDTree(stretched).query(
            stretched, NEIGHBOURS + 1, distance_upper_bound=REACH, workers=1
        )
        missing = index[:, 1:] == len(tangents)
        index = np.where(missing, 0, index[:, 1:])
        offset = tangents[index] - tangents[:, None]
        along, aside = offset[..., axis], offset[..., 1 - axis]
        usable = ~missing & (np.abs(along) > STRETCH / 2 * np.abs(aside))
        for side, ahead in ((axis, along > 0), (axis + 2, along < 0)):
            reach = np.where(usable & ahead, np.hypot(along, aside), np.inf)
            nearest = reach.argmin(axis=1)
            found[side], lengths[side] = index[rows, nearest], reach[rows, nearest]
    return found, lengths


def _jumps(
    tangents: np.ndarray, inverse: np.ndarray, found: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of the nearer point of each jump, the step over it as tangents (N, 2), its weight."""
    near, step, weights = [], [], []
    depth = 1.0 / inverse
    least = np.maximum(MIN_JUMP_M, MIN_JUMP_SHARE * depth)
    for side in range(4):
        opposite = (side + 2) % 4
        there = np.isfinite(lengths[side])
        # Without a jump, inverse depth falls on as it fell from the neighbour on the other side.
        with np.errstate(invalid="ignore"):
            slope = (inverse[found[opposite]] - inverse) / lengths[opposite]
        slope = np.where(np.isfinite(lengths[opposite]), np.maximum(slope, 0.0), 0.0)
        with np.errstate(invalid="ignore"):
            expected = inverse - slope * lengths[side]
        jump = depth[found[side]] - 1.0 / np.where(expected > 0, expected, np.nan)
        at = np.flatnonzero(there & (jump > least))
        if not len(at):
            continue
        usual = np.median(lengths[side][there])
        # Where there is a hole in the measurement, the edge is beside the nearer point.
        share = np.minimum(1.0, usual / lengths[side][at])
        near.append(at)
        step.append((tangents[found[side][at]] - tangents[at]) * share[:, None])
        clear = np.sqrt(np.minimum(jump[at] / depth[at] / FULL_JUMP_SHARE, 1.0))
        weights.append(clear * np.minimum(1.0, PRECISE / (share * lengths[side][at])))
    if not near:
        return np.empty(0, np.intp), np.empty((0, 2)), np.empty(0)
    return np.concatenate(near), np.concatenate(step), np.concatenate(weights)

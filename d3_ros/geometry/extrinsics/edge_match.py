"""How well depth edges lie on image edges, also when the sensor is moved a little."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from d3_ros.geometry.camera import project
from d3_ros.geometry.extrinsics.depth_edges import depth_edges
from d3_ros.geometry.extrinsics.image_edges import edge_strength
from d3_ros.types import CameraIntrinsics

# Most edges of one frame; of more, a random sample of this size is used.
MAX_EDGES = 4000
# The image is cut into this many upright strips. Each is scored as an observation of its own.
STRIPS = 16
# Steps of the numerical derivative: radians and metres.
STEP = 1e-3


@dataclass(frozen=True)
class EdgeMatch:
    """One frame's depth edges on its image.

    `pixels`: (N, 2) where each edge projects. `motion`: (N, 2, 6) by how many pixels it moves for
    each radian about x, y, z and each metre along x, y, z of the optical frame. `across`: (N, 2)
    how much it is an edge across u and across v; together its weight. `gaps`: (N,) distance in
    pixels between the two points of the sensor between which it lies. `strips`: (N,) the strip of
    the image. `strength`: (H, W, 2) float32 as of `edge_strength`, less its mean.
    """

    pixels: np.ndarray
    motion: np.ndarray
    across: np.ndarray
    gaps: np.ndarray
    strips: np.ndarray
    strength: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def thinned(self, most: int) -> EdgeMatch:
        """At most about `most` of the edges."""
        keep = slice(None, None, max(1, -(-len(self) // most)))
        return replace(
            self,
            pixels=self.pixels[keep],
            motion=self.motion[keep],
            across=self.across[keep],
            gaps=self.gaps[keep],
            strips=self.strips[keep],
        )

    def moved(self, offset: np.ndarray) -> np.ndarray:
        """(N, 2) pixels after a small (6,) motion of the points: radians, then metres."""
        return self.pixels + self.motion @ offset

    def scores(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How well the edges fit in each strip, for each of (M, 6) offsets.

        Returns:
            (STRIPS, M) sum over the edges of weight times strength, and (STRIPS,) of the weights.
        """
        moved = self.pixels[..., None] + self.motion @ offsets.T  # (N, 2, M)
        u, v = np.ascontiguousarray(moved.transpose(1, 0, 2), np.float32)
        # Outside of the image the strength is its mean, 0.
        found = cv2.remap(
            self.strength,
            u,
            v,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(0.0, 0.0),
        )
        values = np.einsum("nmc,nc->nm", found, self.across)
        member = (self.strips == np.arange(STRIPS)[:, None]).astype(np.float64)
        return member @ values, member @ self.across.sum(axis=1)


def match_edges(
    rgb: np.ndarray,
    intrinsics: CameraIntrinsics,
    points_xyz: np.ndarray,
    T_camera_sensor: np.ndarray,  # noqa: N803
    seed: int = 0,
) -> EdgeMatch:
    """Project a measurement's depth edges onto the image of the same moment.

    Args:
        rgb: (H, W, 3) uint8 image, as it was taken (distorted).
        intrinsics: its camera.
        points_xyz: (N, 3) metres in the sensor's frame.
        T_camera_sensor: (4, 4) the calibration to check.
        seed: draws which edges are left out where there are too many.
    """
    edges = depth_edges(points_xyz, T_camera_sensor[:3, :3])
    points = edges.points @ T_camera_sensor[:3, :3].T + T_camera_sensor[:3, 3]
    pixels = project(points, intrinsics)
    size = (intrinsics.width - 1, intrinsics.height - 1)
    with np.errstate(invalid="ignore"):
        inside = np.flatnonzero(((pixels >= 0) & (pixels <= size)).all(axis=1))
    if len(inside) > MAX_EDGES:
        inside = np.sort(np.random.default_rng(seed).choice(inside, MAX_EDGES, replace=False))
    points, pixels = points[inside], pixels[inside]
    over = project(points + edges.across[inside] @ T_camera_sensor[:3, :3].T, intrinsics) - pixels
    gaps = np.nan_to_num(np.linalg.norm(over, axis=1))
    over /= np.maximum(gaps, 1e-9)[:, None]
    strength = edge_strength(rgb)
    return EdgeMatch(
        pixels=pixels,
        motion=_motion(points, intrinsics),
        across=np.nan_to_num(np.square(over)) * edges.weights[inside, None],
        gaps=gaps,
        strips=(pixels[:, 0] * STRIPS / intrinsics.width).astype(np.intp),
        strength=strength - strength.mean(axis=(0, 1)),
    )


def small_motion(offset: np.ndarray) -> np.ndarray:
    """(4, 4) transform of a (6,) offset: a rotation vector in radians, then a shift in metres."""
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(np.asarray(offset[:3], np.float64))[0]
    motion[:3, 3] = offset[3:]
    return motion


def _motion(points: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """(N, 2, 6) derivative of the pixels of (N, 3) points by a motion of the points."""
    columns = []
    for axis in range(6):
        step = np.zeros(6)
        step[axis] = STEP
        ends = []
        for motion in (small_motion(step), small_motion(-step)):
            ends.append(project(points @ motion[:3, :3].T + motion[:3, 3], intrinsics))
        columns.append((ends[0] - ends[1]) / (2 * STEP))
    return np.nan_to_num(np.stack(columns, axis=-1))

"""Convex shapes for ray casting: box, sphere, upright cylinder.

World frame (REP 103): metres, x and y along the floor, z up. A ray is `origin + t * direction`; the
direction need not be of length 1, and t counts in its lengths: with directions of z = 1 in the
camera's optical frame, t is z-depth. Directions are (3, ...) arrays, one plane per coordinate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

# Stands for a zero component of a direction: such a ray never leaves that axis' slab.
NOT_ZERO = np.float32(1e-12)
Point = tuple[float, float, float]


class Shape(Protocol):
    """A convex body that rays can hit."""

    def interval(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ray parameters t of entry and exit; entry > exit is a miss."""

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) outward unit normals and (N, 2) metres along the surface, of (N, 3) points.

        All float32.
        """

    def corners(self) -> np.ndarray:
        """(8, 3) corners of a box around the body, in the order of `BOX_EDGES`."""


# The eight corners count in binary, x first; edges join those that differ in one bit.
BOX_CORNERS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]) * 2.0 - 1.0
BOX_EDGES = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])


@dataclass(frozen=True)
class Box:
    """A box that stands upright, turned by `yaw` radians about z."""

    centre: Point
    size: Point
    yaw: float = 0.0

    def interval(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Shape."""
        o = (origin - np.array(self.centre)) @ self._axes
        if self.yaw:
            c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
            rays = np.stack([c * rays[0] + s * rays[1], c * rays[1] - s * rays[0], rays[2]])
        return slabs(o, np.array(self.size) / 2, rays)

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Shape. On an upright face the second coordinate counts from the box's top down."""
        half = _single(self.size) / 2
        axes = self._axes.astype(np.float32)
        local = (points - _single(self.centre)) @ axes
        share = local / half
        axis = np.abs(share).argmax(axis=1)
        sign = np.where(share[np.arange(len(points)), axis] < 0, np.float32(-1), np.float32(1))
        normals = sign[:, None] * axes.T[axis]
        # The face x sees y and z, the face y sees x and z, the face z sees x and y.
        across = np.where(axis == 0, local[:, 1], local[:, 0])
        along = np.where(axis == 2, local[:, 1], half[2] - local[:, 2])
        return normals, np.stack([across, along], axis=1)

    def corners(self) -> np.ndarray:
        """See Shape."""
        return (BOX_CORNERS * np.array(self.size) / 2) @ self._axes.T + self.centre

    @property
    def _axes(self) -> np.ndarray:
        """(3, 3): its columns are the box's axes."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Sphere:
    """A ball."""

    centre: Point
    radius: float

    def interval(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Shape."""
        return _quadratic(origin - np.array(self.centre), rays, self.radius)

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Shape."""
        radius = np.float32(self.radius)
        normals = points - _single(self.centre)
        # Divided by their own length: rounding makes it differ from the radius.
        normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None]
        angle = np.arctan2(normals[:, 1], normals[:, 0])
        height = np.arcsin(np.clip(normals[:, 2], -1.0, 1.0))
        return normals, radius * np.stack([angle, -height], axis=1)

    def corners(self) -> np.ndarray:
        """See Shape."""
        return BOX_CORNERS * self.radius + self.centre


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder; `centre` is half-way up its axis."""

    centre: Point
    radius: float
    height: float

    def interval(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Shape."""
        o = origin - np.array(self.centre)
        enter, leave = _quadratic(o[:2], rays[:2], self.radius)
        bottom, top = slabs(o[2:], np.array([self.height / 2]), rays[2:])
        return np.maximum(enter, bottom), np.minimum(leave, top)

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Shape."""
        radius, half = np.float32(self.radius), np.float32(self.height / 2)
        x, y, z = ((points - _single(self.centre)) / (radius, radius, half)).T
        from_axis = np.hypot(x, y)
        on_cap = np.abs(z) > from_axis
        up = np.where(on_cap, np.sign(z), np.float32(0))
        side = np.where(on_cap, np.float32(0), 1 / np.maximum(from_axis, np.float32(1e-6)))
        around = np.where(on_cap, x, np.arctan2(y, x)) * radius
        along = np.where(on_cap, y * radius, (1 - z) * half)
        return np.stack([x * side, y * side, up], axis=1), np.stack([around, along], axis=1)

    def corners(self) -> np.ndarray:
        """See Shape."""
        return BOX_CORNERS * (self.radius, self.radius, self.height / 2) + self.centre


def slabs(origin: np.ndarray, half: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entry and exit of rays through |x_i| <= half_i; `origin` (n,), `rays` (n, ...)."""
    enter = leave = None
    for o, h, ray in zip(origin, half, rays, strict=True):
        inverse = 1.0 / (ray + NOT_ZERO)
        middle = np.float32(-o) * inverse
        reach = np.float32(h) * np.abs(inverse)
        enter = middle - reach if enter is None else np.maximum(enter, middle - reach)
        leave = middle + reach if leave is None else np.minimum(leave, middle + reach)
    assert enter is not None
    assert leave is not None
    return enter, leave


def _single(values: Point) -> np.ndarray:
    return np.array(values, np.float32)


def _quadratic(
    origin: np.ndarray, rays: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Entry and exit of rays through |x| <= radius; NaN for a miss: all comparisons fail."""
    o = origin.astype(np.float32)
    a = sum(ray * ray for ray in rays) + NOT_ZERO
    b = sum(c * ray for c, ray in zip(o, rays, strict=True))
    # The distance of the ray's line from the centre, not o . o - r^2, which cancels in float32.
    across = sum((c - b / a * ray) ** 2 for c, ray in zip(o, rays, strict=True))
    with np.errstate(invalid="ignore"):
        root = np.sqrt((np.float32(radius * radius) - across) / a)
    middle = -b / a
    return middle - root, middle + root

"""Triangle meshes for rendered scenes: the primitives of all objects.

A mesh is a triangle soup: every corner carries its position, its shading normal and its texture
coordinate, so that a ray hit is shaded by one interpolation and no shape needs a special case.
World frame: x and y on the floor, z up, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Vector: TypeAlias = "Sequence[float] | np.ndarray"


@dataclass(frozen=True)
class Mesh:
    """N triangles, each corner with its own attributes.

    `vertices` (N, 3, 3) metres; `normals` (N, 3, 3) unit shading normals (smooth on curved
    shapes); `uv` (N, 3, 2) texture coordinates, metres or [0, 1] as the material expects;
    `material` (N,) int32 index into the scene's materials.
    """

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: np.ndarray

    def moved(self, at: Vector = (0.0, 0.0, 0.0), yaw: float = 0.0, tilt: float = 0.0) -> Mesh:
        """This mesh tilted about x, then turned about z (radians), then shifted by `at`."""
        cy, sy, ct, st = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
        turn = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
        lean = np.array([[1.0, 0.0, 0.0], [0.0, ct, -st], [0.0, st, ct]])
        rotation = turn @ lean
        return Mesh(
            self.vertices @ rotation.T + np.asarray(at, dtype=np.float64),
            self.normals @ rotation.T,
            self.uv,
            self.material,
        )


def join(meshes: Sequence[Mesh]) -> Mesh:
    """All triangles of `meshes` (at least one) in one mesh."""
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.uv for m in meshes]),
        np.concatenate([m.material for m in meshes]),
    )


def quad(
    origin: Vector,
    edge_u: Vector,
    edge_v: Vector,
    material: int,
    *,
    fit: bool = False,
) -> Mesh:
    """A parallelogram; texture in metres along its edges, or spread over it once with `fit`."""
    o, a, b = (np.asarray(x, dtype=np.float64) for x in (origin, edge_u, edge_v))
    corners = np.stack([o, o + a, o + a + b, o + b])
    la, lb = (1.0, 1.0) if fit else (float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    uv = np.array([[0.0, lb], [la, lb], [la, 0.0], [0.0, 0.0]])  # image rows run downwards
    normal = np.cross(a, b)
    normal = normal / np.linalg.norm(normal)
    order = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(
        corners[order],
        np.broadcast_to(normal, (2, 3, 3)).copy(),
        uv[order],
        np.full(2, material, dtype=np.int32),
    )


def box(size: Vector, material: int, *, fit: bool = False) -> Mesh:
    """An axis-aligned box of `size` (x, y, z), centred in x and y, standing on z = 0."""
    x, y, z = size
    h, k = x / 2, y / 2
    return join(
        [
            quad((-h, -k, 0), (x, 0, 0), (0, 0, z), material, fit=fit),
            quad((h, -k, 0), (0, y, 0), (0, 0, z), material, fit=fit),
            quad((h, k, 0), (-x, 0, 0), (0, 0, z), material, fit=fit),
            quad((-h, k, 0), (0, -y, 0), (0, 0, z), material, fit=fit),
            quad((-h, -k, z), (x, 0, 0), (0, y, 0), material, fit=fit),
            quad((-h, k, 0), (x, 0, 0), (0, -y, 0), material, fit=fit),
        ]
    )


def _corners(grid: np.ndarray) -> np.ndarray:
    """The triangle corners (N, 3, K) of a grid (R, C, K), two triangles a cell."""
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    pair = np.stack([np.stack([a, b, c], axis=2), np.stack([a, c, d], axis=2)], axis=2)
    return pair.reshape(-1, 3, grid.shape[-1])


def surface(
    points: np.ndarray, uv: np.ndarray, material: int, normals: np.ndarray | None = None
) -> Mesh:
    """A smooth sheet from a grid of points (R, C, 3) with texture coordinates (R, C, 2).

    `normals` (R, C, 3) are computed from the grid where they are not given.
    """
    if normals is None:
        normals = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.where(length > 1e-12, normals / np.maximum(length, 1e-12), (0.0, 0.0, 1.0))

    vertices = _corners(points)
    edges = np.cross(vertices[:, 1] - vertices[:, 0], vertices[:, 2] - vertices[:, 0])
    keep = np.linalg.norm(edges, axis=-1) > 1e-12  # the poles of a lathe collapse to nothing
    return Mesh(
        vertices[keep],
        _corners(normals)[keep],
        _corners(uv)[keep],
        np.full(int(keep.sum()), material, dtype=np.int32),
    )


def lathe(profile: np.ndarray, material: int, *, segments: int = 24, fit: bool = False) -> Mesh:
    """A surface of revolution about z from a polyline of (radius, z) rows.

    Smooth around the axis; along the profile each piece has its own normals, so that the rim of a
    can stays sharp; give many points for a ball. Cylinders, bowls, bottles, lamps, capsules.
    """
    profile = np.asarray(profile, dtype=np.float64)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    girth = 2 * np.pi * float(profile[:, 0].max())
    step = np.diff(profile, axis=0)
    length = np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12)
    outward = np.stack([step[:, 1], -step[:, 0]], axis=-1) / length
    pieces = []
    for i in range(len(step)):
        # Neighbouring pieces that bend by less than 50 degrees share their normals: a round bowl.
        ends = [outward[i], outward[i]]
        for end, other in ((0, i - 1), (1, i + 1)):
            if 0 <= other < len(step) and outward[i] @ outward[other] > 0.64:
                mean = outward[i] + outward[other]
                ends[end] = mean / np.linalg.norm(mean)
        rows, normal_rows, uv_rows = [], [], []
        for (radius, height), (nr, nz), s in zip(
            profile[i : i + 2], ends, travelled[i : i + 2], strict=True
        ):
            rows.append(np.column_stack([around * radius, np.full(segments + 1, height)]))
            normal_rows.append(np.column_stack([around * nr, np.full(segments + 1, nz)]))
            v = 1.0 - s / travelled[-1] if fit else travelled[-1] - s
            u = np.linspace(0, 1, segments + 1) * (1.0 if fit else girth)
            uv_rows.append(np.column_stack([u, np.full(segments + 1, v)]))
        pieces.append(surface(np.stack(rows), np.stack(uv_rows), material, np.stack(normal_rows)))
    return join(pieces)


def cylinder(radius: float, height: float, material: int, *, segments: int = 24) -> Mesh:
    """A closed cylinder standing on z = 0."""
    profile = np.array([[0.0, 0.0], [radius, 0.0], [radius, height], [0.0, height]])
    return lathe(profile, material, segments=segments)


def ball(radius: float, material: int, *, stretch: float = 1.0, segments: int = 20) -> Mesh:
    """A sphere, `stretch` times as tall as wide, resting on z = 0."""
    t = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    profile = np.column_stack([np.cos(t) * radius, (np.sin(t) + 1) * radius * stretch])
    profile[[0, -1], 0] = 0.0
    return lathe(profile, material, segments=segments)


def capsule(start: Vector, end: Vector, radius: float, material: int) -> Mesh:
    """A rod with round ends between two points."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    length = float(np.linalg.norm(b - a))
    t = np.linspace(0, np.pi / 2, 5)
    low = np.column_stack([np.sin(t) * radius, -np.cos(t) * radius])
    high = np.column_stack([np.cos(t) * radius, length + np.sin(t) * radius])
    low[0, 0] = high[-1, 0] = 0.0
    mesh = lathe(np.concatenate([low, high]), material, segments=12)
    z = (b - a) / max(length, 1e-9)
    x = np.cross((0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0), z)
    x = x / np.linalg.norm(x)
    rotation = np.column_stack([x, np.cross(z, x), z])
    return Mesh(mesh.vertices @ rotation.T + a, mesh.normals @ rotation.T, mesh.uv, mesh.material)

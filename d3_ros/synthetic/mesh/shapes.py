"""Random abstract solids, so that a network cannot rely on knowing the furniture.

Each function takes a `Workshop` and a size in metres and returns a closed mesh that stands on
z = 0 around the origin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from d3_ros.synthetic.mesh.mesh import Mesh, lathe, surface
from d3_ros.synthetic.mesh.objects import Workshop


def blob(w: Workshop, size: float) -> Mesh:
    """A lumpy ball: its radius varies smoothly with the direction."""
    waves = w.rng.normal(0, 1, (5, 3)) * w.rng.uniform(1.0, 4.0, (5, 1))
    phases, strengths = w.rng.uniform(0, 2 * np.pi, 5), w.rng.uniform(0.0, 0.12, 5)

    def radius(direction: np.ndarray) -> np.ndarray:
        bumps = strengths * np.sin(direction @ waves.T + phases)
        return np.asarray(size / 2 * (1 + bumps.sum(axis=-1)))

    def height(point: np.ndarray) -> np.ndarray:
        """How far a point is out of the surface; its gradient is the normal."""
        length = np.linalg.norm(point, axis=-1)
        return np.asarray(length - radius(point / length[..., None]))

    latitude, longitude = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, 15), np.linspace(0, 2 * np.pi, 25), indexing="ij"
    )
    flat = np.cos(latitude)
    directions = np.stack(
        [flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=-1
    )
    points = directions * radius(directions)[..., None]
    step = 1e-4 * size
    gradient = np.stack(
        [height(points + step * axis) - height(points - step * axis) for axis in np.eye(3)], axis=-1
    )
    normals = gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)
    uv = np.stack([longitude, latitude], axis=-1) * size / 2
    points = points - (0, 0, points[..., 2].min())
    return surface(points, uv, w.material("object"), normals)


def prism(w: Workshop, size: float) -> Mesh:
    """An upright block on a random convex polygon, narrower or wider at its top."""
    count = int(w.rng.integers(3, 8))
    angles = np.sort(w.rng.uniform(0, 2 * np.pi, count))
    # Corners on one ellipse are convex however they are spread; three of them are a triangle.
    spread = np.linspace(0, 2 * np.pi, count, endpoint=False)
    angles = 0.5 * angles + 0.5 * spread
    stretch = w.between(0.5, 1.0)
    foot = size / 2 * np.column_stack([np.cos(angles), stretch * np.sin(angles)])
    tall, taper = size * w.between(0.3, 1.5), w.between(0.4, 1.15)
    low = np.column_stack([foot, np.zeros(count)])
    high = np.column_stack([foot * taper, np.full(count, tall)])
    triangles = []
    for i in range(count):
        j = (i + 1) % count
        triangles += [(low[i], low[j], high[j]), (low[i], high[j], high[i])]
        triangles += [(high[0], high[i], high[j]), (low[0], low[j], low[i])]
    vertices = np.array(triangles)
    across = np.cross(vertices[:, 1] - vertices[:, 0], vertices[:, 2] - vertices[:, 0])
    area = np.linalg.norm(across, axis=1)
    keep = area > 1e-12  # the caps' fans have empty triangles at their first corner
    vertices, normal = vertices[keep], (across / np.maximum(area, 1e-12)[:, None])[keep]
    # Texture in metres: along whichever two axes the face spans most.
    axis = np.abs(normal).argmax(axis=1)
    uv = np.stack(
        [vertices[i][:, [a for a in range(3) if a != axis[i]]] for i in range(len(vertices))]
    )
    material = np.full(len(vertices), w.material("object"), dtype=np.int32)
    return Mesh(vertices, np.repeat(normal[:, None], 3, axis=1), uv, material)


def turned(w: Workshop, size: float) -> Mesh:
    """A turned solid with a random profile."""
    count = int(w.rng.integers(3, 7))
    radii = size / 2 * w.rng.uniform(0.2, 1.0, count)
    heights = np.linspace(0, size * w.between(0.4, 1.6), count)
    profile = np.concatenate([[[0, 0]], np.column_stack([radii, heights]), [[0, heights[-1]]]])
    return lathe(profile, w.material("object"))


SHAPES: tuple[Callable[[Workshop, float], Mesh], ...] = (blob, prism, turned)


def random_shape(w: Workshop, size: float) -> Mesh:
    """Any of them, about `size` metres wide."""
    return SHAPES[int(w.rng.integers(len(SHAPES)))](w, size)

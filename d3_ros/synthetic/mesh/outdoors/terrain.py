"""The uneven ground of a forest, with a track."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.mesh.mesh import Mesh, surface
from d3_ros.synthetic.mesh.objects import Workshop


@dataclass(frozen=True)
class Terrain:
    """Uneven ground with a track along y.

    `waves` (K, 4): wave numbers along x and y (1/m), phase, amplitude (m); `bends` (M, 3): wave
    number, phase and amplitude of the track's centre line; `half_m`: half the track's width;
    `slope`: rise along y; `banks`: rise of the ground at the left and the right of the track, per
    metre beyond its edge; `rut_m`: depth of the wheel ruts.
    """

    waves: np.ndarray
    bends: np.ndarray
    half_m: float
    slope: float
    banks: tuple[float, float]
    rut_m: float

    def centre(self, y: np.ndarray | float) -> np.ndarray:
        """x of the track's middle at `y`, metres."""
        y = np.asarray(y, dtype=np.float64)
        k, phase, size = self.bends.T
        return np.asarray((size * (np.sin(k * y[..., None] + phase) - np.sin(phase))).sum(axis=-1))

    def height(self, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        """z of the ground at (x, y), metres; any shape."""
        x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        kx, ky, phase, size = self.waves.T
        z = (size * np.sin(kx * x[..., None] + ky * y[..., None] + phase)).sum(axis=-1)
        aside = x - self.centre(y)
        out = np.maximum(0.0, np.abs(aside) - self.half_m)
        z = z * (0.4 + 0.6 * np.clip(out / 2, 0, 1))
        bank = np.where(aside < 0, *self.banks) * 4.0 * np.tanh(out / 4.0)
        ruts = self.rut_m * np.exp(-(((np.abs(aside) - 0.6 * self.half_m) / 0.16) ** 2))
        return np.asarray(z + self.slope * 40 * np.tanh(y / 40) + bank - ruts)

    def mesh(self, ground: int, track: int) -> Mesh:
        """The ground from -150 to 150 m, finest around the track at the origin."""
        t = np.linspace(-1, 1, 121)
        x, y = (reach * np.sinh(5.2 * t) / np.sinh(5.2) for reach in (150.0, 150.0))
        y, aside = np.meshgrid(y, x, indexing="ij")
        x = aside + self.centre(y)
        points = np.stack([x, y, self.height(x, y)], axis=-1)
        mesh = surface(points, np.stack([aside, y], axis=-1), ground)
        on_track = np.abs(mesh.uv[:, :, 0].mean(axis=1)) < self.half_m
        material = np.where(on_track, track, ground).astype(np.int32)
        return Mesh(mesh.vertices, mesh.normals, mesh.uv, material)

    def stand(self, mesh: Mesh, x: float, y: float, yaw: float = 0.0, sink: float = 0.0) -> Mesh:
        """A mesh on the ground at (x, y), `sink` metres deep in it."""
        return mesh.moved(at=(x, y, float(self.height(x, y)) - sink), yaw=yaw)


def random_terrain(w: Workshop) -> Terrain:
    """Ground from nearly flat to hilly."""
    count, rough = 12, w.between(0.3, 1.4)
    length = np.exp(w.rng.uniform(np.log(0.9), np.log(30.0), count))  # wavelengths, m
    angle = w.rng.uniform(0, 2 * np.pi, count)
    number = 2 * np.pi / length
    waves = np.column_stack(
        [
            number * np.cos(angle),
            number * np.sin(angle),
            w.rng.uniform(0, 2 * np.pi, count),
            rough * 0.012 * length ** w.between(0.8, 1.1),
        ]
    )
    bends = np.column_stack(
        [
            2 * np.pi / w.rng.uniform(18, 60, 3),
            w.rng.uniform(0, 2 * np.pi, 3),
            w.rng.uniform(0.2, 2.0, 3),
        ]
    )
    sides = w.between(-0.25, 0.4), w.between(-0.25, 0.4)
    rut = w.between(0.03, 0.12) if w.chance(0.4) else 0.0
    half = w.between(0.9, 1.6) if rut else w.between(0.3, 1.6)
    return Terrain(waves, bends, half, w.between(-0.18, 0.18), sides, rut)

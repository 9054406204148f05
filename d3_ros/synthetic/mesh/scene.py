"""What a scene to render is: a mesh with materials, its lights, and a way to draw cameras.

World frame: z up, metres, the floor at z = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.mesh.mesh import Mesh, join
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.random_textures import SIZE
from d3_ros.synthetic.mesh.rooms import Plan
from d3_ros.synthetic.textures import fractal_noise

SKY_LIGHT = 0.2  # indirect light in the shade outdoors, where the sun gives up to 1


@dataclass(frozen=True)
class Light:
    """A flat glowing disc; `power` (3,) in arbitrary units, because exposure is automatic."""

    centre: np.ndarray
    radius: float
    power: np.ndarray


@dataclass(frozen=True)
class Viewpoint:
    """Where a camera is and what it looks at, in the world frame; `roll` in radians."""

    eye: np.ndarray
    target: np.ndarray
    roll: float = 0.0


@dataclass
class MeshScene:
    """A scene to render.

    `draw_view(rng)` proposes a camera; the renderer checks that nothing blocks it. `ambient` is
    the share of indirect light; `sky` (3,) the colour of what no ray hits. `floor(x, y)`: height of
    uneven ground, metres; None where the floor is at z = 0. `clouds` (S, S): how white the sky is,
    in [0, 1], on a plane above the scene; None for a sky of one colour. `least_light`: light that
    arrives from all sides at least, so that deep shade outdoors is not black.
    """

    mesh: Mesh
    workshop: Workshop
    lights: list[Light]
    draw_view: Callable[[np.random.Generator], Viewpoint]
    ambient: float
    sky: np.ndarray
    free_m: float = 0.35
    walk: Callable[[float], Viewpoint] | None = None
    floor: Callable[[float, float], np.ndarray] | None = None
    clouds: np.ndarray | None = None
    least_light: float = 0.0

    def sky_colour(self, directions: np.ndarray) -> np.ndarray:
        """(3,) or (N, 3) float32 colour of the sky along `directions` (N, 3) of any length."""
        sky = self.sky.astype(np.float32)
        if self.clouds is None:
            return sky
        up = directions[:, 2] / np.linalg.norm(directions, axis=1)
        up = np.clip(up, 0, 1).astype(np.float32)
        ahead = directions[:, :2] / np.linalg.norm(directions, axis=1, keepdims=True)
        cell = ahead / (up + 0.2)[:, None] * (0.2 * len(self.clouds))
        row, column = np.floor(cell).astype(int).T % len(self.clouds)
        haze = (1 - up) ** 6
        white = np.maximum(haze, self.clouds[row, column])[:, None]
        return np.asarray(sky + white * (1.15 * sky.max() - sky), dtype=np.float32)

    def floor_below(self, eye: np.ndarray) -> float:
        """z of the floor below the place `eye` (x, y, z), metres."""
        return 0.0 if self.floor is None else float(self.floor(eye[0], eye[1]))


def clouds(w: Workshop) -> np.ndarray:
    """A sky that is clear, covered or between (for `MeshScene.clouds`)."""
    cells = int(w.rng.choice([2, 4]))
    shapes = fractal_noise(w.rng, SIZE, (cells, cells), 5)
    return np.asarray(np.clip(w.between(0.8, 3.0) * shapes + w.between(-0.8, 0.9), 0, 1))


def lamps(w: Workshop, size: np.ndarray) -> list[Light]:
    """One, two or four area lights under the ceiling or at a window's place."""
    lights = []
    warmth = w.between(-0.3, 0.3)
    for _ in range(int(w.rng.choice([1, 2, 2, 4]))):
        centre = np.array(
            [w.between(0.1, 0.9) * size[0], w.between(0.1, 0.9) * size[1], size[2] - 0.15]
        )
        if w.chance(0.35):
            centre[2] *= w.between(0.45, 0.9)
        tint = 1.0 + warmth * np.array([1.0, 0.1, -1.0]) * w.between(0.5, 1.0)
        lights.append(Light(centre, w.between(0.05, 0.6), tint * w.between(0.4, 1.6)))
    return lights


def indoor_view(
    plan: Plan, size: np.ndarray, height: tuple[float, float], pitch: tuple[float, float]
) -> Callable[[np.random.Generator], Viewpoint]:
    """Views from free places of a room of `size`, towards its inside; metres and radians."""

    def draw(rng: np.random.Generator) -> Viewpoint:
        for _ in range(30):
            x, y = rng.uniform(0.3, size[0] - 0.3), rng.uniform(0.3, size[1] - 0.3)
            if plan.free(x, y, 0.1):
                break
        eye = np.array([x, y, rng.uniform(*height)])
        # Towards the inside rather than at the nearest wall.
        inside = np.array([rng.uniform(0.1, 0.9) * size[0], rng.uniform(0.1, 0.9) * size[1]])
        yaw = np.arctan2(*(inside - eye[:2])[::-1]) + rng.normal(0, 0.3)
        tilt = rng.uniform(*pitch)
        direction = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
        return Viewpoint(eye, eye + direction, float(rng.normal(0, 0.03)))

    return draw


def finish(
    plan: Plan, lights: list[Light], draw: Callable[[np.random.Generator], Viewpoint]
) -> MeshScene:
    """The scene of a finished plan, with a random share of indirect light."""
    w = plan.w
    sky = np.array([0.75, 0.85, 1.0]) * w.between(0.5, 1.5)
    return MeshScene(join(plan.parts), w, lights, draw, w.between(0.25, 1.3), sky)

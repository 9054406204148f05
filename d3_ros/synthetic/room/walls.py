"""Floor, ceiling and four walls of the room; their textures already contain the light."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from d3_ros.synthetic.room.furniture import HALF_X, HALF_Y, HEIGHT
from d3_ros.synthetic.room.light import light_at, shadows
from d3_ros.synthetic.room.room_textures import Texture, noise, plain, planks
from d3_ros.synthetic.textures import stretched

ROOM_HALF = np.array([HALF_X, HALF_Y, HEIGHT / 2])
ROOM_CENTRE = np.array([0.0, 0.0, HEIGHT / 2])
# Light changes slowly: it is computed once per square of about this side, m.
LIGHT_CELL_M = 0.08
SKIRTING_M = 0.08


class Walls:
    """The six inner faces.

    Args:
        rng: draws their colours and patterns.
        is_lit: from (N, 3) points and a light's (3,) place to (N,) bool, whether it reaches them.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        is_lit: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> None:
        wallpaper = rng.choice([(0.86, 0.8, 0.7), (0.72, 0.78, 0.76), (0.8, 0.76, 0.8)])
        boards = rng.choice([(0.62, 0.45, 0.3), (0.5, 0.36, 0.26), (0.7, 0.58, 0.44)])
        self._faces: dict[tuple[int, int], Texture] = {}
        for axis in range(3):
            for side in (-1, 1):
                if (axis, side) == (2, -1):
                    pattern = planks(rng, (1024, 2048), tuple(boards), width=26, length=220)
                    texel_m = 0.006
                elif axis == 2:
                    pattern, texel_m = plain(rng, (0.93, 0.93, 0.91), size=256, grain=0.015), 0.032
                else:
                    pattern, texel_m = _papered(rng, wallpaper), 0.008
                light = self._light(axis, side, pattern.shape, texel_m, is_lit, rng)
                self._faces[axis, side] = Texture(pattern * light, texel_m)

    def look_up(self, points: np.ndarray, footprint_m: np.ndarray) -> np.ndarray:
        """(N,) packed colours of (N, 3) points on the room's faces; `footprint_m`: (N,)."""
        colours = np.empty(len(points), np.uint32)
        axis, side = wall_of(points)
        for (face_axis, face_side), texture in self._faces.items():
            here = np.flatnonzero((axis == face_axis) & (side == face_side))
            if len(here):
                along = _along(points[here], face_axis)
                colours[here] = texture.look_up(along, footprint_m[here])
        return colours

    @staticmethod
    def _light(
        axis: int,
        side: int,
        shape: tuple[int, ...],
        texel_m: float,
        is_lit: Callable[[np.ndarray, np.ndarray], np.ndarray],
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(H, W, 1) brightness of a face, for a pattern of this shape."""
        height, width = shape[0] * texel_m, shape[1] * texel_m
        rows, columns = (max(int(size / LIGHT_CELL_M), 1) for size in (height, width))
        v, u = np.mgrid[0:rows, 0:columns] + 0.5
        along = np.stack([u.ravel() * width / columns, v.ravel() * height / rows], axis=1)
        points = np.empty((len(along), 3))
        others = [i for i in range(3) if i != axis]
        points[:, axis] = (ROOM_CENTRE + side * ROOM_HALF)[axis]
        points[:, others] = np.minimum(along - _ORIGIN[others], (ROOM_CENTRE + ROOM_HALF)[others])
        normals = np.zeros_like(points)
        normals[:, axis] = -side
        # A little off the wall, so that a picture on it does not shade all of it.
        lit = shadows(points + 0.002 * normals, is_lit, rng)
        light = light_at(points.astype(np.float32), normals, lit)
        return stretched(light.reshape(rows, columns, 1), shape[0], shape[1], repeats=False)


# Coordinates along a face start at the room's corner with the smallest x, y and z.
_ORIGIN = ROOM_HALF - ROOM_CENTRE


def wall_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) axis 0, 1, 2 and (N,) side -1, +1 of the face of each of (N, 3) points."""
    share = (points - ROOM_CENTRE.astype(np.float32)) / ROOM_HALF.astype(np.float32)
    axis = np.abs(share).argmax(axis=1)
    return axis, np.sign(share[np.arange(len(points)), axis])


def _along(points: np.ndarray, axis: int) -> np.ndarray:
    others = [i for i in range(3) if i != axis]
    return points[:, others] + _ORIGIN[others].astype(np.float32)


def _papered(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """A wall, 8 mm a texel, its first row at the floor: skirting, then paper with faint stripes."""
    height, width = 512, 1024
    stripe = 1.0 - 0.04 * (np.arange(width) // 8 % 2)
    pattern = (stripe + 0.03 * noise(rng, height, width, 2))[..., None] * colour
    pattern[: round(SKIRTING_M / 0.008)] = (0.9, 0.89, 0.86)
    return pattern.astype(np.float32)

"""Images and ranges of the room, from rays against shapes in closed form.

There is no mesh and no sampling: depth, ranges and normals are exact up to float32. Frames as in
`d3_ros.types`; the world is the odometry's frame, z up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from d3_ros.geometry.camera import ray_map
from d3_ros.synthetic.room.furniture import Body, furnish
from d3_ros.synthetic.room.light import light_at
from d3_ros.synthetic.room.shapes import BOX_EDGES, Shape, slabs
from d3_ros.synthetic.room.walls import ROOM_CENTRE, ROOM_HALF, Walls, wall_of
from d3_ros.types import CameraIntrinsics

# Nearer surfaces are not looked for; the robot keeps far larger distances.
NEAR_M = 0.02
# Index of a hit: that of a body in the list, or this for walls, floor and ceiling.
WALL = -1


@dataclass(frozen=True)
class RenderedView:
    """The hits of one camera's pixels at one pose.

    `depth`: (H, W) float32 z-depth in metres, NaN where the lens has no ray. `body`: (H, W) int16
    index into the scene's bodies, WALL for the room itself.
    """

    intrinsics: CameraIntrinsics
    T_world_camera: np.ndarray
    depth: np.ndarray
    body: np.ndarray
    rays: np.ndarray


class RoomScene:
    """A furnished room.

    Args:
        seed: draws colours, sizes and places.
        bodies: replace the furniture.
    """

    def __init__(self, seed: int = 0, bodies: Sequence[Body] | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.bodies = furnish(rng) if bodies is None else list(bodies)
        self._corners = np.stack([b.shape.corners() for b in self.bodies]) if self.bodies else None
        self._walls = Walls(rng, self.is_lit)

    def cast(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) float32 distance to the first surface, in units of the direction's length.

        Args:
            origin: (3,) world, metres, inside the room.
            directions: (3, N) world.
        """
        rays = np.ascontiguousarray(directions, np.float32)
        nearest = _room_exit(origin, rays)
        for body in self.bodies:
            _take_nearer(nearest, body.shape, origin, rays)
        return nearest

    def look(self, intrinsics: CameraIntrinsics, T_world_camera: np.ndarray) -> RenderedView:  # noqa: N803
        """The view of a camera; `T_world_camera` is the (4, 4) pose of its optical frame."""
        origin = T_world_camera[:3, 3]
        planes, column_range, row_range = _ray_planes(intrinsics)
        turn = T_world_camera[:3, :3].astype(np.float32)
        rays = (turn @ planes.reshape(3, -1)).reshape(planes.shape)
        depth = _room_exit(origin, rays)
        index = np.full(depth.shape, WALL, np.int16)
        for i, window in self._windows(T_world_camera, column_range, row_range):
            nearer = _take_nearer(
                depth[window], self.bodies[i].shape, origin, rays[(slice(None), *window)]
            )
            index[window][nearer] = i
        return RenderedView(intrinsics, T_world_camera, depth, index, rays)

    def colours(self, view: RenderedView) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a view."""
        picture = np.zeros(view.depth.size, np.uint32)
        pixel_m = view.depth / np.float32(view.intrinsics.fx)
        for i, where in _by_body(view):
            points = _points(view, where)
            footprint = pixel_m.take(where)
            if i == WALL:
                colours = self._walls.look_up(points, footprint)
            else:
                texture = self.bodies[i].texture
                normals, along = self.bodies[i].shape.surface(points)
                colours = texture.look_up(along, footprint)
                if not texture.glow:
                    colours = _lit(colours, light_at(points, normals))
            picture[where] = colours
        return np.ascontiguousarray(picture.view(np.uint8).reshape(*view.depth.shape, 4)[..., :3])

    def normals(self, view: RenderedView) -> np.ndarray:
        """(H, W, 3) float32 unit normals of a view in the camera's optical frame, facing it.

        NaN where the lens has no ray.
        """
        normals = np.full((*view.depth.shape, 3), np.nan, np.float32)
        turn = view.T_world_camera[:3, :3]
        for i, where in _by_body(view):
            points = _points(view, where)
            on_wall = i == WALL
            world = _room_normals(points) if on_wall else self.bodies[i].shape.surface(points)[0]
            normals.reshape(-1, 3)[where] = world @ turn
        normals[~np.isfinite(view.depth)] = np.nan
        return normals

    def is_lit(self, points: np.ndarray, light: np.ndarray) -> np.ndarray:
        """(N,) bool: whether only glowing bodies are between a light at (3,) and (N, 3) points."""
        rays = np.ascontiguousarray((points - light).T, np.float32)
        nearest = np.ones(len(points), np.float32)
        for body in self.bodies:
            if not body.texture.glow:
                _take_nearer(nearest, body.shape, light, rays)
        return nearest > 1.0 - 1e-3

    def _windows(
        self,
        T_world_camera: np.ndarray,  # noqa: N803
        column_range: np.ndarray,
        row_range: np.ndarray,
    ) -> Iterator[tuple[int, tuple[slice, slice]]]:
        """Bodies that may be in the picture, with the rows and columns that can show them."""
        if not self.bodies:
            return
        corners = (self._corners - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
        for i, box in enumerate(corners):
            behind = box[:, 2] < NEAR_M
            if behind.all():
                continue
            if behind.any():  # cut the box's edges where they pass the camera
                a, b = box[BOX_EDGES[:, 0]], box[BOX_EDGES[:, 1]]
                cut = (a[:, 2] < NEAR_M) != (b[:, 2] < NEAR_M)
                a, b = a[cut], b[cut]
                share = (NEAR_M - a[:, 2]) / (b[:, 2] - a[:, 2])
                box = np.concatenate([box[~behind], a + share[:, None] * (b - a)])
            xy = box[:, :2] / box[:, 2:]
            low, high = xy.min(axis=0), xy.max(axis=0)
            columns = _reached(column_range, low[0], high[0])
            rows = _reached(row_range, low[1], high[1])
            if columns is not None and rows is not None:
                yield i, (rows, columns)


@lru_cache(maxsize=2)
def _ray_planes(intrinsics: CameraIntrinsics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(3, H, W) rays with z = 1, and the smallest and largest x per column and y per row."""
    planes = np.ascontiguousarray(ray_map(intrinsics).transpose(2, 0, 1))
    x, y = planes[:2]
    return (
        planes,
        np.stack([np.fmin.reduce(x, 0), np.fmax.reduce(x, 0)]),
        np.stack([np.fmin.reduce(y, 1), np.fmax.reduce(y, 1)]),
    )


def _reached(ranges: np.ndarray, low: float, high: float) -> slice | None:
    """The columns (rows) whose range of x (y) overlaps [low, high]."""
    met = np.flatnonzero((ranges[1] >= low) & (ranges[0] <= high))
    return slice(int(met[0]), int(met[-1]) + 1) if len(met) else None


def _room_exit(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Distance at which rays from inside meet the walls, floor or ceiling."""
    return slabs(origin - ROOM_CENTRE, ROOM_HALF, rays)[1]


def _take_nearer(
    nearest: np.ndarray, shape: Shape, origin: np.ndarray, rays: np.ndarray
) -> np.ndarray:
    """Write the shape's hits into `nearest` where they are nearer; returns that mask."""
    enter, leave = shape.interval(origin, rays)
    nearer = (enter < nearest) & (enter <= leave) & (enter > 0)
    np.copyto(nearest, enter, where=nearer)
    return nearer


def _by_body(view: RenderedView) -> Iterator[tuple[int, np.ndarray]]:
    """Each body index in a view, with the flat indices of its pixels."""
    flat = np.where(np.isfinite(view.depth), view.body, WALL - 1).ravel()
    order = np.argsort(flat, kind="stable")
    indices, first = np.unique(flat[order], return_index=True)
    for i, where in zip(indices, np.split(order, first[1:]), strict=True):
        if i >= WALL:
            yield int(i), where


def _lit(colours: np.ndarray, light: np.ndarray) -> np.ndarray:
    """(N,) packed colours times (N, 1) brightness."""
    rgbx = np.minimum(colours.view(np.uint8).reshape(-1, 4) * light, 255.0).astype(np.uint8)
    return rgbx.view(np.uint32).ravel()


def _points(view: RenderedView, where: np.ndarray) -> np.ndarray:
    """(N, 3) float32 world points of the pixels at flat indices `where`."""
    depth = view.depth.take(where)
    points = np.empty((len(where), 3), np.float32)
    for axis, start in enumerate(view.T_world_camera[:3, 3]):
        points[:, axis] = view.rays[axis].take(where) * depth + np.float32(start)
    return points


def _room_normals(points: np.ndarray) -> np.ndarray:
    """(N, 3) normals, into the room, of points on its walls, floor and ceiling."""
    axis, side = wall_of(points)
    normals = np.zeros_like(points)
    normals[np.arange(len(points)), axis] = -side
    return normals

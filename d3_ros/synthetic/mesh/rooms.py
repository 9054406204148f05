"""Interiors: walls with doorways, doors, windows and pictures, and furniture.

World frame: the room's corner at the origin, z up, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from d3_ros.synthetic.mesh import objects
from d3_ros.synthetic.mesh.mesh import Mesh, Vector, box, capsule, join, quad, surface
from d3_ros.synthetic.mesh.objects import Workshop


@dataclass
class Plan:
    """A scene under construction: its parts, and the discs of floor that are occupied."""

    w: Workshop
    parts: list[Mesh] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def free(self, x: float, y: float, radius: float) -> bool:
        """Whether nothing stands within `radius` of (x, y)."""
        return all(np.hypot(x - a, y - b) > radius + r for a, b, r in self.taken)

    def put(self, mesh: Mesh, x: float, y: float, yaw: float = 0.0, z: float = 0.0) -> None:
        """Stand a mesh at (x, y) and mark the floor under it as taken."""
        self.parts.append(mesh.moved(at=(x, y, z), yaw=yaw))
        low, high = mesh.vertices.min(axis=(0, 1)), mesh.vertices.max(axis=(0, 1))
        self.taken.append((x, y, 0.45 * float(np.hypot(*(high - low)[:2]))))


def _wall(w: Workshop, a: Vector, b: Vector, height: float, m: int) -> list[Mesh]:
    """A wall from a to b (its inside to the left), sometimes with a doorway."""
    start, end = np.array([*a, 0.0]), np.array([*b, 0.0])
    run = end - start
    length = float(np.linalg.norm(run))
    along, up = run / length, np.array([0.0, 0.0, height])
    if length < 2.5 or not w.chance(0.25):
        return [quad(start, run, up, m)]
    door, top = w.between(0.8, 1.6), min(height - 0.1, w.between(2.0, 2.3))
    left = w.between(0.4, length - door - 0.4)
    p, q = start + along * left, start + along * (left + door)
    lift = np.array([0.0, 0.0, top])
    outward = np.array([along[1], -along[0], 0.0]) * 0.15
    frame = w.material("furniture")
    jambs = [
        quad(p, outward, lift, frame),
        quad(q + outward, -outward, lift, frame),
        quad(p + lift, outward, along * door, frame),
    ]
    return [
        quad(start, along * left, up, m),
        quad(q, end - q, up, m),
        quad(p + lift, along * door, up - lift, m),
        *jambs,
    ]


def facing(normal: Vector) -> float:
    """The yaw that turns an object's front (-y) towards `normal` (x, y)."""
    return float(np.arctan2(normal[0], -normal[1]))


def _decorate(plan: Plan, a: np.ndarray, b: np.ndarray, height: float) -> None:
    """Doors, windows, pictures, curtains and skirting on the wall from a to b (inside: left)."""
    w = plan.w
    run = b - a
    length = float(np.hypot(*run))
    along = run / length
    inward = np.array([-along[1], along[0]])
    yaw = facing(inward)

    def hang(mesh: Mesh, s: float, z: float, out: float = 0.0) -> None:
        plan.parts.append(mesh.moved(at=(*(a + along * s + inward * out), z), yaw=yaw))

    if w.chance(0.7):
        skirting = box((length, 0.03, w.between(0.05, 0.15)), w.material("furniture"))
        hang(skirting, length / 2, 0.0, 0.01)
    s = w.between(0.2, 1.2)
    while s < length - 0.6:
        kind = w.rng.random()
        if kind < 0.3:
            size = (w.between(0.25, 1.0), 0.03, w.between(0.25, 0.9))
            hang(box(size, w.material("poster", fit=True), fit=True), s, w.between(1.1, 1.6), 0.015)
        elif kind < 0.45 and s + 1.0 < length:
            hang(_door(w), s + 0.5, 0.0, 0.03)
        elif kind < 0.6 and s + 1.4 < length:
            wide, tall, sill = w.between(0.8, 1.6), w.between(0.9, 1.5), w.between(0.3, 1.0)
            frame = w.material("furniture")
            hang(box((wide + 0.12, 0.06, tall + 0.12), frame), s + 0.7, sill - 0.06, 0.01)
            pane = w.material("wall", glow=w.between(0.5, 4.0))
            hang(box((wide, 0.02, tall), pane), s + 0.7, sill, 0.045)
            hang(box((0.05, 0.03, tall), frame), s + 0.7, sill, 0.05)
            if w.chance(0.5):
                cloth = w.material("fabric")
                for side in (-1, 1):
                    hang(_curtain(w, cloth, height), s + 0.7 + side * wide * 0.55, 0.05, 0.12)
        s += w.between(0.9, 2.6)


def _door(w: Workshop) -> Mesh:
    tall, wide = w.between(1.95, 2.15), w.between(0.75, 0.95)
    leaf, frame, metal = w.material("furniture"), w.material("furniture"), w.material("metal")
    parts = [
        box((wide, 0.05, tall), leaf),
        box((wide + 0.16, 0.03, tall + 0.08), frame),
        capsule((wide * 0.42, -0.06, 1.02), (wide * 0.3, -0.06, 1.02), 0.012, metal),
    ]
    if w.chance(0.5):
        for z in (0.15, 1.1):
            parts.append(box((wide * 0.7, 0.02, 0.75), leaf).moved(at=(0, -0.03, z)))
    return join(parts)


def _curtain(w: Workshop, material: int, height: float) -> Mesh:
    x = np.linspace(-0.35, 0.35, 40)
    depth = 0.05 * np.sin(x * w.between(25, 60)) + 0.02 * np.sin(x * 13)
    z = np.array([height - 0.15, 0.0])
    points = np.stack([np.column_stack([x, depth, np.full(40, h)]) for h in z])
    uv = np.stack([np.column_stack([x * 1.5, np.full(40, -h)]) for h in z])
    return surface(points, uv, material)


def shell(plan: Plan, size: np.ndarray) -> None:
    """Floor, ceiling and decorated walls of a room with its corner at the origin."""
    w = plan.w
    sx, sy, height = size
    wall = w.material("wall")
    plan.parts += [
        quad((-9, -9, 0), (sx + 18, 0, 0), (0, sy + 18, 0), w.material("floor")),
        quad((-9, -9, height), (0, sy + 18, 0), (sx + 18, 0, 0), w.material("ceiling")),
    ]
    corners = np.array([[0, 0], [sx, 0], [sx, sy], [0, sy]])
    for i in range(4):
        a, b = corners[i], corners[(i + 1) % 4]
        m = wall if w.chance(0.75) else w.material("wall", fresh=True)
        plan.parts += _wall(w, a, b, height, m)
        _decorate(plan, a, b, height)
    beyond = w.material("wall")  # what is seen through doorways
    for i, (dx, dy) in enumerate(((0, -3), (3, 0), (0, 3), (-3, 0))):
        a, b = corners[i] + (dx, dy), corners[(i + 1) % 4] + (dx, dy)
        plan.parts += [quad((*a, 0), (*(b - a), 0), (0, 0, height), beyond)]
    if w.chance(0.35):
        rug = (w.between(1.0, 2.5), w.between(0.8, 2.0), 0.012)
        place = (sx * w.between(0.3, 0.7), sy * w.between(0.3, 0.7), 0)
        plan.parts.append(box(rug, w.material("fabric", fresh=True)).moved(at=place))


def furnish(plan: Plan, size: np.ndarray, density: float) -> None:
    """Furniture along the walls and in the middle, chairs at the tables, clutter on the floor."""
    w = plan.w
    sx, sy, _ = size
    for _ in range(int(density * (sx + sy))):
        make = objects.FURNITURE[int(w.rng.integers(len(objects.FURNITURE)))]
        mesh = make(w)
        low, high = mesh.vertices.min(axis=(0, 1)), mesh.vertices.max(axis=(0, 1))
        half, deep = (high - low)[0] / 2, (high - low)[1] / 2
        for _ in range(8):
            if w.chance(0.7):  # back to a wall
                side = int(w.rng.integers(4))
                n = np.array([(0, 1), (-1, 0), (0, -1), (1, 0)][side], dtype=np.float64)
                s = w.between(half, max(half + 0.1, (sx, sy)[side % 2] - half))
                x = s if side % 2 == 0 else (sx - deep - 0.06 if side == 1 else deep + 0.06)
                y = s if side % 2 == 1 else (deep + 0.06 if side == 0 else sy - deep - 0.06)
                yaw = facing(n)
            else:
                x, y, yaw = w.between(0.8, sx - 0.8), w.between(0.8, sy - 0.8), w.between(0, 6.3)
            if plan.free(x, y, 0.45 * float(np.hypot(half, deep))):
                plan.put(mesh, x, y, yaw)
                if make is objects.table and half > 0.55 and w.chance(0.6):
                    _seat(plan, x, y, yaw, half, deep)
                break
    for _ in range(int(w.rng.integers(0, 6) * density)):
        make = objects.EXTRAS[int(w.rng.integers(len(objects.EXTRAS)))]
        x, y = w.between(0.4, sx - 0.4), w.between(0.4, sy - 0.4)
        if plan.free(x, y, 0.25):
            plan.put(make(w), x, y, w.between(0, 6.3))


def _seat(plan: Plan, x: float, y: float, yaw: float, half: float, deep: float) -> None:
    w = plan.w
    chair = objects.chair(w)
    for side in (-1, 1):
        for s in np.arange(-half + 0.35, half - 0.2, 0.6):
            local = np.array([s, side * (deep + w.between(0.05, 0.3))])
            c, t = np.cos(yaw), np.sin(yaw)
            place = (x + c * local[0] - t * local[1], y + t * local[0] + c * local[1], 0)
            turn = yaw + (np.pi if side < 0 else 0.0) + w.between(-0.25, 0.25)
            if w.chance(0.75):
                plan.parts.append(chair.moved(at=place, yaw=turn))

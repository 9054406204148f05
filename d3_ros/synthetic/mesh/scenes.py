"""Scenes to render: rooms, table-tops, corridors, stairs and streets, all from a seed.

Their cameras are where a robot, a person or a tripod would have them.
"""

from __future__ import annotations

import numpy as np

from d3_ros.synthetic.mesh import objects
from d3_ros.synthetic.mesh.mesh import Mesh, ball, box, capsule, join, quad
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.rooms import Plan, facing, furnish, shell
from d3_ros.synthetic.mesh.scene import Light, MeshScene, Viewpoint, finish, indoor_view, lamps
from d3_ros.synthetic.mesh.shapes import random_shape


def room(w: Workshop) -> MeshScene:
    """A furnished living room, office, bedroom or hall; cameras from robot to head height."""
    size = np.array([w.between(2.8, 9.0), w.between(2.8, 9.0), w.between(2.3, 3.4)])
    plan = Plan(w)
    shell(plan, size)
    furnish(plan, size, w.between(0.3, 1.3))
    low = w.between(0.2, 1.4)
    pitch = (-0.75, -0.2) if w.chance(0.25) else (-0.4, 0.12)
    draw = indoor_view(plan, size, (low, low + 0.4), pitch)
    scene = finish(plan, lamps(w, size), draw)
    centre, radius = size[:2] / 2, 0.33 * size[:2]

    def walk(t: float) -> Viewpoint:
        """A slow arc through the room, looking across it; t in [0, 1]."""
        angle = 3.6 + 0.5 * t
        eye = np.array([*(centre + radius * (np.cos(angle), np.sin(angle))), 1.1])
        ahead = angle + np.pi + 0.25 - 0.3 * t
        target = eye + np.array([np.cos(ahead), np.sin(ahead), -0.22])
        return Viewpoint(eye, target, 0.01 * np.sin(9 * t))

    scene.walk = walk
    return scene


def corridor(w: Workshop) -> MeshScene:
    """A narrow passage with doors and a few things on the floor."""
    size = np.array([w.between(1.3, 2.8), w.between(4.0, 16.0), w.between(2.2, 3.0)])
    plan = Plan(w)
    shell(plan, size)
    for _ in range(int(w.rng.integers(0, 5))):
        make = (*objects.EXTRAS, objects.cabinet)[int(w.rng.integers(len(objects.EXTRAS) + 1))]
        side = 1 if w.chance(0.5) else -1
        x = size[0] / 2 + side * (size[0] / 2 - 0.35)
        plan.put(make(w), x, w.between(0.5, size[1] - 0.5), side * np.pi / 2)
    low = w.between(0.2, 1.5)
    pitch = (-0.8, -0.25) if w.chance(0.35) else (-0.35, 0.1)
    draw = indoor_view(plan, size, (low, low + 0.3), pitch)
    scene = finish(plan, lamps(w, size), draw)

    def walk(t: float) -> Viewpoint:
        """Along the middle of the passage, swaying a little; t in [0, 1]."""
        eye = np.array([size[0] / 2 + 0.1 * np.sin(5 * t), 0.4 + t * 0.6 * (size[1] - 0.8), 1.0])
        ahead = np.pi / 2 + 0.12 * np.sin(7 * t)
        return Viewpoint(eye, eye + np.array([np.cos(ahead), np.sin(ahead), -0.15]), 0.0)

    scene.walk = walk
    return scene


def tabletop(w: Workshop) -> MeshScene:
    """Objects on a table seen from 0.5 to 1.4 m, with the room around it."""
    return _table(w, (0.9, 2.6), (0.7, 1.5))


def worktop(w: Workshop) -> MeshScene:
    """Objects on a table so large that it fills most of the picture, also seen at a slant."""
    return _table(w, (1.8, 3.8), (1.2, 2.6))


def longtable(w: Workshop) -> MeshScene:
    """Objects on a long table, seen from one of its ends."""
    return _table(w, (2.4, 4.2), (0.9, 2.2), along=True)


def _table(
    w: Workshop,
    lengths: tuple[float, float],
    widths: tuple[float, float],
    along: bool = False,
) -> MeshScene:
    room = (6.0, 10.0) if along else (3.0, 7.0)  # with space for the camera before the table's end
    size = np.array([w.between(*room), w.between(3.0, 7.0), w.between(2.3, 3.2)])
    plan = Plan(w)
    shell(plan, size)
    length, width, height = w.between(*lengths), w.between(*widths), w.between(0.65, 0.8)
    x = size[0] * w.between(0.3, 0.7)
    y = width / 2 + 0.03 if w.chance(0.5) else size[1] * w.between(0.3, 0.7)
    plan.put(box((length, width, 0.04), w.material("table")), x, y, z=height - 0.04)
    leg = w.material("furniture")
    for sx in (-0.46, 0.46):
        for sy in (-0.46, 0.46):
            post = box((0.05, 0.05, height - 0.04), leg)
            plan.parts.append(post.moved(at=(x + sx * length, y + sy * width, 0)))
    middle = np.array([x + w.between(-0.3, 0.3) * length, y + w.between(-0.2, 0.2) * width, height])
    spread = w.between(0.05, 0.4)
    for _ in range(int(w.rng.integers(1, 10))):
        spot = np.array([*w.rng.normal(middle[:2], spread)])
        if abs(spot[0] - x) < length / 2 and abs(spot[1] - y) < width / 2:
            small = objects.small_object(w)
            if w.chance(0.1):
                small = small.moved(tilt=w.between(-0.5, 0.5))
            plan.parts.append(small.moved(at=(*spot, height), yaw=w.between(0, 6.3)))
    furnish(plan, size, w.between(0.1, 0.6))

    def draw(rng: np.random.Generator) -> Viewpoint:
        distance, lift = rng.uniform(0.5, 1.5), rng.uniform(0.25, 1.1)
        yaw = rng.uniform(0.15, np.pi - 0.15) if y < size[1] / 3 else rng.uniform(0, 2 * np.pi)
        flat = distance * np.cos(lift)
        back = np.array([flat * np.cos(yaw), flat * np.sin(yaw), distance * np.sin(lift) + 0.05])
        eye = middle + back
        eye[2] = min(eye[2], size[2] - 0.2)
        return Viewpoint(eye, middle + rng.normal(0, 0.12, 3), float(rng.normal(0, 0.04)))

    def draw_along(rng: np.random.Generator) -> Viewpoint:
        distance, lift = rng.uniform(0.6, 1.6), rng.uniform(0.3, 0.9)
        aside = rng.normal(0, 0.35)
        if y < size[1] / 3:
            aside = abs(aside)  # the table may stand at the wall y = 0
        ahead = 1 if x > size[0] / 2 else -1  # the camera is where the room is longer
        back = np.array([-ahead * np.cos(aside), np.sin(aside), np.tan(lift)]) * np.cos(lift)
        eye = middle + distance * back
        eye = np.clip(eye, 0.3, size - (0.3, 0.3, 0.2))
        return Viewpoint(eye, middle + rng.normal(0, 0.12, 3), float(rng.normal(0, 0.04)))

    scene = finish(plan, lamps(w, size), draw_along if along else draw)

    def walk(t: float) -> Viewpoint:
        """Around the objects in a quarter of a circle, as an arm moves a camera; t in [0, 1]."""
        yaw = np.pi / 4 + t * np.pi / 2
        away = np.array([0.8 * np.cos(yaw), 0.8 * np.sin(yaw), 0.55])
        return Viewpoint(middle + away, middle, 0.0)

    scene.walk = walk
    return scene


def stairs(w: Workshop) -> MeshScene:
    """A flight of steps with rails, in a room."""
    size = np.array([w.between(3.0, 6.0), w.between(5.0, 9.0), w.between(3.0, 5.0)])
    plan = Plan(w)
    shell(plan, size)
    steps, rise, tread = int(w.rng.integers(3, 14)), w.between(0.12, 0.2), w.between(0.24, 0.35)
    wide, x, y = w.between(0.9, size[0] - 1), size[0] / 2, size[1] - 0.3
    m = w.material("floor")
    for i in range(steps):
        block = box((wide, tread * (steps - i), rise), m)
        plan.put(block, x, y - tread * (steps - i) / 2, z=i * rise)
    if w.chance(0.7):
        rail = w.material("metal")
        for side in (-0.5, 0.5):
            foot = np.array([x + side * wide, y - tread * steps, 0.9])
            head = foot + np.array([0, tread * steps, rise * steps])
            plan.parts.append(capsule(foot, head, 0.025, rail))
            for t in np.linspace(0, 1, 6):
                post = foot + t * (head - foot)
                plan.parts.append(capsule(post, post - (0, 0, 0.9), 0.012, rail))
    furnish(plan, size * (1, 0.5, 1), 0.5)
    low = w.between(0.3, 1.5)
    draw = indoor_view(plan, size * (1, 0.6, 1), (low, low + 0.3), (-0.35, 0.15))
    return finish(plan, lamps(w, size), draw)


def street(w: Workshop) -> MeshScene:
    """House fronts, trees, people and parked vehicles under the sky."""
    plan, gap = street_plan(w)

    def draw(rng: np.random.Generator) -> Viewpoint:
        eye = np.array([rng.uniform(-0.8, 0.8) * gap, rng.uniform(-8, 4), rng.uniform(0.3, 1.9)])
        yaw = np.pi / 2 + rng.normal(0, 0.5)
        direction = np.array([np.cos(yaw), np.sin(yaw), rng.uniform(-0.3, 0.1)])
        return Viewpoint(eye, eye + direction, float(rng.normal(0, 0.02)))

    return finish(plan, [sun(w)], draw)


def street_plan(w: Workshop) -> tuple[Plan, float]:
    """A street along y with what stands in it, and half its width in metres."""
    plan = Plan(w)
    span, gap = 60.0, w.between(5.0, 14.0)
    ground = w.material("ground")
    plan.parts.append(quad((-span, -span, 0), (2 * span, 0, 0), (0, 2 * span, 0), ground))
    for side in (-1, 1):
        s = -20.0
        pavement = box((2.0, 80.0, 0.14), w.material("ground"))
        plan.parts.append(pavement.moved(at=(side * (gap - 1.0), 20, 0)))
        while s < 50 and w.chance(0.95):
            wide, tall = w.between(5, 14), w.between(3, 14)
            place = (side * (gap + 4), s, 0)
            plan.parts.append(house(w, wide, tall).moved(at=place, yaw=facing((-side, 0))))
            s += wide + (w.between(0, 6) if w.chance(0.4) else 0.0)
    for _ in range(int(w.rng.integers(2, 12))):
        x, y = w.between(-gap, gap), w.between(-3, 30)
        if abs(x) > 1.2:
            make = (vehicle, vehicle, tree, tree, objects.person, objects.plant)
            thing = make[int(w.rng.integers(len(make)))](w)
            plan.put(thing, x, y, np.pi / 2 * float(w.rng.integers(4)))
    return plan, gap


def sun(w: Workshop) -> Light:
    """The sun, small and hard or behind clouds."""
    direction = w.rng.normal(0, 1, 3)
    direction[2] = abs(direction[2]) + 0.4
    centre = 300.0 * direction / np.linalg.norm(direction)
    return Light(centre, w.between(0.5, 8.0), np.array([1.0, 0.95, 0.85]) * 9e4)


def shapes(w: Workshop) -> MeshScene:
    """A room full of abstract solids, large and small, on the floor and in the air."""
    size = np.array([w.between(3.0, 8.0), w.between(3.0, 8.0), w.between(2.4, 4.0)])
    plan = Plan(w)
    shell(plan, size)
    for _ in range(int(w.rng.integers(6, 26))):
        solid = random_shape(w, float(np.exp(w.between(np.log(0.08), np.log(1.2)))))
        x, y = w.between(0.3, size[0] - 0.3), w.between(0.3, size[1] - 0.3)
        lift = w.between(0.0, size[2] - 0.8) if w.chance(0.3) else 0.0
        tilt = w.between(-1.5, 1.5) if lift > 0 else 0.0
        plan.put(solid.moved(tilt=tilt), x, y, w.between(0, 6.3), lift)
    low = w.between(0.2, 1.5)
    draw = indoor_view(plan, size, (low, low + 0.4), (-0.6, 0.15))
    return finish(plan, lamps(w, size), draw)


def house(w: Workshop, wide: float, tall: float) -> Mesh:
    """A house 8 m deep with rows of windows in its front."""
    parts = [box((wide, 8.0, tall), w.material("facade"))]
    glass, frame = w.material("metal"), w.material("furniture")
    for z in np.arange(0.9, tall - 1.5, 2.8):
        for x in np.arange(-wide / 2 + 1.2, wide / 2 - 1.0, w.between(1.6, 3.0)):
            parts.append(box((1.15, 0.16, 1.55), frame).moved(at=(x, -4.0, z)))
            parts.append(box((1.0, 0.02, 1.4), glass).moved(at=(x, -4.09, z + 0.07)))
    return join(parts)


def tree(w: Workshop) -> Mesh:
    """A tree with a crown of balls."""
    tall = w.between(1.5, 5.0)
    leaf = w.material("leaf")
    parts = [capsule((0, 0, 0), (0, 0, tall), w.between(0.05, 0.2), w.material("furniture"))]
    for _ in range(int(w.rng.integers(3, 10))):
        crown = ball(tall * w.between(0.1, 0.25), leaf, stretch=w.between(0.7, 1.2), segments=12)
        place = w.rng.normal((0, 0, tall * 0.85), tall * 0.14)
        parts.append(crown.moved(at=place))
    return join(parts)


def vehicle(w: Workshop) -> Mesh:
    """A car of boxes, along x."""
    body, glass, tyre = w.material("object"), w.material("metal"), w.material("metal")
    length, wide, base = w.between(3.2, 4.8), w.between(1.6, 1.9), w.between(0.6, 0.9)
    parts = [
        box((length, wide, base), body).moved(at=(0, 0, 0.25)),
        box((length * 0.55, wide * 0.9, 0.55), glass).moved(at=(-0.1, 0, 0.25 + base)),
        box((length * 0.5, wide * 0.85, 0.04), body).moved(at=(-0.1, 0, 0.8 + base)),
    ]
    for sx in (-0.32, 0.32):
        for sy in (-0.5, 0.5):
            wheel = objects.cylinder(0.32, 0.2, tyre).moved(tilt=np.pi / 2)
            parts.append(wheel.moved(at=(sx * length, sy * wide + 0.1, 0.32)))
    return join(parts)

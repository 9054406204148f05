"""Scenes as robots see them: close to the floor, amid clutter, from above and along shelves."""

from __future__ import annotations

import numpy as np

from d3_ros.synthetic.mesh import objects, obstacles
from d3_ros.synthetic.mesh.mesh import box, join
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.obstacles import Maker
from d3_ros.synthetic.mesh.rooms import Plan, facing, furnish, shell
from d3_ros.synthetic.mesh.scene import MeshScene, Viewpoint, finish, indoor_view, lamps
from d3_ros.synthetic.mesh.scenes import street_plan, sun, tree, vehicle

NEAREST_M = 0.06  # a robot's camera may have the floor or an obstacle right before it
DARK: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {"fabric": "dark"},
    {"furniture": "dark"},
    {"wall": "glossy", "table": "glossy"},
)
Spot = tuple[float, float, float, float]  # an obstacle: x, y, yaw, half its depth; metres, radians


def lowcam(w: Workshop) -> MeshScene:
    """A camera 0.05 to 0.5 m above the floor, with something straight ahead of it."""
    w.instead = DARK[int(w.rng.integers(len(DARK)))]
    if w.chance(0.1):
        return _low_street(w)
    size, plan = _surroundings(w)
    spots = place_obstacles(plan, size, obstacles.STANDING, int(w.rng.integers(4, 11)))
    _litter(plan, size)
    scene = finish(plan, lamps(w, size), lambda rng: low_view(rng, plan, size, spots))
    scene.free_m = NEAREST_M
    return scene


def clutter(w: Workshop) -> MeshScene:
    """A crowded room with thin parts: rungs, rails, cables, plants, racks."""
    w.instead = DARK[int(w.rng.integers(len(DARK)))]
    size, plan = _room(w, w.between(0.8, 1.6))
    many = (*obstacles.THIN * 2, *obstacles.STANDING, objects.plant, objects.plant)
    place_obstacles(plan, size, many, int(w.rng.integers(7, 16)), apart=0.6)
    _litter(plan, size)
    low = w.between(0.15, 1.4)
    draw = indoor_view(plan, size, (low, low + 0.4), (-0.55, 0.1))
    scene = finish(plan, lamps(w, size), draw)
    scene.free_m = 0.2
    return scene


def above(w: Workshop) -> MeshScene:
    """Floors and tables seen from above, and shelves along which the camera looks."""
    w.instead = DARK[int(w.rng.integers(len(DARK)))]
    if w.chance(0.4):
        return _aisle(w)
    size, plan = _room(w, w.between(0.3, 1.2))
    things = (*obstacles.STANDING, objects.table, objects.table, objects.shelf)
    spots = place_obstacles(plan, size, things, int(w.rng.integers(4, 11)), apart=0.7)
    _litter(plan, size)

    def draw(rng: np.random.Generator) -> Viewpoint:
        x, y, _, _ = spots[int(rng.integers(len(spots)))] if spots else (*size[:2] / 2, 0, 0)
        target = np.array([x, y, rng.uniform(0, 0.8)]) + rng.normal(0, 0.25, 3)
        pitch, distance = rng.uniform(0.45, 1.4), rng.uniform(0.5, 2.6)
        yaw = rng.uniform(0, 2 * np.pi)
        back = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        eye = np.clip(target + distance * back, (0.15, 0.15, 0.5), size - (0.15, 0.15, 0.15))
        eye[:2] += 1e-3  # never straight above its target
        return Viewpoint(eye, target, float(rng.normal(0, 0.08)))

    scene = finish(plan, lamps(w, size), draw)
    scene.free_m = 0.25
    return scene


def _room(w: Workshop, density: float) -> tuple[np.ndarray, Plan]:
    """A furnished room with windows and lamps: its size (x, y, z) in metres, and its plan."""
    size = np.array([w.between(2.6, 7.0), w.between(2.6, 7.0), w.between(2.3, 3.2)])
    plan = Plan(w)
    shell(plan, size)
    furnish(plan, size, density)
    _windows(plan, size)
    ceiling_lamps(plan, size)
    return size, plan


def _surroundings(w: Workshop) -> tuple[np.ndarray, Plan]:
    """What is behind the obstacles: a room, a corridor or a hall."""
    place = w.rng.random()
    if place < 0.6:
        return _room(w, w.between(0.15, 1.0))
    plan = Plan(w)
    if place < 0.8:
        size = np.array([w.between(1.4, 2.8), w.between(4.0, 15.0), w.between(2.2, 3.0)])
        shell(plan, size)
    else:
        size = np.array([w.between(8, 20), w.between(10, 28), w.between(3.0, 7.0)])
        shell(plan, size)
        _hall(plan, size)
    _windows(plan, size)
    ceiling_lamps(plan, size)
    return size, plan


def _hall(plan: Plan, size: np.ndarray) -> None:
    """Pillars, racks, parked vehicles and painted lines of a hall or car park."""
    w = plan.w
    paint, pillar = w.material("plain_light"), w.material("wall")
    step = w.between(3.5, 6.0)
    thick = w.between(0.25, 0.6)
    for x in np.arange(step / 2, size[0], step):
        for y in np.arange(step / 2, size[1], step):
            plan.put(box((thick, thick, size[2]), pillar), x, y)
        if w.chance(0.5):
            line = box((0.1, size[1] * 0.8, 0.002), paint)
            plan.parts.append(line.moved(at=(x + step / 3, size[1] / 2, 0)))
    makers = (vehicle, rack, rack, obstacles.pallet, obstacles.carton_stack)
    for _ in range(int(w.rng.integers(4, 16))):
        x, y = w.between(1.5, size[0] - 1.5), w.between(1.5, size[1] - 1.5)
        mesh = makers[int(w.rng.integers(len(makers)))](w)
        if plan.free(x, y, 1.2):
            plan.put(mesh, x, y, np.pi / 2 * float(w.rng.integers(4)))


def rack(w: Workshop) -> objects.Mesh:
    """A rack with cartons, crates and small things on its boards."""
    wide, deep, tall = w.between(1.0, 2.4), w.between(0.35, 0.8), w.between(1.2, 2.6)
    post, board = w.material("metal"), w.material("furniture")
    parts = [
        box((0.05, 0.05, tall), post).moved(at=(sx * wide / 2, sy * (deep / 2 - 0.03), 0))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    levels = int(w.rng.integers(2, 6))
    gap = (tall - 0.1) / levels
    for i in range(levels + 1):
        parts.append(box((wide, deep, 0.03), board).moved(at=(0, 0, 0.05 + i * gap)))
        x = -wide / 2 + 0.06
        while i < levels and x < wide / 2 - 0.15:
            if gap > 0.3 and w.chance(0.5):
                mesh = obstacles.carton(w, min(0.5, gap * 0.9))
            elif w.chance(0.3):
                mesh = obstacles.bin_or_pot(w)
            else:
                mesh = objects.small_object(w)
            low, high = mesh.vertices.min(axis=(0, 1)), mesh.vertices.max(axis=(0, 1))
            k = min(1.0, 0.92 * (gap - 0.03) / high[2], 1.1 * deep / (high[1] - low[1]))
            mesh = obstacles.scaled(mesh, (k, k, k))
            half = k * (high[0] - low[0]) / 2
            front = -deep / 2 + k * (high[1] - low[1]) / 2 + w.between(0, 0.06)
            if x + 2 * half < wide / 2:
                parts.append(mesh.moved(at=(x + half, front, 0.08 + i * gap)))
            x += 2 * half + w.between(0.005, 0.12)
    return join(parts)


def _aisle(w: Workshop) -> MeshScene:
    """Racks on both sides of an aisle; the camera looks along one, or down into it."""
    length, gap = w.between(4.0, 10.0), w.between(0.8, 2.0)
    size = np.array([length, gap + w.between(1.0, 2.0), w.between(2.4, 4.0)])
    plan = Plan(w)
    shell(plan, size)
    ceiling_lamps(plan, size)
    make = objects.shelf if w.chance(0.35) else rack
    for side in (0, 1):
        x = 0.1
        while x < length - 0.8:
            mesh = make(w)
            low, high = mesh.vertices.min(axis=(0, 1)), mesh.vertices.max(axis=(0, 1))
            half, deep = (high - low)[:2] / 2
            middle = size[1] / 2
            y = middle + (1 if side else -1) * (gap / 2 + deep)
            yaw = 0.0 if side else np.pi
            if x + 2 * half < length:
                plan.put(mesh, x + half, y, yaw)
            x += 2 * half + w.between(0.0, 0.4)
    _litter(plan, size)

    def draw(rng: np.random.Generator) -> Viewpoint:
        side = rng.choice([-1.0, 1.0])
        away = rng.uniform(0.2, 0.9) * gap
        eye = np.array(
            [rng.uniform(0.15, 0.85) * length, size[1] / 2 + side * (away - gap / 2), 0.0]
        )
        eye[2] = rng.uniform(0.2, min(2.0, size[2] - 0.3))
        turn = rng.uniform(-0.2, 1.3)  # 0 is along the aisle, pi / 2 straight at the shelf
        yaw = side * turn if rng.random() < 0.5 else np.pi - side * turn
        pitch = rng.uniform(-0.9, -0.3) if rng.random() < 0.3 else rng.normal(-0.05, 0.15)
        ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        return Viewpoint(eye, eye + ahead, float(rng.normal(0, 0.03)))

    scene = finish(plan, lamps(w, size), draw)
    scene.free_m = 0.15
    return scene


def _low_street(w: Workshop) -> MeshScene:
    """The street with obstacles on it, from just above the ground."""
    plan, gap = street_plan(w)
    size = np.array([2 * gap, 16.0, 3.0])
    makers: tuple[Maker, ...] = (
        obstacles.cone,
        obstacles.walker,
        obstacles.carton,
        obstacles.rails,
        obstacles.bicycle,
        obstacles.bin_or_pot,
        obstacles.pallet,
        vehicle,
        tree,
    )
    spots = place_obstacles(plan, size, makers, int(w.rng.integers(4, 10)), corner=(-gap, 0.0))
    view_size = np.array([gap, 20.0, 3.0])
    scene = finish(
        plan, [sun(w)], lambda rng: low_view(rng, plan, view_size, spots, corner=(-gap, -4.0))
    )
    scene.free_m = NEAREST_M
    return scene


def place_obstacles(
    plan: Plan,
    size: np.ndarray,
    makers: tuple[Maker, ...],
    count: int,
    *,
    apart: float = 0.9,
    corner: tuple[float, float] = (0.0, 0.0),
) -> list[Spot]:
    """Stand up to `count` obstacles in the free space; returns where they are."""
    w = plan.w
    spots: list[Spot] = []
    for _ in range(count):
        mesh = makers[int(w.rng.integers(len(makers)))](w)
        low, high = mesh.vertices.min(axis=(0, 1)), mesh.vertices.max(axis=(0, 1))
        radius = 0.45 * float(np.hypot(*(high - low)[:2]))
        for _ in range(6):
            edge = min(radius, 0.4 * float(size[:2].min()))
            x, y = (corner[i] + w.between(edge, size[i] - edge) for i in range(2))
            if plan.free(x, y, radius * apart):
                yaw = w.between(0, 2 * np.pi)
                plan.put(mesh, x, y, yaw)
                spots.append((x, y, yaw, float(high[1] - low[1]) / 2))
                break
    return spots


def _litter(plan: Plan, size: np.ndarray) -> None:
    """Cables, shoes and small things on the floor; they block no camera."""
    w = plan.w
    for _ in range(int(w.rng.integers(0, 6))):
        mesh = obstacles.LYING[int(w.rng.integers(len(obstacles.LYING)))](w)
        place = (w.between(0.2, size[0] - 0.2), w.between(0.2, size[1] - 0.2), 0.0)
        plan.parts.append(mesh.moved(at=place, yaw=w.between(0, 6.3)))


def low_view(
    rng: np.random.Generator,
    plan: Plan,
    size: np.ndarray,
    spots: list[Spot],
    corner: tuple[float, float] = (0.0, 0.0),
    heights_m: tuple[float, float] = (0.05, 0.5),
) -> Viewpoint:
    """0.2 to 2 m before an obstacle or a wall, level as a rule."""
    low, high = np.array(corner) + 0.12, np.array(corner) + size[:2] - 0.12
    for _ in range(30):
        gap = float(np.exp(rng.uniform(np.log(0.2), np.log(2.2))))
        if spots and rng.random() < 0.85:
            x, y, yaw, half = spots[int(rng.integers(len(spots)))]
            if rng.random() < 0.6:  # one of its faces, squarely as a rule
                yaw += float(rng.integers(4)) * np.pi / 2 + rng.normal(0, 0.3)
            else:
                yaw = rng.uniform(0, 2 * np.pi)
            # the front is -y: it faces (sin yaw, -cos yaw)
            out = np.array([np.sin(yaw), -np.cos(yaw)])
            eye, ahead = np.array([x, y]) + (half + gap) * out, -out
        else:
            side = int(rng.integers(4))
            ahead = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)][side], dtype=np.float64)
            eye = rng.uniform(low, high)
            axis = 1 - side % 2
            eye[axis] = high[axis] - gap if ahead[axis] > 0 else low[axis] + gap
        if (
            (eye > low).all()
            and (eye < high).all()
            and plan.free(float(eye[0]), float(eye[1]), 0.0)
        ):
            break
    else:
        eye = np.clip(eye, low, high)
    yaw = np.arctan2(ahead[1], ahead[0]) + rng.normal(0, 0.22)
    tilt = rng.normal(0.02, 0.06) if rng.random() < 0.7 else rng.uniform(-0.4, 0.25)
    height = float(np.exp(rng.uniform(np.log(heights_m[0]), np.log(heights_m[1]))))
    direction = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
    place = np.array([*eye, height])
    return Viewpoint(place, place + direction, float(rng.normal(0, 0.03)))


def _windows(plan: Plan, size: np.ndarray) -> None:
    """Windows and glass doors with a bright outside, on some of the walls."""
    w = plan.w
    for _ in range(int(w.rng.choice([0, 0, 1, 2]))):
        side = int(w.rng.integers(4))
        inward = np.array([(0, 1), (-1, 0), (0, -1), (1, 0)][side], dtype=np.float64)
        long = size[side % 2]
        wide, tall = min(w.between(0.8, 2.5), long - 0.4), w.between(0.9, 2.0)
        sill = 0.02 if w.chance(0.3) else w.between(0.3, 1.0)
        tall = min(tall, size[2] - sill - 0.1)
        s = w.between(wide / 2 + 0.1, long - wide / 2 - 0.1)
        frame = w.material("furniture")
        pane = w.material("outside", fit=True, fresh=True, glow=w.between(1.0, 6.0))
        bars = [-wide / 2, *np.linspace(-wide / 2, wide / 2, int(w.rng.integers(2, 5)))[1:-1]]
        parts = [box((wide, 0.02, tall), pane, fit=True).moved(at=(0, 0, sill))]
        parts += [box((0.05, 0.06, tall), frame).moved(at=(x, 0, sill)) for x in (*bars, wide / 2)]
        parts += [
            box((wide + 0.05, 0.07, 0.05), frame).moved(at=(0, 0, z)) for z in (sill, sill + tall)
        ]
        base = np.array([(s, 0), (size[0], s), (s, size[1]), (0, s)][side])
        place = (*(base + 0.03 * inward), 0.0)
        plan.parts.append(join(parts).moved(at=place, yaw=facing(inward)))


def ceiling_lamps(plan: Plan, size: np.ndarray) -> None:
    """Glowing panels or tubes in rows under the ceiling."""
    w = plan.w
    if w.chance(0.4):
        return
    glow = w.material("plain_light", glow=w.between(2.0, 8.0))
    panel = (w.between(0.1, 0.7), w.between(0.3, 1.3), 0.04)
    rows, columns = (max(1, int(size[i] / w.between(2.0, 4.0))) for i in (0, 1))
    for x in (np.arange(rows) + 0.5) / rows * size[0]:
        for y in (np.arange(columns) + 0.5) / columns * size[1]:
            plan.parts.append(box(panel, glow).moved(at=(x, y, size[2] - 0.05)))

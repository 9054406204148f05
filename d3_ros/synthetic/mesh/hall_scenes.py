"""Large halls: warehouses and car parks, 15 to 60 m deep, from a robot's height.

The hall's corner is at the origin; its aisles run along y. Metres.
"""

from __future__ import annotations

import numpy as np

from d3_ros.synthetic.mesh import obstacles
from d3_ros.synthetic.mesh.mesh import Mesh, box, cylinder, join, quad
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.obstacles import Maker, rod
from d3_ros.synthetic.mesh.robot_scenes import low_view, place_obstacles
from d3_ros.synthetic.mesh.rooms import Plan
from d3_ros.synthetic.mesh.scene import Light, MeshScene, Viewpoint, finish
from d3_ros.synthetic.mesh.vehicles import car

HEIGHTS_M = (0.08, 1.8)
ON_THE_FLOOR: tuple[Maker, ...] = (
    obstacles.pallet,
    obstacles.pallet,
    obstacles.carton_stack,
    obstacles.carton,
    obstacles.walker,
    obstacles.walker,
    obstacles.trolley,
    obstacles.cone,
    obstacles.ladder,
    obstacles.rails,
    obstacles.crate,
    obstacles.bin_or_pot,
)


def hall(w: Workshop) -> MeshScene:
    """A warehouse with racks or a car park with pillars; the far wall is 15 to 60 m away."""
    plan, cars = Plan(w), w.chance(0.4)
    tall = w.between(2.4, 3.4) if cars else w.between(4.5, 11.0)
    size = np.array([w.between(14.0, 36.0), w.between(18.0, 62.0), tall])
    _shell(plan, size)
    aisles = _car_park(plan, size) if cars else _warehouse(plan, size)
    _ceiling(plan, size)
    corner = (1.0, 1.0)
    inside = size - (2.0, 2.0, 0.0)
    count = int(w.rng.integers(4, 14))
    spots = place_obstacles(plan, inside, ON_THE_FLOOR, count, corner=corner)

    def draw(rng: np.random.Generator) -> Viewpoint:
        if rng.random() < 0.25:
            return low_view(rng, plan, inside, spots, corner=corner, heights_m=HEIGHTS_M)
        return _view_down_the_aisle(rng, plan, size, aisles)

    scene = finish(plan, _lights(w, size), draw)
    scene.free_m = 0.15
    middle = aisles[len(aisles) // 2]

    def walk(t: float) -> Viewpoint:
        """Down an aisle at 0.9 m; t in [0, 1]."""
        eye = np.array([middle + 0.1 * np.sin(6 * t), 1.5 + 0.5 * t * size[1], 0.9])
        ahead = np.pi / 2 + 0.1 * np.sin(7 * t)
        return Viewpoint(eye, eye + np.array([np.cos(ahead), np.sin(ahead), -0.08]), 0.0)

    scene.walk = walk
    return scene


def _shell(plan: Plan, size: np.ndarray) -> None:
    """Floor, ceiling, walls of two colours, gates, doors and signs."""
    w = plan.w
    sx, sy, height = size
    floor, roof = w.material("concrete", fresh=True), w.material("ceiling")
    plan.parts += [
        quad((0, 0, 0), (sx, 0, 0), (0, sy, 0), floor),
        quad((0, 0, height), (sx, 0, 0), (0, sy, 0), roof),
    ]
    upper, plinth = w.material("wall"), w.material("wall" if w.chance(0.5) else "facade")
    band = w.between(0.3, 1.5) if w.chance(0.6) else 0.0
    corners = np.array([[0, 0], [sx, 0], [sx, sy], [0, sy]])
    for i in range(4):
        a, b = corners[i], corners[(i + 1) % 4]
        along = b - a
        length = float(np.hypot(*along))
        along = along / length
        yaw = float(np.arctan2(along[1], along[0]))
        plan.parts.append(quad((*a, 0), (*(along * length), 0), (0, 0, height), upper))
        pieces = (
            [box((length, 0.03, band), plinth).moved(at=(length / 2, 0.015, 0))] if band else []
        )
        s = w.between(0.5, 4.0)
        while s < length - 4.5:
            pieces += [part.moved(at=(s, 0.03, 0)) for part in _on_the_wall(w, height)]
            s += w.between(4.5, 12.0)
        for part in pieces:
            plan.parts.append(part.moved(at=(*a, 0), yaw=yaw))


def _on_the_wall(w: Workshop, height: float) -> list[Mesh]:
    """A gate, a door, a window band, a sign or a box, from x = 0 to at most 4 m."""
    kind = w.rng.random()
    if kind < 0.25:  # a gate of horizontal slats
        wide, tall = w.between(2.4, 4.0), min(height - 0.2, w.between(2.1, 4.0))
        m, frame = w.material("metal"), w.material("dark")
        slats = np.arange(0, tall - 0.3, 0.4)
        parts = [box((wide, 0.05, 0.38), m).moved(at=(wide / 2, 0.02, z)) for z in slats]
        return [box((wide + 0.3, 0.04, tall), frame).moved(at=(wide / 2, 0, 0)), *parts]
    if kind < 0.5:
        return [box((1.0, 0.06, 2.1), w.material("furniture")).moved(at=(0.5, 0.02, 0))]
    if kind < 0.75:
        glow = w.between(0.5, 4.0)
        wide, low = w.between(1.5, 4.0), height * w.between(0.4, 0.7)
        pane = w.material("plain_light", glow=glow)
        window = box((wide, 0.03, min(1.2, 0.9 * (height - low))), pane)
        return [window.moved(at=(wide / 2, 0.0, low))]
    side = w.between(0.4, 1.5)
    face = w.material("poster", fit=True, fresh=True)
    return [
        box((side, 0.04, side * 0.7), face, fit=True).moved(at=(side, 0.0, w.between(1.0, 1.6)))
    ]


def _pillars(plan: Plan, xs: np.ndarray, ys: np.ndarray, height: float) -> None:
    """Pillars on a grid, round or square, with a painted foot."""
    w = plan.w
    thick, m, paint = w.between(0.3, 0.7), w.material("wall"), w.material("plastic")
    around, foot = w.chance(0.3), w.between(0.5, 1.4) if w.chance(0.6) else 0.0
    for x in xs:
        for y in ys:
            if around:
                plan.put(cylinder(thick / 2, height, m), x, y)
            else:
                plan.put(box((thick, thick, height), m), x, y)
            if foot and around:
                guard = cylinder(thick / 2 + 0.01, foot, paint)
                plan.parts.append(guard.moved(at=(x, y, 0)))
            elif foot:
                guard = box((thick + 0.02, thick + 0.02, foot), paint)
                plan.parts.append(guard.moved(at=(x, y, 0)))


def _line(plan: Plan, start: tuple[float, float], size: tuple[float, float], paint: int) -> None:
    """A painted rectangle on the floor, from its corner `start`."""
    middle = (start[0] + size[0] / 2, start[1] + size[1] / 2, 0)
    plan.parts.append(box((*size, 0.003), paint).moved(at=middle))


def _car_park(plan: Plan, size: np.ndarray) -> list[float]:
    """Lanes along y with bays at both sides; returns x of the lanes' middles."""
    w = plan.w
    lane, deep, bay = w.between(5.0, 6.5), 5.0, w.between(2.4, 2.8)
    paint, share = w.material("plain_light"), w.between(0.1, 0.85)
    shapes = [car(w) for _ in range(4)]
    count = max(1, int(size[0] / (lane + 2 * deep)))
    edge = (size[0] - count * (lane + 2 * deep)) / 2
    middles = [edge + deep + lane / 2 + i * (lane + 2 * deep) for i in range(count)]
    for middle in middles:
        for side in (-1, 1):
            x = middle + side * (lane + deep) / 2
            for y in np.arange(1.5, size[1] - bay - 0.5, bay):
                _line(plan, (x - deep / 2, y - 0.05), (deep, 0.1), paint)
                if w.chance(share):
                    mesh = shapes[int(w.rng.integers(4))]
                    turn = np.pi * float(w.rng.integers(2)) + w.rng.normal(0, 0.03)
                    at = (x + w.between(-0.2, 0.2), y + bay / 2, 0)
                    plan.parts.append(mesh.moved(at=at, yaw=turn))
                    plan.taken += [(at[0] + dx, at[1], 0.95) for dx in (-1.5, 0.0, 1.5)]
        if w.chance(0.5):
            for y in np.arange(3.0, size[1] - 3, 5.0):
                _line(plan, (middle - 0.06, y), (0.12, 2.0), paint)
    xs = [m + s * (lane / 2 + 0.2) for m in middles for s in (-1, 1)]
    ys = np.arange(1.5, size[1] - 1, bay * float(w.rng.integers(2, 5)))
    _pillars(plan, np.array(xs), ys, size[2])
    return middles


def _loaded_pallet(w: Workshop) -> Mesh:
    """A pallet with layers of equal cartons, a crate or a wrapped load, up to 1.5 m high."""
    wood = w.material("furniture")
    parts = [box((0.1, 0.8, 0.1), wood).moved(at=(x, 0, 0)) for x in (-0.5, 0, 0.5)]
    parts += [
        box((1.2, 0.1, 0.02), wood).moved(at=(0, y, 0.1)) for y in np.linspace(-0.35, 0.35, 5)
    ]
    if w.chance(0.25):
        role = str(w.rng.choice(["plastic", "furniture", "metal"]))
        size = (w.between(0.8, 1.2), w.between(0.6, 0.8), w.between(0.4, 1.2))
        return join([*parts, box(size, w.material(role, fresh=True)).moved(at=(0, 0, 0.12))])
    nx, ny, nz = (int(n) for n in w.rng.integers((2, 1, 1), (5, 4, 5)))
    a, b, c = 1.2 / nx, 0.8 / ny, w.between(0.2, 0.4)
    carton = w.material("carton" if w.chance(0.8) else "package", fit=True, fresh=True)
    one = box((a * 0.985, b * 0.985, c * 0.99), carton, fit=True)
    for k in range(nz):
        for i in range(nx):
            for j in range(ny):
                if k < nz - 1 or w.chance(0.8):
                    at = (-0.6 + (i + 0.5) * a, -0.4 + (j + 0.5) * b, 0.12 + k * c)
                    parts.append(one.moved(at=at, yaw=w.rng.normal(0, 0.01)))
    return join(parts)


def _bay(w: Workshop, loads: list[Mesh], levels: int, gap: float, posts: int, beam: int) -> Mesh:
    """One bay of a pallet rack, 2.8 m wide along y, its front towards both sides in x."""
    wide, deep, tall = 2.8, 1.0, levels * gap - 0.4
    parts = [
        box((0.09, 0.1, tall), posts).moved(at=(sx * deep / 2, sy * wide / 2, 0))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    for s in (-1, 1):  # braces between the posts
        for z in np.arange(0.2, tall - 0.9, 1.0):
            ends = [(-deep / 2, s * wide / 2, z), (deep / 2, s * wide / 2, z + 0.8)]
            parts.append(rod(ends[0], ends[1], 0.02, posts))
    full = w.between(0.4, 1.0)
    for level in range(levels):
        z = level * gap
        if level:
            for sx in (-1, 1):
                bar = box((0.05, wide, 0.12), beam)
                parts.append(bar.moved(at=(sx * deep / 2, 0, z - 0.12)))
        for y in (-0.68, 0.68):
            if w.chance(full):
                mesh = loads[int(w.rng.integers(len(loads)))]
                k = min(1.0, 0.9 * (gap - 0.15) / float(mesh.vertices[..., 2].max()))
                mesh = obstacles.scaled(mesh, (1, 1, k))
                parts.append(mesh.moved(at=(w.between(-0.05, 0.05), y + w.between(-0.04, 0.04), z)))
    return join(parts)


def _warehouse(plan: Plan, size: np.ndarray) -> list[float]:
    """Pallet racks along y with aisles between them; returns x of the aisles' middles."""
    w = plan.w
    loads = [_loaded_pallet(w) for _ in range(8)]
    levels = max(1, int((size[2] - 1.0) / w.between(1.3, 2.0)))
    levels = int(w.rng.integers(1, levels + 1)) if w.chance(0.3) else levels
    gap = min(2.0, (size[2] - 0.6) / levels)
    posts, beam = w.material("plastic", fresh=True), w.material("plastic", fresh=True)
    bays = [_bay(w, loads, levels, gap, posts, beam) for _ in range(4)]
    aisle, paint = w.between(2.0, 5.0), w.material("plastic")
    start, end = w.between(2.0, 6.0), size[1] - w.between(1.0, 6.0)
    cross = w.between(8, 20) if w.chance(0.5) else 1e9  # where a cross aisle begins
    middles, x = [], w.between(0.2, 1.5)
    while x + 1.2 + aisle < size[0]:
        for y in np.arange(start + 1.4, end - 1.4, 2.85):
            if w.chance(0.95) and not 0 <= y - cross < 3.5:
                mesh = bays[int(w.rng.integers(4))]
                plan.parts.append(mesh.moved(at=(x + 0.6, y, 0), yaw=np.pi * float(w.chance(0.5))))
                plan.taken += [(x + 0.6, y + dy, 0.75) for dy in (-0.9, 0.0, 0.9)]
        for edge in (x + 1.25, x + 1.15 + aisle):
            _line(plan, (edge, start), (0.08, end - start), paint)
        middles.append(x + 1.2 + aisle / 2)
        x += 1.2 + aisle + (1.25 if w.chance(0.5) and x + 3.6 + aisle < size[0] else 0.0)
    if w.chance(0.5):
        _pillars(
            plan, np.array([m + aisle / 2 + 0.6 for m in middles]), np.array([start - 1]), size[2]
        )
    return middles


def _ceiling(plan: Plan, size: np.ndarray) -> None:
    """Beams across, lamps in rows, pipes and ducts along."""
    w = plan.w
    sx, sy, height = size
    m, step = w.material("metal" if w.chance(0.5) else "ceiling"), w.between(3.0, 7.0)
    deep, wide = min(0.12 * height, w.between(0.2, 0.7)), w.between(0.1, 0.4)
    for y in np.arange(step / 2, sy, step):
        plan.parts.append(box((sx, wide, deep), m).moved(at=(sx / 2, y, height - deep)))
    glow = w.material("plain_light", glow=w.between(2.0, 8.0))
    long, hang = w.between(0.5, 1.6), deep + w.between(0.0, 0.3)
    panel = box((w.between(0.12, 0.5), long, 0.06), glow)
    for x in np.arange(w.between(1.5, 3.0), sx, w.between(3.0, 6.0)):
        for y in np.arange(1.0, sy, step):
            plan.parts.append(panel.moved(at=(x, y, height - hang - 0.06)))
    for _ in range(int(w.rng.integers(0, 6))):
        x, r = w.between(0.3, sx - 0.3), w.between(0.03, 0.25)
        z = height - deep - r - 0.02
        plan.parts.append(rod((x, 0, z), (x, sy, z), r, w.material("metal")))


def _lights(w: Workshop, size: np.ndarray) -> list[Light]:
    """Four wide lights along the hall, so that its far end is lit too."""
    tint = 1.0 + w.between(-0.2, 0.2) * np.array([1.0, 0.1, -1.0])
    lights = []
    for i in range(4):
        x, y = size[0] * w.between(0.3, 0.7), size[1] * (i + 0.5) / 4
        # Well below the ceiling, which is speckled where a light reaches through it.
        centre, radius = np.array([x, y, 0.7 * size[2]]), size[2] * w.between(0.2, 0.45)
        lights.append(Light(centre, radius, tint * w.between(0.5, 1.5)))
    return lights


def _view_down_the_aisle(
    rng: np.random.Generator, plan: Plan, size: np.ndarray, aisles: list[float]
) -> Viewpoint:
    """Along an aisle or across the hall, level as a rule."""
    for _ in range(30):
        x = aisles[int(rng.integers(len(aisles)))] + rng.normal(0, 0.7)
        y = rng.uniform(0.5, size[1] - 0.5)
        if 0.4 < x < size[0] - 0.4 and plan.free(x, y, 0.1):
            break
    x = float(np.clip(x, 0.4, size[0] - 0.4))
    along = np.pi / 2 if y < size[1] / 2 else -np.pi / 2
    if rng.random() < 0.15:
        along = -along
    yaw = along + (rng.normal(0, 0.25) if rng.random() < 0.75 else rng.normal(0, 1.0))
    tilt = rng.normal(-0.02, 0.07) if rng.random() < 0.8 else rng.uniform(-0.4, 0.3)
    height = float(np.exp(rng.uniform(np.log(HEIGHTS_M[0]), np.log(HEIGHTS_M[1]))))
    eye = np.array([x, y, height])
    direction = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
    return Viewpoint(eye, eye + direction, float(rng.normal(0, 0.03)))

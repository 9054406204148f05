"""Streets, yards and parks from a robot's height: parked cars, kerbs, hedges, walls, people.

The way is along y with its middle at x = 0; beside it are kerbs and pavements or lawns, and beyond
those house walls, hedges, fences and trees. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.mesh import obstacles
from d3_ros.synthetic.mesh.mesh import Mesh, box, cylinder, join, quad
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.obstacles import Maker, rod
from d3_ros.synthetic.mesh.outdoors import vegetation
from d3_ros.synthetic.mesh.robot_scenes import low_view, place_obstacles
from d3_ros.synthetic.mesh.rooms import Plan, facing
from d3_ros.synthetic.mesh.scene import SKY_LIGHT, MeshScene, Viewpoint, clouds, finish
from d3_ros.synthetic.mesh.scenes import house, sun
from d3_ros.synthetic.mesh.vehicles import car

HEIGHTS_M = (0.1, 1.5)
FROM_M, TO_M = -32.0, 48.0  # the way's ends
ON_THE_WAY: tuple[Maker, ...] = (
    obstacles.walker,
    obstacles.walker,
    obstacles.cone,
    obstacles.bicycle,
    obstacles.bin_or_pot,
    obstacles.carton,
    obstacles.rails,
    obstacles.pallet,
    obstacles.carton_stack,
)


@dataclass(frozen=True)
class Way:
    """A carriageway or path, and what is beside it.

    `half_m`: half its width; `beside_m`: width of the pavement or lawn at its sides; `kerb_m`: how
    much higher that is; `cars`: how they are parked: along, across or none.
    """

    half_m: float
    beside_m: float
    kerb_m: float
    cars: str

    def floor(self, x: float, y: float) -> np.ndarray:
        """z of the ground, metres."""
        return np.asarray(self.kerb_m if abs(x) > self.half_m else 0.0)


@dataclass(frozen=True)
class _Stock:
    """What stands in one yard several times; built once, because textures take time.

    `houses` and `boundaries` are with their lengths in metres; the last of `trees` is small.
    """

    cars: list[Mesh]
    trees: list[Mesh]
    bushes: list[Mesh]
    furniture: list[Mesh]
    houses: list[tuple[float, Mesh]]
    boundaries: list[tuple[float, Mesh]]


def _stock(w: Workshop, way: Way) -> _Stock:
    parked = 0 if way.cars == "none" else int(w.rng.integers(2, 5))
    kinds = (vegetation.BROADLEAF, vegetation.BROADLEAF, vegetation.YOUNG)
    pieces = w.rng.choice(len(FURNITURE), int(w.rng.integers(4, 8)), replace=False)
    lengths = w.rng.uniform(3.5, 13.0, 8)
    return _Stock(
        [car(w) for _ in range(parked)],
        [vegetation.grown_tree(w, kind) for kind in kinds],
        [vegetation.bush(w) for _ in range(2)],
        [FURNITURE[i](w) for i in pieces],
        [(long, house(w, long, w.between(2.8, 12.0))) for long in lengths[:4]],
        [(long, _boundary(w, long)) for long in lengths[4:]],
    )


def yard(w: Workshop) -> MeshScene:
    """A street, a yard with parked cars or a park, from 0.1 to 1.5 m above the ground."""
    plan, way = Plan(w), _random_way(w)
    stock = _stock(w, way)
    _pave(plan, way)
    for side in (-1, 1):
        _border(plan, way, stock, side)
        _furnish_pavement(plan, way, stock, side)
        if stock.cars:
            _park_cars(plan, way, stock.cars, side)
    _horizon(plan, way, stock)
    size = np.array([2 * way.half_m, 24.0, 3.0])
    corner = (-way.half_m, -10.0)
    spots = place_obstacles(plan, size, ON_THE_WAY, int(w.rng.integers(1, 6)), corner=corner)

    def draw(rng: np.random.Generator) -> Viewpoint:
        if rng.random() < 0.3:
            return low_view(rng, plan, size, spots, corner=corner, heights_m=HEIGHTS_M)
        return _view_along(rng, plan, way)

    scene = finish(plan, [sun(w)], draw)
    scene.free_m = 0.12
    scene.floor = way.floor
    scene.clouds = clouds(w)
    scene.least_light = SKY_LIGHT
    return scene


def _random_way(w: Workshop) -> Way:
    place = w.rng.random()
    if place < 0.5:  # a street
        return Way(w.between(2.6, 5.5), w.between(1.2, 3.5), w.between(0.05, 0.16), "along")
    if place < 0.75:  # a yard or car park
        return Way(w.between(7.0, 11.0), w.between(0.8, 3.0), w.between(0.0, 0.15), "across")
    return Way(w.between(0.8, 2.2), w.between(2.0, 9.0), w.between(0.0, 0.06), "none")


def _pave(plan: Plan, way: Way) -> None:
    """The ground, the way upon it with its markings, kerbs and pavements."""
    w = plan.w
    span, long = 160.0, TO_M - FROM_M
    park = way.cars == "none"
    lawn = w.material("lawn", fresh=True)
    around = quad((-span, -span, -0.03), (2 * span, 0, 0), (0, 2 * span, 0), lawn)
    lane = w.material("track" if park else "pavement", fresh=True)
    edge = way.half_m
    plan.parts += [around, quad((-edge, FROM_M, 0), (2 * edge, 0, 0), (0, long, 0), lane)]
    stone = w.material("pavement")
    for side in (-1, 1):
        strip = lawn if park or w.chance(0.2) else w.material("pavement")
        size = (way.beside_m, long, way.kerb_m + 0.03)
        at = (side * (edge + way.beside_m / 2), FROM_M + long / 2, -0.03)
        plan.parts.append(box(size, strip).moved(at=at))
        if way.kerb_m > 0.02:
            y = FROM_M
            while y < TO_M:  # kerb stones with joints
                part = box((0.14, 0.98, way.kerb_m + 0.045), stone)
                plan.parts.append(part.moved(at=(side * (edge + 0.07), y + 0.5, -0.03)))
                y += 1.0
    if not park and w.chance(0.6):
        paint = w.material("plain_light")
        for y in np.arange(FROM_M, TO_M, 6.0):
            plan.parts.append(box((0.12, 3.0, 0.004), paint).moved(at=(0, y, 0)))


def _park_cars(plan: Plan, way: Way, shapes: list[Mesh], side: int) -> None:
    w = plan.w
    share = w.between(0.25, 0.95)
    if way.cars == "across":
        paint, bay = w.material("plain_light"), w.between(2.4, 2.8)
        for y in np.arange(FROM_M + 2, TO_M - 2, bay):
            line = box((4.8, 0.1, 0.004), paint)
            plan.parts.append(line.moved(at=(side * (way.half_m - 2.5), y - bay / 2, 0)))
            if w.chance(share):
                turn = np.pi * float(w.rng.integers(2)) + w.rng.normal(0, 0.03)
                x = side * (way.half_m - 2.6 + w.between(-0.2, 0.2))
                _park(plan, shapes[int(w.rng.integers(len(shapes)))], x, y, turn)
        return
    y = FROM_M + 2
    while y < TO_M - 5:
        mesh = shapes[int(w.rng.integers(len(shapes)))]
        long, wide = (float(np.ptp(mesh.vertices[..., i])) for i in (0, 1))
        if w.chance(share):
            turn = side * np.pi / 2 + np.pi * w.chance(0.15) + w.rng.normal(0, 0.02)
            x = side * (way.half_m - wide / 2 - w.between(0.05, 0.3))
            _park(plan, mesh, x, y + long / 2, turn)
        y += long + w.between(0.5, 1.5) + (w.between(1, 6) if w.chance(0.3) else 0.0)


def _park(plan: Plan, mesh: Mesh, x: float, y: float, yaw: float) -> None:
    """Stand a car; three discs along it are taken, so that cameras may stand beside it."""
    plan.parts.append(mesh.moved(at=(x, y, 0), yaw=yaw))
    for along in (-1.5, 0.0, 1.5):
        plan.taken.append((x + along * np.cos(yaw), y + along * np.sin(yaw), 0.95))


def _border(plan: Plan, way: Way, stock: _Stock, side: int) -> None:
    """What stands behind the pavement: house walls, hedges, fences, low walls, gardens."""
    w = plan.w
    edge, y = way.half_m + way.beside_m, FROM_M
    built = 0.25 if way.cars == "none" else 0.65
    green = stock.trees + stock.bushes
    while y < TO_M:
        long, fence = stock.boundaries[int(w.rng.integers(len(stock.boundaries)))]
        garden = w.between(4.0, 9.0)
        if w.chance(built):
            long, front = stock.houses[int(w.rng.integers(len(stock.houses)))]
            garden = w.between(2.0, 7.0) if w.chance(0.4) else 0.0
            at = (side * (edge + garden + 4.0), y + long / 2, 0)
            plan.parts.append(front.moved(at=at, yaw=facing((-side, 0))))
        if garden:
            for _ in range(int(w.rng.integers(0, 4))):
                mesh = green[int(w.rng.integers(len(green)))]
                x = side * (edge + 0.6 + w.between(0.2, 1.0) * garden)
                place = (x, y + w.between(0, long), 0)
                plan.parts.append(mesh.moved(at=place, yaw=w.between(0, 6.3)))
            if w.chance(0.75):
                at = (side * (edge + 0.3), y + long / 2, 0)
                plan.parts.append(fence.moved(at=at, yaw=np.pi / 2))
        y += long + (w.between(0, 4) if w.chance(0.3) else 0.0)


def _boundary(w: Workshop, long: float) -> Mesh:
    """A hedge, a wall, boards or bars along x, of the given length."""
    kind = w.rng.random()
    if kind < 0.4:
        return vegetation.hedge(w, long)
    if kind < 0.6:
        return box((long, w.between(0.15, 0.4), w.between(0.4, 2.0)), w.material("facade"))
    tall, gap = w.between(0.6, 1.8), w.between(0.1, 0.25)
    m = w.material("furniture" if kind < 0.8 else "metal")
    wide = gap * w.between(0.5, 0.9) if kind < 0.8 else 0.02
    parts = [
        box((wide, 0.025, tall), m).moved(at=(x, 0, 0.04))
        for x in np.arange(-long / 2, long / 2, gap)
    ]
    for z in (0.2 * tall, 0.85 * tall):
        parts.append(box((long, 0.05, 0.06), m).moved(at=(0, 0.03, z)))
    return join(parts)


def lamp_post(w: Workshop) -> Mesh:
    """A street lamp with an arm."""
    m, tall = w.material("metal"), w.between(3.0, 6.5)
    arm, r = w.between(0.0, 1.2), w.between(0.04, 0.08)
    lamp = w.material("plain_light", glow=1.0)
    return join(
        [
            cylinder(1.7 * r, 0.8, m, segments=12),
            rod((0, 0, 0), (0, 0, tall), r, m),
            rod((0, 0, tall), (0, -arm - 0.05, tall + 0.1), 0.7 * r, m),
            box((0.2, 0.45, 0.1), lamp).moved(at=(0, -arm - 0.1, tall + 0.05)),
        ]
    )


def sign_post(w: Workshop) -> Mesh:
    """A traffic sign or a notice board."""
    m, tall = w.material("metal"), w.between(1.2, 2.6)
    face, side = w.material("poster", fit=True, fresh=True), w.between(0.3, 0.7)
    if w.chance(0.5):
        plate = cylinder(side / 2, 0.01, face).moved(tilt=np.pi / 2, at=(0, -0.03, tall - side / 2))
    else:
        plate = box((side, 0.01, side * w.between(0.6, 1.5)), face, fit=True)
        plate = plate.moved(at=(0, -0.04, tall - side))
    return join([rod((0, 0, 0), (0, 0, tall), 0.03, m), plate])


def post(w: Workshop) -> Mesh:
    """A bollard."""
    r, tall = w.between(0.03, 0.12), w.between(0.4, 1.1)
    return cylinder(r, tall, w.material("plastic" if w.chance(0.4) else "rock"), segments=14)


def bench(w: Workshop) -> Mesh:
    """A bench of slats, with or without a back."""
    long, wood = w.between(1.2, 2.0), w.material("furniture")
    foot = w.material("metal" if w.chance(0.6) else "rock")
    parts = [
        box((long, 0.09, 0.035), wood).moved(at=(0, y, 0.43)) for y in (-0.21, -0.1, 0.01, 0.12)
    ]
    back = w.chance(0.7)
    for s in (-1, 1):
        parts.append(box((0.06, 0.4, 0.43), foot).moved(at=(s * (long / 2 - 0.2), -0.04, 0)))
        if back:
            parts.append(rod((s * 0.4 * long, 0.15, 0.3), (s * 0.4 * long, 0.3, 0.85), 0.025, foot))
    if back:
        for z in (0.58, 0.7, 0.8):
            slat = box((long, 0.03, 0.09), wood)
            parts.append(slat.moved(at=(0, 0.2 + 0.22 * (z - 0.5), z)))
    return join(parts)


FURNITURE: tuple[Maker, ...] = (
    lamp_post,
    sign_post,
    post,
    post,
    bench,
    bench,
    obstacles.bin_or_pot,
    obstacles.bicycle,
    obstacles.walker,
    obstacles.rails,
    vegetation.bush,
    vegetation.stone,
)


def _furnish_pavement(plan: Plan, way: Way, stock: _Stock, side: int) -> None:
    """Trees, lamp posts, benches, bins, bicycles and people beside the way."""
    w = plan.w
    tree = stock.trees[int(w.rng.integers(2))]
    y, gap = FROM_M + w.between(0, 5), w.between(1.5, 6.0)
    avenue = w.between(6.0, 14.0) if w.chance(0.5) else 1e9  # distance of the trees in a row
    next_tree = y
    while y < TO_M:
        out = w.between(0.3, max(0.4, way.beside_m - 0.5))
        x = side * (way.half_m + out)
        if y >= next_tree and avenue < 1e3:
            x = side * (way.half_m + 0.5)
            plan.parts.append(tree.moved(at=(x, y, way.kerb_m), yaw=w.between(0, 6.3)))
            plan.taken.append((x, y, 0.35))
            next_tree = y + avenue
        elif plan.free(x, y, 0.4):
            mesh = stock.furniture[int(w.rng.integers(len(stock.furniture)))]
            yaw = facing((-side, 0)) if w.chance(0.8) else w.between(0, 6.3)
            plan.put(mesh, x, y, yaw, way.kerb_m)
        y += gap * w.between(0.4, 1.6)
    if way.cars == "none":  # lawn with some grass at the path's edge
        tufts = int(w.between(50, 500))
        gy = w.rng.uniform(-12, 12, tufts * 8)
        gx = side * (way.half_m + 0.05 + w.rng.exponential(0.3, tufts * 8))
        roots = np.column_stack([gx, gy, np.full(len(gx), way.kerb_m)])
        leaf = w.material("leaf", fresh=True)
        plan.parts.append(vegetation.blades(w, roots, (0.03, 0.2), (0.004, 0.012), leaf))


def _horizon(plan: Plan, way: Way, stock: _Stock) -> None:
    """Houses, far trees and thickets at both ends and behind the gardens."""
    w = plan.w
    trees = [vegetation.grown_tree(w, vegetation.BROADLEAF, far=True) for _ in range(2)]
    trees += [vegetation.grown_tree(w, vegetation.CONIFER, far=True), vegetation.thicket(w)]
    for _ in range(int(w.rng.integers(5, 50))):
        mesh = trees[int(w.rng.integers(len(trees)))]
        x = w.between(-50, 50)
        y = w.between(TO_M, TO_M + 10) if w.chance(0.5) else w.between(FROM_M - 10, FROM_M)
        if abs(x) > way.half_m + way.beside_m + 14:
            y = w.between(FROM_M, TO_M)
        plan.parts.append(mesh.moved(at=(x, y, 0), yaw=w.between(0, 6.3)))
    for end, ahead in ((TO_M + 3, -1.0), (FROM_M - 3, 1.0)):
        if w.chance(0.5):
            _, front = stock.houses[int(w.rng.integers(len(stock.houses)))]
            at = (w.between(-5, 5), end - 4.0 * ahead, 0)
            plan.parts.append(front.moved(at=at, yaw=facing((0, ahead))))


def _view_along(rng: np.random.Generator, plan: Plan, way: Way) -> Viewpoint:
    """From the way or the pavement, along it as a rule, else towards one side."""
    edge = way.half_m + way.beside_m - 0.3
    for _ in range(30):
        x, y = rng.uniform(-edge, edge), rng.uniform(-9, 12)
        if plan.free(x, y, 0.1):
            break
    height = float(np.exp(rng.uniform(np.log(HEIGHTS_M[0]), np.log(HEIGHTS_M[1]))))
    eye = np.array([x, y, height + float(way.floor(x, y))])
    along = np.pi / 2 if rng.random() < 0.6 else -np.pi / 2
    yaw = along + (rng.normal(0, 0.3) if rng.random() < 0.7 else rng.uniform(-1.6, 1.6))
    tilt = rng.normal(-0.02, 0.08) if rng.random() < 0.8 else rng.uniform(-0.45, 0.2)
    direction = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
    return Viewpoint(eye, eye + direction, float(rng.normal(0, 0.03)))

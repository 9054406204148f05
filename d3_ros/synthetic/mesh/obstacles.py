"""What stands and lies before a robot: cartons, crates, pallets, thin legs, rails, cables, feet.

As in `objects`: a function takes a `Workshop` and returns a mesh that stands on z = 0 around the
origin, with its front towards -y, in metres.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from d3_ros.synthetic.mesh import objects
from d3_ros.synthetic.mesh.mesh import Mesh, Vector, ball, box, capsule, join, lathe, quad, surface
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.shapes import blob


def tube(
    points: np.ndarray, radius: float | np.ndarray, material: int, *, segments: int = 8
) -> Mesh:
    """A round tube along a polyline (N, 3), open at its ends: wires, rungs, bent frames, branches.

    `radius`: metres, one for the tube or (N,) for its points.
    """
    points = np.asarray(points, dtype=np.float64)
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.cross((0.0, 0.0, 1.0) if abs(along[0, 2]) < 0.9 else (1.0, 0.0, 0.0), along[0])
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    rings = []
    for tangent in along:  # the frame is carried along, so that the tube does not twist
        side = side - (side @ tangent) * tangent
        side = side / np.linalg.norm(side)
        up = np.cross(tangent, side)
        rings.append(np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * up)
    normals = np.stack(rings)
    travelled = np.cumsum(np.linalg.norm(np.diff(points, axis=0, prepend=points[:1]), axis=1))
    radii = np.broadcast_to(radius, len(points))[:, None]
    uv = np.stack(np.broadcast_arrays(travelled[:, None], angle[None] * radii), axis=-1)
    rings_at = points[:, None] + radii[..., None] * normals
    if np.ndim(radius):  # where the tube tapers, its surface leans
        taper = np.gradient(radii[:, 0], travelled)[:, None, None]
        normals = normals - taper * along[:, None]
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return surface(rings_at, uv, material, normals)


def rod(start: Vector, end: Vector, radius: float, material: int) -> Mesh:
    """A straight tube between two points."""
    return tube(np.array([start, end], dtype=np.float64), radius, material)


def scaled(mesh: Mesh, factors: Vector) -> Mesh:
    """A mesh stretched by (x, y, z) factors."""
    k = np.asarray(factors, dtype=np.float64)
    normals = mesh.normals / k
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    return Mesh(mesh.vertices * k, normals, mesh.uv, mesh.material)


def grounded(mesh: Mesh) -> Mesh:
    """A mesh shifted so that its lowest point is on the floor."""
    return mesh.moved(at=(0, 0, -float(mesh.vertices[..., 2].min())))


def carton(w: Workshop, largest: float = 0.75) -> Mesh:
    """A cardboard box with tape and labels; some stand open, some lean on an edge."""
    x, y, z = w.between(0.15, largest), w.between(0.08, 0.8 * largest), w.between(0.12, largest)
    body = w.material("carton", fit=True, fresh=w.chance(0.5))
    parts = [box((x, y, z), body, fit=True)]
    if w.chance(0.5):
        tape, wide = w.material("tape"), w.between(0.03, 0.08)
        parts.append(box((wide, y + 0.004, z + 0.002), tape))
    if w.chance(0.6):
        label, h = w.material("label", fit=True, fresh=True), w.between(0.2, 0.8)
        a, b = x * w.between(0.2, 0.85), z * h
        left, foot = w.between(-x / 2, x / 2 - a), w.between(0, z - b)
        parts.append(quad((left, -y / 2 - 0.002, foot), (a, 0, 0), (0, 0, b), label, fit=True))
    if w.chance(0.2):  # its flaps stand open
        inside = w.material("carton")
        flap, lean = min(x, y) / 2, w.between(-0.3, 0.9)
        out, up = flap * np.sin(lean), flap * np.cos(lean)
        for s in (-1, 1):
            parts.append(quad((-x / 2, s * y / 2, z), (x, 0, 0), (0, s * out, up), inside))
            parts.append(quad((s * x / 2, -y / 2, z), (0, y, 0), (s * out, 0, up), inside))
    mesh = join(parts)
    return grounded(mesh.moved(tilt=w.between(-0.5, 0.5))) if w.chance(0.2) else mesh


def carton_stack(w: Workshop) -> Mesh:
    """Two to four cartons on each other, the larger ones below as a rule."""
    parts, z, size = [], 0.0, 0.7
    for _ in range(int(w.rng.integers(2, 5))):
        part = carton(w, size)
        part = part.moved(at=(w.between(-0.05, 0.05), w.between(-0.05, 0.05), z))
        parts.append(part.moved(yaw=w.between(-0.3, 0.3)))
        z, size = float(part.vertices[..., 2].max()), size * w.between(0.6, 1.0)
    return join(parts)


def crate(w: Workshop) -> Mesh:
    """An open crate of slats, empty or filled."""
    x, y, z = w.between(0.3, 0.6), w.between(0.25, 0.45), w.between(0.15, 0.4)
    m = w.material("plastic" if w.chance(0.6) else "furniture")
    parts = [box((x, y, 0.01), m)]
    slats = int(w.rng.integers(2, 6))
    tall = z / slats * w.between(0.45, 0.95)
    for i in range(slats):
        for s in (-1, 1):
            foot = i * z / slats
            parts.append(box((x, 0.012, tall), m).moved(at=(0, s * y / 2, foot)))
            parts.append(box((0.012, y, tall), m).moved(at=(s * x / 2, 0, foot)))
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(box((0.03, 0.03, z), m).moved(at=(sx * x / 2, sy * y / 2, 0)))
    for _ in range(int(w.rng.integers(0, 5))):
        spot = (w.between(-0.3, 0.3) * x, w.between(-0.3, 0.3) * y, 0.01)
        parts.append(objects.small_object(w).moved(at=spot, yaw=w.between(0, 6.3)))
    return join(parts)


def pallet(w: Workshop) -> Mesh:
    """A wooden pallet, empty or loaded."""
    x, y = (1.2, 0.8) if w.chance(0.5) else (0.8, 1.2)
    m = w.material("furniture")
    parts = []
    for px in (-0.44, 0, 0.44):
        parts.append(box((0.1, y, 0.02), m).moved(at=(px * x, 0, 0)))
        for py in (-0.44, 0, 0.44):
            parts.append(box((0.12, 0.12, 0.08), m).moved(at=(px * x, py * y, 0.02)))
    boards = int(w.rng.integers(5, 9))
    for py in np.linspace(-0.44, 0.44, boards):
        parts.append(box((x, y / boards * 0.75, 0.022), m).moved(at=(0, py * y, 0.1)))
    if w.chance(0.6):
        for px in (-0.28, 0.28):
            for py in (-0.22, 0.22):
                if w.chance(0.7):
                    part = carton(w, 0.5).moved(yaw=w.between(-0.1, 0.1))
                    parts.append(part.moved(at=(px * x, py * y, 0.122)))
    return join(parts)


def bin_or_pot(w: Workshop) -> Mesh:
    """A waste bin, bucket or drum."""
    r, h = w.between(0.1, 0.3), w.between(0.2, 0.9)
    wide = w.between(0.9, 1.25)
    profile = np.array([[0, 0], [r, 0], [r * wide, h], [r * wide - 0.01, h], [r * 0.9, 0.02]])
    mesh = lathe(profile, w.material("plastic"))
    return scaled(mesh, (1, w.between(0.6, 1.0), 1))


def wrap(w: Workshop) -> Mesh:
    """A bag or rucksack: a lump of cloth or foil."""
    mesh = blob(w, w.between(0.2, 0.5))
    material = np.full_like(mesh.material, w.material("plastic" if w.chance(0.5) else "fabric"))
    mesh = Mesh(mesh.vertices, mesh.normals, mesh.uv, material)
    return scaled(mesh, (1, w.between(0.5, 1), w.between(0.7, 1.3)))


def _shoe(w: Workshop, upper: int, sole: int) -> list[Mesh]:
    long, wide, tall = w.between(0.24, 0.31), w.between(0.085, 0.11), w.between(0.07, 0.12)
    toe = scaled(ball(0.5, upper, segments=12), (wide, long, tall)).moved(at=(0, 0, -0.25 * tall))
    heel = scaled(ball(0.5, upper, segments=10), (wide * 0.85, long * 0.5, tall * 1.7))
    base = scaled(objects.cylinder(0.5, 0.02, sole, segments=14), (wide, long, 1))
    return [toe, heel.moved(at=(0, long * 0.22, -0.5 * tall)), base]


def shoes(w: Workshop) -> Mesh:
    """A pair of shoes or slippers on the floor."""
    upper, sole = w.material("fabric", fresh=True), w.material("dark")
    parts = []
    for s in (-1, 1):
        shoe = join(_shoe(w, upper, sole))
        place = (s * w.between(0.06, 0.15), w.between(-0.1, 0.1), 0)
        parts.append(shoe.moved(at=place, yaw=w.between(-0.4, 0.4)))
    return join(parts)


def walker(w: Workshop) -> Mesh:
    """A standing or walking person with shoes and trouser legs."""
    trousers, upper = w.material("fabric", fresh=True), w.material("dark")
    shirt, skin = w.material("fabric"), w.material("object")
    step, k = w.between(-0.3, 0.3), w.between(0.85, 1.1)
    parts = []
    for s in (-1, 1):
        foot = np.array([s * w.between(0.07, 0.14), s * step, 0.0])
        shoe = join(_shoe(w, upper, upper)).moved(at=foot, yaw=w.between(-0.3, 0.3))
        knee = np.array([s * 0.1, s * step * 0.4 - 0.04, 0.48])
        ankle = foot + np.array([0, 0.06, 0.08])
        width = w.between(0.055, 0.085)
        parts += [shoe, capsule(ankle, knee, width, trousers)]
        parts.append(capsule(knee, (s * 0.09, 0, 0.9), width * 1.25, trousers))
        parts.append(capsule((s * 0.23, 0, 1.38), (s * 0.27, step / 2, 0.85), 0.05, shirt))
    parts.append(scaled(capsule((0, 0, 0.95), (0, 0, 1.33), 0.2, shirt), (1, 0.65, 1)))
    parts.append(ball(0.11, skin, stretch=1.25).moved(at=(0, 0, 1.5)))
    return scaled(join(parts), (k, k, k))


def tube_chair(w: Workshop) -> Mesh:
    """A folding or stacking chair of thin tubes with cross rungs."""
    m = w.material("metal" if w.chance(0.5) else "dark")
    pad = w.material("dark" if w.chance(0.4) else "fabric")
    r, wide, deep = w.between(0.008, 0.014), w.between(0.36, 0.46), w.between(0.36, 0.44)
    seat, top, lean = w.between(0.42, 0.48), w.between(0.75, 0.9), w.between(0.0, 0.12)
    h, d = wide / 2, deep / 2
    parts = [box((wide, deep, w.between(0.015, 0.06)), pad).moved(at=(0, 0, seat))]
    for s in (-1, 1):
        parts.append(rod((s * h, -d - lean, 0), (s * h, -d, seat), r, m))
        parts.append(rod((s * h, d + lean, 0), (s * h, d, seat), r, m))
        parts.append(rod((s * h, d, seat), (s * h, d + lean, top), r, m))
        if w.chance(0.6):
            z = w.between(0.05, 0.25)
            parts.append(rod((s * h, -d - lean, z), (s * h, d + lean, z), r, m))
    for z in w.rng.uniform(0.08, 0.38, int(w.rng.integers(1, 4))):
        y = w.rng.choice([-d - lean / 2, d + lean / 2])
        parts.append(rod((-h, y, z), (h, y, z), r, m))
    back = box((wide, 0.015, w.between(0.1, 0.3)), pad)
    parts.append(back.moved(at=(0, d + lean * 0.8, top - 0.3)))
    return join(parts)


def office_chair(w: Workshop) -> Mesh:
    """A swivel chair on five wheels."""
    m, cloth = w.material("dark"), w.material("fabric" if w.chance(0.5) else "dark")
    seat = w.between(0.42, 0.55)
    parts = [rod((0, 0, 0.1), (0, 0, seat), 0.03, m)]
    for angle in np.arange(5) * 2 * np.pi / 5 + w.between(0, 1):
        tip = np.array([0.3 * np.cos(angle), 0.3 * np.sin(angle), 0.08])
        parts.append(rod((0, 0, 0.13), tip, 0.02, m))
        parts.append(ball(0.028, m, segments=8).moved(at=(*tip[:2], 0)))
    cushion = scaled(ball(0.5, cloth, segments=14), (0.5, 0.48, 0.12))
    parts.append(cushion.moved(at=(0, 0, seat)))
    back = scaled(ball(0.5, cloth, segments=14), (0.46, 0.1, w.between(0.4, 0.7)))
    parts.append(back.moved(at=(0, 0.24, seat + 0.12)))
    parts.append(rod((0, 0.15, seat), (0, 0.26, seat + 0.3), 0.02, m))
    return join(parts).moved(yaw=w.between(-0.6, 0.6))


def trolley(w: Workshop) -> Mesh:
    """Shelves on thin posts: trolley, plant stand, wire rack; with things on them."""
    x, y, top = w.between(0.4, 1.1), w.between(0.3, 0.5), w.between(0.4, 1.8)
    m, board = w.material("metal"), w.material("furniture")
    r = w.between(0.008, 0.02)
    parts = [
        rod((sx * x / 2, sy * y / 2, 0), (sx * x / 2, sy * y / 2, top), r, m)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    for z in np.linspace(w.between(0.05, 0.3), top - 0.03, int(w.rng.integers(2, 5))):
        parts.append(box((x, y, 0.02), board).moved(at=(0, 0, z)))
        for _ in range(int(w.rng.integers(0, 4))):
            spot = (w.between(-0.4, 0.4) * x, w.between(-0.25, 0.25) * y, z + 0.02)
            parts.append(objects.small_object(w).moved(at=spot, yaw=w.between(0, 6.3)))
    return join(parts)


def ladder(w: Workshop) -> Mesh:
    """A stepladder, open or folded against nothing."""
    tall, spread, m = w.between(0.6, 2.0), w.between(0.0, 0.5), w.material("metal")
    wide, top = w.between(0.3, 0.5), w.between(0.2, 0.3)
    parts = []
    for side in (-1, 1) if spread > 0.1 else (-1,):
        y = side * (spread / 2 + 0.03)
        for s in (-1, 1):
            parts.append(rod((s * wide / 2, y, 0), (s * top / 2, side * 0.03, tall), 0.015, m))
        for t in np.arange(0.22, tall - 0.05, 0.25) / tall:
            half, at = (wide + (top - wide) * t) / 2, (1 - t) * y + t * side * 0.03
            tread = box((2 * half, 0.06 if side < 0 else 0.02, 0.02), m)
            parts.append(tread.moved(at=(0, at, t * tall)))
    return join(parts)


def rails(w: Workshop) -> Mesh:
    """A railing, fence, clothes rack or radiator: upright bars between two rails."""
    wide, tall = w.between(0.5, 2.2), w.between(0.4, 1.2)
    m, r = w.material("metal" if w.chance(0.6) else "object"), w.between(0.005, 0.03)
    low = w.between(0.05, 0.3)
    bars = np.arange(-wide / 2, wide / 2, max(w.between(0.06, 0.3), 2.2 * r))
    parts = [rod((x, 0, low), (x, 0, tall), r * 0.8, m) for x in bars]
    parts += [rod((-wide / 2, 0, z), (wide / 2, 0, z), r, m) for z in (low, tall)]
    for s in (-1, 1):
        parts.append(rod((s * wide / 2, 0, 0), (s * wide / 2, 0, tall), r * 1.3, m))
        parts.append(rod((s * wide / 2, -0.2, 0.02), (s * wide / 2, 0.2, 0.02), r, m))
    return join(parts)


def tripod(w: Workshop) -> Mesh:
    """A tripod, music or lamp stand, or a fan: thin legs and a pole with a head."""
    m, tall, spread = w.material("dark"), w.between(0.5, 1.7), w.between(0.15, 0.45)
    hub = tall * w.between(0.3, 0.9)
    parts = [rod((0, 0, hub * 0.5), (0, 0, tall), w.between(0.006, 0.018), m)]
    for angle in np.arange(3) * 2 * np.pi / 3 + w.between(0, 2):
        foot = (spread * np.cos(angle), spread * np.sin(angle), 0.0)
        parts.append(rod(foot, (0, 0, hub), 0.01, m))
    head = scaled(ball(0.5, w.material("object"), segments=12), w.rng.uniform(0.08, 0.45, 3))
    parts.append(head.moved(at=(0, 0, tall - 0.05)))
    return join(parts)


def bicycle(w: Workshop) -> Mesh:
    """A bicycle that stands upright."""
    m, black, r = w.material("object"), w.material("dark"), w.between(0.28, 0.35)
    turn = np.linspace(0, 2 * np.pi, 25)
    parts = []
    for x in (-0.52, 0.52):
        rim = np.column_stack([x + r * np.cos(turn), 0 * turn, r + 0.02 + r * np.sin(turn)])
        parts.append(tube(rim, 0.02, black))
        for angle in turn[:-1:2]:
            spoke = (x + r * np.cos(angle), 0, r + 0.02 + r * np.sin(angle))
            parts.append(tube(np.array([(x, 0, r), spoke]), 0.002, black, segments=4))
    crank, seat, head = (-0.05, 0, r - 0.03), (-0.18, 0, r + 0.5), (0.36, 0, r + 0.48)
    for a, b in (
        (crank, seat),
        (crank, head),
        ((-0.15, 0, r + 0.42), head),
        ((-0.52, 0, r), crank),
        ((-0.52, 0, r), (-0.15, 0, r + 0.42)),
        ((0.52, 0, r), (0.34, 0, r + 0.58)),
        ((0.34, -0.28, r + 0.6), (0.34, 0.28, r + 0.6)),
    ):
        parts.append(rod(a, b, 0.016, m))
    parts.append(box((0.26, 0.13, 0.05), black).moved(at=(-0.2, 0, r + 0.5)))
    return join(parts)


def cone(w: Workshop) -> Mesh:
    """A traffic cone or bollard."""
    m, r, tall = w.material("plastic"), w.between(0.05, 0.14), w.between(0.3, 1.0)
    tip = r * w.between(0.2, 1.0)
    profile = np.array([[0, 0], [r * 1.4, 0], [r * 1.4, 0.03], [r, 0.03], [tip, tall], [0, tall]])
    return lathe(profile, m, segments=18)


def partition(w: Workshop) -> Mesh:
    """A piece of wall, board or door leaf that stands free."""
    size = (w.between(0.5, 2.5), w.between(0.02, 0.25), w.between(0.4, 2.2))
    role = str(w.rng.choice(["wall", "furniture", "fabric", "poster", "metal"]))
    fit = role == "poster"
    return box(size, w.material(role, fit=fit, fresh=True), fit=fit)


def cable(w: Workshop) -> Mesh:
    """A cable or hose that lies on the floor in loops."""
    r, n = w.between(0.003, 0.014), int(w.rng.integers(30, 70))
    heading = w.between(0, 6.3) + np.cumsum(w.rng.normal(w.between(-0.15, 0.15), 0.25, n))
    step = w.between(0.02, 0.06)
    path = np.column_stack([np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading))]) * step
    path -= path.mean(axis=0)
    lift = r + np.maximum(0, w.rng.normal(0, 0.004, n))
    role = "dark" if w.chance(0.6) else "plastic"
    return tube(np.column_stack([path, lift]), r, w.material(role), segments=6)


def thing(w: Workshop) -> Mesh:
    """A small object that lies on the floor."""
    mesh = objects.small_object(w)
    return grounded(mesh.moved(tilt=w.between(-1.5, 1.5))) if w.chance(0.3) else mesh


Maker = Callable[[Workshop], Mesh]
BOXES: tuple[Maker, ...] = (carton, carton, carton, carton_stack, crate, objects.luggage, wrap)
THIN: tuple[Maker, ...] = (tube_chair, objects.chair, office_chair, trolley, ladder, rails, tripod)
STANDING: tuple[Maker, ...] = (
    *(BOXES * 2),
    *THIN,
    tube_chair,
    objects.chair,
    objects.table,
    walker,
    walker,
    pallet,
    bin_or_pot,
    bin_or_pot,
    partition,
    objects.plant,
    objects.cabinet,
    objects.sofa,
    cone,
    bicycle,
)
LYING: tuple[Maker, ...] = (cable, cable, shoes, thing, thing)

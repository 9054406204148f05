"""Trees, bushes, hedges, grass, stones and felled trunks.

As in `objects`: a function takes a `Workshop` and returns a mesh that stands on z = 0 around the
origin, in metres. Leaves are cards of two triangles without transparency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.mesh.mesh import Mesh, box, cylinder, join, surface
from d3_ros.synthetic.mesh.objects import Workshop, bent_leaf
from d3_ros.synthetic.mesh.obstacles import tube

ROOT_DEPTH_M = 0.3  # trunks go on below the ground, which may slope


def leaf_cards(
    w: Workshop,
    centres: np.ndarray,
    outward: np.ndarray,
    length_m: tuple[float, float],
    material: int,
    *,
    slim: float = 0.6,
    turn: float = 0.8,
) -> Mesh:
    """One rhombic leaf, or spray of leaves, at each of `centres` (N, 3).

    Args:
        w: random numbers.
        centres: (N, 3) metres.
        outward: (N, 3) where the upper sides look, of any length.
        length_m: smallest and largest length of a card.
        material: index.
        slim: width over length.
        turn: how much a card deviates from `outward`: 0 = not at all, 1 = by about 45 degrees.
    """
    count = len(centres)
    outward = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    normal = _unit(outward + turn * w.rng.normal(0, 1, (count, 3)))
    along = _unit(np.cross(normal, w.rng.normal(0, 1, (count, 3))))
    across = np.cross(normal, along)
    half = w.rng.uniform(*length_m, (count, 1)) / 2
    tip, side = along * half, across * half * slim
    corners = np.stack([centres + tip, centres + side, centres - tip, centres - side], axis=1)
    uv = np.zeros((count, 4, 2))
    uv[:, 0, 0], uv[:, 2, 0] = half[:, 0], -half[:, 0]
    uv[:, 1, 1], uv[:, 3, 1] = half[:, 0] * slim, -half[:, 0] * slim
    uv += w.rng.uniform(0, 1, (count, 1, 2))
    order = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(
        corners[:, order].reshape(-1, 3, 3),
        np.repeat(normal, 2, axis=0)[:, None].repeat(3, axis=1),
        uv[:, order].reshape(-1, 3, 2),
        np.full(2 * count, material, dtype=np.int32),
    )


def blades(
    w: Workshop,
    roots: np.ndarray,
    height_m: tuple[float, float],
    width_m: tuple[float, float],
    material: int,
) -> Mesh:
    """A bent blade of grass at each of `roots` (N, 3): three triangles."""
    count = len(roots)
    tall, wide = w.rng.uniform(*height_m, (count, 1)), w.rng.uniform(*width_m, (count, 1))
    angle = w.rng.uniform(0, 2 * np.pi, count)
    out = np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    side = np.column_stack([-out[:, 1], out[:, 0], 0 * angle]) * wide / 2
    lean = tall * w.rng.uniform(0.1, 0.9, (count, 1))
    up = np.array([0.0, 0.0, 1.0])
    middle = roots + 0.3 * lean * out + 0.6 * tall * up
    tip = roots + lean * out + tall * up
    a, b, c, d = roots - side, roots + side, middle + 0.7 * side, middle - 0.7 * side
    corners = np.stack([a, b, c, a, c, d, d, c, tip], axis=1).reshape(-1, 3, 3)
    low, high = _unit(np.cross(side, middle - roots)), _unit(np.cross(side, tip - middle))
    normals = np.stack([low, low, high], axis=1).reshape(-1, 3)
    u, v = np.array([0, 1, 1, 0, 1, 0, 0, 1, 0.5]), np.array([0, 0, 0.6, 0, 0.6, 0.6, 0.6, 0.6, 1])
    uv = np.stack([u * wide, v * tall], axis=-1) + w.rng.uniform(0, 1, (count, 1, 2))
    return Mesh(
        corners,
        np.repeat(normals[:, None], 3, axis=1),
        uv.reshape(-1, 3, 2),
        np.full(3 * count, material, dtype=np.int32),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), (0, 0, 1.0)))


def bent(w: Workshop, start: np.ndarray, end: np.ndarray, sag: float, count: int) -> np.ndarray:
    """(count, 3) points from `start` to `end` with random bends of about `sag` times the length."""
    t = np.linspace(0, 1, count)[:, None]
    way = start + t * (end - start)
    bow = w.rng.normal(0, sag, (2, 3)) * np.linalg.norm(end - start)
    return np.asarray(way + np.sin(np.pi * t) * bow[0] + np.sin(2 * np.pi * t) * bow[1] / 2)


@dataclass(frozen=True)
class Species:
    """How the trees of one kind grow.

    `height_m`, `trunk_m`: ranges of the height and of the trunk's radius; `bare`: share of the
    height below the crown; `reach`: length of the longest branch over the height; `rise`: range of
    the branches' slope; `branches`: how many; `leaves`: how many a branch, 0 in winter; `leaf_m`:
    their lengths; `slim`: their width over length; `cone`: the crown is pointed.
    """

    height_m: tuple[float, float]
    trunk_m: tuple[float, float]
    bare: tuple[float, float]
    reach: tuple[float, float]
    rise: tuple[float, float]
    branches: tuple[int, int]
    leaves: int
    leaf_m: tuple[float, float]
    slim: float
    cone: bool


BROADLEAF = Species(
    (6, 18),
    (0.08, 0.35),
    (0.2, 0.5),
    (0.2, 0.38),
    (0.2, 1.2),
    (9, 18),
    55,
    (0.14, 0.45),
    0.6,
    False,
)
CONIFER = Species(
    (6, 22),
    (0.08, 0.3),
    (0.05, 0.4),
    (0.12, 0.25),
    (-0.5, 0.2),
    (22, 36),
    24,
    (0.25, 0.7),
    0.22,
    True,
)
PINE = Species(
    (9, 20),
    (0.12, 0.3),
    (0.45, 0.7),
    (0.12, 0.25),
    (0.0, 0.8),
    (9, 15),
    50,
    (0.2, 0.55),
    0.3,
    False,
)
BARE = Species(
    (6, 16), (0.06, 0.3), (0.2, 0.5), (0.2, 0.35), (0.4, 1.6), (10, 20), 0, (0.1, 0.2), 0.6, False
)
YOUNG = Species(
    (1.2, 4),
    (0.012, 0.04),
    (0.05, 0.3),
    (0.25, 0.4),
    (0.3, 1.3),
    (9, 18),
    30,
    (0.06, 0.18),
    0.5,
    False,
)
SPECIES = (BROADLEAF, CONIFER, PINE, BARE)


def grown_tree(w: Workshop, kind: Species, *, far: bool = False) -> Mesh:
    """A tree with trunk, branches and leaves; a `far` one has few but large leaves."""
    tall, thick = w.between(*kind.height_m), w.between(*kind.trunk_m)
    wood = w.material("bark")
    leaf = w.material("leaf") if kind.leaves else wood
    count = 5 if far else 9
    top = np.array([*w.rng.normal(0, 0.03 * tall, 2), tall])
    trunk = bent(w, np.zeros(3), top, 0.02, count)
    foot = np.array([(0, 0, -ROOT_DEPTH_M), (0, 0, 0), (0, 0, 0.12), (0, 0, 0.5)])
    path = np.concatenate([foot, trunk[1:]])
    radii = thick * np.concatenate([(1.7, 1.45, 1.15, 1.0), np.linspace(0.95, 0.12, count - 1)])
    parts = [tube(path, radii, wood, segments=6 if far else 10)]
    bare = w.between(*kind.bare)
    longest = tall * w.between(*kind.reach)
    tips = []
    for i in range(int(w.rng.integers(*kind.branches) / (2 if far and not kind.cone else 1))):
        t = bare + (0.97 - bare) * w.rng.random()
        crown = (t - bare) / (1 - bare)
        shape = 1.02 - crown if kind.cone else np.sin(np.pi * (0.15 + 0.8 * crown))
        length = longest * shape * w.between(0.6, 1.0)
        angle, rise = 2.4 * i + w.between(-0.5, 0.5), w.between(*kind.rise)
        start = np.array([np.interp(t * tall, trunk[:, 2], trunk[:, k]) for k in range(3)])
        ahead = np.array([np.cos(angle), np.sin(angle), rise]) / np.hypot(1, rise)
        branch = bent(w, start, start + length * ahead, 0.06, 4)
        slight = thick * (1 - 0.85 * t) * 0.45
        if not far or kind.leaves == 0:
            parts.append(tube(branch, slight * np.array([1, 0.7, 0.45, 0.15]), wood, segments=5))
        tips.append(branch)
        for _ in range(0 if far else 2 if kind.leaves == 0 else 1):  # twigs
            fork = branch[int(w.rng.integers(1, 3))]
            twig = fork + length * 0.4 * _unit(ahead + w.rng.normal(0, 0.6, 3))
            parts.append(
                tube(np.array([fork, twig]), slight * np.array([0.4, 0.1]), wood, segments=4)
            )
    if kind.leaves and tips:
        parts.append(_crown(w, kind, np.array(tips), tall, leaf, far))
    return join(parts)


def _crown(
    w: Workshop, kind: Species, branches: np.ndarray, tall: float, leaf: int, far: bool
) -> Mesh:
    """Leaves around the branches (B, 4, 3)."""
    each = max(3, kind.leaves // 5) if far else kind.leaves
    owner = np.repeat(np.arange(len(branches)), each)
    t = w.rng.uniform(0.25, 1.05, len(owner))
    start, end = branches[owner, 0], branches[owner, -1]
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    spread = (0.07 if kind.cone else 0.15) * length
    centres = start + t[:, None] * (end - start) + w.rng.normal(0, 1, (len(owner), 3)) * spread
    middle = np.array([0.0, 0.0, 0.6 * tall])
    outward = _unit(centres - middle) + np.array([0, 0, 0.6])
    k = 3.0 if far else 1.0
    size = (kind.leaf_m[0] * k, kind.leaf_m[1] * k)
    return leaf_cards(w, centres, outward, size, leaf, slim=kind.slim)


def bush(w: Workshop, size: float | None = None) -> Mesh:
    """A bush: stems and a lump of leaves, 0.3 to 2 m."""
    size = size or w.between(0.3, 2.0)
    leaf, wood = w.material("leaf"), w.material("bark")
    parts = []
    lumps = w.rng.normal(0, 1, (int(w.rng.integers(3, 8)), 3)) * (0.28, 0.28, 0.15) * size
    lumps[:, 2] += 0.5 * size
    for lump in lumps[:5]:
        stem = bent(w, np.array([0, 0, -0.05]), lump, 0.06, 3)
        parts.append(tube(stem, size * np.array([0.02, 0.015, 0.006]), wood, segments=4))
    direction = _unit(w.rng.normal(0, 1, (int(90 * len(lumps) * min(1.5, size)) + 60, 3)))
    owner = w.rng.integers(0, len(lumps), len(direction))
    radius = size * w.rng.uniform(0.15, 0.28, len(lumps))[owner, None]
    centres = lumps[owner] + direction * radius * w.rng.uniform(0.6, 1.1, (len(direction), 1))
    centres[:, 2] = np.maximum(centres[:, 2], 0.04)
    leaf_m = (0.05 + 0.04 * size, 0.08 + 0.09 * size)
    parts.append(leaf_cards(w, centres, direction + np.array([0, 0, 0.4]), leaf_m, leaf, slim=0.55))
    return join(parts)


def hedge(w: Workshop, length: float | None = None) -> Mesh:
    """A clipped hedge along x: a leafy core with leaves that stand out of its faces."""
    size = np.array([length or w.between(1.5, 8.0), w.between(0.35, 1.0), w.between(0.5, 2.0)])
    leaf = w.material("leaf")
    areas = np.array([size[1] * size[2]] * 2 + [size[0] * size[2]] * 2 + [size[0] * size[1]])
    count = int(min(2500, 130 * areas.sum()))
    face = w.rng.choice(5, count, p=areas / areas.sum())
    normals = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 1)])[face]
    centres = w.rng.uniform(-0.5, 0.5, (count, 3)) * size
    axis = np.abs(normals).argmax(axis=1)
    rows = np.arange(count)
    centres[rows, axis] = normals[rows, axis] * (size[axis] / 2 + w.rng.uniform(-0.04, 0.07, count))
    centres[:, 2] += size[2] / 2
    leaf_m = (0.06, w.between(0.1, 0.2))
    return join(
        [
            box(size * (0.97, 0.95, 0.98), leaf),
            leaf_cards(w, centres, normals.astype(np.float64), leaf_m, leaf, turn=0.6),
        ]
    )


def fern(w: Workshop) -> Mesh:
    """Long bent leaves from one root, 0.3 to 0.9 m."""
    size, leaf = w.between(0.3, 0.9), w.material("leaf")
    parts = []
    breadth = np.array([0.2, 0.9, 1.0, 0.6, 0.02]) * 0.09 * size
    for _ in range(int(w.rng.integers(8, 16))):
        length, lift = size * w.between(0.6, 1.0), w.between(0.5, 1.2)
        one = bent_leaf(length, lift, w.between(0.2, 0.6), breadth, leaf, 0.1)
        parts.append(one.moved(yaw=w.between(0, 6.3)))
    return join(parts)


def stone(w: Workshop, size: float | None = None) -> Mesh:
    """A stone or boulder, 0.05 to 1 m, with flat faces and partly in the ground."""
    size = size or float(np.exp(w.between(np.log(0.05), np.log(1.0))))
    faces = _unit(w.rng.normal(0, 1, (int(w.rng.integers(8, 26)), 3)))
    offset = size / 2 * w.rng.uniform(0.6, 1.0, len(faces))
    latitude, longitude = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, 15), np.linspace(0, 2 * np.pi, 25), indexing="ij"
    )
    flat = np.cos(latitude)
    out = np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=-1)
    # The nearest of the faces' planes along each direction.
    radius = (offset / np.maximum(out @ faces.T, 1e-3)).min(axis=-1).clip(max=0.7 * size)
    points = out * radius[..., None] * (1.0, w.between(0.6, 1.0), w.between(0.4, 0.9))
    uv = np.stack([longitude, latitude], axis=-1) * size / 2
    mesh = surface(points, uv, w.material("rock"))
    a, b, c = mesh.vertices.transpose(1, 0, 2)
    normals = _unit(np.cross(b - a, c - a))
    normals *= np.sign(np.einsum("ij,ij->i", normals, a + b + c))[:, None]
    mesh = Mesh(mesh.vertices, normals[:, None].repeat(3, axis=1), mesh.uv, mesh.material)
    low = float(mesh.vertices[..., 2].min())
    return mesh.moved(at=(0, 0, -low - size * w.between(0.05, 0.15)))


def thicket(w: Workshop) -> Mesh:
    """Undergrowth seen from afar: a mound of large sprays of leaves, 3 to 9 m wide."""
    wide, tall, leaf = w.between(3.0, 9.0), w.between(1.0, 5.0), w.material("leaf")
    out = _unit(w.rng.normal(0, 1, (int(w.rng.integers(120, 260)), 3)))
    out[:, 2] = np.abs(out[:, 2])
    bumps = 1 + 0.25 * np.sin(out @ w.rng.normal(0, 4, 3) + w.between(0, 6))
    centres = out * bumps[:, None] * w.rng.uniform(0.6, 1.0, (len(out), 1))
    centres *= (wide / 2, wide / 2, tall)
    return leaf_cards(w, centres, out + np.array([0, 0, 0.3]), (0.4, 1.2), leaf, slim=0.6)


def capped(path: np.ndarray, radii: np.ndarray, bark: int, cut: int) -> Mesh:
    """A felled trunk: a closed tube along (N, 3) with radii (N,) and sawn or broken ends."""
    ends = []
    for tip, inner, r in ((path[0], path[1], radii[0]), (path[-1], path[-2], radii[-1])):
        out = 0.02 * _unit(tip - inner)
        ends.append(tube(np.array([tip, tip + out]), np.array([r, 1e-3 * r]), cut, segments=12))
    return join([tube(path, radii, bark, segments=12), *ends])


def stump(w: Workshop) -> Mesh:
    """The stump of a felled tree."""
    r, tall = w.between(0.12, 0.4), w.between(0.15, 0.6)
    bark = w.material("bark")
    flare = np.array([1.5, 1.3, 1.05, 1.0]) * r
    path = np.array([(0, 0, -ROOT_DEPTH_M), (0, 0, 0), (0, 0, 0.4 * tall), (0, 0, tall)])
    top = cylinder(r, 0.01, w.material("furniture"), segments=14).moved(at=(0, 0, tall - 0.01))
    return join([tube(path, flare, bark, segments=14), top])


def log_pile(w: Workshop) -> Mesh:
    """Felled trunks along x, stacked beside the track."""
    r, length = w.between(0.08, 0.25), w.between(1.0, 5.0)
    bark = w.material("bark")
    log = cylinder(r, length, bark, segments=10).moved(tilt=np.pi / 2, yaw=np.pi / 2)
    log = log.moved(at=(-float(log.vertices[..., 0].mean()), 0, r))
    parts = []
    layers = int(w.rng.integers(1, 6))
    for i in range(layers):
        for j in range(layers + 2 - i):
            y = (j - (layers + 1 - i) / 2) * 2.02 * r
            parts.append(log.moved(at=(w.between(-0.1, 0.1), y, i * 1.75 * r)))
    return join(parts)

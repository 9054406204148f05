"""Forest tracks: uneven ground, trees, undergrowth, and what lies across the way."""

from __future__ import annotations

import numpy as np

from d3_ros.synthetic.mesh import obstacles
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.obstacles import Maker, grounded
from d3_ros.synthetic.mesh.outdoors import vegetation
from d3_ros.synthetic.mesh.outdoors.terrain import Terrain, random_terrain
from d3_ros.synthetic.mesh.rooms import Plan
from d3_ros.synthetic.mesh.scene import SKY_LIGHT, MeshScene, Viewpoint, clouds, finish
from d3_ros.synthetic.mesh.scenes import sun

TRACK_HEIGHTS_M = (0.1, 1.6)
NEAR_M = 13.0  # trees within it have branches and many leaves
FOREST_MIX = (0.4, 0.3, 0.15, 0.15)  # broadleaf, conifer, pine, bare


def forest(w: Workshop) -> MeshScene:
    """An uneven track between trees, with bushes, grass, stones and fallen trunks."""
    plan, terrain = Plan(w), random_terrain(w)
    ground = w.material("soil" if w.chance(0.75) else "lawn")
    track = w.material("track", fresh=True) if w.chance(0.85) else ground
    plan.parts.append(terrain.mesh(ground, track))
    open_m = terrain.half_m + w.between(0.15, 1.5)  # no trunk is nearer to the track's middle
    _plant_trees(plan, terrain, open_m)
    _plant_undergrowth(plan, terrain)
    _sow_grass(plan, terrain)
    spots = _fallen(plan, terrain, w)
    spots += _beside_track(plan, terrain, w)

    def draw(rng: np.random.Generator) -> Viewpoint:
        return _track_view(rng, plan, terrain, spots)

    scene = finish(plan, [sun(w)], draw)
    scene.free_m = 0.12
    scene.floor = terrain.height
    scene.clouds = clouds(w)
    scene.least_light = SKY_LIGHT

    def walk(t: float) -> Viewpoint:
        """Along the track at 0.6 m above it; t in [0, 1]."""
        y = -8.0 + 12.0 * t
        eye, ahead = (np.array([float(terrain.centre(a)), a]) for a in (y, y + 4.0))
        low, far = float(terrain.height(*eye)) + 0.6, float(terrain.height(*ahead)) + 0.5
        return Viewpoint(np.array([*eye, low]), np.array([*ahead, far]), 0.02 * np.sin(11 * t))

    scene.walk = walk
    return scene


def _plant_trees(plan: Plan, terrain: Terrain, open_m: float) -> None:
    """Trees on both sides of the track: whole ones near by, simple ones farther away."""
    w = plan.w
    kinds = [
        vegetation.SPECIES[i] for i in w.rng.choice(4, int(w.rng.integers(1, 4)), p=FOREST_MIX)
    ]
    near = [
        vegetation.grown_tree(w, kinds[int(w.rng.integers(len(kinds)))])
        for _ in range(int(w.rng.integers(4, 7)))
    ]
    young = [vegetation.grown_tree(w, vegetation.YOUNG) for _ in range(2)]
    far = [
        vegetation.grown_tree(w, kinds[int(w.rng.integers(len(kinds)))], far=True) for _ in range(5)
    ]
    density = float(np.exp(w.between(np.log(0.015), np.log(0.12))))  # trees per square metre
    density_far = max(density, 0.02)
    saplings = w.between(0.0, 0.5)
    for reach, wanted, sort in ((NEAR_M, density, near), (50.0, density_far / 2, far)):
        count = int(min(45 if sort is near else 260, wanted * (2 * reach) ** 2))
        for x, y in w.rng.uniform(-reach, reach, (count, 2)):
            aside = abs(x - float(terrain.centre(y)))
            if aside < open_m or (sort is far and max(abs(x), abs(y)) < NEAR_M):
                continue
            if sort is near and not plan.free(x, y, 0.5):
                continue
            thin = sort is near and w.chance(saplings)
            tree = (young if thin else sort)[int(w.rng.integers(2 if thin else len(sort)))]
            k = w.between(0.7, 1.3)
            tree = obstacles.scaled(tree, (k, k, k * w.between(0.85, 1.2)))
            plan.parts.append(terrain.stand(tree, x, y, w.between(0, 6.3), 0.03))
            if sort is near:
                plan.taken.append((x, y, 0.1 if thin else 0.35))
    if w.chance(0.85):  # a wood that one does not see through
        mounds = [vegetation.thicket(w) for _ in range(4)]
        inner, count = w.between(14, 30), int(w.rng.integers(20, 90))
        for i in range(count):
            away, angle = inner + 30 * w.rng.random(), w.between(0, 6.3)
            x, y = away * np.cos(angle), away * np.sin(angle)
            if abs(x - float(terrain.centre(y))) > 4.0 + terrain.half_m:
                mesh = mounds[i % 4]
                plan.parts.append(terrain.stand(mesh, x, y, w.between(0, 6.3), 0.3))


def _plant_undergrowth(plan: Plan, terrain: Terrain) -> None:
    """Bushes, ferns, stones and stumps, most of them near the track."""
    w = plan.w
    for make, most, sink in (
        (vegetation.bush, 45, 0.02),
        (vegetation.fern, 50, 0.01),
        (vegetation.stone, 30, 0.0),
        (vegetation.stump, 5, 0.0),
    ):
        count = int(most * w.rng.random() ** 1.5)
        shapes = [make(w) for _ in range(min(4, count))]
        for i in range(count):
            mesh = shapes[i % len(shapes)]
            side = 1 if w.chance(0.5) else -1
            y = w.between(-16, 16)
            aside = terrain.half_m + 0.1 + float(w.rng.exponential(2.5))
            if make is vegetation.stone and w.chance(0.25):
                aside = w.between(0, terrain.half_m)
            x = float(terrain.centre(y)) + side * aside
            half = 0.5 * float(np.ptp(mesh.vertices[..., 0]))
            if aside > terrain.half_m and aside < 0.6 * half + terrain.half_m:
                x += side * 0.6 * half
            k = w.between(0.7, 1.2)
            mesh = obstacles.scaled(mesh, (k, k, k))
            plan.parts.append(terrain.stand(mesh, x, y, w.between(0, 6.3), sink))
            plan.taken.append((x, y, 0.7 * half * k))


def _sow_grass(plan: Plan, terrain: Terrain) -> None:
    """Tufts of grass, dense at the track's edges or all over, and dead twigs."""
    w = plan.w
    for _ in range(int(w.rng.integers(0, 4))):
        tufts = int(w.between(60, 500))
        y = w.rng.uniform(-13, 13, tufts)
        aside = terrain.half_m * w.between(0.6, 1.1) + w.rng.exponential(w.between(0.3, 3.0), tufts)
        x = terrain.centre(y) + aside * w.rng.choice([-1.0, 1.0], tufts)
        if w.chance(0.4):  # between the wheels
            strip = w.rng.random(tufts) < 0.3
            x[strip] = terrain.centre(y[strip]) + w.rng.normal(0, 0.15, int(strip.sum()))
        owner = np.repeat(np.arange(tufts), int(w.between(7, 16)))
        spread = w.rng.normal(0, w.between(0.04, 0.2), (len(owner), 2))
        gx, gy = x[owner] + spread[:, 0], y[owner] + spread[:, 1]
        roots = np.column_stack([gx, gy, terrain.height(gx, gy) - 0.01])
        tall = w.between(0.08, 0.5)
        leaf = w.material("leaf", fresh=True)
        wide = (0.004, w.between(0.008, 0.02))
        plan.parts.append(vegetation.blades(w, roots, (0.4 * tall, tall), wide, leaf))
    bark = w.material("bark")
    for _ in range(int(w.rng.integers(0, 25))):
        along = w.between(-9, 9)
        start = np.array([float(terrain.centre(along)) + w.rng.normal(0, 2.0), along])
        length, angle = w.between(0.2, 1.2), w.between(0, 6.3)
        ends = np.array([start, start + length * np.array([np.cos(angle), np.sin(angle)])])
        path = np.column_stack([ends, terrain.height(*ends.T) + 0.01])
        r = w.between(0.003, 0.012)
        points = vegetation.bent(w, path[0], path[1], 0.02, 4)
        plan.parts.append(obstacles.tube(points, r * np.linspace(1, 0.3, 4), bark, segments=5))


def _fallen(plan: Plan, terrain: Terrain, w: Workshop) -> list[np.ndarray]:
    """Trunks that lie on the ground, some of them across the track; their middles (x, y)."""
    spots = []
    for _ in range(int(w.rng.integers(0, 4))):
        y = w.between(-12, 12)
        across = w.chance(0.4)
        x = float(terrain.centre(y)) + (w.between(-0.5, 0.5) if across else w.rng.normal(0, 4))
        length, r = w.between(1.5, 7.0), w.between(0.06, 0.3)
        angle = w.rng.normal(0, 0.4) if across else w.between(0, 6.3)
        t = np.linspace(-0.5, 0.5, 9)
        px, py = x + length * t * np.cos(angle), y + length * t * np.sin(angle)
        floor = terrain.height(px, py)
        # A stiff straight line upon the ground: it rests on two humps.
        line = np.poly1d(np.polyfit(t, floor, 1))(t)
        line += 0.6 * float((floor - line).max()) + 0.75 * r
        path = np.column_stack([px, py, line])
        bark = w.material("bark")
        cut = w.material("furniture")
        plan.parts.append(vegetation.capped(path, r * np.linspace(1, 0.6, 9), bark, cut))
        for _ in range(int(w.rng.integers(0, 7))):  # broken branches
            i = int(w.rng.integers(1, 8))
            up = w.rng.normal(0, 1, 3)
            up[2] = abs(up[2])
            tip = path[i] + w.between(0.2, 1.0) * up / np.linalg.norm(up)
            branch = np.array([path[i], tip])
            plan.parts.append(obstacles.tube(branch, np.array([0.25, 0.1]) * r, bark, segments=5))
        for a, b in zip(px, py, strict=True):
            plan.taken.append((float(a), float(b), r))
        if abs(x - float(terrain.centre(y))) < 2.5:
            spots.append(np.array([x, y]))
    return spots


def _beside_track(plan: Plan, terrain: Terrain, w: Workshop) -> list[np.ndarray]:
    """Log piles, fence posts, walkers and other things of people; those on the track (x, y)."""
    spots = []
    makers: tuple[Maker, ...] = (
        vegetation.log_pile,
        vegetation.log_pile,
        obstacles.walker,
        obstacles.bicycle,
        obstacles.rails,
        obstacles.bin_or_pot,
        vegetation.stone,
    )
    for _ in range(int(w.rng.integers(0, 4))):
        mesh = makers[int(w.rng.integers(len(makers)))](w)
        y, side = w.between(-12, 12), 1 if w.chance(0.5) else -1
        aside = w.between(0.0, terrain.half_m + 1.0)
        half = float(np.ptp(mesh.vertices[..., 1])) / 2
        if float(np.ptp(mesh.vertices[..., 0])) > 1.5:
            aside = terrain.half_m + half + 0.2
        x = float(terrain.centre(y)) + side * aside
        if not plan.free(x, y, 0.3):
            continue
        yaw = np.pi / 2 + w.rng.normal(0, 0.15) if aside > terrain.half_m else w.between(0, 6.3)
        plan.parts.append(terrain.stand(grounded(mesh), x, y, yaw, 0.03))
        plan.taken.append((x, y, max(half, 0.3)))
        spots.append(np.array([x, y]))
    if w.chance(0.2):
        _fence(plan, terrain, w)
    return spots


def _fence(plan: Plan, terrain: Terrain, w: Workshop) -> None:
    """Posts with wires or boards along one side of the track."""
    side, wood, wire = (1 if w.chance(0.5) else -1), w.material("bark"), w.material("metal")
    aside, tall, r = (
        terrain.half_m + w.between(0.2, 1.0),
        w.between(0.7, 1.3),
        w.between(0.03, 0.08),
    )
    y = np.arange(-30.0, 30.0, w.between(1.5, 3.0))
    x = terrain.centre(y) + side * aside
    foot = np.column_stack([x, y, terrain.height(x, y)])
    for place in foot:
        buried, top = place - np.array([0, 0, 0.2]), place + np.array([0, 0, tall])
        plan.parts.append(obstacles.rod(buried, top, r, wood))
        plan.taken.append((float(place[0]), float(place[1]), r))
    thick = w.between(0.003, 0.006) if w.chance(0.5) else w.between(0.02, 0.05)
    for share in np.linspace(0.35, 0.93, int(w.rng.integers(2, 5))):
        line = foot + np.array([side * -r, 0, share * tall])
        plan.parts.append(obstacles.tube(line, thick, wire if thick < 0.01 else wood, segments=5))


def _track_view(
    rng: np.random.Generator, plan: Plan, terrain: Terrain, spots: list[np.ndarray]
) -> Viewpoint:
    """From on or beside the track along it; now and then towards what lies there, or aside."""
    for _ in range(30):
        y = rng.uniform(-8, 8)
        aside = rng.normal(0, 0.5 * terrain.half_m) if rng.random() < 0.75 else rng.normal(0, 3.0)
        x = float(terrain.centre(y)) + aside
        if plan.free(x, y, 0.15):
            break
    height = float(np.exp(rng.uniform(*np.log(TRACK_HEIGHTS_M))))
    eye = np.array([x, y, float(terrain.height(x, y)) + height])
    ahead_y = y + (5.0 if rng.random() < 0.5 else -5.0)
    target = np.array([float(terrain.centre(ahead_y)), ahead_y])
    choice = rng.random()
    if spots and choice < 0.3:
        target = spots[int(rng.integers(len(spots)))]
    way = target - eye[:2]
    yaw = np.arctan2(way[1], way[0]) + rng.normal(0, 0.15 if choice < 0.7 else 0.7)
    ahead = eye[:2] + 4.0 * np.array([np.cos(yaw), np.sin(yaw)])
    # A vehicle stands on the slope: it looks along it as a rule.
    climb = np.arctan2(float(terrain.height(*ahead)) + height - eye[2], 4.0)
    tilt = 0.7 * climb + (rng.normal(-0.02, 0.08) if rng.random() < 0.8 else rng.uniform(-0.5, 0.2))
    direction = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
    return Viewpoint(eye, eye + direction, float(rng.normal(0, 0.05)))

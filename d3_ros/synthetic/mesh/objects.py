"""Random objects of rendered scenes: small objects, furniture, plants, people.

Each function takes a `Workshop` (random numbers and materials) and returns a mesh that stands on
z = 0 around the origin, with its front towards -y, in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from d3_ros.synthetic.mesh import random_textures
from d3_ros.synthetic.mesh.mesh import (
    Mesh,
    ball,
    box,
    capsule,
    cylinder,
    join,
    lathe,
    quad,
    surface,
)
from d3_ros.synthetic.mesh.picture_textures import PictureTextures

SHINY = ("metal", "glossy", "dark")  # roles whose surfaces have a highlight as a rule
MATT = ("bark", "soil", "rock", "track", "lawn", "pavement")  # ... and those that rarely have


@dataclass
class Workshop:
    """Random numbers and materials of a scene under construction.

    `textures`: (SIZE, SIZE, 3) linear albedo each; `tile_m`: what one repetition covers, in the
    texture coordinates' unit; `gloss`: strength of the highlight; `glow`: emitted light;
    `instead`: roles whose surfaces get the textures of another role (all sofas of dark leather);
    `pictures`: the user's, from which half of the textures are taken where they fit.
    """

    rng: np.random.Generator
    textures: list[np.ndarray] = field(default_factory=list)
    tile_m: list[float] = field(default_factory=list)
    gloss: list[float] = field(default_factory=list)
    glow: list[float] = field(default_factory=list)
    instead: Mapping[str, str] = field(default_factory=dict)
    pictures: PictureTextures | None = None
    _shared: dict[str, list[int]] = field(default_factory=dict)

    def material(
        self, role: str, *, fit: bool = False, glow: float = 0.0, fresh: bool = False
    ) -> int:
        """Index of a material for `role`; an existing one is often used again."""
        role = self.instead.get(role, role)
        known = self._shared.setdefault(f"{role}/{fit}/{glow > 0}", [])
        if known and not fresh and self.rng.random() < 0.45:
            return int(self.rng.choice(known))
        pictured = self.pictures.draw(role, self.rng) if self.pictures is not None else None
        image, metres = pictured or random_textures.for_role(role, self.rng)
        self.textures.append(image)
        self.tile_m.append(1.0 if fit else metres or 0.25)
        shiny = self.rng.random() < (0.8 if role in SHINY else 0.05 if role in MATT else 0.3)
        self.gloss.append(float(self.rng.uniform(0.1, 0.7)) if shiny else 0.0)
        self.glow.append(glow)
        known.append(len(self.textures) - 1)
        return known[-1]

    def between(self, low: float, high: float) -> float:
        """A uniform random number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.rng.random() < probability)


def package(w: Workshop) -> Mesh:
    """A printed box, standing or lying: cereals, books, milk."""
    size = np.array([w.between(0.04, 0.25), w.between(0.02, 0.16), w.between(0.06, 0.33)])
    if w.chance(0.5):
        size = w.rng.permutation(size)
    return box(size, w.material("package" if w.chance(0.75) else "object", fit=True), fit=True)


def tin(w: Workshop) -> Mesh:
    """A can, tin or roll, upright or lying."""
    radius, height = w.between(0.02, 0.13), w.between(0.03, 0.28)
    profile = np.array([[0, 0], [radius, 0], [radius, height], [0, height]])
    fit = w.chance(0.6)
    mesh = lathe(profile, w.material("package" if fit else "object", fit=fit), fit=fit)
    return mesh.moved(at=(0, 0, radius), tilt=np.pi / 2) if w.chance(0.25) else mesh


def vessel(w: Workshop) -> Mesh:
    """Bowls, cups, vases, bottles: a turned profile with thickness."""
    height, widest = w.between(0.05, 0.3), w.between(0.03, 0.15)
    kind = w.rng.integers(3)
    t = np.linspace(0, 1, 8)
    if kind == 0:  # bowl
        height = widest * w.between(0.4, 0.9)
        radius = widest * (0.4 + 0.6 * np.sqrt(t))
    elif kind == 1:  # cup
        radius = widest * 0.55 * (1 + w.between(-0.15, 0.25) * t)
    else:  # vase or bottle
        radius = widest * (0.35 + 0.4 * np.sin(np.pi * np.clip(t * w.between(0.9, 1.3), 0, 1)))
    outer = np.column_stack([radius, t * height])
    inner = np.column_stack([np.maximum(radius - 0.006, 0.004), t * height])[::-1]
    inner[:, 1] = np.maximum(inner[:, 1], 0.008)
    profile = np.concatenate([[[0, 0]], outer, inner, [[0, 0.008]]])
    parts = [lathe(profile, w.material("object"))]
    if kind == 1 and w.chance(0.6):
        r, h = float(radius[4]), height
        m = w.material("object")
        parts += [
            capsule((r, 0, h * 0.75), (r + 0.03, 0, h * 0.7), 0.006, m),
            capsule((r + 0.03, 0, h * 0.7), (r + 0.03, 0, h * 0.35), 0.006, m),
            capsule((r + 0.03, 0, h * 0.35), (r, 0, h * 0.25), 0.006, m),
        ]
    return join(parts)


def fruit(w: Workshop) -> Mesh:
    """A ball, egg or pebble."""
    return ball(w.between(0.02, 0.12), w.material("object"), stretch=w.between(0.6, 1.3))


def stack(w: Workshop) -> Mesh:
    """Books or boxes on top of each other."""
    parts, z = [], 0.0
    for _ in range(int(w.rng.integers(2, 6))):
        size = (w.between(0.12, 0.26), w.between(0.1, 0.2), w.between(0.015, 0.09))
        part = box(size, w.material("package", fit=True), fit=True)
        parts.append(part.moved(at=(0, 0, z), yaw=w.between(-0.4, 0.4)))
        z += size[2]
    return join(parts)


def screen(w: Workshop) -> Mesh:
    """A monitor or television on its foot."""
    width = w.between(0.4, 1.2)
    height, foot = width * 0.58, w.between(0.05, 0.15)
    frame, picture = w.material("metal"), w.material("poster", fit=True)
    front = quad(
        (-width * 0.48, -0.026, foot + 0.02),
        (width * 0.96, 0, 0),
        (0, 0, height - 0.04),
        picture,
        fit=True,
    )
    return join(
        [
            box((width, 0.05, height), frame).moved(at=(0, 0, foot)),
            front,
            box((width * 0.4, 0.2, 0.015), frame),
            box((0.06, 0.04, foot + 0.05), frame).moved(at=(0, 0.03, 0)),
        ]
    )


def small_object(w: Workshop) -> Mesh:
    """Anything that one finds on a table or shelf."""
    makers = (package, package, package, tin, vessel, vessel, fruit, stack)
    return makers[int(w.rng.integers(len(makers)))](w)


def table(w: Workshop, *, laden: bool = True) -> Mesh:
    """A table, desk or low table with things on it."""
    round_top = w.chance(0.2)
    length, width = w.between(0.6, 2.2), w.between(0.5, 1.1)
    height, thick = w.between(0.38, 0.8), w.between(0.02, 0.06)
    top, leg = w.material("table"), w.material("furniture")
    if round_top:
        width = length = min(length, 1.3)
        parts = [cylinder(length / 2, thick, top, segments=32).moved(at=(0, 0, height - thick))]
        parts.append(cylinder(0.05, height - thick, leg))
        parts.append(cylinder(0.25, 0.03, leg))
    else:
        parts = [box((length, width, thick), top).moved(at=(0, 0, height - thick))]
        r = w.between(0.02, 0.05)
        for sx in (-1, 1):
            for sy in (-1, 1):
                place = (sx * (length / 2 - r * 2), sy * (width / 2 - r * 2), 0)
                parts.append(box((2 * r, 2 * r, height - thick), leg).moved(at=place))
    if laden:
        for _ in range(int(w.rng.integers(0, 7))):
            spot = (w.between(-0.4, 0.4) * length, w.between(-0.35, 0.35) * width, height)
            parts.append(small_object(w).moved(at=spot, yaw=w.between(0, 6.3)))
    return join(parts)


def chair(w: Workshop) -> Mesh:
    """A chair with legs and a slatted or solid back."""
    seat, width, back = w.between(0.4, 0.5), w.between(0.38, 0.5), w.between(0.35, 0.65)
    frame = w.material("furniture")
    cloth = w.material("fabric") if w.chance(0.5) else frame
    r = w.between(0.012, 0.025)
    h = width / 2 - r
    parts = [box((width, width, w.between(0.03, 0.09)), cloth).moved(at=(0, 0, seat))]
    for sx in (-1, 1):
        parts.append(box((2 * r, 2 * r, seat), frame).moved(at=(sx * h, -h, 0)))
        parts.append(box((2 * r, 2 * r, seat + back), frame).moved(at=(sx * h, h, 0)))
    if w.chance(0.4):
        parts.append(box((width, 0.04, back * 0.7), cloth).moved(at=(0, h, seat + back * 0.3)))
    else:
        for x in np.linspace(-h, h, int(w.rng.integers(3, 7)))[1:-1]:
            parts.append(box((0.03, 0.015, back), frame).moved(at=(x, h, seat)))
        parts.append(box((width, 0.025, 0.08), frame).moved(at=(0, h, seat + back - 0.08)))
    return join(parts)


def sofa(w: Workshop) -> Mesh:
    """A sofa or an armchair with cushions."""
    width, deep = (w.between(0.75, 1.0) if w.chance(0.5) else w.between(1.4, 2.3)), 0.85
    seat, back, arm = w.between(0.36, 0.46), w.between(0.35, 0.75), w.between(0.1, 0.25)
    cloth = w.material("fabric")
    parts = [
        box((width, deep, seat), cloth),
        box((width, 0.2, seat + back), cloth).moved(at=(0, deep / 2 - 0.1, 0)),
    ]
    for s in (-1, 1):
        x = s * (width / 2 - arm / 2)
        parts.append(box((arm, deep, seat + 0.12), cloth).moved(at=(x, 0, 0)))
        parts.append(
            capsule((x, -deep / 2, seat + 0.12), (x, deep / 2, seat + 0.12), arm / 2, cloth)
        )
    for _ in range(int(w.rng.integers(0, 4))):
        pillow = ball(0.2, w.material("fabric"), stretch=0.45)
        place = (w.between(-0.35, 0.35) * width, w.between(-0.2, 0.2), seat + 0.12)
        parts.append(pillow.moved(at=place, tilt=w.between(0.3, 1.2)))
    return join(parts)


def cabinet(w: Workshop) -> Mesh:
    """Drawers or doors with knobs, often with things on top."""
    size = (w.between(0.4, 1.6), w.between(0.35, 0.6), w.between(0.5, 2.1))
    body, front, knob = w.material("furniture"), w.material("furniture"), w.material("metal")
    parts = [box(size, body)]
    cols, rows = int(w.rng.integers(1, 4)), int(w.rng.integers(1, 5))
    dx, dz = size[0] / cols, (size[2] - 0.08) / rows
    for c in range(cols):
        for r in range(rows):
            x, z = -size[0] / 2 + (c + 0.5) * dx, 0.05 + r * dz
            panel = box((dx - 0.02, 0.02, dz - 0.02), front)
            parts.append(panel.moved(at=(x, -size[1] / 2 - 0.01, z)))
            handle = ball(0.015, knob, segments=8)
            parts.append(handle.moved(at=(x, -size[1] / 2 - 0.03, z + dz / 2)))
    if size[2] < 1.4:
        for _ in range(int(w.rng.integers(0, 5))):
            place = (w.between(-0.45, 0.45) * size[0], w.between(-0.3, 0.3) * size[1], size[2])
            parts.append(small_object(w).moved(at=place, yaw=w.between(0, 6.3)))
    return join(parts)


def shelf(w: Workshop) -> Mesh:
    """An open bookcase filled with books and objects."""
    width, deep, height = w.between(0.6, 1.4), w.between(0.25, 0.4), w.between(0.8, 2.2)
    wood = w.material("furniture")
    parts = [box((width, 0.02, height), wood).moved(at=(0, deep / 2, 0))]
    for s in (-1, 1):
        parts.append(box((0.025, deep, height), wood).moved(at=(s * width / 2, 0, 0)))
    levels = int(w.rng.integers(2, 6))
    gap = (height - 0.03) / levels
    for i in range(levels + 1):
        parts.append(box((width, deep, 0.025), wood).moved(at=(0, 0, i * gap)))
        x = -width / 2 + 0.05
        while i < levels and x < width / 2 - 0.1:
            if w.chance(0.8):
                size = (
                    w.between(0.02, 0.06),
                    deep * w.between(0.5, 0.9),
                    gap * w.between(0.5, 0.9),
                )
                book = box(size, w.material("package", fit=True), fit=True)
                parts.append(book.moved(at=(x + size[0] / 2, 0, i * gap + 0.025)))
                x += size[0] + 0.003
            else:
                x += w.between(0.05, 0.3)
    return join(parts)


def bed(w: Workshop) -> Mesh:
    """A bed with a blanket and pillows."""
    width = w.between(0.9, 1.8)
    parts = [
        box((width, 2.0, 0.3), w.material("furniture")),
        box((width * 0.98, 1.96, 0.2), w.material("fabric")).moved(at=(0, 0, 0.3)),
        box((width, 0.06, w.between(0.6, 1.2)), w.material("furniture")).moved(at=(0, 1.0, 0)),
    ]
    for x in (-0.25, 0.25):
        pillow = ball(0.28, w.material("fabric"), stretch=0.35)
        parts.append(pillow.moved(at=(x * width, 0.7, 0.48)))
    return join(parts)


def lamp(w: Workshop) -> Mesh:
    """A floor lamp with a glowing shade."""
    height, shade = w.between(1.2, 1.8), w.between(0.12, 0.25)
    profile = np.array([[shade, 0], [shade * w.between(0.4, 1.0), 0.25]])
    return join(
        [
            cylinder(0.15, 0.03, w.material("metal")),
            cylinder(0.015, height, w.material("metal"), segments=8),
            lathe(profile, w.material("wall", glow=2.0)).moved(at=(0, 0, height - 0.1)),
        ]
    )


def plant(w: Workshop) -> Mesh:
    """A potted plant: bent leaves around a stem, small or as tall as a person."""
    size = w.between(0.25, 1.8)
    pot = size * w.between(0.12, 0.22)
    profile = np.array(
        [[0, 0], [pot * 0.7, 0], [pot, pot * 1.6], [pot * 0.85, pot * 1.5], [0, pot]]
    )
    leaf = w.material("leaf")
    parts = [lathe(profile, w.material("object"))]
    stem = np.array([0.0, 0.0, size * w.between(0.3, 0.8)])
    parts.append(capsule((0, 0, pot), stem, size * 0.012, w.material("furniture")))
    for _ in range(int(w.rng.integers(12, 45))):
        length, wide = size * w.between(0.15, 0.5), size * w.between(0.02, 0.09)
        base = np.array([0, 0, pot]) + (stem - (0, 0, pot)) * w.between(0.2, 1.0)
        lift, sag = w.between(0.2, 1.3), w.between(0.1, 0.9)
        breadth = wide * np.sin(np.pi * np.clip(np.linspace(0, 1, 6) * 0.93 + 0.07, 0, 1))
        one = bent_leaf(length, lift, sag, breadth, leaf, wide)
        parts.append(one.moved(base, yaw=w.between(0, 6.3)))
    return join(parts)


def bent_leaf(
    length: float, lift: float, sag: float, breadth: np.ndarray, material: int, v: float
) -> Mesh:
    """A long leaf that rises along x and bends down again.

    Args:
        length: metres.
        lift: angle to the horizontal at its root, radians.
        sag: how far its tip bends down, as a share of the length.
        breadth: (N,) half its width from root to tip, metres.
        material: index.
        v: width of its texture, metres.
    """
    t = np.linspace(0, 1, len(breadth))
    spine = np.column_stack([t * length * np.cos(lift), 0 * t, t * length * np.sin(lift)])
    spine[:, 2] -= t**2 * length * sag
    side = np.array([0.0, 1.0, 0.0])
    rows = np.stack([spine - side * breadth[:, None], spine + side * breadth[:, None]], axis=1)
    uv = np.stack([np.column_stack([t, 0 * t]), np.column_stack([t, 0 * t + v])], axis=1)
    return surface(rows, uv * (length, 1.0), material)


def person(w: Workshop) -> Mesh:
    """A standing figure made of capsules."""
    skin, shirt, trousers = w.material("object"), w.material("fabric"), w.material("fabric")
    k = w.between(0.75, 1.1)
    swing = w.between(-0.25, 0.25)
    parts = [
        capsule((0.1, swing, 0.05), (0.09, 0, 0.85), 0.075, trousers),
        capsule((-0.1, -swing, 0.05), (-0.09, 0, 0.85), 0.075, trousers),
        capsule((0, 0, 0.95), (0, 0, 1.3), 0.17, shirt),
        capsule((0.22, 0, 1.35), (0.28, -swing, 0.85), 0.05, shirt),
        capsule((-0.22, 0, 1.35), (-0.28, swing, 0.85), 0.05, shirt),
        ball(0.11, skin, stretch=1.25).moved(at=(0, 0, 1.5)),
    ]
    mesh = join(parts)
    return Mesh(mesh.vertices * k, mesh.normals, mesh.uv, mesh.material)


def luggage(w: Workshop) -> Mesh:
    """Bags, suitcases, bins and cartons on the floor."""
    if w.chance(0.3):
        r = w.between(0.12, 0.2)
        profile = np.array(
            [[0, 0], [r * 0.8, 0], [r, 2.2 * r], [r * 0.95, 2.2 * r], [r * 0.7, 0.03]]
        )
        return lathe(profile, w.material("object"))
    if w.chance(0.3):
        sack = ball(w.between(0.15, 0.3), w.material("fabric"), stretch=w.between(0.5, 1.0))
        return sack.moved(tilt=w.between(-0.3, 0.3), at=(0, 0, -0.03))
    size = (w.between(0.25, 0.7), w.between(0.2, 0.5), w.between(0.15, 0.7))
    fit = w.chance(0.4)
    body = box(size, w.material("package" if fit else "fabric", fit=fit), fit=fit)
    if fit:
        return body
    handle = w.material("metal")
    bar = capsule((-0.1, 0, size[2] + 0.05), (0.1, 0, size[2] + 0.05), 0.012, handle)
    return join([body, bar])


FURNITURE = (table, table, chair, chair, chair, sofa, sofa, cabinet, cabinet, shelf, bed, lamp)
EXTRAS = (plant, person, luggage, luggage, chair)

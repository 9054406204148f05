"""Parked cars and vans of smooth bodies, panes, pillars, wheels and lamps.

As in `objects`: metres, on z = 0 around the origin. A vehicle stands along x, its front at -x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.mesh.mesh import Mesh, ball, box, cylinder, join, surface
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.obstacles import rod, scaled


@dataclass(frozen=True)
class CarShape:
    """Sizes in metres, and places along the car as shares of its length, from the front.

    `pane`: foot and head of the windscreen; `rear`: head and foot of the rear window; `panel_van`:
    its sides have no windows behind the doors.
    """

    length: float
    width: float
    clear: float
    belt: float
    roof: float
    wheel: float
    pane: tuple[float, float]
    rear: tuple[float, float]
    panel_van: bool


def random_shape(w: Workshop) -> CarShape:
    """A small car, an estate, a saloon, a tall car or a van."""
    kind = w.rng.choice(["hatch", "estate", "saloon", "tall", "van"], p=[0.3, 0.2, 0.2, 0.15, 0.15])
    length = {"hatch": 3.9, "estate": 4.6, "saloon": 4.6, "tall": 4.4, "van": 4.9}[kind]
    tall, van = kind == "tall", kind == "van"
    belt = w.between(0.85, 0.98) + 0.12 * tall + 0.15 * van
    roof = w.between(1.4, 1.52) + w.between(0.12, 0.25) * tall + w.between(0.35, 0.75) * van
    rear = {"hatch": (0.84, 0.95), "estate": (0.9, 0.97), "saloon": (0.7, 0.84)}.get(
        str(kind), (0.93, 0.98)
    )
    return CarShape(
        length * w.between(0.92, 1.08),
        w.between(1.65, 1.9),
        w.between(0.14, 0.2) + 0.05 * tall,
        belt,
        roof,
        w.between(0.28, 0.34) + 0.03 * tall,
        (0.14, 0.26) if van else (w.between(0.22, 0.28), w.between(0.4, 0.46)),
        rear,
        van and w.chance(0.6),
    )


def car(w: Workshop) -> Mesh:
    """A parked car or van."""
    shape = random_shape(w)
    paint = w.material("glossy" if w.chance(0.5) else "plastic", fresh=True)
    dark, glass = w.material("dark"), w.material("dark", fresh=True)
    parts = [_body(shape, paint), *_cabin(shape, paint, glass)]
    parts += _wheels(w, shape, dark)
    parts += _fittings(w, shape, paint, dark)
    return join(parts)


def _loft(x: np.ndarray, half: np.ndarray, low: np.ndarray, high: np.ndarray, m: int) -> Mesh:
    """Rounded cross-sections along x: half widths, lower and upper edges; closed at both ends."""
    angle = np.linspace(0, 2 * np.pi, 29)
    power = 2 / 4.5  # a superellipse: flat sides and round corners
    side = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    up = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    middle, tall = (low + high) / 2, (high - low) / 2
    points = np.stack(
        [
            np.broadcast_to(x[:, None], (len(x), len(angle))),
            half[:, None] * side,
            middle[:, None] + tall[:, None] * up,
        ],
        axis=-1,
    )
    uv = np.stack([points[..., 0], np.broadcast_to(angle, points.shape[:2])], axis=-1)
    parts = [surface(points, uv, m)]
    for end, out in ((0, -1.0), (-1, 1.0)):
        centre = points[end].mean(axis=0)
        ring = np.stack([points[end], centre + 0.02 * (points[end] - centre)])
        normals = np.broadcast_to((out, 0.0, 0.0), ring.shape)
        parts.append(surface(ring, ring[..., 1:], m, normals))
    return join(parts)


def _body(s: CarShape, paint: int) -> Mesh:
    """Everything below the windows."""
    t = np.sort([0.0, 0.015, 0.05, 0.12, s.pane[0], 0.4, 0.6, s.rear[1] - 0.04, 0.95, 0.985, 1.0])
    nose, belt = 0.68 * s.belt, s.belt
    place = (0.0, 0.02, 0.08, s.pane[0], 0.35, s.rear[1], 0.99, 1.0)
    high = (nose, nose + 0.06, nose + 0.14, belt - 0.03, belt, belt, belt - 0.05, belt - 0.12)
    high_at = np.interp(t, place, high)
    low = np.interp(t, (0, 0.1, 0.9, 1.0), (s.clear + 0.1, s.clear, s.clear, s.clear + 0.12))
    half = s.width / 2 * np.interp(t, (0, 0.02, 0.1, 0.9, 0.98, 1), (0.8, 0.9, 1, 1, 0.92, 0.84))
    return _loft((t - 0.5) * s.length, half, low, high_at, paint)


def _pane(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, m: int) -> Mesh:
    """A flat pane with corners a, b (below) and d, c (above)."""
    points = np.stack([np.stack([a, b]), np.stack([d, c])])
    u, v = float(np.linalg.norm(b - a)), float(np.linalg.norm(d - a))
    uv = np.array([[(0, 0), (u, 0)], [(0, v), (u, v)]], dtype=np.float64)
    return surface(points, uv, m)


def _cabin(s: CarShape, paint: int, glass: int) -> list[Mesh]:
    """Windows, pillars and roof."""
    foot, head = 0.47 * s.width, 0.4 * s.width
    x = (np.array([s.pane[0], s.pane[1], s.rear[0], s.rear[1]]) - 0.5) * s.length
    z = (s.belt - 0.04, s.roof - 0.03, s.roof - 0.03, s.belt - 0.04)
    left = [np.array([x[i], (foot, head, head, foot)[i], z[i]]) for i in range(4)]
    right = [p * (1, -1, 1) for p in left]
    side = paint if s.panel_van else glass
    parts = [
        _pane(left[0], right[0], right[1], left[1], glass),
        _pane(left[3], right[3], right[2], left[2], glass),
    ]
    middle = 0.48 if not s.panel_van else s.pane[1] + 0.14
    share = (middle - s.pane[0]) / (s.rear[1] - s.pane[0])
    share_top = (middle - s.pane[1]) / (s.rear[0] - s.pane[1])
    for edge in (left, right):
        below = edge[0] + share * (edge[3] - edge[0])
        above = edge[1] + share_top * (edge[2] - edge[1])
        parts.append(_pane(edge[0], below, above, edge[1], glass))
        parts.append(_pane(below, edge[3], edge[2], above, side))
        r = 0.035
        parts += [rod(edge[0], edge[1], r, paint), rod(edge[3], edge[2], 1.6 * r, paint)]
        parts += [rod(below, above, 1.2 * r, paint), rod(edge[1], edge[2], r, paint)]
    t = np.linspace(0, 1, 5)
    along = x[1] - 0.03 + t * (x[2] - x[1] + 0.06)
    half = head * np.array([0.96, 1.02, 1.02, 1.0, 0.96])
    low = np.full(5, s.roof - 0.06)
    high = s.roof + np.array([-0.015, 0.015, 0.02, 0.015, -0.01])
    return [*parts, _loft(along, half, low, high, paint)]


def _wheels(w: Workshop, s: CarShape, dark: int) -> list[Mesh]:
    rim, black = w.material("metal"), w.material("dark")
    parts = []
    for place in (0.19, 0.8):
        for side in (-1, 1):
            x = (place - 0.5) * s.length
            for radius, out, wide, m in (
                (1.2 * s.wheel, 0.004, 0.12, black),  # the arch
                (s.wheel, 0.015, 0.2, dark),
                (0.62 * s.wheel, 0.02, 0.05, rim),
                (0.15 * s.wheel, 0.035, 0.05, dark),
            ):
                disc = cylinder(radius, wide, m, segments=20).moved(tilt=np.pi / 2)
                # A tilted cylinder reaches from y = 0 to y = -wide.
                y = side * (s.width / 2 + out) + (0.0 if side > 0 else wide)
                parts.append(disc.moved(at=(x, y, max(s.wheel, radius))))
    return parts


def _fittings(w: Workshop, s: CarShape, paint: int, dark: int) -> list[Mesh]:
    """Lamps, plates, bumpers, mirrors, grille."""
    lamp = w.material("plain_light", glow=w.between(0.0, 1.0))
    red, plate = w.material("plastic", fresh=True), w.material("label", fit=True)
    front, back = -s.length / 2, s.length / 2
    nose = 0.68 * s.belt
    parts = [
        box((0.05, 0.5 * s.width, 0.14), dark).moved(at=(front + 0.01, 0, nose - 0.22)),
        box((0.02, 0.5, 0.11), plate, fit=True).moved(at=(front - 0.02, 0, s.clear + 0.2)),
        box((0.02, 0.5, 0.11), plate, fit=True).moved(at=(back + 0.01, 0, s.belt - 0.4)),
        box((0.05, 0.86 * s.width, 0.16), dark).moved(at=(back - 0.01, 0, s.clear + 0.15)),
    ]
    for side in (-1, 1):
        eye = scaled(ball(0.5, lamp, segments=12), (0.22, 0.3, 0.15))
        parts.append(eye.moved(at=(front + 0.07, side * 0.36 * s.width, nose - 0.12)))
        tail = scaled(ball(0.5, red, segments=12), (0.12, 0.2, 0.3))
        parts.append(tail.moved(at=(back - 0.03, side * 0.4 * s.width, s.belt - 0.42)))
        mirror = scaled(ball(0.5, paint, segments=10), (0.12, 0.2, 0.14))
        x = (s.pane[0] + 0.06 - 0.5) * s.length
        parts.append(mirror.moved(at=(x, side * (s.width / 2 + 0.06), s.belt)))
    return parts

"""Furniture of the room: bodies with textures along the walls, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.synthetic.room.room_textures import (
    Colour,
    Texture,
    cloth,
    painting,
    plain,
    stripes,
    wood,
)
from d3_ros.synthetic.room.shapes import Box, Cylinder, Point, Shape, Sphere

# The room is |x| <= 4, |y| <= 3, 0 <= z <= 2.6, metres.
HALF_X, HALF_Y, HEIGHT = 4.0, 3.0, 2.6
LAMP = (0.0, 0.0, 2.3)
WINDOW = (-1.2, -HALF_Y, 1.55)  # its middle, on the wall behind the desk
WINDOW_SIZE = (1.6, 1.1)

WOODS: tuple[Colour, ...] = ((0.55, 0.38, 0.23), (0.42, 0.27, 0.16), (0.72, 0.57, 0.4))
CLOTHS: tuple[Colour, ...] = (
    (0.25, 0.35, 0.5),
    (0.55, 0.25, 0.22),
    (0.3, 0.42, 0.3),
    (0.5, 0.47, 0.43),
)
BOOKS: tuple[Colour, ...] = (
    (0.6, 0.2, 0.15),
    (0.15, 0.3, 0.45),
    (0.75, 0.65, 0.4),
    (0.2, 0.38, 0.28),
    (0.35, 0.25, 0.4),
    (0.8, 0.78, 0.72),
)


@dataclass(frozen=True)
class Body:
    """A shape and its texture."""

    shape: Shape
    texture: Texture


def furnish(rng: np.random.Generator) -> list[Body]:
    """All bodies of the room. They keep 0.4 m from the robot's ellipse (half axes 2.2, 1.4 m)."""
    timber = Texture(wood(rng, _pick(rng, WOODS)), 0.004)
    return [
        *_coffee_table(rng, timber),
        *_sofa(rng),
        *_bookshelf(rng, timber),
        *_desk(rng, timber),
        *_sideboard(rng),
        *_corners(rng),
        *_on_the_walls(rng, timber),
    ]


def _coffee_table(rng: np.random.Generator, timber: Texture) -> list[Body]:
    yaw = float(rng.uniform(-0.3, 0.3))
    rug = Texture(stripes(_pick(rng, CLOTHS), (0.8, 0.76, 0.68), width=8), 0.01)
    c, s = np.cos(yaw), np.sin(yaw)
    legs = [(x * c - y * s, x * s + y * c) for x in (-0.5, 0.5) for y in (-0.25, 0.25)]
    return [
        Body(Box((0.0, 0.0, 0.005), (2.0, 1.4, 0.01), yaw), rug),
        Body(Box((0.0, 0.0, 0.43), (1.2, 0.65, 0.04), yaw), timber),
        *(Body(Box((x, y, 0.21), (0.05, 0.05, 0.4), yaw), timber) for x, y in legs),
        Body(Cylinder((0.25 * c, 0.25 * s, 0.54), 0.06, 0.18), _paint(rng, (0.8, 0.82, 0.85))),
        Body(
            Box((-0.25 * c, -0.25 * s, 0.475), (0.3, 0.21, 0.05), yaw + 0.4), _paint(rng, BOOKS[0])
        ),
    ]


def _sofa(rng: np.random.Generator) -> list[Body]:
    fabric = Texture(cloth(rng, _pick(rng, CLOTHS)), 0.004)
    x, front = float(rng.uniform(-0.9, -0.3)), HALF_Y - 0.95
    pillow = Texture(cloth(rng, _pick(rng, CLOTHS)), 0.004)
    return [
        Body(Box((x, front + 0.45, 0.22), (2.0, 0.9, 0.44)), fabric),
        Body(Box((x, HALF_Y - 0.16, 0.45), (2.0, 0.22, 0.9)), fabric),
        *(
            Body(Box((x + side, front + 0.45, 0.31), (0.2, 0.92, 0.62)), fabric)
            for side in (-1.1, 1.1)
        ),
        Body(Box((x + 0.6, HALF_Y - 0.4, 0.62), (0.42, 0.16, 0.36), 0.35), pillow),
    ]


def _bookshelf(rng: np.random.Generator, timber: Texture) -> list[Body]:
    """Against the wall x = 4: sides, boards, and rows of books on them."""
    depth, width, height, y = 0.32, 1.5, 1.9, float(rng.uniform(0.6, 1.0))
    x = HALF_X - depth / 2
    bodies = [
        Body(Box((x, y + side, height / 2), (depth, 0.03, height)), timber)
        for side in (-width / 2, width / 2)
    ]
    boards = np.linspace(0.08, height - 0.02, 5)
    bodies += [Body(Box((x, y, float(z)), (depth, width, 0.03)), timber) for z in boards]
    bodies.append(Body(Box((HALF_X - 0.01, y, height / 2), (0.02, width, height)), timber))
    for z in boards[:-1]:
        at = y - width / 2 + 0.05
        while at < y + width / 2 - 0.35:
            row, tall, deep = (
                rng.uniform(0.15, 0.4),
                rng.uniform(0.2, 0.34),
                rng.uniform(0.16, 0.24),
            )
            spines = stripes(_pick(rng, BOOKS), _pick(rng, BOOKS), width=int(rng.integers(3, 8)))
            bodies.append(
                Body(
                    Box(
                        (
                            HALF_X - 0.03 - deep / 2,
                            float(at + row / 2),
                            float(z + 0.015 + tall / 2),
                        ),
                        (float(deep), float(row), float(tall)),
                    ),
                    Texture(spines * np.float32(0.9), 0.006),
                )
            )
            at += row + rng.uniform(0.0, 0.2)
    return bodies


def _desk(rng: np.random.Generator, timber: Texture) -> list[Body]:
    x, y = -1.2, -HALF_Y + 0.36
    dark = _paint(rng, (0.1, 0.1, 0.12))
    screen = Texture(painting(rng), 0.005)
    seat = Texture(cloth(rng, _pick(rng, CLOTHS)), 0.004)
    chair_yaw = float(rng.uniform(-0.5, 0.5))
    return [
        Body(Box((x, y, 0.74), (1.5, 0.7, 0.04)), timber),
        *(Body(Box((x + side, y, 0.36), (0.05, 0.6, 0.72)), timber) for side in (-0.7, 0.7)),
        Body(Box((x + 0.2, y - 0.15, 1.0), (0.6, 0.03, 0.36)), screen),
        Body(Box((x + 0.2, y - 0.17, 1.0), (0.63, 0.03, 0.39)), dark),
        Body(Box((x + 0.2, y - 0.17, 0.8), (0.22, 0.16, 0.1)), dark),
        Body(Box((x - 0.3, y + 0.02, 0.465), (0.42, 0.42, 0.06), chair_yaw), seat),
        Body(Cylinder((x - 0.3, y + 0.02, 0.24), 0.035, 0.4), dark),
        Body(Cylinder((x - 0.3, y + 0.02, 0.03), 0.22, 0.06), dark),
    ]


def _sideboard(rng: np.random.Generator) -> list[Body]:
    """Against the wall x = -4, with a screen on the wall above it."""
    y = float(rng.uniform(-0.6, 0.0))
    front = _paint(rng, (0.85, 0.83, 0.78))
    dark = _paint(rng, (0.05, 0.05, 0.06))
    vase = _paint(rng, _pick(rng, CLOTHS))
    return [
        Body(Box((-HALF_X + 0.22, y, 0.35), (0.44, 1.7, 0.6)), front),
        Body(Box((-HALF_X + 0.22, y, 0.67), (0.48, 1.76, 0.04)), dark),
        *(
            Body(Box((-HALF_X + 0.445, y + side, 0.37), (0.01, 0.01, 0.52)), dark)
            for side in (-0.28, 0.28)
        ),
        Body(Box((-HALF_X + 0.04, y, 1.3), (0.06, 1.2, 0.68)), dark),
        Body(Sphere((-HALF_X + 0.22, y - 0.7, 0.8), 0.12), vase),
        Body(Cylinder((-HALF_X + 0.22, y + 0.7, 0.84), 0.05, 0.3), vase),
    ]


def _corners(rng: np.random.Generator) -> list[Body]:
    """Lamp, plant, wardrobe and cartons, one per corner, and a ball on the floor."""
    metal = _paint(rng, (0.2, 0.2, 0.22))
    shade = Texture(plain(rng, (1.0, 0.92, 0.75), grain=0.02), 0.02, glow=True)
    leaf = Texture(plain(rng, (0.16, 0.34, 0.14), grain=0.6), 0.008)
    card = Texture(stripes((0.62, 0.48, 0.32), (0.58, 0.44, 0.29), width=16), 0.004)
    white = Texture(plain(rng, (0.84, 0.82, 0.78)), 0.01)
    lamp, plant = (HALF_X - 0.45, HALF_Y - 0.45), (-HALF_X + 0.45, HALF_Y - 0.5)
    bodies = [
        Body(Cylinder((*lamp, 0.015), 0.16, 0.03), metal),
        Body(Cylinder((*lamp, 0.75), 0.015, 1.5), metal),
        Body(Cylinder((*lamp, 1.6), 0.2, 0.28), shade),
        Body(Cylinder((*plant, 0.18), 0.17, 0.36), _paint(rng, (0.62, 0.35, 0.25))),
        Body(Cylinder((*plant, 0.55), 0.025, 0.5), _paint(rng, (0.3, 0.22, 0.14))),
        Body(Box((HALF_X - 0.5, -HALF_Y + 0.32, 1.0), (1.0, 0.62, 2.0)), white),
        Body(Box((HALF_X - 0.5, -HALF_Y + 0.635, 1.0), (0.01, 0.01, 1.9)), metal),
        Body(Box((1.55, -HALF_Y + 0.3, 0.17), (0.5, 0.4, 0.34), 0.2), card),
        Body(Box((1.6, -HALF_Y + 0.3, 0.46), (0.36, 0.3, 0.24), -0.3), card),
        Body(Box((-HALF_X + 0.4, -HALF_Y + 0.4, 0.2), (0.45, 0.4, 0.4), 0.5), card),
        Body(
            Sphere((float(rng.uniform(1.0, 1.8)), 2.45, 0.12), 0.12), _paint(rng, (0.8, 0.3, 0.1))
        ),
    ]
    for _ in range(7):
        dx, dy, z = rng.uniform(-0.16, 0.16), rng.uniform(-0.16, 0.16), rng.uniform(0.65, 1.25)
        centre: Point = (plant[0] + float(dx), plant[1] + float(dy), float(z))
        bodies.append(Body(Sphere(centre, float(rng.uniform(0.1, 0.17))), leaf))
    return bodies


def _on_the_walls(rng: np.random.Generator, timber: Texture) -> list[Body]:
    """Pictures, door, window and ceiling lamp."""
    bright = Texture(plain(rng, (0.93, 0.97, 1.0), grain=0.05), 0.05, glow=True)
    warm = Texture(plain(rng, (1.0, 0.97, 0.88), grain=0.0), 0.05, glow=True)
    frame = _paint(rng, (0.95, 0.94, 0.92))
    bodies = [
        Body(Sphere(LAMP, 0.16), warm),
        Body(Cylinder((0.0, 0.0, 2.53), 0.01, 0.14), frame),
        Body(
            Box((WINDOW[0], -HALF_Y + 0.01, WINDOW[2]), (WINDOW_SIZE[0], 0.02, WINDOW_SIZE[1])),
            bright,
        ),
        *(
            Body(
                Box((WINDOW[0] + dx, -HALF_Y + 0.02, WINDOW[2]), (0.06, 0.04, WINDOW_SIZE[1])),
                frame,
            )
            for dx in (-0.8, 0.0, 0.8)
        ),
        *(
            Body(Box((WINDOW[0], -HALF_Y + 0.02, WINDOW[2] + dz), (1.66, 0.05, 0.06)), frame)
            for dz in (-0.55, 0.55)
        ),
        Body(Box((0.55, -HALF_Y + 0.02, 1.0), (0.9, 0.04, 2.0)), timber),
        Body(Sphere((0.2, -HALF_Y + 0.08, 1.0), 0.035), frame),
    ]
    for x in (-1.6, -0.2, 1.9):
        width, height = float(rng.uniform(0.45, 0.8)), float(rng.uniform(0.4, 0.65))
        z = float(rng.uniform(1.5, 1.7))
        picture = Texture(painting(rng), 0.007)
        bodies.append(Body(Box((x, HALF_Y - 0.015, z), (width, 0.03, height)), picture))
        bodies.append(Body(Box((x, HALF_Y - 0.01, z), (width + 0.06, 0.02, height + 0.06)), timber))
    return bodies


def _paint(rng: np.random.Generator, colour: Colour) -> Texture:
    return Texture(plain(rng, colour), 0.01)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]

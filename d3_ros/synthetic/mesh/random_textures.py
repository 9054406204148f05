"""Random textures for ray-cast scenes, drawn by the role of a surface: wall, floor, package, ...

A texture is a (SIZE, SIZE, 3) float32 image of linear albedo in [0, 1], with the metres it covers,
so that wood grain and printed letters have a believable size. Colours vary widely: a network that
is trained on these scenes must not learn to read depth from a colour.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np

from d3_ros.synthetic import textures
from d3_ros.synthetic.textures import fractal_noise, mixed, tinted

SIZE = 256
Texture = tuple[np.ndarray, float]  # image and the metres it covers; 0 m = spread over the face


def colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.0, 1.0),
    value: tuple[float, float] = (0.1, 0.95),
    hue: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """A random colour (3,) float32 with saturation, value and hue in the given ranges."""
    low, high = saturation
    hsv = (rng.uniform(*hue), low + (high - low) * rng.random() ** 1.5, rng.uniform(*value))
    return np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32)


def noise(rng: np.random.Generator, cells: tuple[int, int], octaves: int = 3) -> np.ndarray:
    """Tileable fractal noise (SIZE, SIZE) in [-1, 1]; `cells` rows, columns of the first octave."""
    return fractal_noise(rng, SIZE, cells, octaves)


def plain(rng: np.random.Generator) -> Texture:
    """Paint: one colour with a hint of unevenness."""
    pale = rng.random() < 0.65
    base = colour(rng, (0.0, 0.3), (0.6, 0.95)) if pale else colour(rng, (0.1, 0.9), (0.15, 0.9))
    uneven = 0.04 * rng.random() * noise(rng, (2, 2), 4)
    grain = 0.05 * rng.random() * rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    return tinted(base, 1 + uneven + grain), float(rng.uniform(0.5, 4.0))


def wood(rng: np.random.Generator) -> Texture:
    """Grain along the columns' direction, with or without planks."""
    base = colour(rng, (0.15, 0.7), (0.15, 0.9), (0.03, 0.12))
    stretched = noise(rng, (int(rng.choice([16, 32, 64])), 2), 3)
    rings, contrast = stretched * rng.uniform(4, 14), rng.uniform(0.02, 0.12)
    image = textures.wood(base, rings, contrast, 0.08 * rng.random() * noise(rng, (64, 4), 2))
    if rng.random() < 0.5:
        planks = int(rng.choice([2, 4, 8]))
        height = SIZE // planks
        for i in range(planks):
            image[i * height : (i + 1) * height] *= 1 + rng.uniform(-0.18, 0.18)
            image[i * height : i * height + 2] *= rng.uniform(0.3, 0.8)
            cut = int(rng.integers(SIZE))
            image[i * height : (i + 1) * height, cut : cut + 2] *= 0.6
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
    return image, float(rng.uniform(0.5, 1.8))


def tiles(rng: np.random.Generator) -> Texture:
    """Square or running-bond tiles with grout: floors, bathrooms, bricks."""
    first = colour(rng, (0.0, 0.5), (0.2, 0.95))
    second = colour(rng, (0.0, 0.5), (0.2, 0.95)) if rng.random() < 0.4 else first
    grout = colour(rng, (0.0, 0.2), (0.2, 0.8))
    rows = int(rng.choice([2, 4, 8]))
    cols = rows if rng.random() < 0.6 else max(1, rows // 2)
    shift = 0.5 if cols < rows else 0.0
    image = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    image[:] = grout
    gap = int(rng.integers(1, 4))
    h, w = SIZE // rows, SIZE // cols
    for r in range(rows):
        for c in range(cols):
            x0 = int(c * w + (r % 2) * shift * w)
            tone = (first if (r + c) % 2 == 0 else second) * (1 + rng.uniform(-0.1, 0.1))
            columns = np.arange(x0 + gap, x0 + w) % SIZE
            image[r * h + gap : (r + 1) * h, columns] = tone
    return tinted(image, 1 + 0.08 * noise(rng, (8, 8))), float(rows * rng.uniform(0.08, 0.4))


def carpet(rng: np.random.Generator) -> Texture:
    """Fibres: strong fine noise over one colour or a coarse second one."""
    base, other = colour(rng, (0.0, 0.7), (0.1, 0.8)), colour(rng, (0.0, 0.7), (0.1, 0.8))
    patches = rng.choice([0.0, 0.0, 0.3, 1.5])
    blend = np.clip(0.5 + noise(rng, (4, 4), 2) * patches, 0, 1)
    fibres = rng.uniform(0.05, 0.3) * rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    return tinted(mixed(blend, other, base), 1 + fibres), float(rng.uniform(0.4, 1.5))


def stripes(rng: np.random.Generator) -> Texture:
    """Parallel bands of two or three colours: curtains, cloth, blinds."""
    palette = [colour(rng) for _ in range(int(rng.integers(2, 4)))]
    cuts = np.sort(rng.integers(0, SIZE, len(palette) * int(rng.integers(1, 7))))
    index = np.searchsorted(cuts, np.arange(SIZE)) % len(palette)
    image = textures.stripes(np.stack(palette), index)
    if rng.random() < 0.3:
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
    return image, float(rng.uniform(0.1, 1.0))


def checker(rng: np.random.Generator) -> Texture:
    """A chess board: floors and table cloths."""
    n = int(rng.choice([2, 4, 8]))
    mask = (np.indices((n, n)).sum(0) % 2).astype(np.uint8)
    mask = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)[..., None]
    return np.where(mask > 0, colour(rng), colour(rng)).astype(np.float32), float(
        n * rng.uniform(0.03, 0.3)
    )


def marble(rng: np.random.Generator) -> Texture:
    """Two colours mixed by strong smooth noise: stone, stains, camouflage."""
    cells = int(rng.choice([2, 4, 8, 16]))
    share = np.clip(0.5 + rng.uniform(0.5, 2.5) * noise(rng, (cells, cells), 5), 0, 1)
    second, first = colour(rng), colour(rng)
    return mixed(share, first, second), float(rng.uniform(0.2, 2.0))


def printed(rng: np.random.Generator) -> Texture:
    """Printed matter spread over its face: packages, posters, book covers, screens."""
    image = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    image[:] = colour(rng, (0.0, 1.0), (0.3, 1.0))
    if rng.random() < 0.5:
        ramp = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
        image = image * ramp + colour(rng) * (1 - ramp)
    for _ in range(int(rng.integers(2, 12))):
        tone = colour(rng, (0.0, 1.0), (0.05, 1.0)).tolist()
        x, y, w, h = (int(v) for v in rng.integers(0, SIZE, 4))
        shape = rng.random()
        if shape < 0.4:
            cv2.rectangle(image, (x, y), (x + w // 2, y + h // 2), tone, -1)
        elif shape < 0.7:
            axes = (w // 4 + 3, h // 4 + 3)
            cv2.ellipse(
                image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, tone, -1, cv2.LINE_AA
            )
        else:
            cv2.line(image, (x, y), (w, h), tone, int(rng.integers(1, 12)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 7))):
        letters = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(2, 12))))
        place = (int(rng.integers(-20, SIZE - 40)), int(rng.integers(10, SIZE)))
        tone = colour(rng, (0.0, 1.0), (0.0, 1.0))
        size = float(rng.choice([0.35, 0.5, 1.0, 1.8, 2.6]))
        face = int(rng.choice([0, 1, 3, 4, 6]))
        ink = np.zeros((SIZE, SIZE), np.uint8)  # OpenCV 5 writes on nothing but 8 bits
        cv2.putText(ink, letters, place, face, size, (1,), int(rng.integers(1, 5)))
        image[ink > 0] = tone
    return image, 0.0


def foliage(rng: np.random.Generator) -> Texture:
    """Leaves and grass."""
    base = colour(rng, (0.3, 0.9), (0.1, 0.7), (0.17, 0.4))
    return tinted(base, 1 + 0.6 * noise(rng, (16, 16), 4)), float(rng.uniform(0.2, 1.0))


def bark(rng: np.random.Generator) -> Texture:
    """Bark with ridges along the trunk; now and then a birch's, pale with dark bands."""
    if rng.random() < 0.2:
        bands = noise(rng, (4, 32), 3) > rng.uniform(0.25, 0.45)
        base = colour(rng, (0.0, 0.1), (0.7, 0.95))
        image = tinted(base, (1 - 0.8 * bands) * (1 + 0.1 * noise(rng, (8, 8))))
    else:
        base = colour(rng, (0.05, 0.5), (0.12, 0.5), (0.04, 0.13))
        image = tinted(base, 1 + 0.5 * noise(rng, (4, 32), 3) + 0.25 * noise(rng, (16, 16)))
        moss = np.clip(noise(rng, (3, 3), 4) - rng.uniform(0.1, 0.8), 0, 0.6)
        image = mixed(moss, image, colour(rng, (0.4, 0.8), (0.2, 0.5), (0.2, 0.33)))
    return np.ascontiguousarray(image.transpose(1, 0, 2)), float(rng.uniform(0.4, 1.2))


def soil(rng: np.random.Generator) -> Texture:
    """Forest floor: earth with dead leaves, needles, moss or short grass."""
    base = colour(rng, (0.15, 0.6), (0.15, 0.5), (0.04, 0.12))
    image = tinted(base, 1 + 0.5 * noise(rng, (16, 16), 4))
    litter = colour(rng, (0.2, 0.8), (0.2, 0.7), (0.03, 0.35))
    share = np.clip(2.5 * noise(rng, (8, 8), 5) + rng.uniform(-0.6, 0.8), 0, 1)
    image = mixed(share, image, litter * (1 + 0.4 * rng.standard_normal((SIZE, SIZE, 1))))
    return image.astype(np.float32), float(rng.uniform(0.6, 2.5))


def rock(rng: np.random.Generator) -> Texture:
    """Stone and gravel: grey or brown, with grain, cracks and lichen."""
    base = colour(rng, (0.0, 0.3), (0.25, 0.75), (0.05, 0.15))
    grain = 0.12 * rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    image = tinted(base, 1 + grain + 0.5 * noise(rng, (6, 6), 5))
    return image, float(rng.uniform(0.3, 1.5))


def asphalt(rng: np.random.Generator) -> Texture:
    """Roads, concrete, plaster: grey grain with patches."""
    base = colour(rng, (0.0, 0.15), (0.15, 0.75))
    grain = 0.15 * rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    return tinted(base, 1 + grain + 0.25 * noise(rng, (4, 4), 4)), float(rng.uniform(0.6, 3.0))


def dark(rng: np.random.Generator) -> Texture:
    """Black leather, rubber, painted steel."""
    base = colour(rng, (0.0, 0.5), (0.02, 0.16))
    return tinted(base, 1 + 0.3 * rng.random() * noise(rng, (8, 8), 4)), float(rng.uniform(0.2, 1))


def vivid(rng: np.random.Generator) -> Texture:
    """Plastic: one strong or pale colour without a pattern."""
    base = colour(rng, (0.0, 1.0), (0.15, 0.98))
    return tinted(base, 1 + 0.03 * noise(rng, (2, 2), 3)), float(rng.uniform(0.5, 2))


def light(rng: np.random.Generator) -> Texture:
    """White paint or glass of a lamp."""
    base = colour(rng, (0.0, 0.1), (0.75, 0.98))
    return tinted(base, 1 + 0.02 * noise(rng, (4, 4), 2)), float(rng.uniform(0.5, 2))


def cardboard(rng: np.random.Generator) -> Texture:
    """Brown board with printed signs and letters, or plain; spread over its face."""
    base = colour(rng, (0.25, 0.6), (0.35, 0.8), (0.05, 0.11))
    image = tinted(base, 1 + 0.08 * noise(rng, (3, 3), 4))
    ink = base * rng.uniform(0.1, 0.6)
    for _ in range(int(rng.integers(0, 9))):
        x, y = (int(v) for v in rng.integers(0, SIZE, 2))
        w, h = (int(v) for v in rng.integers(6, 60, 2))
        if rng.random() < 0.4:
            cv2.rectangle(image, (x, y), (x + w, y + h), ink.tolist(), int(rng.integers(1, 4)))
        else:
            cv2.line(image, (x, y), (x + 2 * w, y), ink.tolist(), int(rng.integers(1, 6)))
    if rng.random() < 0.5:
        letters = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(2, 9))))
        mask = np.zeros((SIZE, SIZE), np.uint8)
        place = (int(rng.integers(0, SIZE // 2)), int(rng.integers(30, SIZE)))
        cv2.putText(mask, letters, place, 0, float(rng.choice([0.6, 1.2, 2.2])), (1,), 3)
        image[mask > 0] = ink
    return image, 0.0


def label(rng: np.random.Generator) -> Texture:
    """A white sheet with lines of text, bars or signs; spread over its face."""
    image = np.full((SIZE, SIZE, 3), rng.uniform(0.6, 0.95), dtype=np.float32)
    y = int(rng.integers(8, 40))
    while y < SIZE - 12:
        tall = int(rng.choice([3, 5, 8, 20, 45]))
        x = int(rng.integers(5, 40))
        while x < SIZE - 20:
            wide = int(rng.integers(2, 6 * tall + 4))
            if rng.random() < 0.75:
                image[y : y + tall, x : min(x + wide, SIZE - 8)] = rng.uniform(0.02, 0.3)
            x += wide + int(rng.integers(2, 8))
        y += tall + int(rng.integers(6, 40))
    return image, 0.0


def outside(rng: np.random.Generator) -> Texture:
    """What a window shows: a bright sky, houses, trees; spread over its face."""
    rows = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None]
    sky = mixed(
        rows * np.ones((1, SIZE), np.float32),
        colour(rng, (0.0, 0.4), (0.8, 1.0), (0.5, 0.65)),
        (0.95, 0.95, 0.95),
    )
    image = sky.astype(np.float32)
    for _ in range(int(rng.integers(0, 8))):
        x, wide, top = (
            int(rng.integers(0, SIZE)),
            int(rng.integers(15, 120)),
            int(rng.integers(40, 230)),
        )
        image[top:, x : x + wide] = colour(rng, (0.0, 0.4), (0.2, 0.8))
    bottom = int(rng.integers(120, SIZE))
    green = foliage(rng)[0]
    edge = bottom + (20 * noise(rng, (4, 4), 3)[0]).astype(int)
    below = np.arange(SIZE)[:, None] > edge[None, :]
    return np.where(below[..., None], green, image).astype(np.float32), 0.0


ROLES: dict[str, tuple[tuple[Callable[[np.random.Generator], Texture], float], ...]] = {
    "wall": ((plain, 7), (tiles, 1), (stripes, 0.5), (marble, 0.5), (asphalt, 1), (wood, 0.6)),
    "ceiling": ((plain, 8), (tiles, 1), (wood, 0.5)),
    "floor": ((wood, 3), (carpet, 3), (tiles, 3), (checker, 0.5), (plain, 1.5), (asphalt, 1)),
    "table": ((wood, 6), (plain, 3), (marble, 0.3), (checker, 0.3), (stripes, 0.2)),
    "furniture": ((wood, 4), (plain, 4), (marble, 0.3), (stripes, 0.3)),
    "fabric": ((plain, 5), (carpet, 3), (stripes, 1.5), (marble, 0.5), (checker, 0.4)),
    "object": ((plain, 5), (marble, 1), (stripes, 1), (printed, 2), (wood, 0.6), (checker, 0.3)),
    "package": ((printed, 8), (plain, 1)),
    "poster": ((printed, 5), (marble, 1)),
    "metal": ((plain, 1),),
    "leaf": ((foliage, 1),),
    "ground": ((asphalt, 4), (foliage, 2), (tiles, 2), (carpet, 0.5)),
    "dark": ((dark, 1),),
    "glossy": ((vivid, 2), (light, 1), (dark, 1), (tiles, 0.5)),
    "plastic": ((vivid, 4), (dark, 1)),
    "plain_light": ((light, 1),),
    "carton": ((cardboard, 1),),
    "tape": ((dark, 1), (wood, 1), (light, 1)),
    "label": ((label, 1),),
    "outside": ((outside, 1),),
    "bark": ((bark, 1),),
    "soil": ((soil, 1),),
    "rock": ((rock, 3), (asphalt, 1)),
    "track": ((soil, 2), (rock, 2), (asphalt, 1)),
    "lawn": ((foliage, 3), (soil, 1)),
    "pavement": ((asphalt, 3), (tiles, 2), (rock, 1)),
    "concrete": ((plain, 2), (asphalt, 1.5), (tiles, 0.3)),
    "facade": ((asphalt, 2), (tiles, 3), (plain, 3), (wood, 0.3)),
}


def for_role(role: str, rng: np.random.Generator) -> Texture:
    """A random texture for a surface's role (a key of `ROLES`), clipped to [0.02, 0.98]."""
    kinds = ROLES[role]
    weights = np.array([weight for _, weight in kinds], dtype=np.float64)
    make = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))][0]
    image, metres = make(rng)
    return np.clip(image, 0.02, 0.98).astype(np.float32), metres

"""Textures made from numbers: an image pyramid to look colours up in, and the patterns themselves.

Patterns are (H, W, 3) float32 in [0, 1], H and W powers of two, so that they repeat and halve.
"""

from __future__ import annotations

import numpy as np

Colour = tuple[float, float, float]


class Texture:
    """A repeating colour image that is looked up at the sharpness that a pixel can show.

    Args:
        pattern: (H, W, 3) float32 in [0, 1]; H and W powers of two.
        texel_m: side of one of its pixels on the surface, metres.
        glow: its own light, which nothing shades.
    """

    def __init__(self, pattern: np.ndarray, texel_m: float, *, glow: bool = False) -> None:
        height, width = pattern.shape[:2]
        if height & (height - 1) or width & (width - 1):
            raise ValueError(f"a texture's sides must be powers of two, got {width} x {height}")
        self.texel_m = texel_m
        self.glow = glow
        self._height, self._width = height, width
        levels = [pattern]
        while min(levels[-1].shape[:2]) > 1:
            levels.append(
                (
                    levels[-1][::2, ::2]
                    + levels[-1][1::2, ::2]
                    + levels[-1][::2, 1::2]
                    + levels[-1][1::2, 1::2]
                )
                / 4
            )
        # One row after the other, level after level, four bytes a colour: a look-up is one gather.
        packed = []
        for level in levels:
            rgbx = np.zeros((*level.shape[:2], 4), np.uint8)
            rgbx[..., :3] = np.rint(np.clip(level, 0.0, 1.0) * 255)
            packed.append(rgbx.view(np.uint32).ravel())
        self._colours = np.concatenate(packed)
        self._first = np.cumsum([0, *(len(p) for p in packed[:-1])]).astype(np.int32)
        self._row = np.array([level.shape[1] for level in levels], np.int32)

    def look_up(self, along_m: np.ndarray, footprint_m: np.ndarray) -> np.ndarray:
        """(N,) uint32 colours, bytes R G B 0, at (N, 2) metres along the surface.

        `footprint_m`: (N,) metres that a pixel covers there; what is finer is averaged.
        """
        texels = footprint_m / np.float32(self.texel_m)
        # frexp's exponent is floor(log2) + 1.
        level = np.clip(np.frexp(texels)[1], 0, len(self._first) - 1)
        texel = np.floor(along_m.T * np.float32(1.0 / self.texel_m)).astype(np.int32)
        u, v = texel[0] & (self._width - 1), texel[1] & (self._height - 1)
        index = self._first.take(level) + (v >> level) * self._row.take(level) + (u >> level)
        colours: np.ndarray = self._colours.take(index)
        return colours


def plain(
    rng: np.random.Generator, colour: Colour, *, size: int = 64, grain: float = 0.04
) -> np.ndarray:
    """One colour with some grain."""
    return _coloured(1.0 + grain * smooth_noise(rng, size, size, 4), colour)


def wood(rng: np.random.Generator, colour: Colour, *, size: int = 256) -> np.ndarray:
    """Grain along x."""
    rings = smooth_noise(rng, size, size, 16, stretch=8)
    lines = 0.5 + 0.5 * np.sin(18 * rings + smooth_noise(rng, size, size, 4, stretch=16))
    return _coloured(0.82 + 0.18 * lines + 0.04 * smooth_noise(rng, size, size, 1), colour)


def cloth(rng: np.random.Generator, colour: Colour, *, size: int = 128) -> np.ndarray:
    """Woven threads."""
    v, u = np.mgrid[0:size, 0:size]
    weave = 0.5 + 0.25 * np.sin(u * np.pi / 2) + 0.25 * np.sin(v * np.pi / 2)
    return _coloured(0.85 + 0.15 * weave + 0.06 * smooth_noise(rng, size, size, 8), colour)


def stripes(first: Colour, second: Colour, *, width: int, size: int = 128) -> np.ndarray:
    """Upright stripes of `width` texels."""
    odd = (np.arange(size) // width % 2).astype(bool)
    row = np.where(odd[:, None], second, first).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(row, (size, size, 3)))


def painting(rng: np.random.Generator, *, size: int = 128) -> np.ndarray:
    """Hills below a sky, by nobody."""
    v, u = np.mgrid[0:size, 0:size] / size
    picture = _between(v, (0.95, 0.75, 0.5), (0.45, 0.6, 0.8))
    for shade in (0.75, 0.5, 0.28):
        line = 0.8 - 0.5 * shade + 0.1 * np.sin(2 * np.pi * (u * rng.integers(1, 4) + rng.random()))
        hill = v > line + 0.03 * smooth_noise(rng, size, size, 8)
        picture[hill] = np.float32(shade) * rng.uniform(0.4, 1.0, 3).astype(np.float32)
    return picture


def planks(
    rng: np.random.Generator, shape: tuple[int, int], colour: Colour, *, width: int, length: int
) -> np.ndarray:
    """A floor of boards along x, `width` x `length` texels each, with joints between them."""
    height, row_length = shape
    v, u = np.mgrid[0:height, 0:row_length]
    row = v // width
    shifted = u + (row * length * 37 // 100)
    board = row * 1009 + shifted // length
    shade = rng.uniform(0.78, 1.08, 4096).astype(np.float32)[board % 4096]
    grain = smooth_noise(rng, height, row_length, 4, stretch=16)
    joint = (v % width < 1) | (shifted % length < 1)
    return _coloured(np.where(joint, 0.45, shade + 0.07 * grain), colour)


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cell: int, *, stretch: int = 1
) -> np.ndarray:
    """(H, W) float32 noise, -1 to 1, smooth over `cell` texels, over `stretch` times that in x."""
    rows, columns = max(height // cell, 1), max(width // (cell * stretch), 1)
    coarse = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    return stretched(coarse, height, width)


def stretched(coarse: np.ndarray, height: int, width: int, *, repeats: bool = True) -> np.ndarray:
    """A (h, w) or (h, w, C) map at (height, width), linear in between.

    `repeats`: it goes on at its other side, as a texture; else its border values reach on.
    """
    rows, columns = (
        _weights(size, cells, repeats)
        for size, cells in zip((height, width), coarse.shape, strict=False)
    )
    return np.einsum("wc,hc...->hw...", columns, np.tensordot(rows, coarse, 1), optimize=True)


def _weights(size: int, cells: int, repeats: bool) -> np.ndarray:
    """(size, cells): how much of each cell's value a texel takes; cell centres are exact."""
    at = (np.arange(size) + 0.5) * cells / size - 0.5
    before = np.floor(at).astype(int)
    share = (at - before).astype(np.float32)
    weights = np.zeros((size, cells), np.float32)
    for cell, weight in ((before, 1 - share), (before + 1, share)):
        inside = cell % cells if repeats else np.clip(cell, 0, cells - 1)
        np.add.at(weights, (np.arange(size), inside), weight)
    return weights


def _coloured(brightness: np.ndarray, colour: Colour) -> np.ndarray:
    return brightness[..., None].astype(np.float32) * np.array(colour, np.float32)


def _between(share: np.ndarray, first: Colour, second: Colour) -> np.ndarray:
    share = share[..., None].astype(np.float32)
    return (1 - share) * np.array(first, np.float32) + share * np.array(second, np.float32)

"""The textures of the analytic room, and the look-up of their colours at a pixel's sharpness."""

from __future__ import annotations

import numpy as np

from d3_ros.synthetic.textures import Colour, mip_levels, mixed, smooth_noise, tinted
from d3_ros.synthetic.textures import stripes as coloured_stripes
from d3_ros.synthetic.textures import wood as grained_wood


class Texture:
    """A repeating colour image with an image pyramid, so that far surfaces do not flicker.

    Args:
        pattern: (H, W, 3) float32 in [0, 1]; H and W powers of two.
        texel_m: side of one of its pixels on the surface, metres.
        glow: the surface shines by itself and is not shaded.
    """

    def __init__(self, pattern: np.ndarray, texel_m: float, *, glow: bool = False) -> None:
        height, width = pattern.shape[:2]
        if height & (height - 1) or width & (width - 1):
            raise ValueError(f"a texture's sides must be powers of two, got {width} x {height}")
        self.texel_m = texel_m
        self.glow = glow
        self._height, self._width = height, width
        levels = mip_levels(pattern)
        # All levels in one flat array, four bytes a colour, so that a look-up is a single gather.
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

        `footprint_m`: (N,) metres that a pixel covers there; finer detail is averaged.
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
    return tinted(colour, 1.0 + grain * noise(rng, size, size, 4))


def wood(rng: np.random.Generator, colour: Colour, *, size: int = 256) -> np.ndarray:
    """Wood with its grain along x."""
    rings = 18 * noise(rng, size, size, 16, stretch=8) + noise(rng, size, size, 4, stretch=16)
    return grained_wood(
        0.91 * np.array(colour, np.float32), rings, 0.1, 0.044 * noise(rng, size, size, 1)
    )


def cloth(rng: np.random.Generator, colour: Colour, *, size: int = 128) -> np.ndarray:
    """Woven threads."""
    v, u = np.mgrid[0:size, 0:size]
    weave = 0.5 + 0.25 * np.sin(u * np.pi / 2) + 0.25 * np.sin(v * np.pi / 2)
    return tinted(colour, 0.85 + 0.15 * weave + 0.06 * noise(rng, size, size, 8))


def stripes(first: Colour, second: Colour, *, width: int, size: int = 128) -> np.ndarray:
    """Vertical stripes of `width` texels."""
    return coloured_stripes(np.array([first, second]), np.arange(size) // width % 2)


def painting(rng: np.random.Generator, *, size: int = 128) -> np.ndarray:
    """A landscape: three hills below a sky."""
    v, u = np.mgrid[0:size, 0:size] / size
    picture = mixed(v, (0.95, 0.75, 0.5), (0.45, 0.6, 0.8))
    for shade in (0.75, 0.5, 0.28):
        line = 0.8 - 0.5 * shade + 0.1 * np.sin(2 * np.pi * (u * rng.integers(1, 4) + rng.random()))
        hill = v > line + 0.03 * noise(rng, size, size, 8)
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
    grain = noise(rng, height, row_length, 4, stretch=16)
    joint = (v % width < 1) | (shifted % length < 1)
    return tinted(colour, np.where(joint, 0.45, shade + 0.07 * grain))


def noise(
    rng: np.random.Generator, height: int, width: int, cell: int, *, stretch: int = 1
) -> np.ndarray:
    """(H, W) float32 noise, -1 to 1, smooth over `cell` texels in y and `cell * stretch` in x."""
    cells = max(height // cell, 1), max(width // (cell * stretch), 1)
    return smooth_noise(rng, height, width, cells)

"""Textures made from numbers, for the analytic room and the ray caster alike.

A pattern is (H, W, 3) float32 in about [0, 1]. It repeats at its borders. Where H and W are powers
of two, it can be halved down to one pixel for an image pyramid (`mip_levels`).
"""

from __future__ import annotations

import numpy as np

Colour = tuple[float, float, float]


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]
) -> np.ndarray:
    """(H, W) float32 tileable noise in [-1, 1]: `cells` (rows, columns) values, linear between."""
    return stretched(rng.uniform(-1.0, 1.0, cells).astype(np.float32), height, width)


def fractal_noise(
    rng: np.random.Generator,
    size: int,
    cells: tuple[int, int],
    octaves: int = 3,
    persistence: float = 0.55,
) -> np.ndarray:
    """(size, size) float32 tileable noise in [-1, 1]: the mean of octaves of `smooth_noise`.

    Each octave has twice the cells of the one before it and `persistence` times its weight.
    """
    noise, total = np.zeros((size, size), np.float32), 0.0
    for octave in range(octaves):
        rows, columns = (min(size, cell << octave) for cell in cells)
        weight = persistence**octave
        noise += weight * smooth_noise(rng, size, size, (rows, columns))
        total += weight
    return noise / total


def stretched(coarse: np.ndarray, height: int, width: int, *, repeats: bool = True) -> np.ndarray:
    """A (h, w) or (h, w, C) map at (height, width), interpolated linearly.

    `repeats`: the map continues at its opposite border, as a texture does; otherwise its border
    values are held.
    """
    rows, columns = (
        _weights(size, cells, repeats)
        for size, cells in zip((height, width), coarse.shape, strict=False)
    )
    return np.einsum("wc,hc...->hw...", columns, np.tensordot(rows, coarse, 1), optimize=True)


def _weights(size: int, cells: int, repeats: bool) -> np.ndarray:
    """(size, cells): the weight of each cell's value at a texel; exact at the cells' centres."""
    at = (np.arange(size) + 0.5) * cells / size - 0.5
    before = np.floor(at).astype(int)
    share = (at - before).astype(np.float32)
    weights = np.zeros((size, cells), np.float32)
    for cell, weight in ((before, 1 - share), (before + 1, share)):
        inside = cell % cells if repeats else np.clip(cell, 0, cells - 1)
        np.add.at(weights, (np.arange(size), inside), weight)
    return weights


def mip_levels(texture: np.ndarray) -> list[np.ndarray]:
    """A (..., H, W, 3) texture at full size and at every halved size, until a side is one pixel.

    H and W are powers of two.
    """
    levels = [texture]
    while min(levels[-1].shape[-3:-1]) > 1:
        rows = levels[-1][..., ::2, :, :] + levels[-1][..., 1::2, :, :]
        levels.append((rows[..., ::2, :] + rows[..., 1::2, :]) / np.float32(4))
    return levels


def tinted(colour: Colour | np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """(H, W, 3): one (3,) colour, or an (H, W, 3) pattern, times an (H, W) brightness."""
    return brightness[..., None].astype(np.float32) * np.asarray(colour, np.float32)


def mixed(share: np.ndarray, first: Colour | np.ndarray, second: Colour | np.ndarray) -> np.ndarray:
    """`second` where the (H, W) share is 1, `first` where it is 0, linear between."""
    share = share[..., None].astype(np.float32)
    return (1 - share) * np.asarray(first, np.float32) + share * np.asarray(second, np.float32)


def wood(
    colour: Colour | np.ndarray, rings: np.ndarray, contrast: float, fibres: np.ndarray
) -> np.ndarray:
    """Wood grain: annual rings and fibres.

    Args:
        colour: (3,).
        rings: (H, W) phase of the rings, rad; smooth noise that is stretched along the grain.
        contrast: of the rings, as a share of the colour.
        fibres: (H, W) brightness to add, as a share of the colour.
    """
    return tinted(colour, 1.0 + contrast * np.sin(rings) + fibres)


def stripes(colours: np.ndarray, band: np.ndarray) -> np.ndarray:
    """Vertical stripes: (W, W, 3), column i has the colour `band[i]` of (K, 3) colours."""
    row = np.asarray(colours, np.float32)[band]
    return np.ascontiguousarray(np.broadcast_to(row, (len(band), *row.shape)))

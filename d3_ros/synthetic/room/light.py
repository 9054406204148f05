"""Brightness of surfaces: light of a ceiling lamp, of a window, and reflected by the room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from d3_ros.synthetic.room.furniture import HALF_Y, LAMP, WINDOW, WINDOW_SIZE

AMBIENT = 0.6
# (place, strength, distance in m at which it is halved)
LIGHTS = (
    (np.array(LAMP), 0.7, 3.0),
    (np.array([WINDOW[0], -HALF_Y + 0.1, WINDOW[2]]), 0.6, 3.5),
)
# Half the extent of each light in x, y and z, m: it makes shadows soft.
EXTENTS = (
    np.array([0.2, 0.2, 0.1]),
    np.array([WINDOW_SIZE[0] / 2, 0.0, WINDOW_SIZE[1] / 2]),
)
SHADOW_SAMPLES = 8


def light_at(
    points: np.ndarray, normals: np.ndarray, lit: list[np.ndarray] | None = None
) -> np.ndarray:
    """(N, 1) float32 brightness of (N, 3) surface points with (N, 3) unit normals.

    `lit`: for each light, the (N,) share of it that reaches the points; None: nothing is in the
    way.
    """
    brightness = AMBIENT * (0.85 + 0.15 * normals[:, 2]).astype(np.float32)
    # Less reflected light arrives where floor and furniture meet.
    brightness *= 1.0 - np.float32(0.35) * np.exp(points[:, 2] * np.float32(-6.0))
    for i, (place, strength, half_at) in enumerate(LIGHTS):
        towards = place.astype(np.float32) - points
        squared = np.einsum("ij,ij->i", towards, towards)
        facing = np.einsum("ij,ij->i", towards, normals) / np.sqrt(squared)
        part = (
            np.maximum(facing, 0.0)
            * np.float32(strength)
            / (1.0 + squared * np.float32(half_at**-2))
        )
        brightness += part if lit is None else part * lit[i]
    return brightness[:, None].astype(np.float32)


def shadows(
    points: np.ndarray,
    is_lit: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """For each light, the (N,) float32 share that reaches (N, 3) points.

    `is_lit`: (N, 3) points and (3,) a light to (N,) bool.
    """
    shares = []
    for (place, _, _), extent in zip(LIGHTS, EXTENTS, strict=True):
        spots = place + rng.uniform(-1.0, 1.0, (SHADOW_SAMPLES, 3)) * extent
        shares.append(np.mean([is_lit(points, spot) for spot in spots], axis=0, dtype=np.float32))
    return shares

"""Depth of simple scenes."""

from __future__ import annotations

import numpy as np


def crossing_box(behind_m: np.ndarray, frames: int = 10) -> list[np.ndarray]:
    """(H, W) metres per frame: a box 1 m away crosses the scene at 12 pixels a frame."""
    scenes = []
    for frame in range(frames):
        scene = behind_m.copy()
        scene[40:80, 10 + 12 * frame : 40 + 12 * frame] = 1.0
        scenes.append(scene)
    return scenes

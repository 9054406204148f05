"""The kinds of scenes by name, each with its weight where several are drawn from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from d3_ros.synthetic.mesh import hall_scenes, robot_scenes, scenes
from d3_ros.synthetic.mesh.objects import Workshop
from d3_ros.synthetic.mesh.outdoors import forest, yard
from d3_ros.synthetic.mesh.picture_textures import PictureTextures
from d3_ros.synthetic.mesh.scene import MeshScene

KINDS: dict[str, tuple[Callable[[Workshop], MeshScene], float]] = {
    "room": (scenes.room, 0.42),
    "table": (scenes.tabletop, 0.30),
    "corridor": (scenes.corridor, 0.16),
    "stairs": (scenes.stairs, 0.05),
    "street": (scenes.street, 0.07),
    "shapes": (scenes.shapes, 0.20),
    "worktop": (scenes.worktop, 0.20),
    "longtable": (scenes.longtable, 0.20),
    "lowcam": (robot_scenes.lowcam, 0.20),
    "clutter": (robot_scenes.clutter, 0.20),
    "above": (robot_scenes.above, 0.20),
    "forest": (forest.forest, 0.20),
    "yard": (yard.yard, 0.20),
    "hall": (hall_scenes.hall, 0.20),
}


def build(
    kind: str, rng: np.random.Generator, pictures: PictureTextures | None = None
) -> MeshScene:
    """A random scene of `kind` (a key of `KINDS`), with the user's pictures on its surfaces."""
    return KINDS[kind][0](Workshop(rng, pictures=pictures))

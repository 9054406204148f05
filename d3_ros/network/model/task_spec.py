"""What a model knows about each of its tasks. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from d3_ros.types import Task

INITIAL_TIMESTEP = 261.0
OFFICIAL_NORMAL_AXES = (1, -1, -1)
"""Signs that turn the official weights' normals into the optical frame.

The official normals are x right, y up, z towards the viewer (Hypersim's camera frame, as Marigold
uses it): in the authors' published pictures a floor is green, a surface seen head-on blue, and
the right side of a round object redder than its left. The optical frame (REP 103) is x right,
y down, z forward. Bundles made by this project keep the same convention.
"""
PROMPTS: Mapping[Task, str] = {
    "depth": "A grayscale depth estimation image, where darker areas represent closer depths "
    "and lighter areas indicate farther depths.",
    "normals": "A surface normal estimation map.",
}


@dataclass(frozen=True)
class TaskSpec:
    """How one task is computed.

    `unet` names the UNet (two tasks may name the same one), `timestep` is the learned scalar that
    conditions it, `prompt` the text that its prompt embedding was made from, `processing_size`
    (height, width) the size at which it was trained. `axes` (normals only) are the signs that turn
    the network's normals into the optical frame (x right, y down, z forward).
    """

    unet: str
    prompt: str
    processing_size: tuple[int, int]
    timestep: float = INITIAL_TIMESTEP
    axes: tuple[int, int, int] | None = None

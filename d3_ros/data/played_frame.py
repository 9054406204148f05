"""One frame that the demo plays, what gives such frames, and what its user said about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from d3_ros.types import CameraIntrinsics


@dataclass(frozen=True)
class PlayedFrame:
    """One camera image and what else is known about its moment.

    `index`: place in the source, from 0. `name`: for people (a file's stem, a time). `stamp`:
    seconds on the source's own clock; NaN where it has none (a folder). `rgb`: (H, W, 3) uint8.
    `intrinsics`: of the image at this size, or None. `sensor`: (H, W) float32 z-depth in metres,
    NaN where not measured, that the node is given; or None. `truth`: (H, W) float32 z-depth in
    metres to score with, NaN where unknown *or given to the node*; or None.
    """

    index: int
    name: str
    stamp: float
    rgb: np.ndarray
    intrinsics: CameraIntrinsics | None = None
    sensor: np.ndarray | None = None
    truth: np.ndarray | None = None


class FrameSource(Protocol):
    """Frames that can be iterated again and again.

    `title`: one line for people. `rate_hz`: the camera's own rate, None where frames have no time.
    `warnings`: one line each for what was left out.
    """

    title: str
    rate_hz: float | None
    warnings: tuple[str, ...]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[PlayedFrame]: ...


@dataclass(frozen=True)
class SourceOptions:
    """What the user said about the input; the same in every process of a demo.

    `intrinsics`: (fx, fy, cx, cy) in pixels for folders and videos. `points`: how many measured
    pixels the node is given; None: as the source has them, or 500 where the rest must score.
    The topics are a bag's; None: found by their names.
    """

    path: Path
    intrinsics: tuple[float, float, float, float] | None = None
    points: int | None = None
    seed: int = 0
    image_topic: str | None = None
    sensor_topic: str | None = None
    truth_topic: str | None = None


def pinhole(
    intrinsics: tuple[float, float, float, float] | None, image: np.ndarray
) -> CameraIntrinsics | None:
    """An ideal camera of `image`'s size from (fx, fy, cx, cy) in pixels; None from None."""
    if intrinsics is None:
        return None
    fx, fy, cx, cy = intrinsics
    return CameraIntrinsics(width=image.shape[1], height=image.shape[0], fx=fx, fy=fy, cx=cx, cy=cy)

"""A frame that the demo plays, the interface of a source of such frames, and its options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from d3_ros.types import CameraIntrinsics


@dataclass(frozen=True)
class PlayedFrame:
    """One camera image, and the depth that was measured with it.

    index: position in the source, from 0.
    name: for people: a file's stem, or a time.
    stamp: seconds on the source's own clock; NaN where it has none (a folder).
    rgb: (H, W, 3) uint8.
    intrinsics: of the image at this size, or None.
    sensor: (H, W) float32 z-depth in metres that the node is given, NaN where not measured; or
        None.
    truth: (H, W) float32 z-depth in metres to score with, NaN where unknown *or given to the node*;
        or None.
    """

    index: int
    name: str
    stamp: float
    rgb: np.ndarray
    intrinsics: CameraIntrinsics | None = None
    sensor: np.ndarray | None = None
    truth: np.ndarray | None = None


class FrameSource(Protocol):
    """Frames that can be iterated again and again, the same each time.

    title: one line for people.
    rate_hz: the camera's own rate; None where frames have no time.
    warnings: one line for each thing that was left out.
    """

    title: str
    rate_hz: float | None
    warnings: tuple[str, ...]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[PlayedFrame]: ...


@dataclass(frozen=True)
class SourceOptions:
    """What the user said about the input; the same in every process of a demo.

    path: bag, folder or video.
    intrinsics: (fx, fy, cx, cy) in pixels, instead of those of the source.
    points: how many measured pixels the node is given; None: all of them, or 500 where the others
        are needed to score.
    seed: of the choice of these pixels.
    image_topic, sensor_topic, truth_topic: of a bag; None: found by their names.
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

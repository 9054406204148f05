"""How long the scale alignment takes, stage by stage, with and without an image to follow.

The scene is analytic, 640 x 480 pixels. Frames with and without the image are timed in turn, so
that both see the same load.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from d3_ros.geometry.alignment import ScaleAligner

SHAPE = (480, 640)
COUNTS = (500, 20000)
NOISE = 0.01
WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one stage with so many sensor points: median and 95th percentile.

    `image`: whether the correction followed an image.
    `cpu_ms` is the median of the processor's time, all cores together, which other processes on a
    busy machine disturb less.
    """

    points: int
    image: bool
    stage: str
    p50_ms: float
    p95_ms: float
    cpu_ms: float


class _StopWatch:
    """Collects how long each stage of each frame takes: seconds, and of processor time."""

    def __init__(self) -> None:
        self.taken: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter(), time.process_time()
        yield
        took = time.perf_counter() - start[0], time.process_time() - start[1]
        self.taken.setdefault(stage, []).append(took)


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative depth (H, W) in (0, 1), metres (H, W) and image (H, W, 3) uint8.

    A slanted ground with boxes, each of one colour; the relative depth has a smooth error.
    """
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    relative = 0.15 + 0.7 * (1.0 - v / SHAPE[0])
    image = np.full((*SHAPE, 3), 120, np.uint8)
    for left, top, depth in ((60, 120, 0.3), (260, 200, 0.2), (430, 90, 0.45)):
        relative[top : top + 180, left : left + 130] = depth
        image[top : top + 180, left : left + 130] = np.array([1.0, 0.7, 0.4]) * 500 * depth
    image += np.random.default_rng(0).integers(0, 12, image.shape, np.uint8)
    relative = (relative + 0.02 * np.sin(u / 90.0)).astype(np.float32)
    metric = (0.5 + 6.0 * relative) * (1.0 + 0.1 * np.sin(u / 130.0) * np.cos(v / 110.0))
    return relative, metric.astype(np.float32), image


def timings(frames: int) -> Iterator[Timing]:
    """Every stage of `ScaleAligner.update`, then of `apply`, then both together ("total").

    Points are drawn anew for every frame, with 1 % noise.

    Args:
        frames: how many to measure, after a few to warm up.
    """
    relative, metric, image = scene()
    for count in COUNTS:
        watches = {guided: _StopWatch() for guided in (False, True)}
        aligners = {guided: ScaleAligner(stage=watch) for guided, watch in watches.items()}
        rng = np.random.default_rng(0)
        for frame in range(WARM_UP + frames):
            if frame == WARM_UP:
                for watch in watches.values():
                    watch.taken.clear()
            sparse = np.full(SHAPE, np.nan, np.float32)
            chosen = rng.choice(sparse.size, count, replace=False)
            noise = 1.0 + NOISE * rng.standard_normal(count)
            sparse.flat[chosen] = metric.flat[chosen] * noise
            for guided, watch in watches.items():
                with watch("total"):
                    rgb = image if guided else None
                    fit = aligners[guided].update(relative, sparse, 0.1 * frame, rgb=rgb)
                    with watch("apply"):
                        fit.apply(relative)
        for guided, watch in watches.items():
            for stage, taken in watch.taken.items():
                (p50, cpu), (p95, _) = 1e3 * np.quantile(taken, (0.5, 0.95), axis=0)
                yield Timing(count, guided, stage, float(p50), float(p95), float(cpu))

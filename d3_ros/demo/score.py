"""Numbers of a run: rate, latency, dropped images, and the error of depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d3_ros.demo.recording import METRIC, RELATIVE, SCALE, Received, Reported, Sent
from d3_ros.evaluation.scale import interpolate
from d3_ros.metrics import abs_rel, delta


@dataclass(frozen=True)
class DepthScore:
    """Metric depth against the truth over the pixels that have both.

    `abs_rel`: mean |z - t| / t. `delta1`: share of pixels with max(z / t, t / z) < 1.25.
    `coverage`: share of the truth's pixels that have a depth at all. `pixels`: how many were
    compared.
    """

    abs_rel: float
    delta1: float
    coverage: float
    pixels: int


def score_depth(metric: np.ndarray, truth: np.ndarray) -> DepthScore | None:
    """Score (H, W) metric depth against (H, W) truth, both metres with NaN for unknown.

    None where no pixel has both. Raises ValueError when the sizes differ.
    """
    if metric.shape != truth.shape:
        raise ValueError(f"depth is {metric.shape}, its truth {truth.shape}")
    known = np.isfinite(truth) & (truth > 0)
    both = known & np.isfinite(metric) & (metric > 0)
    pixels = int(both.sum())
    if pixels == 0:
        return None
    return DepthScore(
        abs_rel=abs_rel(metric, truth, both),
        delta1=delta(metric, truth, both),
        coverage=pixels / int(known.sum()),
        pixels=pixels,
    )


def score_points_alone(
    sensor: np.ndarray | None, metric: np.ndarray, truth: np.ndarray
) -> tuple[float, float] | None:
    """AbsRel of the interpolated sparse points, and of metric depth on the same pixels.

    It shows what the network adds to the points. None where the points cannot be interpolated, or
    cover a fifth of the image and more.

    Args:
        sensor: (H, W) metres that the node was given, NaN elsewhere; or None.
        metric: (H, W) metres, NaN invalid.
        truth: (H, W) metres to score with, NaN unknown.
    """
    if sensor is None or not 3 <= np.isfinite(sensor).sum() <= sensor.size // 5:
        return None
    compared = np.isfinite(truth) & (truth > 0) & np.isfinite(metric) & (metric > 0)
    if not compared.any():
        return None
    return abs_rel(interpolate(sensor), truth, compared), abs_rel(metric, truth, compared)


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Median and 95 % quantile; None if there are no values."""
    if not values:
        return None
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": float(p50), "p95": float(p95)}


def rate_hz(received: Sequence[Received]) -> float | None:
    """Messages per second from the first to the last arrival; None for fewer than two."""
    if len(received) < 2:
        return None
    times = sorted(row.received_ns for row in received)
    return (len(times) - 1) / ((times[-1] - times[0]) / 1e9) if times[-1] > times[0] else None


@dataclass(frozen=True)
class Traffic:
    """Images sent and outputs received.

    `answered`: the sent images whose relative depth arrived, in sending order; all others were
    dropped. `depth_topic`: metric depth if any arrived, else relative depth. `depth_hz` and
    `latency_ms` are those of this topic.
    """

    sent: int
    answered: list[Sent]
    depth_topic: str
    depth_hz: float | None
    latency_ms: dict[str, float] | None
    topics: dict[str, dict[str, float | int | None]]

    @property
    def dropped(self) -> int:
        """Number of images without an answer."""
        return self.sent - len(self.answered)


def traffic(sent: Sequence[Sent], received: Sequence[Received]) -> Traffic:
    """Match received outputs with sent images by stamp, and summarise.

    Messages with another stamp (of another camera in the same domain) are ignored.
    """
    stamps = {row.stamp_ns for row in sent}
    by_topic: dict[str, list[Received]] = {}
    for row in received:
        if row.stamp_ns in stamps:
            by_topic.setdefault(row.topic, []).append(row)
    with_depth = {row.stamp_ns for row in by_topic.get(RELATIVE, [])}
    depth_topic = METRIC if METRIC in by_topic else RELATIVE
    depth_rows = by_topic.get(depth_topic, [])
    return Traffic(
        sent=len(sent),
        answered=[row for row in sent if row.stamp_ns in with_depth],
        depth_topic=depth_topic,
        depth_hz=rate_hz(depth_rows),
        latency_ms=percentiles([row.latency_ms for row in depth_rows]),
        topics={
            topic: {
                "messages": len(rows),
                "hz": rate_hz(rows),
                **(percentiles([row.latency_ms for row in rows]) or {}),
            }
            for topic, rows in by_topic.items()
        },
    )


def published_states(reported: Sequence[Reported]) -> list[str]:
    """The states of all scales that arrived, in their order."""
    return [row.values["state"] for row in reported if row.topic == SCALE]


def scale_states(
    sent: Sequence[Sent], received: Sequence[Received], reported: Sequence[Reported]
) -> dict[int, str]:
    """The state of the scale by stamp.

    The node publishes one scale per frame, in the order of the frames, without a stamp. They are
    matched by order. If their numbers differ, one was lost and the result is empty.
    """
    stamps = {row.stamp_ns for row in sent}
    frames = [r.stamp_ns for r in received if r.topic == RELATIVE and r.stamp_ns in stamps]
    fits = published_states(reported)
    return dict(zip(sorted(frames), fits, strict=True)) if len(frames) == len(fits) else {}

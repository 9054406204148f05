"""Measured depth where it exists and is believable, predicted depth elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Fusion:
    """`depth`: (H, W) float32 metres; how many measured pixels were kept and how many disagree."""

    depth: np.ndarray
    kept: int
    disagreeing: int


def fuse(
    predicted_m: np.ndarray,
    sensor_m: np.ndarray,
    tolerance: float = 0.1,
    blend_px: int = 12,
    edge: float = 0.05,
) -> Fusion:
    """Let measured pixels through where they agree with the prediction; blend at their borders.

    A pixel that is measured and agrees keeps its measurement exactly. Around such pixels the
    prediction is bent towards them: by the ratio at the nearest kept pixel, fading to nothing over
    `blend_px`, and only on the same surface (no step of the predicted depth between the two).
    Pixels that are measured but disagree stay as predicted, and are counted.

    Args:
        predicted_m: (H, W) float32 metres, NaN = unknown. Not changed.
        sensor_m: (H, W) float32 metres, NaN or <= 0 = not measured. Not changed.
        tolerance: largest |predicted - sensor| / sensor of pixels that agree. Where nothing is
            predicted, the measurement is kept.
        blend_px: width of the border in which prediction and measurement are blended.
        edge: largest relative step of the predicted depth within one surface.

    Raises:
        ValueError: the sizes differ.
    """
    if predicted_m.shape != sensor_m.shape:
        raise ValueError(
            f"prediction {predicted_m.shape} and sensor {sensor_m.shape} differ in size"
        )
    measured = (sensor_m > 0) & (sensor_m < np.inf)
    known = (predicted_m > 0) & (predicted_m < np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(measured & known, predicted_m / sensor_m, np.float32(1.0))
    agrees = np.abs(ratio - 1.0) <= tolerance
    kept = measured & agrees
    disagreeing = int(np.count_nonzero(measured & ~agrees))
    depth = np.where(kept, sensor_m, np.where(known, predicted_m, np.float32(np.nan)))
    if kept.any() and blend_px > 0:
        depth = _bend_borders(depth, kept, known, ratio, blend_px, edge)
    return Fusion(depth.astype(np.float32, copy=False), int(np.count_nonzero(kept)), disagreeing)


def _bend_borders(
    depth: np.ndarray,
    kept: np.ndarray,
    known: np.ndarray,
    ratio: np.ndarray,
    blend_px: int,
    edge: float,
) -> np.ndarray:
    """Bend predicted pixels near kept ones by the ratio there, less with distance."""
    anchors = kept & known
    if not anchors.any():
        return depth
    distance, label = cv2.distanceTransformWithLabels(
        (~anchors).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    index_of_label = np.zeros(int(label.max()) + 1, np.intp)
    index_of_label[label[anchors]] = np.flatnonzero(anchors)
    border = np.flatnonzero((distance < blend_px) & ~kept & known)
    nearest = index_of_label[label.flat[border]]
    predicted_there = depth.flat[nearest] * ratio.flat[nearest]
    step = np.abs(depth.flat[border] / predicted_there - 1.0)
    weight = np.where(step < edge, 1.0 - distance.flat[border] / blend_px, 0.0)
    bent = depth.copy()
    bent.flat[border] *= ratio.flat[nearest] ** -weight
    return bent

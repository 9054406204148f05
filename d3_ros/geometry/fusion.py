"""Measured depth where it exists and is believable, predicted depth elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Defaults, of the node's parameters too: a measurement agrees with a prediction that differs by at
# most this share of it; around it the prediction is corrected over this many pixels.
TOLERANCE, BLEND_PX = 0.1, 12
# A measurement also agrees with a prediction that differs by at most this many of the prediction's
# standard deviations.
AGREEING_SIGMAS = 2.0
# Expected error of a measured pixel, as a share of its depth.
SENSOR_ERROR = 0.02


@dataclass(frozen=True)
class Fusion:
    """Predicted and measured depth in one image.

    `depth`: (H, W) float32 metres, NaN = unknown. `kept`: number of measured pixels in it.
    `disagreeing`: number of measured pixels that contradict the prediction and were left out.
    `sigma`: (H, W) float32 metres, the expected error (1 sigma) of `depth`; None where the
    prediction has none.
    """

    depth: np.ndarray
    kept: int
    disagreeing: int
    sigma: np.ndarray | None = None


def fuse(
    predicted_m: np.ndarray,
    sensor_m: np.ndarray,
    tolerance: float = TOLERANCE,
    blend_px: int = BLEND_PX,
    edge: float = 0.05,
    sigma_m: np.ndarray | None = None,
) -> Fusion:
    """Let measured pixels through where they agree with the prediction; blend at their borders.

    A measured pixel that agrees keeps its measurement exactly. Around it the prediction is
    multiplied by the ratio of measurement to prediction at the nearest kept pixel. This fades to
    nothing over `blend_px`, and it stays on one surface (no step of the predicted depth between the
    two pixels). A measured pixel that disagrees stays as predicted, and is counted.

    Args:
        predicted_m: (H, W) float32 metres, NaN = unknown. Not changed.
        sensor_m: (H, W) float32 metres, NaN or <= 0 = not measured. Not changed.
        tolerance: largest |predicted - sensor| / sensor of pixels that agree. Where nothing is
            predicted, the measurement is kept.
        blend_px: width of the border in which prediction and measurement are blended.
        edge: largest relative step of the predicted depth within one surface.
        sigma_m: (H, W) float32 expected error (1 sigma) of the prediction in metres, NaN where
            unknown; or None. Pixels within `AGREEING_SIGMAS` of it agree, too. Not changed.

    Raises:
        ValueError: the sizes differ.
    """
    if predicted_m.shape != sensor_m.shape:
        raise ValueError(
            f"prediction {predicted_m.shape} and sensor {sensor_m.shape} differ in size"
        )
    # Comparisons are false for NaN.
    measured = (sensor_m > 0) & (sensor_m < np.inf)
    known = (predicted_m > 0) & (predicted_m < np.inf)
    allowed = np.float32(tolerance) * sensor_m
    if sigma_m is not None:
        np.fmax(allowed, np.float32(AGREEING_SIGMAS) * sigma_m, out=allowed)
    off = np.abs(predicted_m - sensor_m) > allowed
    disagrees = measured & known & off
    kept = measured & ~disagrees
    depth = np.full(predicted_m.shape, np.nan, np.float32)
    np.copyto(depth, predicted_m, where=known)
    if blend_px > 0:
        _bend_borders(depth, sensor_m, kept, known, blend_px, edge)
    np.copyto(depth, sensor_m, where=kept)
    sigma = None
    if sigma_m is not None:
        sigma = np.where(kept, np.fmin(sigma_m, np.float32(SENSOR_ERROR) * sensor_m), sigma_m)
    return Fusion(depth, int(np.count_nonzero(kept)), int(np.count_nonzero(disagrees)), sigma)


def _bend_borders(
    depth: np.ndarray,
    sensor_m: np.ndarray,
    kept: np.ndarray,
    known: np.ndarray,
    blend_px: int,
    edge: float,
) -> None:
    """Bend predicted pixels near kept ones by the ratio there, less with distance; in place."""
    anchors = kept & known
    away = (~anchors).view(np.uint8)
    # The kept pixel nearest to a pixel that is not kept lies on the rim of the kept ones.
    rim = np.flatnonzero(anchors & (cv2.dilate(away, np.ones((3, 3), np.uint8)) > 0))
    if len(rim) == 0:
        return
    distance, label = cv2.distanceTransformWithLabels(
        away, cv2.DIST_L2, cv2.DIST_MASK_3, labelType=cv2.DIST_LABEL_PIXEL
    )
    index_of_label = np.zeros(np.count_nonzero(anchors) + 1, np.intp)
    index_of_label[label.ravel()[rim]] = rim
    border = np.flatnonzero((distance < blend_px) & known & ~kept)
    nearest = index_of_label[label.ravel()[border]]
    flat = depth.ravel()
    predicted_there = flat[nearest]
    step = np.abs(flat[border] / predicted_there - 1.0)
    weight = np.where(step < edge, 1.0 - distance.ravel()[border] / blend_px, 0.0)
    flat[border] *= (sensor_m.ravel()[nearest] / predicted_there) ** weight

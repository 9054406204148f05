"""The pictures of one recorded frame, each output on its own."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.imaging.cloud_view import view_from_above, view_oblique
from d3_ros.imaging.colour_maps import colour_depth, colour_normals
from d3_ros.imaging.drawing import enlarged, with_bar, with_points


@dataclass(frozen=True)
class Cloud:
    """Points of one frame in the optical frame, invalid ones left out.

    `xyz`: (N, 3) float32 metres. `rgb`: (N, 3) uint8. `normals`: (N, 3) float32 or None.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    normals: np.ndarray | None = None


def frame_pictures(
    rgb: np.ndarray,
    *,
    sensor: np.ndarray | None,
    truth: np.ndarray | None,
    relative: np.ndarray | None,
    metric: np.ndarray | None,
    normals: np.ndarray | None,
    cloud: Cloud | None,
) -> dict[str, np.ndarray]:
    """Every picture that can be made of one frame, by name, in the order of the strip.

    Metric depth, measured depth and their legends share one range of colours. Where there is no
    metric depth the relative one is shown, and its legend says so.

    Args:
        rgb: (H, W, 3) uint8, the camera's image.
        sensor: (H, W) float32 metres that the node was given, NaN elsewhere, or None.
        truth: (H, W) float32 metres held back to score with, NaN elsewhere, or None.
        relative: (H, W) float32 in [0, 1], or None.
        metric: (H, W) float32 metres, NaN invalid, or None.
        normals: (H, W, 3) float32 unit vectors, optical frame, or None.
        cloud: the points received, or None.

    Returns:
        (h, w, 3) uint8 RGB pictures under some of: colour, depth, measured, normals,
        cloud_above, cloud_oblique.
    """
    pictures = {"colour": with_points(rgb, sensor)}
    if metric is not None and np.isfinite(metric).any():
        shown = {"depth": metric}
        if truth is not None and np.isfinite(truth).any():
            shown["measured"] = np.where(np.isfinite(truth), truth, _or_nan(sensor, truth))
        ranges = [np.nanquantile(depth, (0.02, 0.98)) for depth in shown.values()]
        near, far = float(np.min(ranges)), float(np.max(ranges))
        for name, depth in shown.items():
            pictures[name] = with_bar(colour_depth(depth, near, far), near, far, "m")
    elif relative is not None:
        pictures["depth"] = with_bar(colour_depth(relative, 0.0, 1.0), 0.0, 1.0, "rel.")
    if normals is not None:
        pictures["normals"] = enlarged(colour_normals(normals), cv2.INTER_NEAREST)
    if cloud is not None and len(cloud.xyz):
        height, width = pictures["colour"].shape[:2]
        pictures["cloud_above"] = view_from_above(cloud.xyz, cloud.rgb, width, height)
        pictures["cloud_oblique"] = view_oblique(cloud.xyz, cloud.rgb, width, height)
    return pictures


def _or_nan(sensor: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.full_like(like, np.nan) if sensor is None else sensor

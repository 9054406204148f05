"""The pictures of one frame: the camera's image, depth, its error, normals and the point cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.imaging.cloud_view import view_from_above, view_oblique
from d3_ros.imaging.colour_maps import colour_depth, colour_error, colour_normals
from d3_ros.imaging.drawing import enlarged, with_bar, with_points

# Errors of so many per cent of the true depth, and larger ones, have the brightest colour.
ERROR_LIMIT_PERCENT = 30.0
DEPTH_QUANTILES = (0.02, 0.98)


@dataclass(frozen=True)
class Cloud:
    """Points of one frame in the optical frame, organised as the image: NaN where there is none.

    `xyz`: (H, W, 3) float32 metres. `rgb`: (H, W, 3) uint8. `normals`: (H, W, 3) float32, or None.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    normals: np.ndarray | None = None


def frame_pictures(
    rgb: np.ndarray,
    *,
    given: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    depths: Mapping[str, np.ndarray] | None = None,
    sigma: np.ndarray | None = None,
    relative: np.ndarray | None = None,
    true_normals: np.ndarray | None = None,
    normals: Mapping[str, np.ndarray] | None = None,
    cloud: Cloud | None = None,
) -> dict[str, np.ndarray]:
    """Draw everything that is known of one frame.

    All metric depth has one range of colours, that of the truth where there is one.

    Args:
        rgb: (H, W, 3) uint8, the camera's image.
        given: (h, w) float32 metres that were given as sparse depth, NaN elsewhere.
        truth: (h, w) float32 metres, NaN where not measured.
        depths: (h, w) float32 metres by caption, NaN invalid.
        sigma: (h, w) float32 metres, the expected error (1 sigma) of the first of `depths`.
        relative: (h, w) float32 in [0, 1]; drawn where `depths` is empty.
        true_normals: (h, w, 3) float32 unit vectors in the optical frame, NaN where unknown.
        normals: (h, w, 3) float32 unit vectors by caption.
        cloud: the points.

    Returns:
        (h, w, 3) uint8 RGB pictures by caption: "camera", or "camera, dots: depth given";
        "measured depth"; each depth, and the "error of" it where there is truth; the
        "expected error of" the first one, where `sigma` is given;
        "relative depth, no scale"; "measured normals"; each normals; "cloud from above";
        "cloud, oblique".
    """
    dots = has_dots(given)
    pictures = {"camera, dots: depth given" if dots else "camera": _camera(rgb, given)}
    depths = {name: depth for name, depth in (depths or {}).items() if np.isfinite(depth).any()}
    has_truth = truth is not None and bool(np.isfinite(truth).any())
    if depths:
        near, far = _range([truth] if has_truth else list(depths.values()))
        for name, depth in depths.items():
            pictures[name] = with_bar(colour_depth(depth, near, far), near, far, "m")
        if has_truth and truth is not None:
            picture = with_bar(colour_depth(truth, near, far), near, far, "m")
            pictures["measured depth"] = picture
            for name, depth in depths.items():
                pictures[f"error of {name}"] = error_picture(depth, truth)
        name, depth = next(iter(depths.items()))
        if sigma is not None and np.isfinite(sigma).any():
            pictures[f"expected error of {name}"] = _percent_picture(100 * sigma / depth)
    elif relative is not None:
        picture = with_bar(colour_depth(relative, 0.0, 1.0), 0.0, 1.0, "rel.")
        pictures["relative depth, no scale"] = picture
    if true_normals is not None:
        normals = {"measured normals": true_normals, **(normals or {})}
    for name, vectors in (normals or {}).items():
        pictures[name] = enlarged(colour_normals(vectors), cv2.INTER_NEAREST)
    if cloud is not None and np.isfinite(cloud.xyz).any():
        height, width = next(iter(pictures.values())).shape[:2]
        pictures["cloud from above"] = view_from_above(cloud.xyz, cloud.rgb, width, height)
        pictures["cloud, oblique"] = view_oblique(cloud.xyz, cloud.rgb, width, height)
    return pictures


def has_dots(given: np.ndarray | None) -> bool:
    """Whether sparse depth is few enough points to be drawn as dots on the image."""
    return given is not None and 0 < np.isfinite(given).sum() <= given.size // 20


def error_picture(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """|depth - truth| / truth of two (H, W) maps, with a legend in %; dark is right."""
    return _percent_picture(100 * np.abs(depth - truth) / truth)


def _percent_picture(percent: np.ndarray) -> np.ndarray:
    picture = colour_error(percent.astype(np.float32), 0.0, ERROR_LIMIT_PERCENT)
    return with_bar(picture, 0.0, ERROR_LIMIT_PERCENT, "%", colour_error)


def _camera(rgb: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    if given is None or not has_dots(given):
        return enlarged(rgb, cv2.INTER_LINEAR)
    if given.shape != rgb.shape[:2]:
        rgb = cv2.resize(rgb, (given.shape[1], given.shape[0]))
    return with_points(rgb, given)


def _range(depths: list[np.ndarray | None]) -> tuple[float, float]:
    """Nearest and farthest depth to colour, without outliers."""
    bounds = [np.nanquantile(depth, DEPTH_QUANTILES) for depth in depths if depth is not None]
    return float(np.min(bounds)), float(np.max(bounds))

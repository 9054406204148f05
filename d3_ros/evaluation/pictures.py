"""Pictures of one scored frame: what was seen, what is true, what was answered, how far off."""

from __future__ import annotations

import cv2
import numpy as np

from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.evaluation.scores import affine_depth, sparse_fit
from d3_ros.imaging.colour_maps import INVALID_GREY, colour_depth, colour_normals
from d3_ros.imaging.drawing import enlarged, with_bar, with_points
from d3_ros.imaging.image_file import encode_jpeg
from d3_ros.types import D3Prediction

ERROR_LIMIT = 0.3  # of the truth: this far off, and farther, is shown brightest


def frame_pictures(
    frame: LabelledFrame, answers: dict[str, D3Prediction], given: np.ndarray | None
) -> list[tuple[str, bytes]]:
    """(caption, JPEG) of everything there is to see of one frame.

    Args:
        frame: the image and its truth.
        answers: by bundle, at the size of the truth.
        given: (H, W) metres that the sparse fit was given, NaN elsewhere; or None.
    """
    pictures = {"camera": _camera(frame, given)}
    depth, normals = frame.depth, frame.normals
    if depth is not None and any(answer.depth is not None for answer in answers.values()):
        truth = np.where(depth > 0, depth, np.float32(np.nan)).astype(np.float32)
        near, far = (float(q) for q in np.nanquantile(truth, (0.02, 0.98)))
        pictures["measured depth"] = with_bar(colour_depth(truth, near, far), near, far, "m")
        for name, answer in answers.items():
            if answer.depth is None:
                continue
            fitted = affine_depth(answer.depth, depth).astype(np.float32)
            picture = with_bar(colour_depth(fitted, near, far), near, far, "m")
            pictures[f"{name}: depth, fitted"] = picture
            if given is not None:
                metric = with_bar(
                    colour_depth(sparse_fit(answer.depth, given), near, far), near, far, "m"
                )
                pictures[f"{name}: metric depth from the dots"] = metric
            error = np.abs(fitted - truth) / truth
            caption = f"{name}: error, bright = {ERROR_LIMIT:.0%} of the depth and more"
            pictures[caption] = enlarged(colour_error(error), cv2.INTER_NEAREST)
    if normals is not None:
        known = normals.any(axis=2, keepdims=True)
        truth = np.where(known, normals, np.float32(np.nan)).astype(np.float32)
        pictures["true normals"] = enlarged(colour_normals(truth), cv2.INTER_NEAREST)
    for name, answer in answers.items():
        if answer.normals is not None:
            picture = enlarged(colour_normals(answer.normals), cv2.INTER_NEAREST)
            pictures[f"{name}: normals"] = picture
    return [(caption, encode_jpeg(picture)) for caption, picture in pictures.items()]


def _camera(frame: LabelledFrame, given: np.ndarray | None) -> np.ndarray:
    rgb = frame.rgb
    if given is not None and given.shape != rgb.shape[:2]:
        rgb = cv2.resize(rgb, (given.shape[1], given.shape[0]))
    return with_points(rgb, given)


def colour_error(error: np.ndarray) -> np.ndarray:
    """(H, W) relative error to RGB: dark is right, bright is wrong, grey is not known."""
    known = np.isfinite(error)
    levels = np.where(known, np.clip(error / ERROR_LIMIT, 0, 1) * 255, 0).astype(np.uint8)
    picture = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1].copy()
    picture[~known] = INVALID_GREY
    return picture

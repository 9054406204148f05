"""Checks the extrinsic calibration of a recording and draws its depth edges on an image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from d3_ros.data.calibration_frames import CalibrationFrame
from d3_ros.errors import DataError
from d3_ros.geometry.camera import project
from d3_ros.geometry.extrinsics.check import ExtrinsicsCheck, check_extrinsics
from d3_ros.geometry.extrinsics.depth_edges import depth_edges
from d3_ros.geometry.extrinsics.edge_match import EdgeMatch, match_edges
from d3_ros.geometry.extrinsics.words import error_in_words, verdict_lines
from d3_ros.imaging.drawing import save_picture
from d3_ros.imaging.edge_overlay import edge_overlay


def check_recording(
    frames: Iterable[CalibrationFrame], picture: Path
) -> tuple[ExtrinsicsCheck, list[str]]:
    """Check a calibration with frames of a recording; write an overlay of one of them.

    Args:
        frames: in the order of the recording.
        picture: file to write: the frame with the most depth edges, with the calibration as it is
            and, to its right, with the correction that fits best, where there is one.

    Returns:
        the check, and its report for people.

    Raises:
        DataError: there are no frames, or the picture cannot be written.
    """
    matches: list[EdgeMatch] = []
    shown: CalibrationFrame | None = None
    most = -1
    for frame in frames:
        match = match_edges(frame.rgb, frame.intrinsics, frame.points, frame.T_camera_sensor)
        matches.append(match)
        if len(match) > most:
            shown, most = frame, len(match)
    if shown is None:
        raise DataError("no image has a measurement of the sensor at its time: see --tolerance")
    check = check_extrinsics(matches, shown.intrinsics.fx)
    save_picture(picture, _overlay(shown, check))
    return check, verdict_lines(check, shown.T_camera_sensor)


def _overlay(frame: CalibrationFrame, check: ExtrinsicsCheck) -> np.ndarray:
    """The frame with the calibration as it is and, to its right, with one that fits better."""
    pictures = [_drawn(frame, frame.T_camera_sensor, f"{frame.name}: as calibrated")]
    if any(check.offset):
        words = error_in_words(check.offset).replace("±", "+-")
        caption = f"with the best offset; error of the calibration by that: {words}"
        pictures.append(_drawn(frame, check.corrected(frame.T_camera_sensor), caption))
    return np.concatenate(pictures, axis=1)


def _drawn(
    frame: CalibrationFrame,
    T_camera_sensor: np.ndarray,  # noqa: N803
    caption: str,
) -> np.ndarray:
    def placed(points: np.ndarray) -> np.ndarray:
        return points @ T_camera_sensor[:3, :3].T + T_camera_sensor[:3, 3]

    edges = depth_edges(frame.points, T_camera_sensor[:3, :3]).points
    points = placed(frame.points[np.isfinite(frame.points).all(axis=1)].astype(np.float64))
    return edge_overlay(
        frame.rgb,
        project(points, frame.intrinsics),
        points[:, 2],
        project(placed(edges), frame.intrinsics),
        caption,
    )

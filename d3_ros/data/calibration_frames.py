"""Frames to check an extrinsic calibration with: an image, a sensor's points, and the calibration.

From a bag, from a folder in KITTI's layout, or from a plain folder with depth and intrinsics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from d3_ros.data.bag.camera import BagCamera
from d3_ros.data.bag.file import POINTS, read_contents
from d3_ros.data.benchmark_layouts import KittiReader
from d3_ros.data.readers import Reader, open_readers
from d3_ros.errors import DataError, MessageError
from d3_ros.geometry.extrinsics.depth_edges import depth_image_points
from d3_ros.types import CameraIntrinsics


@dataclass(frozen=True)
class CalibrationFrame:
    """An image and what the sensor measured at the same moment.

    `rgb`: (H, W, 3) uint8. `points`: (N, 3) metres in the sensor's frame. `T_camera_sensor`: (4, 4)
    the calibration that is checked; the unit matrix where the sensor's depth is registered to the
    image.
    """

    name: str
    rgb: np.ndarray
    intrinsics: CameraIntrinsics
    points: np.ndarray
    T_camera_sensor: np.ndarray


def bag_frames(camera: BagCamera, most: int) -> Iterator[CalibrationFrame]:
    """At most `most` measured moments of a recording, evenly over its length.

    A frame whose messages are damaged is passed over.

    Raises:
        DataError: the bag cannot be read, or does not say where the sensor is, or no frame of it is
            usable.
    """
    fault: MessageError | None = None
    found = False
    step = max(1, len(camera) / most)
    due = 0.0
    for number, moment in enumerate(camera):
        if number < due or not moment.measured:
            continue
        due = max(due + step, number + 1)
        try:
            points, T_camera_sensor = moment.sensor_points  # noqa: N806
            frame = CalibrationFrame(
                f"{moment.stamp:.3f} s", moment.rgb, moment.intrinsics, points, T_camera_sensor
            )
        except MessageError as error:
            fault = error
            continue
        found = True
        yield frame
    if fault is not None and not found:
        raise DataError(f"{camera.options.path}: no frame can be read: {fault}") from fault


def only_cloud(bag: Path) -> str | None:
    """The PointCloud2 topic of a bag, if it has one and no more.

    Raises:
        DataError: not a readable bag.
    """
    topics = read_contents(bag).topics
    clouds = [name for name, (kind, count) in topics.items() if kind == POINTS and count]
    return clouds[0] if len(clouds) == 1 else None


def folder_frames(
    folder: Path,
    most: int,
    T_camera_sensor: np.ndarray | None = None,  # noqa: N803
) -> Iterator[CalibrationFrame]:
    """At most `most` frames of a folder, evenly chosen.

    Args:
        folder: in KITTI's layout, or a plain folder with depth/ and intrinsics.json.
        most: number of frames.
        T_camera_sensor: (4, 4), instead of the folder's calibration.

    Raises:
        DataError: no such folder, a file that cannot be read, or no frame has depth and intrinsics.
    """
    readers = open_readers(folder)
    names = [(reader, name) for reader in readers for name in reader.names]
    chosen = names[:: max(1, -(-len(names) // most))]
    found = [frame for reader, name in chosen if (frame := _read(reader, name)) is not None]
    if not found:
        raise DataError(f"{folder}: no frame has both depth and intrinsics (intrinsics.json)")
    for frame in found:
        known = frame.T_camera_sensor if T_camera_sensor is None else T_camera_sensor
        yield replace(frame, T_camera_sensor=known)


def _read(reader: Reader, name: str) -> CalibrationFrame | None:
    if isinstance(reader, KittiReader):
        return CalibrationFrame(name, *reader.sweep(name))
    frame = reader.read(name)
    if frame.depth is None or frame.camera is None or not (frame.depth > 0).any():
        return None
    points = depth_image_points(frame.depth, frame.camera)
    return CalibrationFrame(name, frame.rgb, frame.camera, points, np.eye(4))

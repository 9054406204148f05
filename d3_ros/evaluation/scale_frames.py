"""Frames for `evaluation.scale`, from folders in any layout of `data.readers`.

`predicted.npz` in a folder (`relative`: (H, W) affine-invariant depth, larger = farther) takes the
place of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from d3_ros.data.readers import open_readers
from d3_ros.errors import DataError, one_line
from d3_ros.evaluation.evaluate import rgb_of_labels
from d3_ros.evaluation.scale import ScaleFrame

RelativeDepth = Callable[[np.ndarray], np.ndarray]


def load_frames(folder: Path, relative_depth: RelativeDepth, limit: int) -> Iterator[ScaleFrame]:
    """Frames of a folder, at most `limit`, evenly over it.

    Args:
        folder: of frames with depth.
        relative_depth: (H, W, 3) uint8 RGB to (H, W) float32 relative depth in [0, 1].
        limit: most frames.

    Raises:
        DataError: no layout fits, a frame has no depth, or a file cannot be read or does not fit.
    """
    frames = [(reader, name) for reader in open_readers(folder) for name in reader.names]
    predicted = folder / "predicted.npz"
    if predicted.is_file() and len(frames) > 1:
        raise DataError(f"{predicted} is of one frame, and the folder has {len(frames)}: move it")
    for index in np.linspace(0, len(frames) - 1, min(limit, len(frames))).round().astype(int):
        reader, name = frames[index]
        frame = reader.read(name)
        if frame.depth is None:
            raise DataError(f"{reader.files(name)[0]} has no depth")
        truth = np.where(frame.depth > 0, frame.depth, np.float32(np.nan))
        if predicted.is_file():
            relative = _normalised(predicted)
            if relative.shape != truth.shape:
                sizes = f"{relative.shape}, the depth {truth.shape}"
                raise DataError(f"{predicted}: its relative depth has the shape {sizes}")
        else:
            relative = relative_depth(frame.rgb)
            if relative.shape != truth.shape:
                relative = cv2.resize(relative, truth.shape[::-1])
        rgb = rgb_of_labels(frame)
        yield ScaleFrame(folder.name, relative, truth, dict(frame.given), rgb)


def _normalised(predicted: Path) -> np.ndarray:
    try:
        with np.load(predicted) as arrays:
            relative = arrays["relative"].astype(np.float32)
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise DataError(
            f"{predicted} is damaged or has no 'relative': {one_line(error)}"
        ) from error
    low, high = float(np.nanmin(relative)), float(np.nanmax(relative))
    if not high > low:
        raise DataError(f"{predicted}: its relative depth is constant")
    return (relative - low) / (high - low)

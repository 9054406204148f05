"""Frames for `evaluation.scale`, from folders in any layout of `data.readers`.

`predicted.npz` in a folder (`relative`: (H, W) affine-invariant depth, larger = farther) takes the
place of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from d3_ros.data.readers import open_readers
from d3_ros.errors import DataError
from d3_ros.evaluation.scale import ScaleFrame

RelativeDepth = Callable[[np.ndarray], np.ndarray]


def load_frames(folder: Path, relative_depth: RelativeDepth, limit: int) -> Iterator[ScaleFrame]:
    """Frames of a folder, at most `limit`, evenly over it.

    Args:
        folder: of frames with depth.
        relative_depth: (H, W, 3) uint8 RGB to (H, W) float32 relative depth in [0, 1].
        limit: most frames.

    Raises:
        DataError: no layout fits, a frame has no depth, or a file cannot be read.
    """
    frames = [(reader, name) for reader in open_readers(folder) for name in reader.names]
    predicted = folder / "predicted.npz"
    for index in np.linspace(0, len(frames) - 1, min(limit, len(frames))).round().astype(int):
        reader, name = frames[index]
        frame = reader.read(name)
        if frame.depth is None:
            raise DataError(f"{reader.files(name)[0]} has no depth")
        relative = _normalised(predicted) if predicted.is_file() else relative_depth(frame.rgb)
        truth = np.where(frame.depth > 0, frame.depth, np.float32(np.nan))
        yield ScaleFrame(folder.name, relative, truth, dict(frame.given), frame.rgb)


def _normalised(predicted: Path) -> np.ndarray:
    with np.load(predicted) as arrays:
        relative = arrays["relative"].astype(np.float32)
    low, high = float(np.nanmin(relative)), float(np.nanmax(relative))
    if not high > low:
        raise DataError(f"{predicted}: its relative depth is constant")
    return (relative - low) / (high - low)

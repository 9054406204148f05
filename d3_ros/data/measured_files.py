"""The files of a folder of frames with measured depth."""

from __future__ import annotations

from pathlib import Path

from d3_ros.data.plain_folder import list_frames
from d3_ros.errors import DataError


def frames(folder: Path) -> list[tuple[Path, Path, Path | None]]:
    """(rgb, depth, normals or None) files of a plain folder, in order of their names.

    Raises:
        DataError: no frames, or one without its depth.
    """
    found = []
    for frame in list_frames(folder)[0]:
        if frame.depth is None:
            raise DataError(f"{frame.rgb} has no depth: depth/{frame.name}.png is missing")
        found.append((frame.rgb, frame.depth, frame.normals))
    return found

"""Frames of a dataset as they lie on the disk: what there is, and one frame read and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from d3_ros.data import official_layout, plain_folder
from d3_ros.data.dataset_config import DatasetKind
from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.data.plain_folder import Split
from d3_ros.errors import DataError
from d3_ros.imaging.image_file import read_rgb

# Depth that is believed, metres (the official code's rule; plain folders as its last two sets).
MIN_DEPTH_M = 1e-5
MAX_DEPTH_M: dict[DatasetKind, float] = {
    "hypersim": 65.0,
    "virtual_kitti": 80.0,
    "coco": 80.0,
    "folder": 80.0,
}
MIN_KNOWN_PIXELS = 10
ASPECT_TOLERANCE = 0.02  # of official labels against their picture: Virtual KITTI's are cropped


class UnusableError(DataError):
    """A frame must not be trained on. `reason` is the same for all frames with that fault."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ReadFrame:
    """One frame: labels with what is not believed at 0; `target` (h, w) where it was stored."""

    frame: LabelledFrame
    caption: str | None
    target: np.ndarray | None


class Reader(Protocol):
    """The frames of one dataset.

    `names`: of all frames, also unusable ones. `has_depth`, `has_normals`: whether any frame has.
    `strays`: lines about files that belong to no frame. `split`: which frames train and test, or
    None: all train.
    """

    names: Sequence[str]
    has_depth: bool
    has_normals: bool
    strays: Sequence[str]
    split: Mapping[str, Split] | None

    def files(self, name: str) -> list[Path]:
        """The files that the frame is read from; the picture first."""
        ...

    def read(self, name: str) -> ReadFrame:
        """The frame.

        Raises:
            DataError: it cannot be read, or (UnusableError) must not be trained on.
        """
        ...


def open_reader(kind: DatasetKind, folder: Path) -> Reader:
    """The reader of a kind of dataset.

    Raises:
        DataError: no such folder, or no frames of that kind in it.
    """
    return FolderReader(folder) if kind == "folder" else OfficialReader(kind, folder)


class FolderReader:
    """A plain folder; its labels have their picture's size."""

    def __init__(self, folder: Path) -> None:
        """List the files.

        Raises:
            DataError: no such folder, no frames, or a damaged intrinsics.json or split.txt.
        """
        frames, strays = plain_folder.list_frames(folder)
        self._files = {frame.name: frame for frame in frames}
        self._cameras = plain_folder.read_intrinsics(folder)
        self._intrinsics = folder / plain_folder.INTRINSICS
        self.names: Sequence[str] = list(self._files)
        self.has_depth = any(frame.depth for frame in frames)
        self.has_normals = any(frame.normals for frame in frames)
        self.split: Mapping[str, Split] | None = plain_folder.read_split(folder)
        if not (self.has_depth or self.has_normals):
            raise DataError(f"{folder} has pictures but no depth/ and no normals/ of their names")
        self.strays: Sequence[str] = [
            *strays,
            *(
                f"{folder / plain_folder.SPLIT} names {name}, which is not there"
                for name in self.split or ()
                if name not in self._files
            ),
        ]

    def files(self, name: str) -> list[Path]:
        """As `Reader.files`."""
        entry = self._files[name]
        files = (entry.rgb, entry.depth, entry.normals, self._intrinsics)
        return [path for path in files if path]

    def read(self, name: str) -> ReadFrame:
        """As `Reader.read`."""
        entry = self._files[name]
        if self.has_depth and entry.depth is None:
            raise UnusableError("no depth", f"{entry.rgb} has no depth of its name")
        rgb = read_rgb(entry.rgb)
        depth = normals = None
        if entry.depth is not None:
            depth = _believed(plain_folder.read_depth(entry.depth), MAX_DEPTH_M["folder"])
            _same_size(entry.depth, depth, rgb)
            _enough_known(entry.depth, depth)
        if entry.normals is not None:
            normals = plain_folder.read_normals(entry.normals)
            _same_size(entry.normals, normals, rgb)
        if normals is None and self.has_normals:
            normals = np.zeros(rgb.shape, np.float32)
        if depth is None and normals is not None:
            _enough_known(entry.normals or entry.rgb, np.abs(normals).sum(axis=2))
        camera = self._cameras.get(name) or self._cameras.get("")
        if camera is not None and (camera.height, camera.width) != rgb.shape[:2]:
            raise UnusableError(
                "intrinsics of another size",
                f"{entry.rgb} is {rgb.shape[1]} x {rgb.shape[0]}, its intrinsics are of "
                f"{camera.width} x {camera.height}",
            )
        return ReadFrame(LabelledFrame(rgb, depth, normals, camera), None, None)


class OfficialReader:
    """One of the official sets; its labels have their own size and its frames a caption."""

    split: Mapping[str, Split] | None = None

    def __init__(self, kind: DatasetKind, folder: Path) -> None:
        """List the files.

        Raises:
            DataError: no such folder, or no frames of that kind in it.
        """
        frames, strays = official_layout.list_official(folder, kind)
        self.strays: Sequence[str] = strays
        self._files = {frame.name: frame for frame in frames}
        self._max_depth_m = MAX_DEPTH_M[kind]
        self.names: Sequence[str] = list(self._files)
        self.has_depth = any(frame.depth for frame in frames)
        self.has_normals = any(frame.normals for frame in frames)
        if not (self.has_depth or self.has_normals):
            raise DataError(
                f"{folder} has {kind} pictures but no depth_ori/ and no normal/ of them"
            )

    def files(self, name: str) -> list[Path]:
        """As `Reader.files`."""
        f = self._files[name]
        return [path for path in (f.rgb, f.depth, f.normalised, f.normals, f.caption) if path]

    def read(self, name: str) -> ReadFrame:
        """As `Reader.read`."""
        entry = self._files[name]
        if self.has_depth and entry.depth is None:
            raise UnusableError("no depth", f"{entry.rgb} has no depth_ori of its name")
        caption = official_layout.read_caption(entry.caption)
        rgb = read_rgb(entry.rgb)
        depth = normals = target = None
        if entry.depth is not None:
            depth = official_layout.read_official_depth(entry.depth)
            depth = _believed(depth, self._max_depth_m)
            _same_aspect(entry.depth, depth, rgb)
            _enough_known(entry.depth, depth)
            if entry.normalised is not None:
                target = official_layout.read_official_target(entry.normalised)
                _same_size(entry.normalised, target, depth)
        if entry.normals is not None:
            normals = official_layout.read_official_normals(entry.normals)
            _same_aspect(entry.normals, normals, rgb)
            if depth is not None:
                _same_size(entry.normals, normals, depth)
        elif self.has_normals:
            normals = np.zeros((*(rgb if depth is None else depth).shape[:2], 3), np.float32)
        return ReadFrame(LabelledFrame(rgb, depth, normals, None), caption, target)


def _believed(depth: np.ndarray, max_m: float) -> np.ndarray:
    return np.where((depth > MIN_DEPTH_M) & (depth < max_m), depth, np.float32(0))


def _enough_known(path: Path, values: np.ndarray) -> None:
    known = int(np.count_nonzero(values))
    if known < MIN_KNOWN_PIXELS:
        raise UnusableError("nothing known", f"{path} is known at {known} pixels only")


def _same_size(path: Path, label: np.ndarray, other: np.ndarray) -> None:
    if label.shape[:2] != other.shape[:2]:
        raise UnusableError(
            "another size",
            f"{path} is {label.shape[1]} x {label.shape[0]}, what belongs to it is "
            f"{other.shape[1]} x {other.shape[0]}",
        )


def _same_aspect(path: Path, label: np.ndarray, rgb: np.ndarray) -> None:
    ratio = label.shape[1] / label.shape[0] / (rgb.shape[1] / rgb.shape[0])
    if abs(ratio - 1) > ASPECT_TOLERANCE:
        raise UnusableError(
            "another shape",
            f"{path} is {label.shape[1]} x {label.shape[0]}, which is not the shape of its "
            f"picture, {rgb.shape[1]} x {rgb.shape[0]}",
        )

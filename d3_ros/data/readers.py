"""One reader for each layout of a folder of frames, and which of them a folder needs.

    plain folder    rgb/NAME.*, depth/NAME.png, ... (plain_folder.py)
    official        the layout of D³-Predictor's own training data (official_layout.py)
    KITTI           NAME.png, NAME.bin, NAME_calib.txt (benchmark_layouts.py)
    completion      rgb.*, depth.npz (benchmark_layouts.py)

Training, evaluation, `evaluate --scale` and the demo all read frames here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from d3_ros.data import official_layout, plain_folder
from d3_ros.data.benchmark_layouts import CALIBRATION, MEASURED, CompletionReader, KittiReader
from d3_ros.data.dataset_config import DatasetKind
from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.data.plain_folder import Split
from d3_ros.errors import DataError
from d3_ros.imaging.image_file import read_rgb

# Depth outside these limits, metres, counts as not known. The limits of the official sets are those
# of the official code; a plain folder has the limit of Virtual KITTI and COCO.
MIN_DEPTH_M = 1e-5
MAX_DEPTH_M: dict[DatasetKind, float] = {
    "hypersim": 65.0,
    "virtual_kitti": 80.0,
    "coco": 80.0,
    "folder": 80.0,
}
# Largest relative difference of aspect ratio between an official label and its picture. It is not 0
# because the labels of Virtual KITTI are cropped.
ASPECT_TOLERANCE = 0.02


class UnusableError(DataError):
    """The files of a frame contradict each other, for example in their sizes.

    `reason`: the kind of fault in a few words, the same for all frames that have it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Reader(Protocol):
    """The frames of one folder in one layout.

    `kind`: the layout's name. `names`: of all frames, also of unusable ones. `has_depth`,
    `has_normals`: whether any frame has them. `strays`: one line for each file that belongs to no
    frame. `split`: which frames train and which test; None: the folder does not say.
    """

    kind: str
    names: Sequence[str]
    has_depth: bool
    has_normals: bool
    strays: Sequence[str]
    split: Mapping[str, Split] | None

    def files(self, name: str) -> list[Path]:
        """The files that a frame is read from: the picture, then its labels, then the rest."""
        ...

    def read(self, name: str) -> LabelledFrame:
        """The image and labels of a frame; a label is 0 where it is unknown or out of its limits.

        Raises:
            DataError: a file cannot be read, or (UnusableError) the files do not fit together.
        """
        ...


def open_reader(kind: DatasetKind, folder: Path) -> Reader:
    """The reader of a kind of dataset, as a training configuration names it.

    Raises:
        DataError: no such folder, or no labelled frames of that kind in it.
    """
    reader: Reader = FolderReader(folder) if kind == "folder" else OfficialReader(kind, folder)
    return _with_labels(folder, reader)


def open_readers(folder: Path) -> list[Reader]:
    """The readers that together read all frames of a folder; its files decide the layout.

    Raises:
        DataError: no such folder, or no labelled frames in it.
    """
    if (folder / MEASURED).is_file():
        return [CompletionReader(folder)]
    if any(folder.glob(f"*{CALIBRATION}")):
        return [KittiReader(folder)]
    if (folder / "depth_ori").is_dir() or (folder / "normal").is_dir():
        return [open_reader(kind, folder) for kind in official_layout.kinds_in(folder)]
    return [open_reader("folder", folder)]


def frame_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds frames with depth, or else its subfolders that do.

    A subfolder without frames is searched in turn, one level deeper.

    Raises:
        DataError: no folder with frames was found.
    """
    if _holds_frames(folder):
        return [folder]
    inner = []
    for path in sorted(folder.glob("*/")):
        if _holds_frames(path):
            inner.append(path)
        else:
            inner += [deeper for deeper in sorted(path.glob("*/")) if _holds_frames(deeper)]
    if not inner:
        raise DataError(f"{folder} has no frames: name a folder that has, with --data")
    return inner


class FolderReader:
    """A plain folder; its labels have their picture's size."""

    kind = "folder"

    def __init__(self, folder: Path) -> None:
        """List the files.

        Raises:
            DataError: no such folder, no pictures, or a damaged intrinsics.json or split.txt.
        """
        frames, strays = plain_folder.list_frames(folder)
        self._files = {frame.name: frame for frame in frames}
        self._intrinsics = folder / plain_folder.INTRINSICS
        self._cameras = plain_folder.read_intrinsics(folder)
        self.names: Sequence[str] = list(self._files)
        self.has_depth = any(frame.depth for frame in frames)
        self.has_normals = any(frame.normals for frame in frames)
        self.has_cameras = bool(self._cameras)
        self.split: Mapping[str, Split] | None = plain_folder.read_split(folder)
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

    def lacks_depth(self, name: str) -> bool:
        """Whether a picture has no depth."""
        return self._files[name].depth is None

    def read(self, name: str) -> LabelledFrame:
        """As `Reader.read`."""
        entry = self._files[name]
        rgb = read_rgb(entry.rgb)
        depth = normals = None
        if entry.depth is not None:
            depth = _believed(plain_folder.read_depth(entry.depth), MAX_DEPTH_M["folder"])
            _same_size(entry.depth, depth, rgb)
        if entry.normals is not None:
            normals = plain_folder.read_normals(entry.normals)
            _same_size(entry.normals, normals, rgb)
        elif self.has_normals:
            normals = np.zeros(rgb.shape, np.float32)
        camera = self._cameras.get(name) or self._cameras.get("")
        if camera is not None and (camera.height, camera.width) != rgb.shape[:2]:
            raise UnusableError(
                "intrinsics of another size",
                f"{entry.rgb} is {rgb.shape[1]} x {rgb.shape[0]}, its intrinsics are of "
                f"{camera.width} x {camera.height}",
            )
        return LabelledFrame(rgb, depth, normals, camera)


class OfficialReader:
    """One of the official sets; its labels have their own size and its frames a caption."""

    split: Mapping[str, Split] | None = None

    def __init__(self, kind: DatasetKind, folder: Path) -> None:
        """List the files.

        Raises:
            DataError: no such folder, or no frames of that kind in it.
        """
        self.kind: str = kind
        frames, strays = official_layout.list_official(folder, kind)
        self.strays: Sequence[str] = strays
        self._files = {frame.name: frame for frame in frames}
        self._max_depth_m = MAX_DEPTH_M[kind]
        self.names: Sequence[str] = list(self._files)
        self.has_depth = any(frame.depth for frame in frames)
        self.has_normals = any(frame.normals for frame in frames)

    def files(self, name: str) -> list[Path]:
        """As `Reader.files`."""
        f = self._files[name]
        return [path for path in (f.rgb, f.depth, f.normals, f.normalised, f.caption) if path]

    def read(self, name: str) -> LabelledFrame:
        """As `Reader.read`."""
        entry = self._files[name]
        caption = official_layout.read_caption(entry.caption)
        rgb = read_rgb(entry.rgb)
        depth = normals = target = None
        if entry.depth is not None:
            depth = official_layout.read_official_depth(entry.depth)
            depth = _believed(depth, self._max_depth_m)
            _same_aspect(entry.depth, depth, rgb)
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
        return LabelledFrame(rgb, depth, normals, None, caption=caption, target=target)


def _with_labels(folder: Path, reader: Reader) -> Reader:
    if not (reader.has_depth or reader.has_normals):
        names = ("depth", "normals") if reader.kind == "folder" else ("depth_ori", "normal")
        raise DataError(
            f"{folder} has {reader.kind} pictures but no {names[0]}/ and no {names[1]}/ of their "
            "names"
        )
    return reader


def _holds_frames(folder: Path) -> bool:
    patterns = (MEASURED, "depth.png", "depth/*.png", "depth/*.npy", f"*{CALIBRATION}")
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _believed(depth: np.ndarray, max_m: float) -> np.ndarray:
    return np.where((depth > MIN_DEPTH_M) & (depth < max_m), depth, np.float32(0))


def _same_size(path: Path, label: np.ndarray, other: np.ndarray) -> None:
    if label.shape[:2] != other.shape[:2]:
        raise UnusableError(
            "another size",
            f"{path} is {label.shape[1]} x {label.shape[0]} pixels, but its frame is "
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

"""The frames of a folder that a predictor can be scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from d3_ros.data.dataset_config import DatasetKind
from d3_ros.data.frame_check import check_frames, describe_faults
from d3_ros.data.official_layout import PREFIXES
from d3_ros.data.readers import Reader, ReadFrame, open_reader
from d3_ros.errors import DataError
from d3_ros.types import CameraIntrinsics

Part = Literal["test", "train", "all"]

# Of the view's width, apart: on the table-tops of a depth camera at 1 m the measured normals
# scatter least at a 64th; nearer, noise counts, and farther, the objects' edges do.
NORMALS_SHARE = 64


class FrameSet:
    """Usable frames of a plain folder or of one in the official layout.

    `names` of the frames in order; `summary`: one line, with what was left out and why.
    """

    def __init__(
        self, folder: Path, part: Part = "test", intrinsics: Sequence[float] | None = None
    ) -> None:
        """List and check the frames.

        Args:
            folder: a plain folder (plain_folder.py) or one in the official layout.
            part: of the folder, as its split.txt says; all where there is none.
            intrinsics: fx, fy, cx, cy in pixels of the depth maps: frames without normals get those
                of their measured depth.

        Raises:
            DataError: no such folder, or no usable frame in that part of it.
        """
        self.folder = folder
        self._intrinsics = intrinsics
        self._readers: dict[str, Reader] = {}
        findings = []
        for kind in _kinds(folder):
            reader = open_reader(kind, folder)
            split = reader.split
            for finding in check_frames(reader, kind, folder):
                if split is None or part == "all" or split.get(finding.name) == part:
                    self._readers[finding.name] = reader
                    findings.append(finding)
        self.names = [finding.name for finding in findings if finding.fault is None]
        faults = [finding for finding in findings if finding.fault is not None]
        of_split = any(reader.split is not None for reader in self._readers.values())
        share = f" ({part} part of split.txt)" if of_split and part != "all" else ""
        count = len(self.names)
        self.summary = f"{folder}{share}: {count} frame{'s' * (count != 1)}"
        if faults:
            self.summary += f"; {describe_faults(faults, len(findings))}"
        if not self.names:
            raise DataError(f"{folder}: no usable frame ({self.summary})")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str) -> ReadFrame:
        """The frame of that name.

        Raises:
            DataError: it has become unreadable.
        """
        read = self._readers[name].read(name)
        frame = read.frame
        if self._intrinsics is None or frame.normals is not None or frame.depth is None:
            return read
        height, width = frame.depth.shape
        fx, fy, cx, cy = self._intrinsics
        camera = CameraIntrinsics(width, height, fx, fy, cx, cy)
        derived = replace(frame, camera=camera).with_derived_normals(NORMALS_SHARE)
        return replace(read, frame=derived)


def _kinds(folder: Path) -> list[DatasetKind]:
    if not (folder / "depth_ori").is_dir() and not (folder / "normal").is_dir():
        return ["folder"]
    kinds: list[DatasetKind] = [
        kind for kind, prefix in PREFIXES.items() if any((folder / "rgb").glob(f"{prefix}*"))
    ]
    if not kinds:
        known = ", ".join(PREFIXES.values())
        raise DataError(f"{folder / 'rgb'}: in the official layout names begin with {known}")
    return kinds

"""The frames of a folder that a predictor can be scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from d3_ros.data.frame_check import check_frames, describe_faults
from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.data.readers import Reader, open_readers
from d3_ros.errors import DataError
from d3_ros.types import CameraIntrinsics

Part = Literal["test", "train", "all"]

# Normals are computed from measured depth by comparing points that are a 64th of the image's width
# apart. Closer points suffer from the sensor's noise, points farther apart from the objects' edges.
# For table-tops seen by a depth camera from 1 m, this distance gave the least scatter.
NORMALS_SHARE = 64


class FrameSet:
    """The usable frames of a folder in any layout of `readers`.

    names: of the frames, in order.
    summary: one line for people: how many frames, and what was left out and why.
    """

    def __init__(
        self, folder: Path, part: Part = "test", intrinsics: Sequence[float] | None = None
    ) -> None:
        """List and check the frames.

        Args:
            folder: the frames, in any layout of `readers`.
            part: which frames to take, by split.txt; without a split.txt, all frames are taken.
            intrinsics: fx, fy, cx, cy in pixels of the depth maps. If given, frames without normals
                get normals that are computed from their depth.

        Raises:
            DataError: no such folder, or no usable frame in that part of it.
        """
        self.folder = folder
        self._intrinsics = intrinsics
        self._readers: dict[str, Reader] = {}
        findings = []
        for reader in open_readers(folder):
            split = reader.split
            for finding in check_frames(reader, folder):
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

    def read(self, name: str) -> LabelledFrame:
        """The frame of that name.

        Raises:
            DataError: it has become unreadable.
        """
        frame = self._readers[name].read(name)
        if self._intrinsics is None or frame.normals is not None or frame.depth is None:
            return frame
        height, width = frame.depth.shape
        fx, fy, cx, cy = self._intrinsics
        camera = CameraIntrinsics(width, height, fx, fy, cx, cy)
        return replace(frame, camera=camera).with_derived_normals(NORMALS_SHARE)

"""Where the demo's frames come from: a bag, a folder of pictures, or a video.

The player sends the frames in one process while the report scores them in another. So a source
gives the same frames each time it is iterated.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from d3_ros.data.bag.file import is_bag
from d3_ros.data.bag.source import BagSource
from d3_ros.data.held_out_points import split_depth
from d3_ros.data.played_frame import FrameSource, PlayedFrame, SourceOptions, pinhole
from d3_ros.data.readers import FolderReader
from d3_ros.errors import DataError


def open_source(options: SourceOptions) -> FrameSource:
    """Open whatever `options.path` is.

    Raises:
        DataError: it does not exist, is none of the three kinds, or holds no usable frame.
    """
    path = options.path
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if is_bag(path):
        return BagSource(options)
    if path.is_dir():
        return FolderSource(options)
    return VideoSource(options)


class FolderSource:
    """A plain folder (plain_folder.py); its depth is optional.

    Frames have no time. Their camera is that of `options.intrinsics`, or else of the folder's
    intrinsics.json. Where a folder has depth, pictures without are left out. Depth is split: a few
    pixels for the node, the rest to score.
    """

    def __init__(self, options: SourceOptions) -> None:
        """List the files.

        Raises:
            DataError: no pictures, or no picture has a depth of the same name.
        """
        self._options = options
        self.rate_hz: float | None = None
        folder = options.path
        self._reader = reader = FolderReader(folder)
        alone = [name for name in reader.names if reader.has_depth and reader.lacks_depth(name)]
        self._names = [name for name in reader.names if name not in set(alone)]
        self.warnings = () if reader.has_cameras else _without_camera(options)
        if alone:
            self.warnings += (
                f"{folder / 'rgb'}: {len(alone)} of {len(reader.names)} pictures have no depth of "
                f"their name and are left out: {_shortened(alone)}",
            )
        if reader.strays:
            count = len(reader.strays)
            self.warnings += (
                f"{folder}: {count} file{'s' * (count != 1)} without a picture: {reader.strays[0]}",
            )
            if not reader.has_depth and any((folder / "depth").glob("*")):
                raise DataError(f"{folder}: no file in depth/ has the name of one in rgb/")
        depth = ", measured depth" * reader.has_depth
        self.title = f"{folder} (folder, {len(self)} frames{depth})"

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[PlayedFrame]:
        for index, name in enumerate(self._names):
            frame = self._reader.read(name)
            measured = None
            if frame.depth is not None:
                measured = np.where(frame.depth > 0, frame.depth, np.float32(np.nan))
            sensor, truth = split_depth(
                measured, None, self._options.points, seed=self._options.seed + index
            )
            yield PlayedFrame(
                index=index,
                name=name,
                stamp=float("nan"),
                rgb=frame.rgb,
                intrinsics=pinhole(self._options.intrinsics, frame.rgb) or frame.camera,
                sensor=sensor,
                truth=truth,
            )


class VideoSource:
    """A video file that OpenCV can read; colour only."""

    def __init__(self, options: SourceOptions) -> None:
        """Read the header and the first frame.

        Raises:
            DataError: OpenCV finds no video in it.
        """
        self._options = options
        self.warnings = _without_camera(options)
        video = cv2.VideoCapture(str(options.path))
        try:
            if not (video.isOpened() and video.read()[0]):
                raise DataError(f"{options.path}: neither a bag nor a video that OpenCV can read")
            # Containers without a frame rate report 0 or nonsense; a camera's usual rate then.
            rate = float(video.get(cv2.CAP_PROP_FPS))
            self._rate_hz = rate if 0.1 < rate < 1000.0 else 30.0
            self.rate_hz: float | None = self._rate_hz
            self._length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
            if self._length < 1:  # the container does not say: count, from the second frame on
                self._length = 1
                while video.grab():
                    self._length += 1
        finally:
            video.release()
        self.title = f"{options.path} (video, {len(self)} frames, {self._rate_hz:.3g} Hz)"

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PlayedFrame]:
        video = cv2.VideoCapture(str(self._options.path))
        try:
            # The count in a header may be too high: the stream ends where no frame comes.
            for index in range(self._length):
                read, bgr = video.read()
                if not read:
                    return
                stamp = index / self._rate_hz
                yield PlayedFrame(
                    index=index,
                    name=f"{stamp:.2f} s",
                    stamp=stamp,
                    rgb=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB),
                    intrinsics=pinhole(self._options.intrinsics, bgr),
                )
        finally:
            video.release()


def _without_camera(options: SourceOptions) -> tuple[str, ...]:
    """The warning where a source that knows no camera is not told one."""
    if options.intrinsics is not None:
        return ()
    return (f"{options.path}: no --intrinsics FX FY CX CY, so there will be no cloud",)


def _shortened(names: list[str], limit: int = 5) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")

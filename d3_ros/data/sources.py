"""Where the demo's frames come from: a bag, a folder of pictures, or a video.

Every source gives the same frames each time it is iterated: the player sends them in one process
while the report scores them in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from d3_ros.data.bag.source import BagSource
from d3_ros.data.held_out_points import share_depth
from d3_ros.data.played_frame import FrameSource, PlayedFrame, SourceOptions, pinhole
from d3_ros.errors import DataError
from d3_ros.imaging.image_file import PICTURES, files_by_stem, read_millimetres, read_rgb

BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})


def open_source(options: SourceOptions) -> FrameSource:
    """Open whatever `options.path` is.

    Raises:
        DataError: it does not exist, is none of the three kinds, or holds no usable frame.
    """
    path = options.path
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file():
        return BagSource(options)
    if path.is_dir():
        return FolderSource(options)
    return VideoSource(options)


class FolderSource:
    """`rgb/` with pictures and, optionally, `depth/` with uint16 PNGs in millimetres, 0 = none.

    A picture and its depth have the same stem. Frames have no time and, without
    `options.intrinsics`, no camera. Depth is split: a few pixels for the node, the rest to score.
    """

    def __init__(self, options: SourceOptions) -> None:
        """List the files.

        Raises:
            DataError: no `rgb/`, no pictures, or no picture has a depth of the same name.
        """
        self._options = options
        self.rate_hz: float | None = None
        folder = options.path
        if not (folder / "rgb").is_dir():
            raise DataError(
                f"{folder}: no rgb/ folder in it and no metadata.yaml either: "
                "put the pictures into rgb/ (and depth into depth/), or name a bag or a video"
            )
        images = files_by_stem(folder / "rgb", PICTURES)
        if not images:
            raise DataError(f"{folder / 'rgb'}: no pictures in it (png, jpg, bmp, tif, webp)")
        depths = (
            files_by_stem(folder / "depth", frozenset({".png"}))
            if (folder / "depth").is_dir()
            else None
        )
        self._files: list[tuple[Path, Path | None]]
        if depths is None:
            self._files = [(image, None) for image in images.values()]
            self.warnings = _without_camera(options)
        else:
            self._files = [(images[stem], depths[stem]) for stem in images if stem in depths]
            self.warnings = _without_camera(options) + tuple(
                f"{folder / here}: {len(extra)} of {len(have)} files have no partner in "
                f"{there}/ and are left out: {_shortened(extra)}"
                for here, have, there, other in (
                    ("rgb", images, "depth", depths),
                    ("depth", depths, "rgb", images),
                )
                if (extra := [stem for stem in have if stem not in other])
            )
            if not self._files:
                raise DataError(
                    f"{folder}: no file in depth/ has the name of one in rgb/ "
                    f"(rgb/: {_shortened(list(images))}; depth/: {_shortened(list(depths))})"
                )
        self.title = f"{folder} (folder, {len(self)} frames{', measured depth' * bool(depths)})"

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[PlayedFrame]:
        for index, (image, depth) in enumerate(self._files):
            rgb = read_rgb(image)
            measured = None if depth is None else _read_depth(depth)
            if measured is not None and measured.shape != rgb.shape[:2]:
                raise DataError(
                    f"{depth}: {measured.shape[1]} x {measured.shape[0]} pixels, but its "
                    f"picture has {rgb.shape[1]} x {rgb.shape[0]}: depth must be registered"
                )
            sensor, truth = share_depth(
                measured, None, self._options.points, seed=self._options.seed + index
            )
            yield PlayedFrame(
                index=index,
                name=image.stem,
                stamp=float("nan"),
                rgb=rgb,
                intrinsics=pinhole(self._options.intrinsics, rgb),
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
            self._length = max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
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


def _read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 metres, NaN where the file has 0."""
    millimetres = read_millimetres(path)
    metres = millimetres.astype(np.float32) * np.float32(1e-3)
    metres[millimetres == 0] = np.nan
    return metres

"""Where the demo's frames come from: a bag, a folder of pictures, or a video.

Every source is an iterable of `Frame`, may be iterated as often as one likes, and gives the same
frames each time: the player sends them in one process while the report scores them in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from d3_ros.data.held_out_points import share_depth
from d3_ros.errors import DataError
from d3_ros.imaging.image_file import PICTURES, files_by_stem, read_millimetres, read_rgb
from d3_ros.types import CameraIntrinsics

BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})


@dataclass(frozen=True)
class Frame:
    """One camera image and what else is known about its moment.

    `index`: place in the source, from 0. `name`: for people (a file's stem, a time). `stamp`:
    seconds on the source's own clock; NaN where it has none (a folder). `rgb`: (H, W, 3) uint8.
    `intrinsics`: of the image at this size, or None. `sensor`: (H, W) float32 z-depth in metres,
    NaN where not measured, that the node is given; or None. `truth`: (H, W) float32 z-depth in
    metres to score with, NaN where unknown *or given to the node*; or None.
    """

    index: int
    name: str
    stamp: float
    rgb: np.ndarray
    intrinsics: CameraIntrinsics | None = None
    sensor: np.ndarray | None = None
    truth: np.ndarray | None = None


class Source(Protocol):
    """Frames that can be iterated again and again.

    `title`: one line for people. `rate_hz`: the camera's own rate, None where frames have no time.
    `warnings`: one line each for what was left out.
    """

    title: str
    rate_hz: float | None
    warnings: tuple[str, ...]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...


@dataclass(frozen=True)
class SourceOptions:
    """What the user said about the input; the same in every process of a demo.

    `intrinsics`: (fx, fy, cx, cy) in pixels for folders and videos. `points`: how many measured
    pixels the node is given; None: as the source has them, or 500 where the rest must score.
    The topics are a bag's; None: found by their names.
    """

    path: Path
    intrinsics: tuple[float, float, float, float] | None = None
    points: int | None = None
    seed: int = 0
    image_topic: str | None = None
    sensor_topic: str | None = None
    truth_topic: str | None = None


def open_source(options: SourceOptions) -> Source:
    """Open whatever `options.path` is.

    Raises:
        DataError: it does not exist, is none of the three kinds, or holds no usable frame.
    """
    path = options.path
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file():
        from d3_ros.data.bag.source import BagSource

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

    def __iter__(self) -> Iterator[Frame]:
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
            yield Frame(
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

    def __iter__(self) -> Iterator[Frame]:
        video = cv2.VideoCapture(str(self._options.path))
        try:
            # The count in a header may be too high: the stream ends where no frame comes.
            for index in range(self._length):
                read, bgr = video.read()
                if not read:
                    return
                stamp = index / self._rate_hz
                yield Frame(
                    index=index,
                    name=f"{stamp:.2f} s",
                    stamp=stamp,
                    rgb=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB),
                    intrinsics=pinhole(self._options.intrinsics, bgr),
                )
        finally:
            video.release()


def pinhole(
    intrinsics: tuple[float, float, float, float] | None, image: np.ndarray
) -> CameraIntrinsics | None:
    """An ideal camera of `image`'s size from (fx, fy, cx, cy) in pixels; None from None."""
    if intrinsics is None:
        return None
    fx, fy, cx, cy = intrinsics
    return CameraIntrinsics(width=image.shape[1], height=image.shape[0], fx=fx, fy=fy, cx=cx, cy=cy)


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

"""From the recording of a robot's camera and depth sensor to a folder to train on.

Frames are chosen by time and by motion, so that a robot that stands still does not fill the set
with one picture; a frame whose measurement is missing, damaged or too thin is left out and
counted. camera.py reads the recording; here it is only a `RecordedCamera`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from tqdm import tqdm

from d3_ros.data.plain_folder import (
    MAX_DEPTH_M,
    Split,
    camera_entry,
    encode_depth,
    new_folder,
    read_depth,
    unfinished_folder,
    write_intrinsics,
    write_split,
)
from d3_ros.errors import DataError, MessageError
from d3_ros.imaging.contact_sheet import contact_sheet
from d3_ros.imaging.drawing import save_picture
from d3_ros.imaging.image_file import encode_jpeg, encode_png, read_rgb, write_whole
from d3_ros.types import CameraIntrinsics

EXTRACTION, SHEET = "extraction.json", "contact_sheet.png"
SHEET_FRAMES = 24
MOTION_SIZE = (32, 24)  # width, height at which two images are compared
JITTER_S = 0.005  # by which stamps of a steady camera may be early
GRID = (4, 6)  # rows, columns of cells in which points must lie, to say where they are


class RecordedMoment(Protocol):
    """One image of a recording; everything but `stamp` (seconds) is decoded when asked for."""

    stamp: float
    measured: bool

    @property
    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        ...

    @property
    def jpeg(self) -> bytes | None:
        """The camera's own JPEG file, where it shows what `rgb` shows; else None."""
        ...

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Of this image."""
        ...

    @property
    def depth(self) -> np.ndarray:
        """(H, W) float32 z-depth in metres, NaN where not measured."""
        ...


class RecordedCamera(Protocol):
    """The moments of one camera in order; `MessageError` while decoding one concerns only that."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[RecordedMoment]: ...


@dataclass(frozen=True)
class ExtractOptions:
    """Which frames to take.

    `every_s`: least time between two, seconds. `min_motion`: least mean difference to the last one
    taken, of grey levels at 32 x 24 in units of their spread (a pan by 2 of 640 pixels has about
    0.02, an unlike image about 1); 0 takes all. `min_points`: fewest measured pixels.
    `test_share`: share of the frames, the last ones, that split.txt keeps for testing; 0: no
    split.txt. `gap_s`: frames of so many seconds before the first test frame are in neither part,
    because they resemble it.
    """

    every_s: float = 0.5
    min_motion: float = 0.04
    min_points: int = 100
    test_share: float = 0.0
    gap_s: float = 2.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("every_s", 0, 1e6),
            ("min_motion", 0, 10),
            ("min_points", 1, 1e9),
            ("test_share", 0, 0.9),
            ("gap_s", 0, 1e6),
        ):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"{name} must be in [{low}, {high:g}], got {getattr(self, name)}")


@dataclass(frozen=True)
class Extraction:
    """The result of an extraction: how many images were read, taken, and left out for which reason.

    The 5 %, 50 % and 95 % quantile over the taken frames: `points`, measured pixels of a frame;
    `coverage`, their share of the image, in [0, 1]; `spread`, share of the 4 x 6 cells of the image
    that have a measured pixel, in [0, 1]. `depth_m`: the 5 %, 50 % and 95 % quantile of a frame's
    depth, metres, each the median over the frames.
    """

    images: int
    taken: int
    left_out: dict[str, int]
    points: tuple[float, float, float]
    coverage: tuple[float, float, float]
    spread: tuple[float, float, float]
    depth_m: tuple[float, float, float]
    test_frames: int

    def lines(self) -> list[str]:
        """The report for people."""
        low, middle, high = self.points
        lines = [
            f"{self.taken} of {self.images} images taken"
            + "".join(f"; {count} left out: {why}" for why, count in self.left_out.items()),
            f"measured pixels a frame: {middle:.0f} (5 % to 95 %: {low:.0f} to {high:.0f}), "
            f"{self.coverage[1]:.2%} of the image, in {self.spread[1]:.0%} of its {GRID[0]} x "
            f"{GRID[1]} cells; depth {self.depth_m[0]:.2f} to {self.depth_m[2]:.2f} m",
        ]
        if self.test_frames:
            lines.append(f"split.txt keeps the last {self.test_frames} frames for testing")
        if self.spread[1] < 0.25:
            lines.append(
                "warning: the measurements lie in a small part of the image; what is trained on "
                "them is not checked elsewhere"
            )
        return lines


def extract(
    recording: RecordedCamera, output: Path, options: ExtractOptions, source: Mapping[str, Any]
) -> Extraction:
    """Write the frames of a recording into the folder `output`, which appears when it is complete.

    An interrupted call leaves OUTPUT.unfinished. The same call, with the same source and options,
    goes on from there and does not write again what is written; any other call starts anew.

    Args:
        recording: the images and measurements to read.
        output: folder to make, in the layout of `plain_folder`.
        options: which frames to take.
        source: describes the recording; it is written to extraction.json.

    Raises:
        DataError: `output` exists, nothing is usable, or the recording cannot be read.
    """
    asked = json.loads(json.dumps({"source": dict(source), "options": asdict(options)}))
    previous = unfinished_folder(output) / EXTRACTION
    resume = _read_json(previous) == asked
    with new_folder(output, kinds=("rgb", "depth"), resume=resume) as folder:
        write_whole(folder / EXTRACTION, json.dumps(asked, indent=1))
        index, left_out, images = _write_frames(recording, folder, options)
        if not index:
            reasons = "; ".join(f"{count} x {why}" for why, count in left_out.items())
            raise DataError(f"{source.get('path', output)}: no usable frame ({reasons or 'empty'})")
        write_intrinsics(folder, index)
        sides = split_by_time(
            {name: entry["stamp"] for name, entry in index.items()},
            options.test_share,
            options.gap_s,
        )
        if options.test_share:
            write_split(folder, sides)
        report = _report(index, left_out, images, sides if options.test_share else {})
        _write_sheet(folder, index, report)
        write_whole(folder / EXTRACTION, json.dumps({**asked, "result": asdict(report)}, indent=1))
    return report


def extracted_from(folder: Path) -> str | None:
    """The path of the recording that a folder was extracted from; None where that is not known."""
    path = _part_of_extraction(folder, "source").get("path")
    return path if isinstance(path, str) else None


def other_options(
    folder: Path, source: Mapping[str, Any], options: ExtractOptions
) -> dict[str, tuple[Any, Any]]:
    """What a folder was extracted with, and what is asked for, where the two differ, by name.

    Args:
        folder: an extraction.
        source: as for `extract`; what is None there is found in the recording, and not compared.
        options: which frames to take.
    """
    asked = json.loads(json.dumps({**source, **asdict(options)}))
    had = _part_of_extraction(folder, "source") | _part_of_extraction(folder, "options")
    return {
        name: (had[name], value)
        for name, value in asked.items()
        if name != "path" and value is not None and name in had and had[name] != value
    }


def _part_of_extraction(folder: Path, part: str) -> dict[str, Any]:
    made = _read_json(folder / EXTRACTION)
    found = made.get(part) if isinstance(made, dict) else None
    return found if isinstance(found, dict) else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # not there or damaged: begin anew
        return None


def split_by_time(stamps: Mapping[str, float], test_share: float, gap_s: float) -> dict[str, Split]:
    """Which frames train and which test: the end of the time is kept for testing.

    Args:
        stamps: seconds, by frame.
        test_share: share of the frames that test, at least one where it is not 0.
        gap_s: frames so many seconds before the first tested one are in neither part.
    """
    names = sorted(stamps, key=lambda name: (stamps[name], name))
    count = max(1, round(test_share * len(names))) if test_share else 0
    sides: dict[str, Split] = {}
    first = stamps[names[-count]] if count else float("inf")
    for place, name in enumerate(names):
        if place >= len(names) - count:
            sides[name] = "test"
        elif stamps[name] < first - gap_s:
            sides[name] = "train"
    return sides


def _write_frames(
    recording: RecordedCamera, folder: Path, options: ExtractOptions
) -> tuple[dict[str, dict[str, Any]], Counter[str], int]:
    """Entries of intrinsics.json of the frames that were written, and what was left out."""
    index: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    last_stamp, last_view, images = -np.inf, None, 0
    bar = tqdm(recording, total=len(recording), unit="image", desc="extract")
    for moment in bar:
        images += 1
        # A clock that jumps back (a bag that was started again) begins anew.
        if 0 <= moment.stamp - last_stamp < options.every_s - JITTER_S:
            left_out["too soon after the last"] += 1
            continue
        if not moment.measured:
            left_out["no measurement within the tolerance"] += 1
            continue
        try:
            view = _view(moment.rgb)
            if last_view is not None and _motion(view, last_view) < options.min_motion:
                left_out["no motion since the last"] += 1
                continue
            depth, camera = moment.depth, moment.intrinsics
        except MessageError as error:
            left_out[re.sub(r" of \d+ bytes", "", str(error))] += 1  # one entry for all of a kind
            continue
        points = int(np.count_nonzero(depth <= MAX_DEPTH_M))
        if points < options.min_points:
            left_out[f"fewer than {options.min_points} measured pixels"] += 1
            continue
        name = f"{round(moment.stamp * 1e6):016d}"
        if name in index:
            left_out["the same stamp again"] += 1
            continue
        _write_once(folder / "depth" / f"{name}.png", encode_png(encode_depth(depth)))
        # The picture last: where it is, its depth is.
        _write_once(folder / "rgb" / f"{name}.jpg", moment.jpeg or encode_jpeg(moment.rgb, 95))
        index[name] = {
            **camera_entry(camera),
            "stamp": moment.stamp,
            "points": points,
            "spread": _cells_with_points(depth),
            "depth_m": [float(q) for q in np.nanquantile(depth, (0.05, 0.5, 0.95))],
        }
        last_stamp, last_view = moment.stamp, view
        bar.set_postfix(taken=len(index), refresh=False)
    return index, left_out, images


def _view(rgb: np.ndarray) -> np.ndarray:
    """A small grey image of zero mean and unit spread: blind to exposure, noise and detail."""
    small = cv2.resize(rgb, MOTION_SIZE, interpolation=cv2.INTER_AREA).mean(axis=2)
    return (small - small.mean()) / max(float(small.std()), 1e-3)


def _motion(view: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(view - other).mean())


def _cells_with_points(depth: np.ndarray) -> float:
    known = (depth <= MAX_DEPTH_M).astype(np.float32)
    rows, columns = GRID
    cells = [
        cell.any()
        for band in np.array_split(known, rows, axis=0)
        for cell in np.array_split(band, columns, axis=1)
    ]
    return float(np.mean(cells))


def _write_once(path: Path, data: bytes) -> None:
    """Write a file; one that is there already is whole."""
    if not path.exists():
        write_whole(path, data)


def _report(
    index: Mapping[str, Mapping[str, Any]],
    left_out: Mapping[str, int],
    images: int,
    sides: Mapping[str, Split],
) -> Extraction:
    entries = list(index.values())

    def quantiles(values: list[float]) -> tuple[float, float, float]:
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
        return float(low), float(middle), float(high)

    near, middle, far = np.median([entry["depth_m"] for entry in entries], axis=0)
    return Extraction(
        images=images,
        taken=len(entries),
        left_out=dict(left_out),
        points=quantiles([entry["points"] for entry in entries]),
        coverage=quantiles([e["points"] / (e["width"] * e["height"]) for e in entries]),
        spread=quantiles([entry["spread"] for entry in entries]),
        depth_m=(float(near), float(middle), float(far)),
        test_frames=sum(side == "test" for side in sides.values()),
    )


def _write_sheet(folder: Path, index: Mapping[str, Mapping[str, Any]], report: Extraction) -> None:
    names = sorted(index)
    chosen = np.linspace(0, len(names) - 1, min(SHEET_FRAMES, len(names))).round().astype(int)
    start = min(entry["stamp"] for entry in index.values())
    frames = (
        (
            f"{index[name]['stamp'] - start:.1f} s  {index[name]['points']} px",
            read_rgb(folder / "rgb" / f"{name}.jpg"),
            read_depth(folder / "depth" / f"{name}.png"),
        )
        for name in (names[i] for i in chosen)
    )
    sheet = contact_sheet(frames, report.depth_m[0], report.depth_m[2])
    save_picture(folder / SHEET, sheet)

"""The plain folder: the layout in which labelled frames are written, and read by all commands.

    rgb/NAME.*          8-bit colour: jpg, png, bmp, tif, webp
    depth/NAME.png      uint16 z-depth in millimetres, 0 or 65500 and above = not known; or
    depth/NAME.npy      (H, W) floating-point metres; 0, negative, NaN and infinity = not known
    normals/NAME.png    optional: 8-bit RGB, n = (value - 128) / 127 in x, y, z of the optical frame
                        (x right, y down, z forward, facing the camera); (0, 0, 0) = not known; or
    normals/NAME.npy    (H, W, 3) floating point, the same without coding
    intrinsics.json     optional: fx, fy, cx, cy, width, height in pixels, and distortion_model and
                        distortion where the lens bends; one such object for all frames, or an
                        object of them by NAME, which may say more (stamp, T_world_camera, ...)
    split.txt           optional: lines "NAME train" or "NAME test"; what is not listed is not used

A single frame may also be rgb.* and depth.png right in the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from d3_ros.errors import DataError, one_line
from d3_ros.geometry.camera import lens_distortion
from d3_ros.imaging.image_file import (
    PICTURES,
    files_by_stem,
    read_image,
    read_millimetres,
    write_whole,
)
from d3_ros.types import CameraIntrinsics

Split = Literal["train", "test"]

LABELS = (".png", ".npy")
INTRINSICS, SPLIT = "intrinsics.json", "split.txt"
# uint16 millimetres end at 65.535 m, and some writers clip farther depth, such as the sky, to that
# end. So values from SATURATED_MM on are read as "not known", and none are written.
SATURATED_MM = 65_500
MAX_DEPTH_M = 65.499
UNFINISHED_SUFFIX = ".unfinished"


@dataclass(frozen=True)
class FrameFiles:
    """The files of one frame; None where it has none of a kind."""

    name: str
    rgb: Path
    depth: Path | None
    normals: Path | None


def encode_depth(depth: np.ndarray) -> np.ndarray:
    """(H, W) metres to uint16 millimetres; what is not known, or too far to hold, is 0."""
    known = (depth > 0) & (depth <= MAX_DEPTH_M)
    return np.rint(np.where(known, depth, 0) * 1000).astype(np.uint16)


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """(H, W, 3) unit vectors (0 = none) to (H, W, 3) uint8 as in the folder's layout."""
    some = np.abs(normals).sum(axis=-1, keepdims=True) > 0
    return np.where(some, np.rint(normals * 127) + 128, 0).astype(np.uint8)


def decode_normals(pixels: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 of the layout to float32 unit vectors, (0, 0, 0) = none."""
    vectors = (pixels.astype(np.float32) - 128) / 127
    vectors[(pixels[..., 0] | pixels[..., 1] | pixels[..., 2]) == 0] = 0
    return unit_or_zero(vectors)


def unit_or_zero(vectors: np.ndarray) -> np.ndarray:
    """(..., 3) float32 vectors at unit length; zero, tiny and not finite ones become (0, 0, 0)."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    none = ~(np.isfinite(length) & (length > 0.1))
    unit = vectors / np.where(none, 1, length)[..., None]
    unit[none] = 0
    return unit.astype(np.float32, copy=False)


def list_frames(folder: Path) -> tuple[list[FrameFiles], list[str]]:
    """The frames of a folder, numbers in numeric order, and the labels that have no picture.

    Returns:
        frames: one for every picture; its `depth` is None if there is no depth file of its name.
        strays: one line for each label without a picture.

    Raises:
        DataError: the folder does not exist, has no pictures, or was never finished.
    """
    refuse_unfinished(folder)
    if not (folder / "rgb").is_dir() and (folder / "depth.png").is_file():
        for picture in sorted(folder.glob("rgb.*")):
            return [FrameFiles(folder.name, picture, folder / "depth.png", None)], []
    pictures = files_by_stem(folder / "rgb", PICTURES)
    if not pictures:
        raise DataError(
            f"{folder / 'rgb'}: no pictures in it: put pictures (png, jpg, bmp, tif, webp) into "
            "rgb/, and their depth, as 16-bit PNGs of the same names, into depth/"
        )
    depths, normals = (files_by_stem(folder / kind, LABELS) for kind in ("depth", "normals"))
    strays = [
        f"{label} has no picture in rgb/"
        for labels in (depths, normals)
        for name, label in labels.items()
        if name not in pictures
    ]
    frames = [
        FrameFiles(name, picture, depths.get(name), normals.get(name))
        for name, picture in pictures.items()
    ]
    return frames, strays


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 metres of a .png or .npy file, 0 = not known; never NaN or infinite.

    Raises:
        DataError: missing, damaged, or not depth.
    """
    if path.suffix.lower() == ".npy":
        depth = _read_array(path, 2)
        return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    millimetres = read_millimetres(path)
    known = np.where(millimetres < SATURATED_MM, millimetres, 0)
    return known.astype(np.float32) / np.float32(1000)


def read_normals(path: Path) -> np.ndarray:
    """(H, W, 3) float32 unit vectors of a .png or .npy file, optical frame, (0, 0, 0) = not known.

    Raises:
        DataError: missing, damaged, or not normals.
    """
    if path.suffix.lower() == ".npy":
        return unit_or_zero(np.nan_to_num(_read_array(path, 3), posinf=0, neginf=0))
    image = read_image(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"{path} is {image.dtype} of shape {image.shape}: normals must be 8-bit RGB, or .npy"
        )
    return decode_normals(image[..., ::-1])


def read_intrinsics(folder: Path) -> Mapping[str, CameraIntrinsics]:
    """The camera of each frame, by the frame's name; empty if there is no intrinsics.json.

    If the file has one camera for all frames, it is under the name "".

    Raises:
        DataError: the file is damaged or an entry is not a camera.
    """
    path = folder / INTRINSICS
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        entries = {"": content} if "fx" in content else content
        return {name: _camera(entry) for name, entry in entries.items()}
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path}: not intrinsics ({type(error).__name__}: {error}): it needs fx, fy, cx, cy, "
            "width and height, once or for every frame"
        ) from error


def camera_entry(camera: CameraIntrinsics) -> dict[str, Any]:
    """A camera as intrinsics.json has it."""
    entry: dict[str, Any] = {
        key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")
    }
    if camera.distortion_model != "none":
        entry["distortion_model"] = camera.distortion_model
        entry["distortion"] = list(camera.distortion)
    return entry


def write_intrinsics(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Write intrinsics.json, a line a frame."""
    text = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries)
    )
    write_whole(folder / INTRINSICS, "{\n" + text + "\n}\n")


def read_split(folder: Path) -> dict[str, Split] | None:
    """What split.txt says of each frame; None where there is none.

    Raises:
        DataError: a line is not "NAME train" or "NAME test", or a name comes twice.
    """
    path = folder / SPLIT
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({one_line(error)})") from error
    found: dict[str, Split] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, side = line.strip().rsplit(maxsplit=1) if len(line.split()) > 1 else ("", "")
        if side not in ("train", "test") or name in found:
            raise DataError(
                f"{path}:{number}: {line!r}: write 'NAME train' or 'NAME test', each name once"
            )
        found[name] = "train" if side == "train" else "test"
    return found


def write_split(folder: Path, sides: Mapping[str, Split]) -> None:
    """Write split.txt."""
    lines = [f"{name} {sides[name]}\n" for name in sides]
    write_whole(folder / SPLIT, "".join(lines))


def unfinished_folder(folder: Path) -> Path:
    """Where `new_folder` fills `folder`, which may be "." too."""
    whole = folder.absolute()
    return whole.with_name(whole.name + UNFINISHED_SUFFIX)


@contextmanager
def new_folder(output: Path, *, kinds: tuple[str, ...], resume: bool) -> Iterator[Path]:
    """Fill a folder of frames under a temporary name, and rename it when it is complete.

    Yields OUTPUT.unfinished, which has a subfolder for each of `kinds`. When the block ends without
    an error, it is renamed to `output`. After an error it stays: a later call with `resume` goes on
    in it, a call without `resume` empties it first.

    Raises:
        DataError: `output` exists, or cannot be written.
    """
    if output.resolve() == Path.cwd():
        raise DataError(f"{output} is the current folder: name a new one")
    unfinished = unfinished_folder(output)
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise DataError(f"{output} already exists: give another name, or remove it first")
        if not resume:
            shutil.rmtree(unfinished, ignore_errors=True)
        for kind in kinds:
            (unfinished / kind).mkdir(parents=True, exist_ok=True)
        yield unfinished
        if output.exists():
            output.rmdir()
        unfinished.rename(output)
    except OSError as error:
        raise DataError(f"{output} cannot be written ({error.strerror})") from error


def refuse_unfinished(folder: Path) -> None:
    """Refuse a folder that does not exist, or whose writing was interrupted.

    Raises:
        DataError: the folder is missing or unfinished; the message says what to do.
    """
    unfinished = unfinished_folder(folder)
    if folder.name.endswith(UNFINISHED_SUFFIX) and folder.is_dir():
        raise DataError(f"{folder} was never finished: run the command that wrote it again")
    if folder.is_dir():
        return
    if unfinished.is_dir():
        raise DataError(
            f"{folder} is not there, only the beginning of it, {unfinished.name}: run the command "
            "that wrote it again"
        )
    raise DataError(f"{folder}: no such folder")


def _camera(entry: Mapping[str, Any]) -> CameraIntrinsics:
    model, coefficients = lens_distortion(
        entry.get("distortion_model", "none"), entry.get("distortion", ())
    )
    fx, fy, cx, cy = (float(entry[key]) for key in ("fx", "fy", "cx", "cy"))
    if not np.isfinite([fx, fy, cx, cy, *coefficients]).all():
        raise ValueError("a number is not finite")
    width, height = int(entry["width"]), int(entry["height"])
    return CameraIntrinsics(width, height, fx, fy, cx, cy, model, coefficients)


def _read_array(path: Path, axes: int) -> np.ndarray:
    try:
        # Mapped: NumPy would take memory for whatever shape the header declares.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises what tokenize, ast and NumPy raise
        raise DataError(f"{path} is missing or damaged ({one_line(error)})") from error
    if (
        array.ndim != axes
        or not np.issubdtype(array.dtype, np.floating)
        or (axes == 3 and array.shape[2] != 3)
    ):
        shape = "(H, W)" if axes == 2 else "(H, W, 3)"
        raise DataError(f"{path} is {array.dtype} {array.shape}: must be floating point {shape}")
    return np.array(array)

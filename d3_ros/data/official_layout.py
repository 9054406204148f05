"""The layout of D³-Predictor's own training data.

    rgb/NAME.*            8-bit colour
    depth_ori/NAME.h5     dataset `depth`: (h, w) metres
    depth/NAME.h5         optional: dataset `depth`: (h, w, 3), the depth normalised to [0, 1]
    normal/NAME.h5        dataset `depth`: (h, w, 3) in [-1, 1]; x right, y up, z towards the viewer
    NAME.json             {"caption": "..."}

NAME begins with `ai` for Hypersim, `Scene` for Virtual KITTI, `coco` for COCO. A frame needs its
caption and depth_ori or normal. HDF5 files are read by h5py, which is needed only here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3_ros.data.dataset_config import DatasetKind
from d3_ros.data.plain_folder import refuse_unfinished, unit_or_zero
from d3_ros.errors import D3Error, DataError, one_line
from d3_ros.imaging.image_file import MAX_MEGAPIXELS, PICTURES, files_by_stem
from d3_ros.network import OFFICIAL_NORMAL_AXES

MAX_VALUES = int(3e6 * MAX_MEGAPIXELS)  # of a dataset: three channels of the largest picture
PREFIXES: dict[DatasetKind, str] = {"hypersim": "ai", "virtual_kitti": "Scene", "coco": "coco"}


@dataclass(frozen=True)
class OfficialFiles:
    """The files of one frame; None where it has none of a kind."""

    name: str
    rgb: Path
    depth: Path | None
    normalised: Path | None
    normals: Path | None
    caption: Path


def list_official(folder: Path, kind: DatasetKind) -> tuple[list[OfficialFiles], list[str]]:
    """The frames of one kind in a folder, by name; and a line for each label without a picture.

    Raises:
        DataError: no such folder, or no frame of this kind in it.
    """
    refuse_unfinished(folder)
    prefix = PREFIXES[kind]
    pictures = {
        name: path
        for name, path in sorted(files_by_stem(folder / "rgb", PICTURES).items())
        if name.startswith(prefix)
    }
    if not pictures:
        raise DataError(f"{folder / 'rgb'} has no pictures whose names begin with '{prefix}'")
    labels = {
        sub: {path.stem: path for path in (folder / sub).glob(f"{prefix}*.h5")}
        for sub in ("depth_ori", "depth", "normal")
    }
    strays = [
        f"{path} has no picture in rgb/"
        for files in labels.values()
        for name, path in sorted(files.items())
        if name not in pictures
    ]
    frames = [
        OfficialFiles(
            name,
            picture,
            labels["depth_ori"].get(name),
            labels["depth"].get(name),
            labels["normal"].get(name),
            folder / f"{name}.json",
        )
        for name, picture in pictures.items()
    ]
    return frames, strays


def kinds_in(folder: Path) -> list[DatasetKind]:
    """The official sets of which a folder has pictures, told by the beginnings of their names.

    Raises:
        DataError: no picture belongs to an official set.
    """
    kinds: list[DatasetKind] = [
        kind for kind, prefix in PREFIXES.items() if any((folder / "rgb").glob(f"{prefix}*"))
    ]
    if not kinds:
        known = ", ".join(PREFIXES.values())
        raise DataError(f"{folder / 'rgb'}: in the official layout names begin with {known}")
    return kinds


def read_caption(path: Path) -> str:
    """The caption of a frame.

    Raises:
        DataError: the file is missing or has none.
    """
    try:
        caption = json.loads(path.read_text(encoding="utf-8-sig"))["caption"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is missing or has no caption ({type(error).__name__})") from error
    if not isinstance(caption, str):
        raise DataError(f"{path}: its caption is not a text")
    return caption


def read_official_depth(path: Path) -> np.ndarray:
    """(h, w) float32 metres, 0 = not known.

    Raises:
        DataError: missing, damaged, or of another shape.
    """
    depth = _read(path, 2)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def read_official_target(path: Path) -> np.ndarray:
    """(h, w) float32 in [-1, 1] from the normalised depth.

    Raises:
        DataError: missing, damaged, of another shape, or not in [0, 1].
    """
    unit = np.nan_to_num(_read(path, 3).astype(np.float32)).mean(axis=2)
    if unit.min() < -1e-3 or unit.max() > 1 + 1e-3:
        raise DataError(f"{path} is not normalised: {unit.min():.3g} to {unit.max():.3g}")
    return np.clip(unit, 0, 1) * 2 - 1


def read_official_normals(path: Path) -> np.ndarray:
    """(h, w, 3) float32 unit vectors in the optical frame, (0, 0, 0) = not known.

    Raises:
        DataError: missing, damaged, or of another shape.
    """
    normals = np.nan_to_num(_read(path, 3), posinf=0, neginf=0)
    return unit_or_zero(normals) * np.array(OFFICIAL_NORMAL_AXES, np.float32)


def _read(path: Path, axes: int) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise D3Error("HDF5 data needs the 'h5py' package: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            # A link, a virtual or an external dataset would read other files.
            inside = isinstance(file.get("depth", getlink=True), h5py.HardLink)
            dataset = file["depth"] if inside else None
            if dataset is None or dataset.is_virtual or dataset.external:
                raise DataError(f"{path}: its 'depth' is missing or not in this file")
            if dataset.size > MAX_VALUES:
                raise DataError(f"{path}: its 'depth' {dataset.shape} is too large")
            array = np.asarray(dataset)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is missing or damaged ({one_line(error)})") from error
    if axes == 2 and array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array.reshape([side for side in array.shape if side != 1])
    if (
        array.size == 0
        or array.ndim != axes
        or array.dtype.kind != "f"
        or (axes == 3 and array.shape[2] != 3)
    ):
        shape = "(h, w)" if axes == 2 else "(h, w, 3)"
        raise DataError(f"{path}: its 'depth' is {array.dtype} {array.shape}, must be {shape}")
    return array

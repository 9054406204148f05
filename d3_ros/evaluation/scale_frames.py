"""Frames for `evaluation.scale` from folders of several layouts.

`rgb/NAME.*` with `depth/NAME.png`, or a single `rgb.*` with `depth.png` (uint16 millimetres, 0 =
not measured); `predicted.npz` (`relative`, larger = farther) takes the network's place where it
is; `depth.npz` holds `gt` and `sparse_*` in metres; `NAME.png` + `NAME.bin` + `NAME_calib.txt` is
KITTI's object benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from d3_ros.data.measured_files import frames as depth_frames
from d3_ros.errors import DataError
from d3_ros.evaluation.scale import ScaleFrame
from d3_ros.geometry.sparse_depth import project_points
from d3_ros.types import CameraIntrinsics

RelativeDepth = Callable[[np.ndarray], np.ndarray]


def frame_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds frames, or else those in it that do.

    Raises:
        DataError: neither does.
    """
    if _holds_frames(folder):
        return [folder]
    inner = [path for path in sorted(folder.glob("*/")) if _holds_frames(path)]
    if not inner:
        raise DataError(f"{folder} has no frames: name a folder that has, with --data")
    return inner


def _holds_frames(folder: Path) -> bool:
    patterns = ("depth.npz", "depth.png", "depth/*.png", "*_calib.txt")
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def load_frames(folder: Path, relative_depth: RelativeDepth, limit: int) -> Iterator[ScaleFrame]:
    """Frames of a folder, at most `limit`, evenly over it.

    Args:
        folder: one of the layouts above.
        relative_depth: (H, W, 3) uint8 RGB to (H, W) float32 relative depth in [0, 1].
        limit: most frames.

    Raises:
        DataError: no layout fits, or a file cannot be read.
    """
    name = folder.name
    if (folder / "depth.npz").is_file():
        rgb = _read_rgb(next(iter(sorted(folder.glob("rgb.*"))), folder / "rgb.png"))
        with np.load(folder / "depth.npz") as arrays:
            given = {key: _none_is_nan(arrays[key]) for key in arrays.files if key != "gt"}
            yield ScaleFrame(name, relative_depth(rgb), _none_is_nan(arrays["gt"]), given)
        return
    if kitti := sorted(folder.glob("*_calib.txt")):
        for calib in kitti[:limit]:
            yield _kitti_frame(name, calib, relative_depth)
        return
    files = depth_frames(folder)
    for index in np.linspace(0, len(files) - 1, min(limit, len(files))).round().astype(int):
        picture, depth_file, _ = files[index]
        depth = cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED)
        if depth is None:
            raise DataError(f"{depth_file} is not an image that can be read")
        predicted = folder / "predicted.npz"
        relative = (
            _normalised(predicted) if predicted.is_file() else relative_depth(_read_rgb(picture))
        )
        yield ScaleFrame(name, relative, _none_is_nan(depth.astype(np.float32) / 1000), {})


def _kitti_frame(name: str, calib_file: Path, relative_depth: RelativeDepth) -> ScaleFrame:
    """Every second LiDAR point is given ("every_second"), the others are the truth."""
    stem = calib_file.name.removesuffix("_calib.txt")
    rgb = _read_rgb(calib_file.with_name(f"{stem}.png"))
    calib: dict[str, np.ndarray] = {}
    for line in calib_file.read_text().splitlines():
        key, _, values = line.partition(":")
        if values.strip():
            calib[key] = np.array(values.split(), np.float64)
    height, width = rgb.shape[:2]
    projection = calib["P2"].reshape(3, 4)
    camera = CameraIntrinsics(
        width, height, projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2]
    )
    rectify, to_camera, to_this = np.eye(4), np.eye(4), np.eye(4)
    rectify[:3, :3] = calib["R0_rect"].reshape(3, 3)
    to_camera[:3] = calib["Tr_velo_to_cam"].reshape(3, 4)
    # P2 = K [I | t]: the colour camera's offset from the rectified reference camera.
    to_this[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])
    T_camera_lidar = to_this @ rectify @ to_camera  # noqa: N806 - the field's name
    cloud = np.fromfile(calib_file.with_name(f"{stem}.bin"), np.float32).reshape(-1, 4)[:, :3]
    every_second = project_points(cloud[::2], T_camera_lidar, camera)
    truth = project_points(cloud[1::2], T_camera_lidar, camera)
    return ScaleFrame(name, relative_depth(rgb), truth, {"every_second": every_second})


def _normalised(predicted: Path) -> np.ndarray:
    with np.load(predicted) as arrays:
        relative = arrays["relative"].astype(np.float32)
    low, high = float(np.nanmin(relative)), float(np.nanmax(relative))
    if not high > low:
        raise DataError(f"{predicted}: its relative depth is constant")
    return (relative - low) / (high - low)


def _none_is_nan(depth_m: np.ndarray) -> np.ndarray:
    return np.where(depth_m > 0, depth_m, np.nan).astype(np.float32)


def _read_rgb(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path} is not an image that can be read")
    return np.ascontiguousarray(image[..., ::-1])

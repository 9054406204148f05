"""Two layouts of published benchmarks, for evaluation only.

KITTI's object benchmark: NAME.png, NAME.bin (float32 rows x y z reflectance of one LiDAR sweep, in
the LiDAR's frame, metres) and NAME_calib.txt. Every second LiDAR point is given as sparse depth
(`given["every_second"]`); the others are the truth.

Depth completion: one picture, rgb.*, and depth.npz with `gt` and any number of sparse depths, each
(H, W) metres, 0 or NaN = none.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.data.plain_folder import Split
from d3_ros.errors import DataError, one_line
from d3_ros.geometry.sparse_depth import project_points
from d3_ros.imaging.image_file import read_rgb
from d3_ros.types import CameraIntrinsics

CALIBRATION, MEASURED = "_calib.txt", "depth.npz"


class KittiReader:
    """A folder in the layout of KITTI's object benchmark."""

    kind = "kitti"
    has_depth, has_normals = True, False
    strays: Sequence[str] = ()
    split: Mapping[str, Split] | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names: Sequence[str] = [
            path.name.removesuffix(CALIBRATION) for path in sorted(folder.glob(f"*{CALIBRATION}"))
        ]

    def files(self, name: str) -> list[Path]:
        """Picture, LiDAR sweep and calibration of a frame."""
        return [self._folder / f"{name}{suffix}" for suffix in (".png", ".bin", CALIBRATION)]

    def read(self, name: str) -> LabelledFrame:
        """A frame; the depth of every second LiDAR point is in `given`, that of the others is true.

        Raises:
            DataError: a file cannot be read.
        """
        rgb, camera, cloud, T_camera_lidar = self.sweep(name)  # noqa: N806 - the field's name
        given = project_points(cloud[::2], T_camera_lidar, camera)
        truth = project_points(cloud[1::2], T_camera_lidar, camera)
        return LabelledFrame(rgb, _zero_is_none(truth), None, camera, given={"every_second": given})

    def sweep(self, name: str) -> tuple[np.ndarray, CameraIntrinsics, np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB, its camera, (N, 3) LiDAR points in metres, (4, 4) T_camera_lidar.

        Raises:
            DataError: a file cannot be read.
        """
        picture, sweep, calibration = self.files(name)
        rgb = read_rgb(picture)
        camera, T_camera_lidar = _kitti_calibration(  # noqa: N806 - the field's name
            calibration, rgb.shape[1], rgb.shape[0]
        )
        try:
            cloud = np.fromfile(sweep, np.float32).reshape(-1, 4)[:, :3]
        except (OSError, ValueError) as error:
            raise DataError(f"{sweep} is missing or damaged ({error})") from error
        return rgb, camera, cloud, T_camera_lidar


class CompletionReader:
    """A folder with one picture and its depth.npz."""

    kind = "completion"
    has_depth, has_normals = True, False
    strays: Sequence[str] = ()
    split: Mapping[str, Split] | None = None

    def __init__(self, folder: Path) -> None:
        """Find the picture.

        Raises:
            DataError: there is none.
        """
        pictures = sorted(folder.glob("rgb.*"))
        if not pictures:
            raise DataError(f"{folder} has {MEASURED} but no picture: it needs rgb.png or rgb.jpg")
        self._picture, self._measured = pictures[0], folder / MEASURED
        self.names: Sequence[str] = [folder.name]

    def files(self, name: str) -> list[Path]:
        """Picture and depth.npz."""
        return [self._picture, self._measured]

    def read(self, name: str) -> LabelledFrame:
        """The frame; `given` has its sparse depths by their names in depth.npz.

        Raises:
            DataError: a file cannot be read, or an array has not the picture's size.
        """
        rgb = read_rgb(self._picture)
        depths = _read_npz(self._measured, rgb.shape[0] * rgb.shape[1])
        for key, depth in depths.items():
            if depth.shape != rgb.shape[:2]:
                raise DataError(
                    f"{self._measured}: '{key}' has shape {depth.shape}, its picture has "
                    f"{rgb.shape[:2]}"
                )
        if "gt" not in depths:
            raise DataError(f"{self._measured}: no array 'gt' in it")
        truth = _zero_is_none(depths.pop("gt"))
        given = {
            key: np.where(depth > 0, depth, np.nan).astype(np.float32)
            for key, depth in depths.items()
        }
        return LabelledFrame(rgb, truth, None, None, given=given)


def _kitti_calibration(path: Path, width: int, height: int) -> tuple[CameraIntrinsics, np.ndarray]:
    """The camera of P2, and T_camera_lidar (4, 4) = [t of P2] R0_rect Tr_velo_to_cam."""
    try:
        entries = _numbers_by_key(path.read_text(encoding="utf-8"))
        projection = entries["P2"].reshape(3, 4)
        rectify, to_camera, to_this = np.eye(4), np.eye(4), np.eye(4)
        rectify[:3, :3] = entries["R0_rect"].reshape(3, 3)
        to_camera[:3] = entries["Tr_velo_to_cam"].reshape(3, 4)
        # P2 = K [I | t]: the colour camera's offset from the rectified reference camera.
        to_this[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])
        camera = CameraIntrinsics(
            width, height, projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2]
        )
    except (OSError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        raise DataError(
            f"{path} is missing or has not P2, R0_rect and Tr_velo_to_cam ({error})"
        ) from error
    return camera, to_this @ rectify @ to_camera


def _numbers_by_key(text: str) -> Mapping[str, np.ndarray]:
    lines = (line.partition(":") for line in text.splitlines())
    return {key: np.array(values.split(), np.float64) for key, _, values in lines if values.strip()}


def _read_npz(path: Path, pixels: int) -> dict[str, np.ndarray]:
    """The arrays of a file, each of at most `pixels` values of 8 bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.file_size > 8 * pixels + 65_536 for member in archive.infolist()):
                raise ValueError("an array has more values than its picture has pixels")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key].astype(np.float32) for key in arrays.files}
    except Exception as error:  # a damaged zip raises what zipfile, zlib and NumPy raise
        raise DataError(f"{path} is missing or damaged ({one_line(error)})") from error


def _zero_is_none(depth_m: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)

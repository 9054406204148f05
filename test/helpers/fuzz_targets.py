"""Everything that parses input, as functions of bytes: for `scripts/fuzz.py` and the tests.

A target takes any bytes and returns, or raises a `D3Error` of one line. Anything else is a fault.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from helpers import bag_messages, pictures
from helpers.paths import ROOT
from rosbags.rosbag2 import StoragePlugin

from d3_ros.data import official_layout, plain_folder
from d3_ros.data.bag.file import read_contents, read_messages
from d3_ros.data.benchmark_layouts import CompletionReader, KittiReader
from d3_ros.errors import D3Error
from d3_ros.geometry.camera import project, ray_map
from d3_ros.geometry.sparse_depth import project_points
from d3_ros.imaging.image_file import decode_picture, write_whole
from d3_ros.messages.camera_info import intrinsics_from_camera_info, why_uncalibrated
from d3_ros.messages.colour_encodings import PACKED, PLANAR
from d3_ros.messages.compressed import depth_from_any, rgb_from_any
from d3_ros.messages.images import depth_from_image, rgb_from_image
from d3_ros.messages.points import points_from_cloud
from d3_ros.messages.scans import points_from_scan
from d3_ros.network.bundle.manifest import read_manifest
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(16, 12, 10.0, 10.0, 7.5, 5.5)
ENCODINGS = (*PACKED, *PLANAR, "16UC1", "32FC1", "mono16", "64FC3", "", "\ud800")
MODELS = ("plumb_bob", "rational_polynomial", "equidistant", "fisheye", "", "Plumb Bob", "x")
SIZES = (0, 1, 2, 3, 4, 7, 8, 12, 16, 640, 65_535, 2**31 - 1, 2**32 - 1)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 5e-324, 1e-300, 1e300, np.inf, -np.inf, np.nan, 8.0, 1e6)
FORMATS = (
    "jpeg",
    "rgb8; jpeg compressed rgb8",
    "bayer_rggb8; png compressed ",
    "mono16; png compressed ",
    "16UC1; compressedDepth png",
    "32FC1; compressedDepth png",
    "",
)


@dataclass(frozen=True)
class Target:
    """`run` on bytes; `seeds` are valid inputs; `file`: name of the file it reads, if it does."""

    run: Callable[[bytes, Path], None]
    seeds: Callable[[], Sequence[bytes]]


class Draw:
    """Values drawn from bytes, zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def byte(self) -> int:
        self._place += 1
        return self._data[self._place - 1] if self._place <= len(self._data) else 0

    def choice(self, values: Sequence[Any]) -> Any:
        return values[self.byte() % len(values)]

    def number(self) -> float:
        """One of the awkward numbers, or a small one."""
        return self.choice(NUMBERS) if self.byte() % 3 == 0 else (self.byte() - 100) / 10

    def size(self) -> int:
        return self.choice(SIZES) if self.byte() % 4 == 0 else self.byte() % 20

    def rest(self) -> np.ndarray:
        return np.frombuffer(self._data[self._place :], np.uint8)


def image(data: bytes, _folder: Path) -> None:
    draw = Draw(data)
    message: Any = SimpleNamespace(
        encoding=draw.choice(ENCODINGS),
        height=draw.size(),
        width=draw.size(),
        step=draw.size() * draw.choice((1, 2, 3, 4)),
        is_bigendian=draw.byte() % 2,
    )
    message.data = draw.rest()
    for read in (rgb_from_image, depth_from_image):
        _try(lambda read=read: read(message, "topic"))


def compressed_image(data: bytes, _folder: Path) -> None:
    draw = Draw(data)
    message: Any = SimpleNamespace(format=draw.choice(FORMATS), data=None)
    message.data = draw.rest()
    _try(lambda: rgb_from_any(message, "topic", 12, 0.05))
    _try(lambda: depth_from_any(message, "topic"))


def camera_info(data: bytes, _folder: Path) -> None:
    draw = Draw(data)
    roi = SimpleNamespace(
        x_offset=draw.size(), y_offset=draw.size(), width=draw.size(), height=draw.size()
    )
    info: Any = SimpleNamespace(
        width=draw.choice((16, draw.size())),
        height=draw.choice((12, draw.size())),
        binning_x=draw.byte() % 4,
        binning_y=draw.byte() % 4,
        roi=draw.choice((roi, SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0))),
        distortion_model=draw.choice(MODELS),
        d=[draw.number() for _ in range(draw.byte() % 16)],
        k=[draw.number() for _ in range(9)],
        p=[draw.number() for _ in range(12)],
    )
    for rectified in (False, True):

        def read(rectified: bool = rectified) -> None:
            intrinsics = intrinsics_from_camera_info(
                info, 16, 12, topic="info", image_topic="image", rectified=rectified
            )
            if intrinsics is None:
                why_uncalibrated(info, "info", rectified=rectified)
                return
            assert ray_map(intrinsics).shape == (12, 16, 3)
            project(np.array([[0.1, 0.2, 1.0], [5.0, 3.0, 0.1], [0, 0, -1.0]]), intrinsics)

        _try(read)


def cloud(data: bytes, _folder: Path) -> None:
    draw = Draw(data)
    names = ("x", "y", "z", "rgb")[: 2 + draw.byte() % 3]
    fields = [
        SimpleNamespace(
            name=name,
            offset=draw.choice((4 * index, draw.size())),
            datatype=draw.choice((7, 8, draw.byte() % 12)),
            count=1,
        )
        for index, name in enumerate(names)
    ]
    message: Any = SimpleNamespace(
        height=draw.size(),
        width=draw.size(),
        fields=fields,
        is_bigendian=bool(draw.byte() % 2),
        point_step=draw.choice((12, 16, draw.size())),
        row_step=draw.choice((0, draw.size() * 12, draw.size())),
    )
    message.data = draw.rest()
    _try(lambda: project_points(points_from_cloud(message, "topic"), np.eye(4), CAMERA, 0.1, 200))


def scan(data: bytes, _folder: Path) -> None:
    draw = Draw(data)
    message: Any = SimpleNamespace(
        angle_min=draw.number(),
        angle_increment=draw.number(),
        range_min=draw.number(),
        range_max=draw.number(),
        ranges=[draw.number() for _ in range(draw.byte())],
    )
    with np.errstate(over="ignore"):
        message.ranges = np.array(message.ranges, np.float32)
    turned = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    _try(lambda: project_points(points_from_scan(message, "topic"), turned, CAMERA, 0.1, 200))


def picture(data: bytes, _folder: Path) -> None:
    for flags in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_COLOR):
        _try(lambda flags=flags: decode_picture(data, flags, 0.05))


def _bag(suffix: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        path = folder / f"bag{suffix}"
        path.write_bytes(data)

        def read() -> None:
            topics = list(read_contents(path).topics)
            for _, _, message in read_messages(path, topics):
                kind = type(message).__name__
                if "CameraInfo" in kind:
                    _try(lambda m=message: _camera_of(m))
                elif "Image" in kind:
                    _try(lambda m=message: rgb_from_any(m, "topic", 16, 0.05))
                    _try(lambda m=message: depth_from_any(m, "topic"))

        _try(read)

    return run


def _camera_of(message: Any) -> None:
    intrinsics_from_camera_info(message, 8, 6, topic="info", image_topic="image")


def _file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(data)
        _try(lambda: read(path))

    return run


def kitti(data: bytes, folder: Path) -> None:
    """Calibration, then the sweep behind a zero byte."""
    calibration, _, sweep = data.partition(b"\0")
    write_whole(folder / "0_calib.txt", calibration)
    write_whole(folder / "0.bin", sweep)
    if not (folder / "0.png").exists():
        write_whole(folder / "0.png", pictures.png(np.zeros((12, 16, 3), np.uint8)))
    _try(lambda: KittiReader(folder).read("0"))


def completion(data: bytes, folder: Path) -> None:
    write_whole(folder / "depth.npz", data)
    if not (folder / "rgb.png").exists():
        write_whole(folder / "rgb.png", pictures.png(np.zeros((12, 16, 3), np.uint8)))
    _try(lambda: CompletionReader(folder).read("0"))


def _try(read: Callable[[], Any]) -> None:
    """Call; a `D3Error` of one line is an answer."""
    try:
        read()
    except D3Error as error:
        assert "\n" not in str(error), f"more than one line: {error}"


# ------------------------------------------------------------------------------------------- seeds


def _picture_seeds() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    kinds = [(s, []) for s in (".jpg", ".png", ".bmp", ".tif", ".webp")]
    kinds += [(".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".webp", [64, 101])]
    seeds = [bytes(cv2.imencode(suffix, noise, options)[1]) for suffix, options in kinds]
    seeds += [pictures.png(noise[..., 0]), pictures.png(noise[..., 0].astype(np.uint16) * 200)]
    return [*seeds, pictures.with_orientation(seeds[0], 6), seeds[0] + bytes(300)]


def _image_seeds() -> list[bytes]:
    pixels = bytes(range(256)) * 4
    return [bytes([place, 1, 12, 1, 16, 1, 16, place % 4, 0]) + pixels for place in range(40)]


def _random_seeds() -> list[bytes]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, 200, np.uint8).tobytes() for _ in range(20)]


@lru_cache(maxsize=1)
def _bag_seeds_by_suffix() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rgb = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
        messages = [
            ("/cam/info", 10**9, bag_messages.camera_info(10**9)),
            ("/cam/image", 10**9, bag_messages.image(10**9, rgb, "rgb8")),
            (
                "/cam/image/compressed",
                10**9,
                bag_messages.compressed(10**9, pictures.jpeg(rgb), "jpeg"),
            ),
        ]
        seeds = {}
        for plugin, suffix in ((StoragePlugin.MCAP, ".mcap"), (StoragePlugin.SQLITE3, ".db3")):
            bag = bag_messages.write_bag(folder / plugin.name, messages, plugin)
            seeds[suffix] = (bag / f"{plugin.name}{suffix}").read_bytes()
        seeds[".bag"] = bag_messages.ros1_bag(folder / "a.bag", 2).read_bytes()
        return seeds


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, gt=np.ones((12, 16), "f4"), sparse_10=np.ones((12, 16), "f4"))
    return file.getvalue()


def _h5() -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5.create_dataset("depth", data=np.ones((12, 16), "f4"), compression="gzip")
    return file.getvalue()


def _kitti() -> bytes:
    numbers = " ".join(["1"] * 12)
    text = "P2: 10 0 8 0 0 10 6 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\n"
    text += f"Tr_velo_to_cam: {numbers}\n"
    return text.encode() + b"\0" + struct.pack("<8f", *range(8))


_CAMERA = {"width": 8, "height": 6, "fx": 5, "fy": 5.5, "cx": 3.5, "cy": 2.5}
_LENS = {**_CAMERA, "distortion_model": "plumb_bob", "distortion": [0.1, 0, 0, 0]}


_CHECKPOINT = "d3_ros.network.bundle.official_checkpoint"
TARGETS: dict[str, Target] = {
    "picture": Target(picture, _picture_seeds),
    "compressed_image": Target(
        compressed_image, lambda: [bytes([i % 7]) + s for i, s in enumerate(_picture_seeds() * 3)]
    ),
    "image": Target(image, _image_seeds),
    "camera_info": Target(camera_info, _random_seeds),
    "cloud": Target(cloud, _random_seeds),
    "scan": Target(scan, _random_seeds),
    **{
        f"bag{suffix.replace('.', '_')}": Target(
            _bag(suffix), lambda suffix=suffix: [_bag_seeds_by_suffix()[suffix]]
        )
        for suffix in (".mcap", ".db3", ".bag")
    },
    "depth_npy": Target(
        _file("a.npy", plain_folder.read_depth), lambda: [_npy(np.ones((6, 8), "f4"))]
    ),
    "normals_npy": Target(
        _file("b.NPY", plain_folder.read_normals), lambda: [_npy(np.ones((6, 8, 3), "f8"))]
    ),
    "intrinsics_json": Target(
        _file(plain_folder.INTRINSICS, lambda path: plain_folder.read_intrinsics(path.parent)),
        lambda: [json.dumps(_CAMERA).encode(), json.dumps({"a": _LENS, "b": _CAMERA}).encode()],
    ),
    "split_txt": Target(
        _file(plain_folder.SPLIT, lambda path: plain_folder.read_split(path.parent)),
        lambda: [b"# split\na train\nb c test\n", "\ufeffa\ttrain\r\n".encode()],
    ),
    "caption_json": Target(
        _file("c.json", official_layout.read_caption), lambda: [b'{"caption": "a room"}']
    ),
    "bundle_json": Target(
        _file("bundle.json", lambda path: read_manifest(path.parent)),
        lambda: [(ROOT / "models" / "d3_nano" / "bundle.json").read_bytes()],
    ),
    "checkpoint": Target(  # imported when it runs: torch takes seconds
        _file("c.pth", lambda path: importlib.import_module(_CHECKPOINT).read_checkpoint(path)),
        lambda: [importlib.import_module("helpers.official_files").small_checkpoint()],
    ),
    "kitti": Target(kitti, lambda: [_kitti()]),
    "completion_npz": Target(completion, lambda: [_npz()]),
}
if importlib.util.find_spec("h5py"):  # optional
    TARGETS["depth_h5"] = Target(
        _file("d.h5", official_layout.read_official_depth), lambda: [_h5()]
    )


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """`data` with one to eight changes; some take a part of `other`."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        size = len(changed)
        place = int(rng.integers(size + 1))
        kind = int(rng.integers(7))
        length = int(rng.integers(1, 9))
        if kind == 0 and size:
            changed[place % size] = int(rng.integers(256))
        elif kind == 1 and size:
            changed[place % size] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            changed[place : place + 4] = struct.pack("<I", int(rng.choice(SIZES)))
        elif kind == 3:
            changed[place:place] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif kind == 4:
            del changed[place : place + length]
        elif kind == 5:
            start = int(rng.integers(len(other) + 1))
            changed[place : place + 16] = other[start : start + 16]
        elif rng.random() < 0.2:
            del changed[place:]
    return bytes(changed)

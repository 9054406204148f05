"""A rendered walk as a ROS 2 bag, written without ROS by the `rosbags` library."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore
from tqdm import tqdm

from d3_ros.data.bag.transforms import TF_STATIC
from d3_ros.data.plain_folder import encode_depth
from d3_ros.errors import D3Error
from d3_ros.geometry.rigid import quaternion_of
from d3_ros.imaging.image_file import encode_jpeg
from d3_ros.synthetic.dataset import Photo, check_kinds, render_walk
from d3_ros.synthetic.mesh.lidar import T_CAMERA_LIDAR, Sweep
from d3_ros.synthetic.mesh.rig import Rig
from d3_ros.types import CameraIntrinsics

Message: TypeAlias = Any  # rosbags makes its message classes at run time

FRAME_ID, LIDAR_FRAME_ID = "camera_optical_frame", "lidar"
LIDAR_TOPIC = "/lidar/points"
# Fields of a LiDAR point: name, offset, sensor_msgs/PointField's datatype.
POINT_FIELDS = (("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("ring", 12, 4))
POINT = np.dtype(
    {"names": ["xyz", "ring"], "formats": ["3<f4", "<u2"], "offsets": [0, 12], "itemsize": 16}
)
START_S = 1_700_000_000


def sparse_sensor(
    depth: np.ndarray, rng: np.random.Generator, *, points: int = 500, scan: bool = True
) -> np.ndarray:
    """Sparse, noisy depth of a cheap sensor, drawn from a dense depth map.

    Args:
        depth: (H, W) float32 metres, 0 = none.
        rng: draws pixels and noise (0.5 % and 2 mm).
        points: number of random pixels.
        scan: also every fourth pixel of the middle row, as a planar laser scanner sees it.

    Returns:
        (H, W) float32 metres, 0 = not measured.
    """
    chosen = np.zeros(depth.shape, dtype=bool)
    chosen.ravel()[rng.choice(depth.size, size=min(points, depth.size), replace=False)] = True
    if scan:
        chosen[depth.shape[0] // 2, ::4] = True
    noisy = depth + rng.standard_normal(depth.shape) * (0.005 * depth + 0.002)
    return np.where(chosen & (depth > 0), noisy, 0).astype(np.float32)


def write_walk(
    bag: Path, *, frames: int, seed: int, rig: Rig, kind: str, rate_hz: float, jobs: int
) -> int:
    """Render a walk and write it as a bag; returns the number of frames.

    Topics, all with the same stamp and frame for one instant:
        /camera/image/compressed    CompressedImage (JPEG)
        /camera/camera_info         CameraInfo
        /camera/sensor_depth/image  Image 16UC1, sparse, noisy: what the node may use
        /camera/truth/depth         Image 16UC1, dense, exact: for the score only

    With a LiDAR in the rig also:
        /lidar/points               PointCloud2 x y z ring, frame `lidar`, 0.5 % noise
        /tf_static                  where the LiDAR is, once

    The bag appears under its name only when it is complete.

    Raises:
        D3Error: `bag` exists or cannot be written, or there is no such walk.
    """
    if bag.exists():
        raise D3Error(f"{bag} exists: give another --bag, or remove it first")
    check_kinds([kind])
    photos = render_walk(seed, frames, rig, kind, jobs)
    try:
        bag.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{bag.name}.", dir=bag.parent) as folder:
            unfinished = Path(folder) / bag.name  # its files are named after the folder
            bar = tqdm(photos, total=frames, unit="frame", desc="render")
            noise = np.random.default_rng([seed, 2])
            _write_bag(unfinished, bar, noise, rate_hz, with_lidar=rig.lidar_rings > 0)
            unfinished.rename(bag)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise D3Error(f"{bag} cannot be written ({reason})") from error
    return frames


def _write_bag(
    bag: Path,
    photos: Iterable[Photo],
    rng: np.random.Generator,
    rate_hz: float,
    *,
    with_lidar: bool,
) -> None:
    """Write photos as a bag; `rng` draws the noise and the places of the sparse depth."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {
        "/camera/image/compressed": "sensor_msgs/msg/CompressedImage",
        "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
        "/camera/sensor_depth/image": "sensor_msgs/msg/Image",
        "/camera/truth/depth": "sensor_msgs/msg/Image",
    }
    if with_lidar:
        types |= {LIDAR_TOPIC: "sensor_msgs/msg/PointCloud2", TF_STATIC: "tf2_msgs/msg/TFMessage"}
    writer = Writer(bag, version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        topics = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in types.items()
        }
        for i, photo in enumerate(photos):
            stamp = START_S * 1_000_000_000 + round(i / rate_hz * 1e9)
            header = _header(store, stamp)
            depth = photo.frame.depth
            messages = {
                "/camera/image/compressed": _jpeg(store, header, photo.rgb),
                "/camera/camera_info": _camera_info(store, header, photo.camera),
                "/camera/sensor_depth/image": _depth_image(
                    store, header, sparse_sensor(depth, rng)
                ),
                "/camera/truth/depth": _depth_image(store, header, depth),
            }
            if photo.sweep is not None:
                messages[LIDAR_TOPIC] = _cloud(store, stamp, photo.sweep)
                if i == 0:
                    messages[TF_STATIC] = _lidar_transform(store, stamp)
            for topic, message in messages.items():
                writer.write(topics[topic], stamp, store.serialize_cdr(message, types[topic]))


def _header(store: Typestore, stamp_ns: int, frame_id: str = FRAME_ID) -> Message:
    time = store.types["builtin_interfaces/msg/Time"](
        sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000
    )
    return store.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def _jpeg(store: Typestore, header: Message, rgb: np.ndarray) -> Message:
    data = np.frombuffer(encode_jpeg(rgb, 92), np.uint8)
    return store.types["sensor_msgs/msg/CompressedImage"](
        header=header, format="rgb8; jpeg compressed bgr8", data=data
    )


def _depth_image(store: Typestore, header: Message, depth: np.ndarray) -> Message:
    millimetres = encode_depth(depth)
    height, width = millimetres.shape
    return store.types["sensor_msgs/msg/Image"](
        header=header,
        height=height,
        width=width,
        encoding="16UC1",
        is_bigendian=0,
        step=2 * width,
        data=millimetres.astype("<u2").view(np.uint8).ravel(),
    )


def _camera_info(store: Typestore, header: Message, camera: CameraIntrinsics) -> Message:
    k = camera.matrix
    ideal = camera.distortion_model == "none"
    region = store.types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return store.types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob" if ideal else camera.distortion_model,
        d=np.zeros(5) if ideal else np.array(camera.distortion),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([k, np.zeros(3)]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def _cloud(store: Typestore, stamp_ns: int, sweep: Sweep) -> Message:
    rows = np.zeros(len(sweep.points), POINT)
    rows["xyz"], rows["ring"] = sweep.points, sweep.rings
    field = store.types["sensor_msgs/msg/PointField"]
    return store.types["sensor_msgs/msg/PointCloud2"](
        header=_header(store, stamp_ns, LIDAR_FRAME_ID),
        height=1,
        width=len(rows),
        fields=[field(name, offset, kind, 1) for name, offset, kind in POINT_FIELDS],
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=rows.nbytes,
        data=rows.view(np.uint8).reshape(-1),
        is_dense=True,
    )


def _lidar_transform(store: Typestore, stamp_ns: int) -> Message:
    types = store.types
    transform = types["geometry_msgs/msg/Transform"](
        translation=types["geometry_msgs/msg/Vector3"](*map(float, T_CAMERA_LIDAR[:3, 3])),
        rotation=types["geometry_msgs/msg/Quaternion"](*quaternion_of(T_CAMERA_LIDAR[:3, :3])),
    )
    stamped = types["geometry_msgs/msg/TransformStamped"](
        header=_header(store, stamp_ns), child_frame_id=LIDAR_FRAME_ID, transform=transform
    )
    return types["tf2_msgs/msg/TFMessage"](transforms=[stamped])

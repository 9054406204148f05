"""Bags for tests, written without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY)


def header(stamp_ns: int, frame_id: str = "camera") -> Any:
    time = TYPES.types["builtin_interfaces/msg/Time"]
    stamp = time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image(stamp_ns: int, pixels: np.ndarray, encoding: str, frame_id: str = "camera") -> Any:
    return TYPES.types["sensor_msgs/msg/Image"](
        header=header(stamp_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
    )


def compressed(stamp_ns: int, data: bytes, text: str) -> Any:
    return TYPES.types["sensor_msgs/msg/CompressedImage"](
        header=header(stamp_ns), format=text, data=np.frombuffer(data, np.uint8)
    )


def camera_info(stamp_ns: int, width: int = 8, height: int = 6) -> Any:
    return TYPES.types["sensor_msgs/msg/CameraInfo"](
        header=header(stamp_ns),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([5.0, 0, 3.5, 0, 6.0, 2.5, 0, 0, 1]),
        r=np.eye(3).reshape(-1),
        p=np.array([5.0, 0, 3.5, 0, 0, 6.0, 2.5, 0, 0, 0, 1, 0]),
        binning_x=0,
        binning_y=0,
        roi=TYPES.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )


def write_bag(path: Path, messages: list[tuple[str, int, Any]], plugin: StoragePlugin) -> Path:
    """Messages as (topic, time of reception in ns, message)."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], time_ns, TYPES.serialize_cdr(message, kind))
    return path


def cloud(stamp_ns: int, points: np.ndarray, frame_id: str = "lidar") -> Any:
    """(N, 3) float32 points with an intensity between, as LiDAR drivers lay them out."""
    field = TYPES.types["sensor_msgs/msg/PointField"]
    rows = np.zeros((len(points), 8), "<f4")
    rows[:, :3] = points
    return TYPES.types["sensor_msgs/msg/PointCloud2"](
        header=header(stamp_ns, frame_id),
        height=1,
        width=len(points),
        fields=[field(n, 4 * i, 7, 1) for i, n in enumerate(("x", "y", "z", "_", "intensity"))],
        is_bigendian=False,
        point_step=32,
        row_step=32 * len(points),
        data=rows.reshape(-1).view(np.uint8),
        is_dense=True,
    )


def scan(stamp_ns: int, ranges: Sequence[float], frame_id: str = "laser") -> Any:
    """Beams from 0.1 rad to the right of straight ahead, 0.1 rad apart."""
    values = np.array(ranges, np.float32)
    return TYPES.types["sensor_msgs/msg/LaserScan"](
        header=header(stamp_ns, frame_id),
        angle_min=-0.1,
        angle_max=0.1,
        angle_increment=0.1,
        time_increment=0.0,
        scan_time=0.1,
        range_min=0.05,
        range_max=20.0,
        ranges=values,
        intensities=values[:0],
    )


def static_transform(
    parent: str, child: str, xyz: Sequence[float], xyzw: Sequence[float] = (0, 0, 0, 1)
) -> Any:
    """A /tf_static message with one transform: where `child` is in `parent`."""
    types = TYPES.types
    return types["tf2_msgs/msg/TFMessage"](
        transforms=[
            types["geometry_msgs/msg/TransformStamped"](
                header=header(0, parent),
                child_frame_id=child,
                transform=types["geometry_msgs/msg/Transform"](
                    translation=types["geometry_msgs/msg/Vector3"](*map(float, xyz)),
                    rotation=types["geometry_msgs/msg/Quaternion"](*map(float, xyzw)),
                ),
            )
        ]
    )


def ros1_bag(
    path: Path,
    count: int,
    rgb: np.ndarray | None = None,
    depth: np.ndarray | None = None,
) -> Path:
    """A bag of ROS 1, 1 Hz: camera_info with D, K, R and P, headers with seq; 8 x 6 pixels."""
    rgb = np.zeros((6, 8, 3), np.uint8) if rgb is None else rgb
    depth = np.full((6, 8), 2000, np.uint16) if depth is None else depth
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    with Writer1(path) as writer:
        names = {
            "/cam/camera_info": "sensor_msgs/msg/CameraInfo",
            "/cam/image": "sensor_msgs/msg/Image",
            "/cam/sensor_depth/image": "sensor_msgs/msg/Image",
        }
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in names.items()
        }
        for i in range(count):
            stamp = types["builtin_interfaces/msg/Time"](sec=1_700_000_000 + i, nanosec=0)
            header = types["std_msgs/msg/Header"](seq=i, stamp=stamp, frame_id="camera")
            info = types["sensor_msgs/msg/CameraInfo"](
                header=header,
                height=6,
                width=8,
                distortion_model="plumb_bob",
                D=np.array([0.1, 0.01, 0, 0, 0]),
                K=np.array([5.0, 0, 3.5, 0, 6.0, 2.5, 0, 0, 1]),
                R=np.eye(3).ravel(),
                P=np.array([5.0, 0, 3.5, 0, 0, 6.0, 2.5, 0, 0, 0, 1, 0]),
                binning_x=0,
                binning_y=0,
                roi=types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
            )

            def image(pixels: np.ndarray, encoding: str, header: Any = header) -> Any:
                return types["sensor_msgs/msg/Image"](
                    header=header,
                    height=6,
                    width=8,
                    encoding=encoding,
                    is_bigendian=0,
                    step=pixels.strides[0],
                    data=pixels.reshape(-1).view(np.uint8),
                )

            messages = [info, image(rgb, "rgb8"), image(depth, "16UC1")]
            for (topic, connection), message in zip(connections.items(), messages, strict=True):
                writer.write(
                    connection,
                    (1_700_000_000 + i) * 10**9,
                    store.serialize_ros1(message, names[topic]),
                )
    return path

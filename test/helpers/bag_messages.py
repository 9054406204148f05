"""Bags for tests, written without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
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

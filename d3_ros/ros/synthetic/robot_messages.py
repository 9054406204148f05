"""Messages of the synthetic robot: odometry, transforms, laser scan and LiDAR cloud."""

from __future__ import annotations

import array
import importlib
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from d3_ros.geometry.rigid import quaternion_of
from d3_ros.synthetic.room.sensors import RangeLimits, scan_angles
from d3_ros.synthetic.room.walk import Motion

ODOM, BASE, CAMERA, SCANNER, LIDAR = (
    "odom",
    "base_link",
    "camera_optical_frame",
    "scanner",
    "lidar",
)
# Fields of a LiDAR point and their offsets; two bytes of padding follow the ring.
POINT_FIELDS = (
    ("x", 0, PointField.FLOAT32),
    ("y", 4, PointField.FLOAT32),
    ("z", 8, PointField.FLOAT32),
    ("ring", 12, PointField.UINT16),
)
POINT = np.dtype(
    {"names": ["xyz", "ring"], "formats": ["3f4", "u2"], "offsets": [0, 12], "itemsize": 16}
)


def tf_message_type() -> Any | None:
    """The class TFMessage, or None: tf2_msgs comes with a ROS installation only."""
    try:
        return importlib.import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        return None


def transform(stamp: Time, parent: str, child: str, pose: np.ndarray) -> TransformStamped:
    """The (4, 4) pose of frame `child` in frame `parent`."""
    message = TransformStamped(header=Header(stamp=stamp, frame_id=parent), child_frame_id=child)
    place = message.transform.translation
    place.x, place.y, place.z = pose[:3, 3].tolist()
    message.transform.rotation = quaternion(pose)
    return message


def odometry(stamp: Time, motion: Motion) -> Odometry:
    """Pose in `odom`, speed in `base_link` (REP 105); exact, so the covariances are zero."""
    message = Odometry(header=Header(stamp=stamp, frame_id=ODOM), child_frame_id=BASE)
    pose = message.pose.pose
    pose.position.x, pose.position.y = motion.x, motion.y
    pose.orientation = quaternion(motion.T_world_base)
    message.twist.twist.linear.x = motion.speed
    message.twist.twist.angular.z = motion.turn_rate
    return message


def scan(stamp: Time, readings: np.ndarray, limits: RangeLimits, rate_hz: float) -> LaserScan:
    """A scan from the (beams,) float32 readings of one turn."""
    angles = scan_angles(len(readings))
    message = LaserScan(header=Header(stamp=stamp, frame_id=SCANNER))
    message.angle_min = float(angles[0])
    message.angle_max = float(angles[-1])
    message.angle_increment = 2 * np.pi / len(readings)
    message.range_min, message.range_max = limits.nearest, limits.farthest
    message.scan_time = 1.0 / rate_hz
    message.ranges = array.array("f", readings.tobytes())
    return message


def cloud(stamp: Time, points: np.ndarray, rings: np.ndarray) -> PointCloud2:
    """(N, 3) float32 points in the LiDAR's frame and their (N,) ring, unorganised."""
    rows = np.zeros(len(points), POINT)
    rows["xyz"], rows["ring"] = points, rings
    message = PointCloud2(header=Header(stamp=stamp, frame_id=LIDAR), height=1, width=len(points))
    message.fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in POINT_FIELDS
    ]
    message.point_step, message.row_step = POINT.itemsize, rows.nbytes
    message.is_dense = True
    message.data = array.array("B", rows.tobytes())
    return message


def quaternion(pose: np.ndarray) -> Quaternion:
    """The rotation of a (4, 4) pose."""
    x, y, z, w = quaternion_of(pose[:3, :3])
    return Quaternion(x=x, y=y, z=z, w=w)

"""Looks up where sensors and the floor are in tf2, where a ROS installation has it.

With a fixed frame, tf2 also undoes the robot's motion between the sensor's stamp and the image's.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from d3_ros.errors import TransformError, one_line
from d3_ros.geometry.rigid import rigid_transform

# Discovery and the first transforms take up to this long.
SETTLE_S = 3.0
# All cameras report the same jump back in time within this time.
JUMP_S = 1.0
# Odometry is about this late: a lookup waits so long for transforms of the image's time.
TF_WAIT_S = 0.05


@dataclass(frozen=True)
class Extrinsic:
    """`T_camera_sensor`: (4, 4), maps the sensor's points into the camera's optical frame.

    `follows_motion`: it maps from the sensor's stamp to the image's, so it stays right when the
    robot moves in between.
    """

    T_camera_sensor: np.ndarray
    follows_motion: bool = False


class Transforms:
    """Looks transforms up; subscribes to /tf and /tf_static at the first lookup.

    `lookup` and `pose` are called by the worker's thread, `close` after it has stopped; `close` may
    be called again.

    Args:
        node: subscribes; its executor must run in another thread than the one that looks up.
        warn: gets a line where motion cannot be followed.
    """

    def __init__(self, node: Node, warn: Callable[[str], None]) -> None:
        self._node = node
        self._warn = warn
        self._lock = threading.Lock()
        self._buffer: Any = None
        self._listener: Any = None
        self._since = math.inf
        self._forgot = -math.inf

    @property
    def settling(self) -> bool:
        """Whether missing transforms may still be on their way: the subscription is new."""
        return time.monotonic() - self._since < SETTLE_S

    def lookup(
        self, camera: Header, sensor: Header, fixed_frame: str, timeout_s: float
    ) -> Extrinsic:
        """The sensor's pose at its stamp in the camera's frame at the image's stamp.

        Args:
            camera: the image's header.
            sensor: the sensor message's header.
            fixed_frame: a frame that does not move with the robot (odom). Where it is empty, tf
                does not connect it to the camera, or not at these stamps (odometry that is late or
                has ended), the robot is assumed to stand still between the two stamps.
            timeout_s: how long to wait for transforms that are late.

        Raises:
            TransformError: tf2 is not installed, or does not connect the two.
        """
        tf2, buffer = self._tf2()
        target, source = _frame(camera, "image"), _frame(sensor, "sensor")
        timeout = Duration(seconds=timeout_s)
        camera_time, sensor_time = Time.from_msg(camera.stamp), Time.from_msg(sensor.stamp)
        try:
            # At any time: else a robot without this frame would wait with every image.
            if fixed_frame and buffer.can_transform(target, fixed_frame, Time()):
                try:
                    found = buffer.lookup_transform_full(
                        target, camera_time, source, sensor_time, fixed_frame, timeout
                    )
                except tf2.TransformException as error:
                    return self._standing_still(target, source, camera_time, fixed_frame, error)
                return Extrinsic(_matrix(found), follows_motion=True)
            if fixed_frame and not self.settling:
                self._warn(
                    f"no transform from '{fixed_frame}' to '{target}': sensor depth of frame "
                    f"'{source}' is used as if the robot stood still between the stamps "
                    "(parameter sensor_depth.fixed_frame)"
                )
            return Extrinsic(_matrix(buffer.lookup_transform(target, source, camera_time, timeout)))
        except tf2.TransformException as error:
            raise TransformError(
                f"no transform from '{source}' to '{target}' ({one_line(error)}): publish it, or "
                "set the sensor's parameter T_camera_sensor"
            ) from error

    def _standing_still(
        self, target: str, source: str, camera_time: Time, fixed_frame: str, error: Exception
    ) -> Extrinsic:
        """The direct transform, where `error` says that the fixed frame does not reach the stamps.

        A sensor that is fixed to the robot needs no odometry. If there is no direct transform
        either, `error` is raised again.
        """
        tf2, buffer = self._tf2()
        try:
            found = buffer.lookup_transform(target, source, camera_time)
        except tf2.TransformException:
            raise error from None
        self._warn(
            f"the transform from '{fixed_frame}' to '{target}' does not reach the stamps of image "
            f"and sensor ({one_line(error)}): sensor depth of frame '{source}' is used as if the "
            "robot stood still between them. Is the odometry late, or has it ended?"
        )
        return Extrinsic(_matrix(found))

    def pose(self, camera: Header, frame: str, timeout_s: float, remedy: str) -> np.ndarray:
        """(4, 4) T_frame_camera at the image's stamp.

        Args:
            camera: the image's header.
            frame: whose origin and axes the pose is given in.
            timeout_s: how long to wait for transforms that are late.
            remedy: what else than publishing the transform helps, for the error.

        Raises:
            TransformError: tf2 is not installed, or does not connect the two.
        """
        tf2, buffer = self._tf2()
        source = _frame(camera, "image")
        try:
            return _matrix(
                buffer.lookup_transform(
                    frame, source, Time.from_msg(camera.stamp), Duration(seconds=timeout_s)
                )
            )
        except tf2.TransformException as error:
            raise TransformError(
                f"no transform from '{source}' to '{frame}' ({one_line(error)}): publish it, or "
                f"{remedy}"
            ) from error

    def forget(self) -> None:
        """Forget all transforms but the static ones, because time has jumped back.

        tf2 refuses transforms that are older than those it has. It watches the clock for jumps,
        but the clock does not jump where a bag is played without use_sim_time. When several cameras
        report the same jump, only the first report counts.
        """
        now = time.monotonic()
        with self._lock:
            if self._buffer is not None and now - self._forgot > JUMP_S:
                self._buffer.clear()
                self._since = self._forgot = now

    def close(self) -> None:
        """Unsubscribe and forget all transforms."""
        with self._lock:
            if self._listener is not None:
                self._listener.unregister()
            self._listener = self._buffer = None

    def _tf2(self) -> tuple[Any, Any]:
        """The module tf2_ros and a buffer that listens."""
        try:
            tf2 = importlib.import_module("tf2_ros")
        except ImportError as error:
            raise TransformError(
                f"tf2_ros cannot be imported ({one_line(error)}): install it, or say where things "
                "are by parameter (the sensor's T_camera_sensor, ground.camera_height)"
            ) from error
        with self._lock:
            if self._buffer is None:
                self._since = time.monotonic()
                self._buffer = tf2.Buffer()
                self._listener = tf2.TransformListener(self._buffer, self._node, spin_thread=False)
            return tf2, self._buffer


def _matrix(stamped: TransformStamped) -> np.ndarray:
    t, q = stamped.transform.translation, stamped.transform.rotation
    try:
        return rigid_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
    except ValueError as error:
        raise TransformError(f"tf gives an unusable transform: {error}") from error


def _frame(header: Header, what: str) -> str:
    if not header.frame_id:
        raise TransformError(
            f"the {what}'s frame_id is empty, so tf cannot place it: set it in its publisher"
        )
    return str(header.frame_id).lstrip("/")

"""The node `synthetic_camera`: a robot without hardware that drives through a rendered room.

    ros2 run d3_ros synthetic_camera --ros-args -p image_rate:=10.0

It publishes image, calibration, sparse depth, scan and LiDAR under the names that the predictor
subscribes to in the same namespace, odometry and transforms for Nav2 and SLAM, and exact depth and
normals as ground truth. Only topics with subscribers are rendered, in a thread of their own:
odometry and transforms keep their rate however long an image takes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Header

from d3_ros.errors import one_line
from d3_ros.messages.camera_info import camera_info_from_intrinsics
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.parameters.declaration import LenientParameters, declare_table, unknown_names
from d3_ros.ros.parameters.parameter_row import ParameterError
from d3_ros.ros.qos import LATCHED
from d3_ros.ros.synthetic.robot_messages import (
    BASE,
    CAMERA,
    LIDAR,
    ODOM,
    SCANNER,
    cloud,
    odometry,
    scan,
    tf_message_type,
    transform,
)
from d3_ros.ros.synthetic.robot_settings import PARAMETERS, SyntheticSettings, synthetic_settings
from d3_ros.ros.termination import Termination
from d3_ros.synthetic.room.scene import RoomScene
from d3_ros.synthetic.room.sensors import (
    T_BASE_LIDAR,
    T_BASE_SCANNER,
    RangeLimits,
    camera_pose,
    lidar_rays,
    scan_ranges,
    sparse_depth,
)
from d3_ros.synthetic.room.walk import Loop, Motion

# Half axes of the ellipse that the robot drives, m.
WAY = (2.2, 1.4)
NEAREST_M = 0.1
CAMERA_INFOS = ("camera_info", "sensor_depth/camera_info", "truth/camera_info")
HELP = """usage: synthetic_camera [--ros-args -p PARAMETER:=VALUE --params-file FILE]

A robot without hardware: camera, sparse depth, LiDAR, scanner, odometry and tf in a furnished room.
Parameters: `ros2 param list` while it runs. Usually it is started by: ros2 launch d3_ros
synthetic.launch.py"""
IMAGES = ("image", "sensor_depth/image", "truth/depth", "truth/normals")


class SyntheticCamera(LenientParameters, Node):
    """Publishes one robot's sensors.

    Args:
        scene: the room; None furnishes one by the parameter `seed`.
        **node_arguments: as for rclpy's Node (namespace, parameter_overrides, …).

    Raises:
        ParameterError: a parameter is not usable.
    """

    def __init__(self, scene: RoomScene | None = None, **node_arguments: Any) -> None:
        super().__init__(
            "synthetic_camera",
            automatically_declare_parameters_from_overrides=True,
            **node_arguments,
        )
        # Kilted destroys a node also when its construction failed.
        self._renderer = ThreadPoolExecutor(1, "renderer")
        if faults := declare_table(self, PARAMETERS.values()):
            raise ParameterError("; ".join(faults.values()))
        for line in unknown_names(self, PARAMETERS, "`ros2 param list`"):
            self.get_logger().warning(line)
        self._settings = synthetic_settings(self._values())
        settings = self._settings
        self._intrinsics = settings.intrinsics()
        self._T_base_camera = camera_pose(settings.camera_height, settings.camera_pitch)
        self._rng = np.random.default_rng(settings.seed)
        self._loop = Loop(*WAY, start=float(self._rng.random()))
        self._scene = RoomScene(settings.seed) if scene is None else scene
        self._rays, self._rings = lidar_rays(settings.points_rings)
        # Depth 2: a best-effort reader must not lose an image because the next one follows at once.
        qos = QoSProfile(depth=2)
        self._images = {name: self.create_publisher(Image, name, qos) for name in IMAGES}
        self._infos = [self.create_publisher(CameraInfo, name, qos) for name in CAMERA_INFOS]
        self._scan = self.create_publisher(LaserScan, "sensor_depth/scan", qos)
        self._points = self.create_publisher(PointCloud2, "sensor_depth/points", qos)
        self._odometry = self.create_publisher(Odometry, "odom", QoSProfile(depth=10))
        self._buffers = {name: ImageBuffer() for name in IMAGES}
        self._renderings: dict[str, Future[None]] = {}
        self._odometry_lock = threading.Lock()
        self._start = self.get_clock().now()
        self._open_tf()
        self._by_rate: dict[str, Timer] = {}
        self._set_timers(settings)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.get_logger().info(
            f"a robot drives through a room, image {settings.width} x {settings.height} at "
            f"{settings.image_rate:g} Hz on '{self.resolve_topic_name('image')}'"
        )

    # Parameters and timers

    def _on_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        changed = {change.name: change.value for change in changes}
        try:
            settings = synthetic_settings({**self._values(), **changed})
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._set_timers(settings)
        self._settings = settings
        return SetParametersResult(successful=True)

    def _values(self) -> dict[str, object]:
        return {name: self.get_parameter(name).value for name in PARAMETERS}

    def _set_timers(self, settings: SyntheticSettings) -> None:
        """Make a timer for each rate that changed."""
        for name, callback in (
            ("image_rate", self._in_renderer("image_rate", self._publish_images)),
            ("scan_rate", self._in_renderer("scan_rate", self._publish_scan)),
            ("points_rate", self._in_renderer("points_rate", self._publish_points)),
            ("odometry_rate", self._publish_odometry),
        ):
            rate = getattr(settings, name)
            if name in self._by_rate:
                if rate == getattr(self._settings, name):
                    continue
                self.destroy_timer(self._by_rate.pop(name))
            if rate:
                self._by_rate[name] = self.create_timer(1.0 / rate, callback)

    # The rendering thread

    def _in_renderer(
        self, rate_name: str, publish: Callable[[Time, Motion, SyntheticSettings], None]
    ) -> Callable[[], None]:
        """A timer callback that lets the rendering thread publish one sensor.

        If the sensor's last message is not finished, this one is skipped: a slow machine lowers the
        rate.
        """

        def render() -> None:
            settings = self._settings
            if getattr(settings, rate_name):
                publish(*self._publish_odometry(), settings)

        def callback() -> None:
            last = self._renderings.get(rate_name)
            if last is not None:
                if not last.done():
                    return
                if self.context.ok():
                    last.result()  # raises what the rendering thread raised
            self._renderings[rate_name] = self._renderer.submit(render)

        return callback

    def destroy_node(self) -> None:
        """End the rendering thread, then the node."""
        self._renderer.shutdown(cancel_futures=True)
        super().destroy_node()

    # Sensors

    def _publish_images(self, stamp: Time, motion: Motion, settings: SyntheticSettings) -> None:
        header = Header(stamp=stamp, frame_id=CAMERA)
        info = camera_info_from_intrinsics(
            self._intrinsics, header, self._intrinsics.width, self._intrinsics.height
        )
        for publisher in self._infos:
            publisher.publish(info)
        wanted = {n for n, p in self._images.items() if p.get_subscription_count()}
        if not settings.sensor_share:
            wanted.discard("sensor_depth/image")
        if not wanted:
            return
        view = self._scene.look(self._intrinsics, motion.T_world_base @ self._T_base_camera)
        # The image is last: a node that received it has everything else.
        if "truth/depth" in wanted:
            self._send("truth/depth", header, view.depth, "32FC1")
        if "truth/normals" in wanted:
            self._send("truth/normals", header, self._scene.normals(view), "32FC3")
        if "sensor_depth/image" in wanted:
            sparse = sparse_depth(view.depth, settings.sensor_share, _limits(settings), self._rng)
            buffer = self._buffers["sensor_depth/image"]
            self._images["sensor_depth/image"].publish(buffer.fill_millimetres(header, sparse))
        if "image" in wanted:
            self._send("image", header, self._scene.colours(view), "rgb8")

    def _send(self, name: str, header: Header, pixels: np.ndarray, encoding: str) -> None:
        self._images[name].publish(self._buffers[name].fill(header, pixels, encoding))

    def _publish_scan(self, stamp: Time, motion: Motion, settings: SyntheticSettings) -> None:
        if not self._scan.get_subscription_count():
            return
        pose, limits = motion.T_world_base @ T_BASE_SCANNER, _limits(settings)
        ranges = scan_ranges(self._scene, pose, settings.scan_beams)
        readings = limits.read(ranges, self._rng)
        self._scan.publish(scan(stamp, readings, limits, settings.scan_rate))

    def _publish_points(self, stamp: Time, motion: Motion, settings: SyntheticSettings) -> None:
        if not self._points.get_subscription_count():
            return
        pose = motion.T_world_base @ T_BASE_LIDAR
        ranges = self._scene.cast(pose[:3, 3], pose[:3, :3] @ self._rays)
        readings = _limits(settings).read(ranges, self._rng)
        hit = np.isfinite(readings)
        points = (self._rays[:, hit] * readings[hit]).T
        self._points.publish(cloud(stamp, points, self._rings[hit]))

    # Where the robot is

    def _open_tf(self) -> None:
        """Publish the fixed transforms, if tf2_msgs is installed."""
        self._tf: Any = None
        self._tf_type: Any = tf_message_type()
        if self._tf_type is None:
            self.get_logger().info(
                "tf2_msgs is not installed, so no transforms are published: give the predictor "
                "its T_camera_sensor parameters, or read 'odom'"
            )
            return
        self._tf = self.create_publisher(self._tf_type, "/tf", QoSProfile(depth=100))
        self._tf_static = self.create_publisher(self._tf_type, "/tf_static", LATCHED)
        stamp = self._start.to_msg()
        self._tf_static.publish(
            self._tf_type(
                transforms=[
                    transform(stamp, BASE, frame, pose)
                    for frame, pose in (
                        (CAMERA, self._T_base_camera),
                        (SCANNER, T_BASE_SCANNER),
                        (LIDAR, T_BASE_LIDAR),
                    )
                ]
            )
        )

    def _publish_odometry(self) -> tuple[Time, Motion]:
        """Publish the present pose. Two threads call it; the lock keeps the stamps in order."""
        with self._odometry_lock:
            now = self.get_clock().now()
            seconds = (now - self._start).nanoseconds * 1e-9
            motion, stamp = self._loop.at(seconds, self._settings.speed), now.to_msg()
            self._odometry.publish(odometry(stamp, motion))
            if self._tf is not None:
                moved = transform(stamp, ODOM, BASE, motion.T_world_base)
                self._tf.publish(self._tf_type(transforms=[moved]))
        return stamp, motion


def _limits(settings: SyntheticSettings) -> RangeLimits:
    return RangeLimits(NEAREST_M, settings.max_range, settings.noise)


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM; 1 and one line on standard error for bad arguments."""
    words = sys.argv[1:] if args is None else args
    if words[:1] in (["-h"], ["--help"]):
        print(HELP)
        return 0
    termination = Termination()
    termination.install()  # while the room is made, a signal ends the process at once
    try:
        rclpy.init(args=args)
        node = SyntheticCamera()
    except (RuntimeError, ParameterError) as error:
        print(f"synthetic_camera: {one_line(error)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    termination.clean_up_is_needed()
    try:
        rclpy.spin(node)
    except Exception:
        if rclpy.ok():  # else a signal shut ROS down while a message was published
            raise
    # This waits for the image that is being rendered; `termination` limits the time.
    node.destroy_node()
    termination.ignore()  # `ros2 launch` repeats the Ctrl-C of a terminal: nothing is left to do
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

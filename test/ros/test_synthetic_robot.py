"""A whole robot, as processes over DDS: synthetic camera -> predictor -> a checker that knows.

With the bundled model, and one sensor at a time. The exact depth of every frame is published beside
the image, so metres are compared pixel by pixel, far from where the sensor measured, too.

The robot stands still. Without transforms the predictor cannot take a cloud or scan from its own
stamp to the image's, so on a moving robot the error would grow with the load of the machine.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from helpers.ros_harness import ros_context
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float32MultiArray

from d3_ros.geometry.camera import ray_map
from d3_ros.geometry.rigid import inverse_rigid, quaternion_of
from d3_ros.ros.child_processes import Family, private_environment
from d3_ros.ros.node.diagnostics.scale_report import STATES, read_scale_message
from d3_ros.synthetic.room.sensors import LIDAR_HIGHEST, T_BASE_LIDAR, T_BASE_SCANNER, camera_pose
from d3_ros.types import CameraIntrinsics

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

WIDTH, HEIGHT = 320, 240
# The parameter that switches each sensor off, its value, and its bit in ~/scale's sources.
SENSORS = {
    "image": ("sensor_share", 0.005, 1),
    "points": ("points_rate", 10.0, 2),
    "scan": ("scan_rate", 10.0, 4),
}
PATIENCE_S = 120.0


def extrinsic(T_base_sensor: np.ndarray) -> str:  # noqa: N803
    """The predictor's parameter T_camera_sensor of a sensor at this pose."""
    pose = inverse_rigid(camera_pose(0.5, 0.1)) @ T_base_sensor
    numbers = (*pose[:3, 3], *quaternion_of(pose[:3, :3]))
    return " ".join(f"{number:.9f}" for number in numbers)


def reached(sensor: str, depth: np.ndarray) -> np.ndarray:
    """(N,) bool: which pixels of a flat (N,) depth image show what the sensor could measure.

    A LiDAR sees between its lowest and its highest ring, a scanner a plane; of what is above and
    below they know nothing, and the network has to guess.
    """
    focal = WIDTH / 2 / np.tan(0.6)
    camera = CameraIntrinsics(WIDTH, HEIGHT, focal, focal, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    pose = camera_pose(0.5, 0.1)
    x, y, z = ((ray_map(camera).reshape(-1, 3) * depth[:, None]) @ pose[:3, :3].T + pose[:3, 3]).T
    if sensor == "points":
        return np.abs(z - T_BASE_LIDAR[2, 3]) < np.tan(LIDAR_HIGHEST) * np.hypot(x, y)
    if sensor == "scan":
        return np.abs(z - T_BASE_SCANNER[2, 3]) < 0.1
    return np.ones(len(depth), bool)


class Checker(Node):
    """Hears what the predictor publishes and what is true."""

    def __init__(self) -> None:
        super().__init__("checker", namespace="/robot")
        self.depth: dict[tuple[int, int], Image] = {}
        self.truth: dict[tuple[int, int], Image] = {}
        self.infos: dict[tuple[int, int], CameraInfo] = {}
        self.scales: list[dict[str, float]] = []
        qos = QoSProfile(depth=10)
        for kind, topic, kept in (
            (Image, "predictor/depth/image", self.depth),
            (CameraInfo, "predictor/depth/camera_info", self.infos),
            (Image, "truth/depth", self.truth),
        ):
            self.create_subscription(kind, topic, self._keep_in(kept), qos)
        self.create_subscription(
            Float32MultiArray,
            "predictor/scale",
            lambda message: self.scales.append(read_scale_message(message)),
            qos,
        )
        self._client = self.create_client(SetParameters, "synthetic_camera/set_parameters")

    @staticmethod
    def _keep_in(kept: dict[tuple[int, int], Any]) -> Callable[[Any], None]:
        return lambda m: kept.update({(m.header.stamp.sec, m.header.stamp.nanosec): m})

    def spin_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = self.get_clock().now().nanoseconds + PATIENCE_S * 1e9
        while not condition():
            assert self.get_clock().now().nanoseconds < deadline, f"waited in vain for: {what}"
            rclpy.spin_once(self, timeout_sec=0.2)

    def measure_with(self, sensor: str) -> None:
        """Switch all sensors but one off, and wait until the scale comes from that one."""
        request = SetParameters.Request(
            parameters=[
                Parameter(name, value=value if which == sensor else 0.0).to_parameter_msg()
                for which, (name, value, _) in SENSORS.items()
            ]
        )
        self.spin_until(self._client.service_is_ready, "the parameter service")
        answer = self._client.call_async(request)
        self.spin_until(answer.done, "the parameters")
        assert all(result.successful for result in answer.result().results)

        def comes_from_it() -> bool:
            latest = self.scales[-3:]
            return len(latest) == 3 and all(
                STATES[int(row["state"])] == "measured" and row["sources"] == SENSORS[sensor][2]
                for row in latest
            )

        self.spin_until(comes_from_it, f"a scale from {sensor}")

    def errors(self, sensor: str, count: int) -> dict[str, float]:
        """Of the next frames, medians: share of pixels with metres, AbsRel of those that the sensor
        reached, AbsRel of all.
        """
        self.depth.clear()
        self.spin_until(lambda: len(self.depth.keys() & self.truth.keys()) >= count, "frames")
        rows = defaultdict(list)
        for stamp in self.depth.keys() & self.truth.keys():
            depth, truth = (
                np.frombuffer(m[stamp].data, np.float32) for m in (self.depth, self.truth)
            )
            known, error = np.isfinite(depth), np.abs(depth / truth - 1)
            rows["share"].append(known.mean())
            rows["reached"].append(np.mean(error[known & reached(sensor, truth)]))
            rows["all"].append(np.mean(error[known]))
        return {name: float(np.median(values)) for name, values in rows.items()}


@pytest.fixture(scope="module")
def checker(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checker]:
    logs = tmp_path_factory.mktemp("logs")
    env = {**private_environment(int(os.environ["ROS_DOMAIN_ID"]), logs), "OMP_NUM_THREADS": "2"}
    with Family(logs, env) as family:
        started = [
            family.start_module(
                name,
                f"d3_ros.ros.{module}",
                *("--ros-args", "-r", "__ns:=/robot"),
                *(word for p in parameters for word in ("-p", p)),
            )
            for name, module, parameters in (
                (
                    "synthetic_camera",
                    "synthetic.synthetic_camera",
                    (f"width:={WIDTH}", f"height:={HEIGHT}", "image_rate:=5.0", "speed:=0.0"),
                ),
                (
                    "predictor",
                    "predictor_node",
                    (
                        "autostart:=true",
                        "device:=cpu",
                        "sensor_depth.fixed_frame:=''",
                        f"sensor_depth.points.T_camera_sensor:='{extrinsic(T_BASE_LIDAR)}'",
                        f"sensor_depth.scan.T_camera_sensor:='{extrinsic(T_BASE_SCANNER)}'",
                    ),
                ),
            )
        ]
        node = Checker()
        try:
            node.spin_until(
                lambda: node.truth or any(c.exit_code is not None for c in started), "a picture"
            )
            ended = [c for c in started if c.exit_code is not None]
            assert not ended, ended[0].last_lines()
            yield node
        finally:
            node.destroy_node()
    for child in started:
        assert child.exit_code == 0, Path(child.log).read_text(encoding="utf-8")


@pytest.mark.parametrize("sensor", SENSORS)
def test_metres_are_true(checker: Checker, sensor: str) -> None:
    checker.measure_with(sensor)
    found = checker.errors(sensor, 8)
    print(sensor, found)  # pytest -s shows how far from the bounds they are
    assert found["reached"] < 0.1, found
    assert found["share"] > 0.5, found


def test_every_depth_image_is_one_of_the_cameras(checker: Checker) -> None:
    """Same stamp, frame and size as what was published, and its own calibration."""
    stamp = next(iter(checker.depth.keys() & checker.infos.keys() & checker.truth.keys()))
    depth, info, truth = checker.depth[stamp], checker.infos[stamp], checker.truth[stamp]
    assert depth.header == truth.header == info.header
    assert depth.header.frame_id == "camera_optical_frame"
    assert (depth.width, depth.height) == (info.width, info.height) == (WIDTH, HEIGHT)
    assert (depth.encoding, depth.step) == ("32FC1", 4 * WIDTH)
    assert info.k[0] == pytest.approx(WIDTH / 2 / np.tan(0.6))

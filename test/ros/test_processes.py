"""The node as a process of its own, cameras and a consumer in another, real DDS between them."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.ros_harness import ros_context
from helpers.waiting import PATIENCE_S, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.inputs.matched_inputs import stamp_ns

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

WIDTH, HEIGHT = 96, 64
OUTPUTS = {
    "depth/relative": Image,
    "depth/image": Image,
    "depth/camera_info": CameraInfo,
    "normals/image": Image,
    "points": PointCloud2,
}


class Rig:
    """Publishes as cameras do and checks as a consumer does; talks to the node's services."""

    def __init__(self, namespace: str, cameras: dict[str, str]) -> None:
        """`cameras`: name -> raw or compressed."""
        self.cameras = cameras
        self.node = Node("rig", namespace=namespace)
        self.images = {}
        self.infos = {}
        self.sensors = {}
        self.received: dict[tuple[str, str], list] = {}
        for name, transport in cameras.items():
            prefix = f"{name}/" if name else ""
            kind, topic = (
                (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
            )
            best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.images[name] = self.node.create_publisher(kind, prefix + topic, best_effort)
            self.infos[name] = self.node.create_publisher(CameraInfo, f"{prefix}camera_info", 5)
            self.sensors[name] = self.node.create_publisher(
                Image, f"{prefix}sensor_depth/image", best_effort
            )
            for output, output_kind in OUTPUTS.items():
                store = self.received[name, output] = []
                reliable = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
                self.node.create_subscription(
                    output_kind, f"predictor/{prefix}{output}", store.append, reliable
                )
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()
        self.stamps: set[int] = set()  # of all that was shown
        self._stamp = 0

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join(10.0)
        self.node.destroy_node()

    def call(self, kind: type, name: str, request: object) -> object:
        client = self.node.create_client(kind, f"predictor/{name}")
        assert client.wait_for_service(PATIENCE_S), f"no service {name}"
        future = client.call_async(request)
        wait_until(future.done, f"{name} answers")
        self.node.destroy_client(client)
        return future.result()

    def known(self, ask: Callable[[str], list], topic: str) -> list:
        """Who publishes or subscribes, as soon as discovery knows of somebody."""
        full = self.node.resolve_topic_name(topic)
        wait_until(lambda: ask(full), f"somebody on {full}")
        return ask(full)

    def change(self, transition: str) -> bool:
        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(ChangeState, "change_state", request).success

    def state(self) -> str:
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def show(self, name: str) -> Header:
        """A frame of one camera: calibration and sensor depth, then the image."""
        self._stamp += 1
        header = Header(frame_id=f"{name}_optical_frame")
        header.stamp.sec, header.stamp.nanosec = 1000 + self._stamp, 123_456_789
        v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        rgb = np.stack([u * 2, v * 3, u + v], axis=-1).astype(np.uint8)
        info = CameraInfo(header=header, width=WIDTH, height=HEIGHT)
        info.k = [80.0, 0.0, 47.5, 0.0, 80.0, 31.5, 0.0, 0.0, 1.0]
        self.infos[name].publish(info)
        self.sensors[name].publish(
            ImageBuffer().fill(header, np.full((HEIGHT, WIDTH), 2000, np.uint16), "16UC1")
        )
        if self.cameras[name] == "raw":
            self.images[name].publish(ImageBuffer().fill(header, rgb, "rgb8"))
        else:
            data = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
            message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
            message.data = array.array("B", data)
            self.images[name].publish(message)
        return header

    def check_answers(self, name: str) -> None:
        """Show frames until one is answered on every topic, and look at that one.

        The network's weights are random, but a wall 2 m away that the sensor measures everywhere
        is 2 m away whatever the network says.
        """

        def answer(output: str, header: Header) -> list:
            return [m for m in self.received[name, output] if m.header == header]

        shown: list[Header] = []

        def answered() -> list[Header]:
            shown.append(self.show(name))
            return [h for h in shown if all(answer(output, h) for output in OUTPUTS)]

        wait_until(answered, f"camera '{name}' is answered")
        header = answered()[0]
        encodings = {
            "depth/relative": ("32FC1", 4),
            "depth/image": ("32FC1", 4),
            "normals/image": ("32FC3", 12),
        }
        for output, (encoding, pixel) in encodings.items():
            (message,) = answer(output, header)
            assert (message.width, message.height) == (WIDTH, HEIGHT)
            assert (message.encoding, message.step) == (encoding, WIDTH * pixel)
        (depth,) = answer("depth/image", header)
        np.testing.assert_allclose(np.frombuffer(depth.data, np.float32), 2.0, rtol=0.01)
        (info,) = answer("depth/camera_info", header)
        assert (info.width, info.height, info.k[0]) == (WIDTH, HEIGHT, 80.0)
        (cloud,) = answer("points", header)
        assert (cloud.width, cloud.height, cloud.is_dense) == (WIDTH, HEIGHT, False)
        corner = np.frombuffer(cloud.data, np.float32)[:3]
        np.testing.assert_allclose(corner, [-47.5 / 80 * 2, -31.5 / 80 * 2, 2.0], rtol=0.01)
        self.stamps |= {stamp_ns(h) for h in shown}
        for output in OUTPUTS:
            for message in self.received[name, output]:
                assert message.header.frame_id == f"{name}_optical_frame"
                assert stamp_ns(message.header) in self.stamps


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """Starts a node process: start(namespace, parameters) -> Popen; ends all of them."""
    processes: list[subprocess.Popen] = []

    def start_node(namespace: str, *parameters: str) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "ROS_LOG_DIR": str(tmp_path),
        }
        arguments = [word for parameter in parameters for word in ("-p", parameter)]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "d3_ros.ros.predictor_node"),
                *("--ros-args", "-r", f"__ns:={namespace}", *arguments),
            ],
            env=environment,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield start_node
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("cameras", "parameters"),
    [
        ({"": "compressed"}, ["image.transport:=compressed"]),
        (
            {"front": "raw", "rear": "compressed"},
            ["cameras:=[front, rear]", "rear.image.transport:=compressed"],
        ),
    ],
    ids=["one compressed camera", "two cameras, raw and compressed"],
)
def test_a_node_process_through_its_whole_life_twice(
    start, tiny_bundle: Path, cameras: dict[str, str], parameters: list[str]
) -> None:
    namespace = f"/process{len(cameras)}"
    process = start(namespace, f"model:={tiny_bundle}", "device:=cpu", *parameters)
    rig = Rig(namespace, cameras)
    try:
        for _ in range(2):
            assert rig.state() == "unconfigured"
            assert rig.change("configure")
            assert rig.state() == "inactive"
            assert rig.change("activate")
            for name in cameras:
                rig.check_answers(name)
            assert rig.change("deactivate")
            assert rig.change("cleanup")
        assert rig.change("unconfigured_shutdown")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        rig.close()


def test_what_the_process_offers(start, tiny_bundle: Path) -> None:
    """Every output reliable and volatile, the status latched, every input best effort."""
    start("/offers", f"model:={tiny_bundle}", "device:=cpu", "autostart:=true")
    rig = Rig("/offers", {"": "raw"})
    try:
        wait_until(rig.images[""].get_subscription_count, "the node listens")
        for output in OUTPUTS:
            (offer,) = rig.known(rig.node.get_publishers_info_by_topic, f"predictor/{output}")
            assert offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            assert offer.qos_profile.durability == DurabilityPolicy.VOLATILE
        (status,) = rig.known(rig.node.get_publishers_info_by_topic, "predictor/status")
        assert status.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        for topic in ("image", "camera_info", "sensor_depth/points", "sensor_depth/scan"):
            (asks,) = rig.known(rig.node.get_subscriptions_info_by_topic, topic)
            assert asks.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    finally:
        rig.close()

"""A real node, a real peer, real DDS: what the tests of the node share.

`Robot` is a PredictorNode with a small deterministic stand-in for the network, and beside it a peer
that publishes what a camera publishes and keeps what the node answers.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from helpers.waiting import PATIENCE_S, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.diagnostics.statistics import Snapshot
from d3_ros.ros.node.inputs.matched_inputs import Sensor, stamp_ns
from d3_ros.ros.node.predictor_node import PredictorNode
from d3_ros.ros.topics import SCALE as SCALE_TOPIC
from d3_ros.ros.topics import TOPICS
from d3_ros.types import D3Prediction, Task

WIDTH, HEIGHT = 64, 48
SCALE, SHIFT = 4.0, 0.5


def ramp() -> np.ndarray:
    """(H, W) relative depth, 0.9 at the top to 0.1 at the bottom."""
    column = np.linspace(0.9, 0.1, HEIGHT, dtype=np.float32)
    return np.repeat(column[:, None], WIDTH, axis=1)


def sensor_millimetres() -> np.ndarray:
    """(H, W) uint16: the ramp at its true scale, measured at every fourth pixel."""
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[::4, ::4] = np.rint((SCALE * ramp() + SHIFT) * 1000)[::4, ::4]
    return depth


class StandIn:
    """A network that answers with a ramp and a wall, and notes what it was asked for."""

    def __init__(self, tasks: tuple[Task, ...] = ("depth", "normals")) -> None:
        self.tasks = tasks
        self.precision = "fp32"
        self.latency: dict[tuple[int, int], Any] = {}
        self.asked: list[tuple[Task, ...]] = []
        self.before: Callable[[], None] = lambda: None
        self.relative = ramp()
        self.normals = np.tile(np.float32([0.0, 0.0, -1.0]), (HEIGHT, WIDTH, 1))

    def __call__(self, rgb: np.ndarray, tasks: Iterable[Task] | None = None) -> D3Prediction:
        wanted = self.tasks if tasks is None else tuple(tasks)
        self.asked.append(wanted)
        self.before()
        return D3Prediction(
            depth=self.relative if "depth" in wanted else None,
            normals=self.normals if "normals" in wanted else None,
        )

    def predict_batch(
        self, images: Sequence[np.ndarray], tasks: Iterable[Task] | None = None
    ) -> list[D3Prediction]:
        return [self(rgb, tasks) for rgb in images]

    def processing_size(self, task: Task, image_size: tuple[int, int]) -> tuple[int, int]:
        return image_size


class Robot:
    """The node and its peer, in a namespace of their own, spun in a thread.

    `with Robot() as robot`.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        network: StandIn | None = None,
        *,
        topics: Iterable[str] = TOPICS,
        parameters: dict[str, Any] | None = None,
        load: Callable[..., Any] | None = None,
        start: bool = True,
        camera_qos: QoSProfile | int = 5,
    ) -> None:
        self.namespace = f"/cam{next(self._numbers)}"
        self.network = network or StandIn()
        self.lines: list[str] = []
        self.received: dict[str, list[Any]] = defaultdict(list)
        options = {"load": load} if load else {"load": lambda settings, say: self.network}
        self.node = PredictorNode(
            **options,
            namespace=self.namespace,
            parameter_overrides=[Parameter(n, value=v) for n, v in (parameters or {}).items()],
        )
        self.statistics = next(iter(self.node.statistics.values()))  # of the first camera
        self.peer = Node("peer", namespace=self.namespace)
        self.image = self.peer.create_publisher(Image, "image", camera_qos)
        self.camera_info = self.peer.create_publisher(CameraInfo, "camera_info", camera_qos)
        self.sensor = self.peer.create_publisher(Image, "sensor_depth/image", camera_qos)
        self.points = self.peer.create_publisher(PointCloud2, "sensor_depth/points", camera_qos)
        self.scan = self.peer.create_publisher(LaserScan, "sensor_depth/scan", camera_qos)
        # As latched as its publishers: a line may be older than the connection.
        rosout = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.peer.create_subscription(Log, "/rosout", self._on_log, rosout)
        self.statuses: list[DiagnosticStatus] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.peer.create_subscription(
            DiagnosticStatus, "predictor/status", self.statuses.append, latched
        )
        for topic in topics:
            self.listen(topic)
        self._sensor_buffer, self._image_buffer = ImageBuffer(), ImageBuffer()
        self._stamp = 100
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._executor.add_node(self.peer)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        if start:
            self.node.start()
        self._thread.start()
        if start:
            self.wait_until_connected()

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *exception: object) -> None:
        # Before the executor goes: rclpy's handlers wake it without asking whether it is there.
        self.stop_spinning()
        self._executor.shutdown()
        self.node.close()
        self.node.destroy_node()
        self.peer.destroy_node()

    def stop_spinning(self) -> None:
        """End the thread that calls the callbacks."""
        self._ended.set()
        self._executor.wake()
        self._thread.join(PATIENCE_S)

    def _spin(self) -> None:
        while not self._ended.is_set():
            self._executor.spin_once(timeout_sec=0.5)

    def listen(self, topic: str, qos: QoSProfile | int = 10) -> Any:
        """Subscribe to an output of the node."""
        return self.peer.create_subscription(
            TOPICS[topic],
            topic.replace("~", "predictor"),
            partial(self._on_output, topic),
            qos,
        )

    def wait_until_connected(self) -> None:
        """Both directions: the node hears the camera, and knows its subscribers."""
        inputs = (self.image, self.camera_info, self.sensor, self.points, self.scan)
        wait_until(lambda: all(p.get_subscription_count() for p in inputs), "the node subscribes")
        names = [s.topic_name for s in self.peer.subscriptions if "/predictor/" in s.topic_name]
        names.remove(f"{self.namespace}/predictor/status")  # no output of the camera
        wait_until(
            lambda: all(self.peer.count_publishers(name) for name in names), "the node publishes"
        )
        outputs = self.node._session.cameras[""].publishers._publishers.values()
        wait_until(
            lambda: sum(p.get_subscription_count() for p in outputs) >= len(names),
            "the node knows its subscribers",
        )

    def new_image(self) -> Image:
        """The next rgb8 image, 0.1 s after the last."""
        self._stamp += 1
        message = Image()
        message.header.frame_id = "camera_optical_frame"
        message.header.stamp.sec, message.header.stamp.nanosec = (
            self._stamp // 10,
            (self._stamp % 10 * 100_000_000 + 7),
        )
        rgb = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
        return ImageBuffer().fill(message.header, rgb, "rgb8")

    def new_camera_info(self, image: Image) -> CameraInfo:
        """Its calibration."""
        info = CameraInfo(header=image.header, width=WIDTH, height=HEIGHT)
        info.k = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
        info.p = [50.0, 0.0, 32.0, 0.0, 0.0, 50.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def new_sensor_depth(self, image: Image) -> Image:
        """Its sparse depth."""
        return ImageBuffer().fill(image.header, sensor_millimetres(), "16UC1")

    def show(
        self,
        image: Image | None = None,
        *,
        camera_info: CameraInfo | str | None = "its own",
        sensor: Image | str | None = "its own",
    ) -> Image:
        """Publish a frame as a depth camera does: calibration and sensor depth, then the image.

        An active node has the two before the image is published, however slow the machine is.
        """
        image = image or self.new_image()
        if camera_info == "its own":
            camera_info = self.new_camera_info(image)
        if sensor == "its own":
            sensor = self.new_sensor_depth(image)
        if camera_info is not None:
            self.camera_info.publish(camera_info)
        if sensor is not None:
            self.sensor.publish(sensor)
        session = self.node._session
        if (
            session is not None
            and self.sensor.get_subscription_count() > 0
            and "" in session.cameras
        ):
            inputs = session.cameras[""].inputs
            if camera_info is not None:
                self._wait_until_stored(lambda: inputs._camera_infos, camera_info)
            if sensor is not None:
                self._wait_until_stored(lambda: inputs._sensors["image"], sensor)
        self.image.publish(image)
        return image

    def sense(self, sensor: Sensor, message: Any) -> None:
        """Publish a sensor's message, and wait until the node has it.

        Of the first message of a sensor the node knows nothing: it would not wait for it.
        """
        publishers = {"image": self.sensor, "points": self.points, "scan": self.scan}
        publishers[sensor].publish(message)
        inputs = self.node._session.cameras[""].inputs
        self._wait_until_stored(lambda: inputs._sensors[sensor], message)

    def _wait_until_stored(self, stored: Callable[[], Iterable[Any]], message: Any) -> None:
        stamp = stamp_ns(message.header)
        wait_until(
            lambda: stamp in [stamp_ns(m.header) for m in list(stored())],
            f"the node has {type(message).__name__}",
        )

    def answers(self, topic: str, header: Any) -> list[Any]:
        """What came on an output with this very header."""
        return [m for m in self.received[topic] if m.header == header]

    def wait_for(self, topic: str, header: Any) -> Any:
        """The output of the frame with this header."""
        wait_until(lambda: self.answers(topic, header), f"{topic} of {header.stamp}")
        return self.answers(topic, header)[0]

    def scale_after(self, action: Callable[[], object]) -> Any:
        """The `~/scale` message that an action brings about.

        It has no stamp: so first, nothing is under way any more.
        """

        def quiet() -> bool:
            now = self.statistics.snapshot()
            return (
                dealt_with(now) == now.received and len(self.received[SCALE_TOPIC]) == now.published
            )

        wait_until(quiet, "earlier frames are done")
        before = len(self.received[SCALE_TOPIC])
        action()
        wait_until(lambda: len(self.received[SCALE_TOPIC]) > before, "a scale message")
        return self.received[SCALE_TOPIC][before]

    def settle(self, received: int) -> Snapshot:
        """Wait until every one of `received` images has been dealt with."""
        wait_until(
            lambda: dealt_with(self.statistics.snapshot()) == received,
            f"{received} images are dealt with, {self.statistics.snapshot()}",
        )
        return self.statistics.snapshot()

    def said(self, *words: str) -> list[str]:
        """The log lines of the node that have all of the words."""
        return [line for line in self.lines if all(word in line for word in words)]

    def wait_for_line(self, *words: str) -> str:
        """The log line with these words; it must be a single line."""
        wait_until(lambda: self.said(*words), f"a log line with {words} among {self.lines}")
        assert "\n" not in self.said(*words)[0]
        return self.said(*words)[0]

    def wait_for_status(self, level: bytes, *words: str) -> DiagnosticStatus:
        """The next status of this level whose message has all of the words."""
        began = len(self.statuses)

        def matching() -> list[DiagnosticStatus]:
            return [
                status
                for status in self.statuses[began:]
                if status.level == level and all(word in status.message for word in words)
            ]

        wait_until(matching, f"a status with {words}, the latest: {self.statuses[-1:]}")
        return matching()[0]

    def state(self) -> str:
        """The lifecycle state, asked for over its service."""
        return self._call(GetState, "get_state", GetState.Request()).current_state.label

    def change(self, transition: str) -> bool:
        """Ask for a transition over its service."""
        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self._call(ChangeState, "change_state", request).success

    def _call(self, kind: type, name: str, request: Any) -> Any:
        client = self.peer.create_client(kind, f"predictor/{name}")
        assert client.wait_for_service(PATIENCE_S)
        future = client.call_async(request)
        wait_until(future.done, f"{name} answers")
        self.peer.destroy_client(client)
        return future.result()

    def _on_output(self, topic: str, message: Any) -> None:
        self.received[topic].append(message)

    def _on_log(self, message: Log) -> None:
        if message.name == f"{self.namespace[1:]}.predictor":
            self.lines.append(message.msg)


def changed_settings(robot: Robot) -> Iterator[Callable[..., None]]:
    """Body of a fixture that sets parameters, `points__stride=2`, and puts them back afterwards."""
    before: dict[str, Any] = {}

    def change(values: dict[str, Any]) -> None:
        answer = robot.node.set_parameters_atomically(
            [Parameter(name, value=value) for name, value in values.items()]
        )
        assert answer.successful, answer.reason

    def remember_and_change(**values: Any) -> None:
        named = {name.replace("__", "."): value for name, value in values.items()}
        before.update(
            {name: robot.node.get_parameter(name).value for name in named.keys() - before}
        )
        change(named)

    yield remember_and_change
    change(before)


def dealt_with(snapshot: Snapshot) -> int:
    """Images that have met their fate."""
    return snapshot.published + snapshot.dropped + snapshot.refused + snapshot.idle


def ros_context() -> Iterator[None]:
    """rclpy for the tests of a module; conftest.py has set the domain."""
    rclpy.init()
    yield
    rclpy.shutdown()

"""Several cameras in one node over real DDS: own topics and scale, one batch, nobody held up."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from helpers.ros_harness import (
    HEIGHT,
    WIDTH,
    Robot,
    StandIn,
    ros_context,
    sensor_millimetres,
)
from helpers.waiting import PATIENCE_S, wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool

from d3_ros.messages.images import ImageBuffer
from d3_ros.types import D3Prediction, Task

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

NAMES = ("front", "rear")


class BatchNetwork(StandIn):
    """Notes how many images came together."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def predict_batch(
        self, images: Sequence[np.ndarray], tasks: Iterable[Task] | None = None
    ) -> list[D3Prediction]:
        self.batches.append(len(images))
        return super().predict_batch(images, tasks)


class Cameras(Robot):
    """A node with two cameras; each publishes below its own name."""

    def __init__(self, network: StandIn | None = None, **parameters: object) -> None:
        super().__init__(
            network,
            topics=(),
            parameters={"cameras": list(NAMES), "input.wait": 0.3, **parameters},
            start=False,
        )
        self.pub = {
            (name, topic): self.peer.create_publisher(kind, f"{name}/{topic}", 5)
            for name in NAMES
            for topic, kind in (
                ("image", Image),
                ("camera_info", CameraInfo),
                ("sensor_depth/image", Image),
            )
        }
        self.depth: dict[str, list[Image]] = {name: [] for name in NAMES}
        self.relative: dict[str, list[Image]] = {name: [] for name in NAMES}
        for name in NAMES:
            for topic, store in (("image", self.depth), ("relative", self.relative)):
                self.peer.create_subscription(
                    Image, f"predictor/{name}/depth/{topic}", store[name].append, 10
                )
        assert self.change("configure")
        assert self.change("activate")
        wait_until(lambda: all(p.get_subscription_count() for p in self.pub.values()), "inputs")
        wait_until(
            lambda: all(
                sum(p.get_subscription_count() for p in camera.publishers._publishers.values()) >= 2
                for camera in self.node._session.cameras.values()
            ),
            "outputs",
        )

    def show_camera(self, name: str, *, factor: float | None = 1.0) -> Image:
        """An image with its calibration and, times a factor, its sensor depth."""
        image = self.new_image()
        image.header.frame_id = f"{name}_optical_frame"
        self.pub[name, "camera_info"].publish(self.new_camera_info(image))
        if factor is not None:
            depth = np.rint(sensor_millimetres() * factor).astype(np.uint16)
            self.pub[name, "sensor_depth/image"].publish(
                ImageBuffer().fill(image.header, depth, "16UC1")
            )
        self.pub[name, "image"].publish(image)
        return image


def metres(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.float32).reshape(HEIGHT, WIDTH)


def test_each_camera_has_its_topics_and_its_scale() -> None:
    with Cameras() as robot:
        for _ in range(3):
            front = robot.show_camera("front", factor=1.0)
            rear = robot.show_camera("rear", factor=2.0)
            for name, image in (("front", front), ("rear", rear)):
                wait_until(
                    lambda n=name, i=image: any(m.header == i.header for m in robot.relative[n]),
                    f"{name} answers",
                )
        wait_until(lambda: robot.depth["front"] and robot.depth["rear"], "metres of both")
        ratio = metres(robot.depth["rear"][-1]) / metres(robot.depth["front"][-1])
        np.testing.assert_allclose(ratio, 2.0, rtol=0.02)
        assert {m.header.frame_id for m in robot.depth["rear"]} == {"rear_optical_frame"}
        assert {m.header.frame_id for m in robot.depth["front"]} == {"front_optical_frame"}
        topics = dict(robot.peer.get_topic_names_and_types())
        assert f"{robot.namespace}/predictor/front/points" in topics
        assert f"{robot.namespace}/predictor/points" not in topics
        assert f"{robot.namespace}/image" not in {s.topic_name for s in robot.node.subscriptions}


def test_images_that_wait_together_go_through_the_network_together() -> None:
    network = BatchNetwork()
    go_on = threading.Event()
    network.before = lambda: go_on.wait(PATIENCE_S) and None
    with Cameras(network) as robot:
        robot.show_camera("front")
        wait_until(lambda: network.batches, "the first is in the network")
        received = robot.node.statistics
        for count in (1, 2):  # one by one: the node keeps the last one that it has not fetched
            robot.show_camera("front")
            robot.show_camera("rear")
            wait_until(
                lambda n=count: [received[c].snapshot().received for c in NAMES] == [n + 1, n],
                "both are there",
            )
        go_on.set()
        wait_until(lambda: len(robot.relative["rear"]) == 1, "the rear camera's newest")
        wait_until(lambda: len(robot.relative["front"]) == 2, "the front camera's newest")
        assert network.batches == [1, 2]
        wait_until(  # a frame counts after its messages have left
            lambda: [received[n].snapshot().published for n in NAMES] == [2, 1], "all are counted"
        )
        assert [received[n].snapshot().dropped for n in NAMES] == [1, 1]


def test_a_dead_camera_and_a_bad_one_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rear camera's sensor depth never comes and its image is broken; the front goes on."""
    with Cameras() as robot:
        for _ in range(2):  # the rear camera's sensor is alive, so it will be waited for
            robot.show_camera("rear")
            wait_until(lambda: robot.relative["rear"], "the rear camera works")
        robot.show_camera("front")
        wait_until(lambda: len(robot.relative["front"]) == 1, "the front camera works")
        with monkeypatch.context() as patch:  # while the clock stands, a wait does not end
            clock = SimpleNamespace(**{**vars(time), "monotonic": partial(float, time.monotonic())})
            patch.setattr("d3_ros.ros.node.frame_processor.time", clock)
            late = robot.show_camera("rear", factor=None)
            for count in range(2, 5):
                robot.show_camera("front")
                wait_until(lambda n=count: len(robot.relative["front"]) == n, "the front goes on")
            assert not any(m.header == late.header for m in robot.relative["rear"])
        wait_until(lambda: any(m.header == late.header for m in robot.relative["rear"]), "it came")
        broken = robot.new_image()
        broken.data = array.array("B", b"123")
        robot.pub["rear", "image"].publish(broken)
        robot.wait_for_line(f"'{robot.namespace}/rear/image'", "bytes of data, got 3")
        header = robot.show_camera("front").header
        wait_until(lambda: any(m.header == header for m in robot.relative["front"]), "alive")


def test_a_fast_camera_does_not_starve_a_slow_one() -> None:
    network = StandIn()
    network.before = lambda: time.sleep(0.05)
    with Cameras(network, **{"input.wait": 0.0}) as robot:
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                robot.show_camera("front", factor=None)
                time.sleep(0.005)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            for count in range(1, 6):
                robot.show_camera("rear", factor=None)
                wait_until(lambda n=count: len(robot.relative["rear"]) == n, "rear")
        finally:
            stop.set()
            flooding.join()
        wait_until(
            lambda: all(
                (s := robot.node.statistics[n].snapshot()).received
                == s.published + s.dropped + s.refused + s.idle
                for n in NAMES
            ),
            "every image has met its fate",
        )
        assert robot.node.statistics["front"].snapshot().dropped > 0


def test_diagnostics_name_each_camera() -> None:
    with Cameras() as robot:
        arrays: list[DiagnosticArray] = []
        robot.peer.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 5)
        robot.show_camera("front")

        def tasks() -> set[str]:
            prefix = f"{robot.namespace[1:]}/predictor: "
            return {
                status.name.removeprefix(prefix)
                for array_ in arrays
                for status in array_.status
                if status.name.startswith(prefix)
            }

        expected = {"front frames", "front scale", "rear frames", "rear scale", "network"}
        wait_until(lambda: tasks() == expected, f"{expected}")


def test_pausing_and_going_on() -> None:
    with Cameras() as robot:

        def enable(on: bool) -> Any:
            return robot._call(SetBool, "enable", SetBool.Request(data=on))

        assert enable(False).message == "paused: images are not processed"
        robot.show_camera("front")
        wait_until(lambda: robot.node.statistics["front"].snapshot().idle == 1, "passed over")
        assert robot.network.asked == []
        # A pause outlives a new start.
        for transition in ("deactivate", "cleanup", "configure"):
            assert robot.change(transition)
        assert not robot.node._session.cameras["front"].state.enabled
        assert enable(True).success
        assert robot.change("activate")
        wait_until(lambda: all(p.get_subscription_count() for p in robot.pub.values()), "inputs")
        wait_until(
            lambda: (
                sum(
                    p.get_subscription_count()
                    for p in robot.node._session.cameras["front"].publishers._publishers.values()
                )
                >= 2
            ),
            "outputs",
        )
        robot.show_camera("front")
        wait_until(lambda: robot.relative["front"], "it works again")

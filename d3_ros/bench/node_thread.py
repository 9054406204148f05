"""What the node's thread costs per frame without the network, stage by stage.

The node is the real one; a stand-in for the network answers at once. A camera and a subscriber run
in a second process (`camera_peer`), over the same DDS as on a robot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from d3_ros.bench.camera_peer import NAMESPACE, camera_names, relative_depth
from d3_ros.bench.naive_conversion import NaiveNode, why_not
from d3_ros.bench.ready_messages import ReadyMessages
from d3_ros.errors import DataError
from d3_ros.network.inference.latency import LatencyState
from d3_ros.ros.child_processes import free_domain, only_this_machine, shipped
from d3_ros.ros.fast_dds import profile_variables
from d3_ros.ros.node.diagnostics.statistics import StageTimes, median_and_p95
from d3_ros.ros.node.frame_processor import NETWORK, WAITING, WORKING
from d3_ros.ros.node.predictor_node import PredictorNode
from d3_ros.ros.topics import DEPTH, DEPTH_INFO, NORMALS, POINTS
from d3_ros.types import D3Prediction, Task

TOPICS = (DEPTH, DEPTH_INFO, NORMALS, POINTS)
SCALE = {"scale alignment", "metric depth"}
START_S = 60.0
Report = dict[str, Any]


class StandIn:
    """Answers like a network, after a while or at once, with the same arrays each time."""

    def __init__(
        self, width: int, height: int, tasks: tuple[Task, ...], takes_s: float = 0.0
    ) -> None:
        self.tasks = tasks
        self.takes_s = takes_s
        self.precision = "fp32"
        self.latency: dict[tuple[int, int], LatencyState] = {}  # there is no target
        self._depth = relative_depth(width, height)
        normals = np.random.default_rng(2).normal(size=(height, width, 3)).astype(np.float32)
        self._normals = normals / np.linalg.norm(normals, axis=2, keepdims=True)

    def __call__(self, rgb: np.ndarray, tasks: Iterable[Task] | None = None) -> D3Prediction:
        """The arrays of the tasks asked for."""
        wanted = self.tasks if tasks is None else tuple(tasks)
        return D3Prediction(
            depth=self._depth if "depth" in wanted else None,
            normals=self._normals if "normals" in wanted else None,
        )

    def predict_batch(
        self, images: Sequence[np.ndarray], tasks: Iterable[Task] | None = None
    ) -> list[D3Prediction]:
        """The same for each image."""
        if self.takes_s > 0:
            time.sleep(self.takes_s)
        return [self(rgb, tasks) for rgb in images]

    def processing_size(self, task: Task, image_size: tuple[int, int]) -> tuple[int, int]:
        """The image's own."""
        return image_size


def bench_node(
    width: int,
    height: int,
    seconds: float,
    rate_hz: float,
    *,
    points_normals: bool = True,
    normals_from_network: bool = True,
    cameras: int = 1,
) -> Report:
    """Depth, camera_info, normals and the cloud of every pixel, all subscribed to.

    Args:
        width: columns of the image.
        height: rows of the image.
        seconds: how long the cameras publish.
        rate_hz: how fast, each.
        points_normals: the node's parameter points.normals, 32 bytes a point instead of 16.
        normals_from_network: or else computed from the metric depth.
        cameras: how many, in one node.

    Returns:
        Times in milliseconds: of the node's thread without the network, per frame of one camera and
        per stage; what the subscriber saw.

    Raises:
        DataError: the cameras' process ended without an answer, or the node had none.
    """
    tasks: tuple[Task, ...] = ("depth", "normals") if normals_from_network else ("depth",)
    network = StandIn(width, height, tasks)
    parameters = {"points.normals": points_normals, "cameras": camera_names(cameras)}
    with _node(network, parameters) as (node, spin):
        subscriber = _run_peer(spin, width, height, seconds, rate_hz, cameras)
    # Only now: the node is closed, so no frame is half measured.
    return {
        **_counts(node),
        **_times([statistics.stage for statistics in node.statistics.values()]),
        "subscriber": subscriber,
    }


def bench_overload(
    width: int, height: int, seconds: float, rate_hz: float, inference_s: float
) -> Report:
    """A camera that is much faster than the network: how old the output gets, and what it costs.

    Args:
        width: columns of the image.
        height: rows of the image.
        seconds: how long the camera publishes.
        rate_hz: how fast.
        inference_s: how long the network takes.

    Returns:
        What became of the frames; age of the output at the subscriber in milliseconds; the node's
        resident memory in MiB after a fifth of the time and at the end.

    Raises:
        DataError: the camera's process ended without an answer, or the node had none.
    """
    started = time.monotonic()
    memory: list[tuple[float, float]] = []
    network = StandIn(width, height, ("depth", "normals"), inference_s)
    with _node(network, {}) as (node, spin):

        def spin_and_watch() -> None:
            spin()
            now = time.monotonic() - started
            if not memory or now - memory[-1][0] > 0.5:
                memory.append((now, resident_mib()))

        subscriber = _run_peer(spin_and_watch, width, height, seconds, rate_hz)
    early = next((mib for at, mib in memory if at > 0.2 * seconds), memory[-1][1])
    return {
        **_counts(node),
        "inference_ms": inference_s * 1e3,
        "age_ms": subscriber["latency_ms"],
        "memory_mib": {"early": round(early, 1), "late": round(memory[-1][1], 1)},
        "subscriber": subscriber,
    }


def resident_mib() -> float:
    """This process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def _node(
    network: StandIn, parameters: dict[str, Any]
) -> Iterator[tuple[PredictorNode, Callable[[], None]]]:
    """An active node with this network, and what spins it a little."""
    nodes: list[PredictorNode] = []

    def make() -> PredictorNode:
        node = PredictorNode(
            load=lambda settings, say: network,
            namespace=NAMESPACE,
            parameter_overrides=[Parameter(name, value=v) for name, v in parameters.items()],
        )
        nodes.append(node)
        node.start()
        return node

    with _spinning(make, PredictorNode.close) as spin:
        yield nodes[0], spin


def _counts(node: PredictorNode) -> Report:
    """What became of the frames of all cameras of a closed node.

    Raises:
        DataError: nothing was published.
    """
    snapshots = [statistics.snapshot() for statistics in node.statistics.values()]
    faults = [snapshot.fault for snapshot in snapshots if snapshot.fault]
    names = ("received", "published", "dropped", "refused", "idle")
    counts = {name: sum(getattr(snapshot, name) for snapshot in snapshots) for name in names}
    if faults or counts["published"] == 0:
        raise DataError(f"the node published nothing: {(faults or ['no image arrived'])[0]}")
    return counts


def bench_ready(width: int, height: int, seconds: float, rate_hz: float, normals: bool) -> Report:
    """The least it takes: ready messages of the same types, sizes and QoS at every image.

    Args:
        width: columns of the image.
        height: rows of the image.
        seconds: how long the camera publishes.
        rate_hz: how fast.
        normals: whether the cloud has normals.

    Raises:
        DataError: the camera's process ended without an answer.
    """
    nodes: list[ReadyMessages] = []

    def make() -> ReadyMessages:
        nodes.append(ReadyMessages(width, height, normals))
        return nodes[0]

    return _simple(make, nodes, width, height, seconds, rate_hz)


def bench_naive(width: int, height: int, seconds: float, rate_hz: float) -> Report:
    """The same work done with cv_bridge and sensor_msgs_py, without alignment and diagnostics.

    Raises:
        DataError: one of them is missing, or the camera's process ended without an answer.
    """
    if reason := why_not():
        raise DataError(f"the usual way cannot be measured here: {reason}")
    prediction = StandIn(width, height, ("depth", "normals"))(np.empty((height, width, 3)))
    nodes: list[NaiveNode] = []

    def make() -> NaiveNode:
        nodes.append(NaiveNode(prediction))
        return nodes[0]

    return _simple(make, nodes, width, height, seconds, rate_hz)


def _simple(
    make: Callable[[], NaiveNode | ReadyMessages],
    nodes: Sequence[NaiveNode | ReadyMessages],
    width: int,
    height: int,
    seconds: float,
    rate_hz: float,
) -> Report:
    """The times of a node that does everything in its callback for images."""
    with _spinning(make, lambda node: None) as spin:
        subscriber = _run_peer(spin, width, height, seconds, rate_hz)
    if not (ms := nodes[0].ms):
        raise DataError("the benchmark's node received no image: give it more --seconds")
    return {
        "node_thread_ms": {"all": _row(median_and_p95(ms[len(ms) // 10 :]))},
        "subscriber": subscriber,
    }


@contextmanager
def _spinning(
    make: Callable[[], Any], close: Callable[[Any], object]
) -> Iterator[Callable[[], None]]:
    """Start rclpy and one node; gives a function that spins the node once, at most 0.1 s.

    The ROS domain is one that nobody uses, on this machine only: a robot's own must not get the
    benchmark's images.
    """
    before = dict(os.environ)
    os.environ.update(ROS_DOMAIN_ID=str(free_domain()), **only_this_machine())
    os.environ.update(profile_variables(shipped("config/fastdds.xml"), os.environ))
    rclpy.init()
    executor = SingleThreadedExecutor()
    node: Node | None = None
    try:
        node = make()
        executor.add_node(node)
        yield lambda: executor.spin_once(timeout_sec=0.1)
    finally:
        if node is not None:
            close(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _run_peer(
    spin: Callable[[], None],
    width: int,
    height: int,
    seconds: float,
    rate_hz: float,
    cameras: int = 1,
) -> Report:
    """Spin while the process of the cameras runs; its answer."""
    peer = subprocess.Popen(
        [
            *(sys.executable, "-m", "d3_ros.bench.camera_peer"),
            *("--width", str(width), "--height", str(height)),
            *("--seconds", str(seconds), "--rate", str(rate_hz), "--topics", *TOPICS),
            *("--cameras", str(cameras)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + seconds + START_S
    try:
        while peer.poll() is None and time.monotonic() < deadline:
            spin()
    finally:
        peer.kill()
        answer, _ = peer.communicate()
    if not answer.strip():
        raise DataError("the benchmark's camera process ended without an answer, see above")
    return json.loads(answer)


def _times(stages: Sequence[StageTimes]) -> Report:
    """Per frame, waiting for messages and the network left out; and per stage."""
    all_frames = [frame for stage in stages for frame in stage.frames]
    frames = [frame for frame in all_frames if frame.keys() >= SCALE]  # the first lack a scale
    work = [frame[WORKING] - frame[NETWORK] for frame in frames]
    # The alignment with its local correction has a budget of its own.
    without = [
        ms - sum(frame[name] for name in SCALE) for ms, frame in zip(work, frames, strict=True)
    ]
    left_out = (WAITING, WORKING, NETWORK)
    names = dict.fromkeys(name for frame in all_frames for name in frame if name not in left_out)
    return {
        "node_thread_ms": {
            "all": _row(median_and_p95(work)),
            "without the scale": _row(median_and_p95(without)),
        },
        "stages_ms": {
            name: _row(median_and_p95([frame[name] for frame in all_frames if name in frame]))
            for name in names
        },
    }


def _row(p50_p95: tuple[float, float]) -> dict[str, float]:
    return {"p50": round(p50_p95[0], 3), "p95": round(p50_p95[1], 3)}

"""Message to message, all but the network: what the node's thread costs, stage by stage.

The node is the real one, with a stand-in for the network that answers at once; a camera and a
subscriber run beside it in a process of their own (`bench_peer`), over the same DDS as on a robot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from d3_ros.demo.processes import free_domain, has_shared_memory, shipped
from d3_ros.errors import DataError
from d3_ros.ros.bench_naive import NaiveNode, why_not
from d3_ros.ros.bench_peer import NAMESPACE, relative_depth
from d3_ros.ros.frame_processor import WAITING, WORKING
from d3_ros.ros.predictor_node import PredictorNode
from d3_ros.ros.statistics import FrameStatistics, StageTimes, median_and_p95
from d3_ros.ros.topics import DEPTH, DEPTH_INFO, NORMALS, POINTS
from d3_ros.types import D3Prediction, Task

TOPICS = (DEPTH, DEPTH_INFO, NORMALS, POINTS)
NETWORK, SCALE = "network", {"scale alignment", "metric depth"}
START_S = 60.0
Report = dict[str, Any]


class StandIn:
    """Answers like a network, at once, with the same arrays each time."""

    def __init__(self, width: int, height: int, tasks: tuple[Task, ...]) -> None:
        self.tasks = tasks
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


def bench_node(
    width: int,
    height: int,
    seconds: float,
    rate_hz: float,
    *,
    points_normals: bool = True,
    normals_from_network: bool = True,
) -> Report:
    """Depth, camera_info, normals and the cloud of every pixel, all subscribed to.

    Args:
        width: columns of the image.
        height: rows of the image.
        seconds: how long the camera publishes.
        rate_hz: how fast.
        points_normals: the node's parameter points.normals, 32 bytes a point instead of 16.
        normals_from_network: or else computed from the metric depth.

    Returns:
        Times in milliseconds: of the node's thread without the network, per frame and per stage;
        what the subscriber saw.

    Raises:
        DataError: the camera's process ended without an answer, or the node had none.
    """
    tasks: tuple[Task, ...] = ("depth", "normals") if normals_from_network else ("depth",)
    statistics = FrameStatistics()

    def make() -> PredictorNode:
        node = PredictorNode(
            load=lambda settings, say: StandIn(width, height, tasks),
            statistics=statistics,
            namespace=NAMESPACE,
            parameter_overrides=[Parameter("points.normals", value=points_normals)],
        )
        node.start()
        return node

    with _spinning(make, PredictorNode.close) as spin:
        subscriber = _run_peer(spin, width, height, seconds, rate_hz)
    # Only now: the node is closed, so no frame is half measured.
    snapshot = statistics.snapshot()
    if snapshot.fault or snapshot.published == 0:
        raise DataError(f"the node published nothing: {snapshot.fault or 'no image arrived'}")
    return {
        "received": snapshot.received,
        "published": snapshot.published,
        "dropped": snapshot.dropped,
        **_times(statistics.stage),
        "subscriber": subscriber,
    }


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

    with _spinning(make, lambda node: None) as spin:
        subscriber = _run_peer(spin, width, height, seconds, rate_hz)
    times = _row(median_and_p95(nodes[0].ms[len(nodes[0].ms) // 10 :]))
    return {"node_thread_ms": {"all": times}, "subscriber": subscriber}


@contextmanager
def _spinning(
    make: Callable[[], Any], close: Callable[[Any], object]
) -> Iterator[Callable[[], None]]:
    """rclpy and one node, in a domain of their own; gives what spins the node a little."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(free_domain()))
    profile = shipped("config/fastdds.xml")
    if profile is not None and has_shared_memory():
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
            os.environ.setdefault(name, str(profile))
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


def _run_peer(
    spin: Callable[[], None], width: int, height: int, seconds: float, rate_hz: float
) -> Report:
    """Spin while the camera's process runs; its answer."""
    peer = subprocess.Popen(
        [
            *(sys.executable, "-m", "d3_ros.ros.bench_peer"),
            *("--width", str(width), "--height", str(height)),
            *("--seconds", str(seconds), "--rate", str(rate_hz), "--topics", *TOPICS),
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


def _times(stage: StageTimes) -> Report:
    """Per frame, waiting for messages and the network left out; and per stage."""
    frames = [frame for frame in stage.frames if frame.keys() >= SCALE]  # the first lack a scale
    work = [frame[WORKING] - frame[NETWORK] for frame in frames]
    # The alignment with its local correction has a budget of its own.
    without = [
        ms - sum(frame[name] for name in SCALE) for ms, frame in zip(work, frames, strict=True)
    ]
    stages = stage.percentiles().items()
    left_out = (WAITING, WORKING, NETWORK)
    return {
        "node_thread_ms": {
            "all": _row(median_and_p95(work)),
            "without the scale": _row(median_and_p95(without)),
        },
        "stages_ms": {name: _row(times) for name, times in stages if name not in left_out},
    }


def _row(p50_p95: tuple[float, float]) -> dict[str, float]:
    return {"p50": round(p50_p95[0], 3), "p95": round(p50_p95[1], 3)}

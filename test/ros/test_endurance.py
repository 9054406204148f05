"""The node over a long time: nothing grows, nothing is lost.

The long part runs for D3_ROS_ENDURANCE_S seconds and is skipped without it:

    D3_ROS_ENDURANCE_S=600 python -m pytest -s test/ros/test_endurance.py
"""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.ros_harness import Robot, dealt_with, ros_context
from helpers.waiting import wait_until
from rclpy.lifecycle import TransitionCallbackReturn

from d3_ros.ros.topics import DEPTH, POINTS, RELATIVE

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

VARIABLE = "D3_ROS_ENDURANCE_S"
SECONDS = float(os.environ.get(VARIABLE, "0"))
CYCLES, WARM_UP = (200, 20) if SECONDS else (12, 4)
# More growth than this over the run, with 95 % confidence, is a leak. The allocator alone moves by
# a few MiB: the longer a run, the smaller the leak that it finds.
MOST_GROWTH_MIB = 5.0


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def slope_with_interval(times_s: list[float], values: list[float]) -> tuple[float, float]:
    """Least-squares slope per second, and half of its 95 % interval.

    Neighbouring samples are not independent: the interval is by means of ten blocks.
    """
    blocks = [block for block in np.array_split(np.arange(len(times_s)), 10) if len(block)]
    t = np.array([np.mean([times_s[i] for i in block]) for block in blocks])
    v = np.array([np.mean([values[i] for i in block]) for block in blocks])
    coefficients, covariance = np.polyfit(t, v, 1, cov=True)
    return float(coefficients[0]), float(2.31 * np.sqrt(covariance[0, 0]))  # Student, 8 degrees


def test_the_slope_of_a_line_is_found_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    times = list(np.linspace(0.0, 100.0, 200))
    values = [3.0 + 0.5 * t + n for t, n in zip(times, rng.normal(0, 1, 200), strict=True)]
    slope, half = slope_with_interval(times, values)
    assert abs(slope - 0.5) < half < 0.05


def test_lifecycle_cycles_leave_nothing_behind() -> None:
    """Threads, descriptors, publishers and subscriptions are as many as before."""
    with Robot(topics=(RELATIVE,), start=False) as robot:

        def resources() -> tuple[int, int, int, int]:
            gc.collect()
            node = robot.node
            return (
                threading.active_count(),
                descriptors(),
                len(list(node.publishers)),
                len(list(node.subscriptions)),
            )

        counts = []
        for _ in range(CYCLES):
            for transition in ("configure", "activate"):
                assert robot.change(transition)
            robot.wait_until_connected()
            robot.wait_for(RELATIVE, robot.show().header)
            for transition in ("deactivate", "cleanup"):
                assert robot.change(transition)
            counts.append(resources())
        print(f"threads, descriptors, publishers, subscriptions: {counts[WARM_UP]} to {counts[-1]}")
        assert counts[-1] == counts[WARM_UP]
        assert robot.node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS


@pytest.mark.skipif(not SECONDS, reason=f"takes as long as {VARIABLE} says")
def test_memory_does_not_grow_and_no_frame_is_lost() -> None:
    times, memory = [], []
    with Robot(topics=(RELATIVE, DEPTH, POINTS)) as robot:
        began = time.monotonic()
        threads = descriptors_before = 0
        while (now := time.monotonic() - began) < SECONDS:
            robot.show()
            for messages in robot.received.values():
                messages.clear()
            robot.lines.clear()
            robot.statuses.clear()
            time.sleep(0.02)
            if now > 0.2 * SECONDS:  # after the allocator has what it needs
                if not times:
                    threads, descriptors_before = threading.active_count(), descriptors()
                times.append(now)
                memory.append(resident_mib())
        wait_until(
            lambda: (s := robot.statistics.snapshot()).received == dealt_with(s), "all are counted"
        )
        snapshot = robot.statistics.snapshot()
        after = (threading.active_count(), descriptors())
    slope, half = (3600 * x for x in slope_with_interval(times, memory))
    print(
        f"{snapshot.received} received = {snapshot.published} published + {snapshot.dropped} "
        f"dropped + {snapshot.refused} refused + {snapshot.idle} idle; memory {memory[0]:.1f} to "
        f"{memory[-1]:.1f} MiB, {slope:+.2f} +- {half:.2f} MiB an hour; threads {threads} to "
        f"{after[0]}, descriptors {descriptors_before} to {after[1]}"
    )
    assert snapshot.received > 0
    assert after == (threads, descriptors_before)
    assert (slope - half) / 3600 * (times[-1] - times[0]) < MOST_GROWTH_MIB

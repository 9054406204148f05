"""Rate caps: never above the cap, and at it when frames come often enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3_ros.ros.node.outputs.rate_caps import RateCaps

pytestmark = pytest.mark.ros


def sent_at(times: list[float], rate: float) -> list[float]:
    caps, sent = RateCaps(), []
    for now in times:
        if caps.due("a", rate, now):
            caps.sent("a", rate, now)
            sent.append(now)
    return sent


def test_no_cap_sends_every_frame() -> None:
    assert sent_at([0.0, 0.001, 0.002], 0.0) == [0.0, 0.001, 0.002]


@pytest.mark.parametrize(("camera_hz", "cap_hz"), [(10, 5), (30, 15), (30, 10), (30, 7), (15, 2)])
def test_frames_that_come_unevenly_reach_the_cap(camera_hz: float, cap_hz: float) -> None:
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, 1000)
    times = ((np.arange(1000) + jitter) / camera_hz).tolist()
    assert len(sent_at(times, cap_hz)) == pytest.approx(1000 * cap_hz / camera_hz, rel=0.03)


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=60), st.floats(0.1, 50.0))
def test_the_cap_is_never_exceeded(steps: list[float], rate: float) -> None:
    times = np.cumsum(steps).tolist()
    sent = sent_at(times, rate)
    assert sent[0] == times[0]
    for first in range(len(sent)):
        for last in range(first + 1, len(sent)):
            # One more than the periods, and another that was late.
            assert last - first <= (sent[last] - sent[first]) * rate + 1 + 1e-6


def test_each_output_has_its_own_cap_and_a_new_one_holds_at_once() -> None:
    caps = RateCaps()
    caps.sent("a", 0.1, 100.0)
    assert not caps.due("a", 0.1, 105.0)
    assert caps.due("b", 0.1, 105.0)
    assert caps.due("a", 1.0, 105.0)

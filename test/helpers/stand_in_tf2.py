"""tf2_ros in small, for machines without it: the calls that transforms.py makes.

Frames form a tree; between two stamps translations are interpolated and rotations are those of the
earlier one. Where a ROS installation has the real tf2_ros, the tests take that.
"""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped

from d3_ros.geometry.rigid import rigid_transform


class TransformException(Exception):  # noqa: N818 - its name in tf2_ros
    """Base of what lookups raise."""


class LookupException(TransformException):
    """A frame is unknown, or not connected."""


class ExtrapolationException(TransformException):
    """There is nothing of that time."""


class Buffer:
    """Knows transforms by their child frame."""

    def __init__(self) -> None:
        self._stored: dict[str, list[TransformStamped]] = {}
        self._static: set[str] = set()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        self._stored.setdefault(transform.child_frame_id, []).append(transform)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        self._stored[transform.child_frame_id] = [transform]
        self._static.add(transform.child_frame_id)

    def clear(self) -> None:
        self._stored = {frame: self._stored[frame] for frame in self._static}

    def can_transform(self, target: str, source: str, time: Any, timeout: Any = None) -> bool:
        try:
            self.lookup_transform(target, source, time)
        except TransformException:
            return False
        return True

    def lookup_transform(
        self, target: str, source: str, time: Any, timeout: Any = None
    ) -> TransformStamped:
        up_target, fault_target = self._way_up(target, time.nanoseconds)
        up_source, fault_source = self._way_up(source, time.nanoseconds)
        # As in tf2, only the way to the nearest common frame must be known at that time.
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            unconnected = LookupException(f'"{target}" and "{source}" are not connected')
            raise fault_target or fault_source or unconnected
        return stamped(target, source, np.linalg.inv(up_target[common]) @ up_source[common])

    def lookup_transform_full(
        self,
        target: str,
        target_time: Any,
        source: str,
        source_time: Any,
        fixed: str,
        timeout: Any = None,
    ) -> TransformStamped:
        first = matrix(self.lookup_transform(fixed, source, source_time))
        then = matrix(self.lookup_transform(target, fixed, target_time))
        return stamped(target, source, then @ first)

    def _way_up(
        self, frame: str, time_ns: int
    ) -> tuple[dict[str, np.ndarray], ExtrapolationException | None]:
        """Transforms from a frame to each of those above it, and what stopped the way."""
        total = np.eye(4)
        found = {frame: total}
        while frame in self._stored:
            stored = self._stored[frame]
            try:
                known = frame in self._static or time_ns == 0
                step = matrix(stored[-1]) if known else self._between(stored, time_ns)
            except ExtrapolationException as fault:
                return found, fault
            total, frame = step @ total, stored[-1].header.frame_id
            found[frame] = total
        return found, None

    @staticmethod
    def _between(stored: list[TransformStamped], time_ns: int) -> np.ndarray:
        for before, after in itertools.pairwise(stored):
            start, end = nanoseconds(before), nanoseconds(after)
            if start <= time_ns <= end:
                share = (time_ns - start) / (end - start)
                step = matrix(before)
                step[:3, 3] += share * (matrix(after)[:3, 3] - step[:3, 3])
                return step
        if time_ns == nanoseconds(stored[-1]):
            return matrix(stored[-1])
        raise ExtrapolationException("Lookup would require extrapolation into the future")


class TransformListener:
    """Hears nothing: tests fill the buffer."""

    buffers: list[Buffer] = []  # noqa: RUF012 - of all listeners, for the tests

    def __init__(self, buffer: Buffer, node: Any, *, spin_thread: bool) -> None:
        self.buffers.append(buffer)

    def unregister(self) -> None:
        self.buffers.clear()


def nanoseconds(transform: TransformStamped) -> int:
    stamp = transform.header.stamp
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def matrix(transform: TransformStamped) -> np.ndarray:
    t, q = transform.transform.translation, transform.transform.rotation
    return rigid_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


def stamped(target: str, source: str, transform: np.ndarray) -> TransformStamped:
    from scipy.spatial.transform import Rotation

    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = target, source
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = transform[:3, 3].tolist()
    q.x, q.y, q.z, q.w = Rotation.from_matrix(transform[:3, :3]).as_quat().tolist()
    return message


def install(monkeypatch: Any) -> ModuleType:
    """Make `import tf2_ros` give this module."""
    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return module

"""What the node has received and not yet used: calibrations and sensor depth, by stamp.

Callbacks only store. The worker asks for what belongs to an image, and waits a moment for it:
a camera's driver sends camera_info after the image, and a depth camera its depth later still.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

# Enough for a 30 Hz sensor to wait for a network that takes half a second.
KEPT = 16
# Sensor depth older than this, against the image, is not being waited for: its sensor is gone.
SENSOR_IS_GONE_NS = 1_000_000_000


def stamp_ns(header: Header) -> int:
    """A header's stamp in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


@dataclass(frozen=True)
class Companions:
    """What was found for an image; None where there is nothing."""

    camera_info: CameraInfo | None
    sensor_depth: Image | None


class Inputs:
    """Stores camera_info and sensor depth messages, and finds those that belong to an image."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._camera_infos: deque[CameraInfo] = deque(maxlen=KEPT)
        self._sensor_depths: deque[Image] = deque(maxlen=KEPT)
        self._camera_info_is_missing = False

    def store_camera_info(self, message: CameraInfo) -> None:
        """Keep a calibration; the subscription's callback."""
        with self._arrived:
            self._camera_infos.append(message)
            self._camera_info_is_missing = False
            self._arrived.notify_all()

    def store_sensor_depth(self, message: Image) -> None:
        """Keep a registered depth image; the subscription's callback."""
        with self._arrived:
            self._sensor_depths.append(message)
            self._arrived.notify_all()

    @property
    def sensor_depth_seen(self) -> bool:
        """Whether any sensor depth has arrived."""
        return bool(self._sensor_depths)

    def clear(self) -> None:
        """Forget everything, as after a deactivation."""
        with self._arrived:
            self._camera_infos.clear()
            self._sensor_depths.clear()
            self._camera_info_is_missing = False

    def companions_of(self, image: Image, *, wait_s: float, tolerance_s: float) -> Companions:
        """The camera_info and the sensor depth that belong to an image.

        The camera_info is that of the same stamp, else the newest (calibrations rarely change).
        Sensor depth is the nearest in stamp within `tolerance_s`. It is waited for, up to
        `wait_s`, only where there is something to wait for: one that can still come nearer.
        """
        stamp = stamp_ns(image.header)
        with self._arrived:
            complete = self._arrived.wait_for(lambda: self._complete(stamp), wait_s)
            # Wait for a calibration once, not with every image of a camera that has none.
            if not complete and not self._camera_infos:
                self._camera_info_is_missing = True
            return Companions(
                self._camera_info_of(stamp), self._sensor_depth_of(stamp, tolerance_s)
            )

    def _complete(self, stamp: int) -> bool:
        if not self._camera_infos and not self._camera_info_is_missing:
            return False
        if not self._sensor_depths:
            return True
        newest = stamp_ns(self._sensor_depths[-1].header)
        return newest >= stamp or stamp - newest > SENSOR_IS_GONE_NS

    def _camera_info_of(self, stamp: int) -> CameraInfo | None:
        for info in reversed(self._camera_infos):
            if stamp_ns(info.header) == stamp:
                return info
        return self._camera_infos[-1] if self._camera_infos else None

    def _sensor_depth_of(self, stamp: int, tolerance_s: float) -> Image | None:
        def difference(message: Image) -> int:
            return abs(stamp_ns(message.header) - stamp)

        nearest = min(self._sensor_depths, key=difference, default=None)
        if nearest is None or difference(nearest) > tolerance_s * 1e9:
            return None
        return nearest

"""Stores calibrations and sensor messages, and matches them with an image by stamp.

Subscription callbacks only store. The worker asks whether the messages that belong to an image have
arrived, and waits a moment for them: a camera driver sends camera_info after the image, and a depth
camera sends its depth later still.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

Sensor = Literal["image", "points", "scan"]
SENSORS: tuple[Sensor, ...] = get_args(Sensor)

# Enough for a 30 Hz sensor to wait for a network that takes half a second.
KEPT = 16
# A sensor this far behind the image is not being waited for: it is gone.
SENSOR_IS_GONE_NS = 1_000_000_000
# A stamp that goes back further than this comes from a bag that starts again.
JUMP_BACK_NS = 1_000_000_000
# The next message may come early by this share of a period.
JITTER = 0.2


def stamp_ns(header: Header) -> int:
    """A header's stamp in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


@dataclass(frozen=True)
class MatchedInputs:
    """The messages that belong to an image.

    `camera_info`: its calibration, or None. `sensors`: for each sensor that has sent anything, the
    message closest in time; no tolerance is applied.
    """

    camera_info: CameraInfo | None
    sensors: Mapping[Sensor, Any]


class InputBuffer:
    """The latest camera_info and sensor messages of one camera; may be used from any thread.

    Args:
        arrived: called after each message that was stored.
    """

    def __init__(self, arrived: Callable[[], None] = lambda: None) -> None:
        self._arrived = arrived
        self._lock = threading.Lock()
        self._camera_infos: deque[CameraInfo] = deque(maxlen=KEPT)
        self._sensors: dict[Sensor, deque[Any]] = {sensor: deque(maxlen=KEPT) for sensor in SENSORS}
        self._camera_info_is_missing = False
        self._last_image_ns = 0
        # Sensors that sent before time jumped back, and the stamp until which they may be late.
        self._awaited_until_ns: dict[Sensor, int] = {}

    def note_image(self, header: Header) -> float:
        """Note an image; return by how many seconds its stamp jumped back, 0 where it did not.

        After a jump, the stored sensor messages lie in the future, and are forgotten.
        """
        stamp = stamp_ns(header)
        with self._lock:
            jump, self._last_image_ns = self._last_image_ns - stamp, stamp
            if jump <= JUMP_BACK_NS:
                return 0.0
            for sensor, messages in self._sensors.items():
                of_now = [m for m in messages if stamp_ns(m.header) <= stamp + JUMP_BACK_NS]
                if messages and not of_now:
                    self._awaited_until_ns[sensor] = stamp + SENSOR_IS_GONE_NS
                self._sensors[sensor] = deque(of_now, maxlen=KEPT)
        return jump * 1e-9

    def store_camera_info(self, message: CameraInfo) -> None:
        """Keep a calibration; the subscription's callback."""
        with self._lock:
            self._camera_infos.append(message)
            self._camera_info_is_missing = False
        self._arrived()

    def store_sensor(self, sensor: Sensor, message: Any) -> None:
        """Keep a sensor's message, which has a header; the subscription's callback."""
        with self._lock:
            self._sensors[sensor].append(message)
            self._awaited_until_ns.pop(sensor, None)
        self._arrived()

    @property
    def sensor_depth_seen(self) -> bool:
        """Whether any sensor has sent anything."""
        return any(self._sensors.values()) or bool(self._awaited_until_ns)

    def clear(self) -> None:
        """Forget everything, as after a deactivation."""
        with self._lock:
            self._camera_infos.clear()
            for messages in self._sensors.values():
                messages.clear()
            self._camera_info_is_missing = False
            self._last_image_ns = 0
            self._awaited_until_ns.clear()

    def are_complete_for(self, image: Image | CompressedImage) -> bool:
        """Whether the messages that belong to an image have come, or are not worth waiting for.

        The first image waits for a calibration; later ones do not, since a camera without
        camera_info will not get one. A sensor is waited for where its next message is likely to be
        closer in time than its latest.
        """
        stamp = stamp_ns(image.header)
        with self._lock:
            if not self._camera_infos and not self._camera_info_is_missing:
                return False
            if any(stamp <= until for until in self._awaited_until_ns.values()):
                return False
            return not any(_may_come_nearer(messages, stamp) for messages in self._sensors.values())

    def match(self, image: Image | CompressedImage) -> MatchedInputs:
        """The camera_info and the sensor messages that belong to an image, as far as they came.

        The camera_info is that of the same stamp, else the newest (calibrations rarely change).
        """
        stamp = stamp_ns(image.header)
        with self._lock:
            self._camera_info_is_missing = not self._camera_infos
            return MatchedInputs(
                self._camera_info_of(stamp),
                {
                    sensor: min(messages, key=lambda m: abs(stamp_ns(m.header) - stamp))
                    for sensor, messages in self._sensors.items()
                    if messages
                },
            )

    def _camera_info_of(self, stamp: int) -> CameraInfo | None:
        for info in reversed(self._camera_infos):
            if stamp_ns(info.header) == stamp:
                return info
        return self._camera_infos[-1] if self._camera_infos else None


def _may_come_nearer(messages: deque[Any], stamp: int) -> bool:
    """Whether a sensor's next message is likely to be closer to `stamp` than its latest.

    Its period is the median of the latest. A sensor that has sent one message has no period yet and
    is waited for.
    """
    if not messages:
        return False
    newest = stamp_ns(messages[-1].header)
    behind = stamp - newest
    if not 0 < behind <= SENSOR_IS_GONE_NS:
        return False
    if len(messages) < 2:
        return True
    stamps = [stamp_ns(message.header) for message in messages]
    spans = sorted(later - earlier for earlier, later in pairwise(stamps))
    expected = newest + (1.0 - JITTER) * spans[len(spans) // 2]
    return expected - stamp < behind

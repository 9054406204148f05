"""Watches whether the depth edges of a LiDAR or scanner lie on the edges of the image.

The numbers are those of `bag check-calibration`. Here they are gathered while the robot drives, in
a thread of their own, from a frame every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.errors import one_line
from d3_ros.geometry.extrinsics.check import check_extrinsics
from d3_ros.geometry.extrinsics.edge_match import EdgeMatch, match_edges
from d3_ros.geometry.extrinsics.words import error_in_words
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.inputs.matched_inputs import Sensor
from d3_ros.types import CameraIntrinsics

PERIOD_S = 5.0
# A look may take this share of one CPU core: after a long one the next waits longer.
CPU_SHARE = 0.02
# Images are looked at in this width: it bounds time and memory (1.4 MB a frame).
WIDTH = 480
# So many frames are kept, with so many edges of each; a verdict needs all of them.
FRAMES, EDGES = 24, 300
# A new verdict after so many new frames; an error is told when two in a row found it.
NEW_FRAMES = 6
# A robot that stands still sees one picture: an image must differ by this share of its contrast.
MIN_MOTION, THUMBNAIL = 0.1, (32, 24)


@dataclass(frozen=True)
class PlacedCloud:
    """Points of a sensor, (N, 3) metres in its frame, and (4, 4) T_camera_sensor."""

    points: np.ndarray
    T_camera_sensor: np.ndarray


class _Evidence:
    """What was seen of one sensor; used by one thread at a time."""

    def __init__(self) -> None:
        self.matches: deque[EdgeMatch] = deque(maxlen=FRAMES)
        self.new = 0
        self.suspected = False
        self.line = ""

    def add(self, match: EdgeMatch, focal_px: float, topic: str) -> None:
        self.matches.append(match.thinned(EDGES))
        self.new += 1
        if len(self.matches) < FRAMES or self.new < NEW_FRAMES:
            return
        self.new = 0
        check = check_extrinsics(self.matches, focal_px)
        off = check.verdict == "off"
        if not off:
            self.line = ""
        elif self.suspected:
            self.line = (
                f"extrinsics of '{topic}' seem off by about "
                f"{error_in_words(check.offset, check.spread)}; run `python -m d3_ros bag "
                "check-calibration` on a recording"
            )
        self.suspected = off


class ExtrinsicsWatch:
    """Gathers depth edges of one camera's sensors and says when their calibration seems wrong.

    Args:
        topics: full name of each sensor's topic, for the message.
        log: gets a line when a look fails unexpectedly.
        period_s: least time between two looks, seconds.
    """

    def __init__(
        self, topics: Mapping[Sensor, str], log: ThrottledLogger, period_s: float = PERIOD_S
    ) -> None:
        self._topics = topics
        self._log = log
        self._period_s = period_s
        self._evidence: dict[Sensor, _Evidence] = {}
        self._thumbnail: np.ndarray | None = None
        self._due = 0.0
        self._look: threading.Thread | None = None

    @property
    def line(self) -> str:
        """What is wrong, in one line; empty while nothing is known to be."""
        return "; ".join(seen.line for seen in list(self._evidence.values()) if seen.line)

    def offer(
        self, rgb: np.ndarray, intrinsics: CameraIntrinsics, clouds: Mapping[Sensor, PlacedCloud]
    ) -> None:
        """Look at a frame in another thread, if a look is due and none is running.

        Args:
            rgb: (H, W, 3) uint8; must not change later.
            intrinsics: its camera.
            clouds: what the sensors measured at its time.
        """
        if not clouds or time.monotonic() < self._due:
            return
        if self._look is not None and self._look.is_alive():
            return
        self._due = time.monotonic() + self._period_s
        # A daemon: the end of the node does not wait for it, and it holds nothing.
        self._look = threading.Thread(
            target=self._run, args=(rgb, intrinsics, dict(clouds)), name="extrinsics", daemon=True
        )
        self._look.start()

    def reset(self) -> None:
        """Forget everything, because the sensors may have been moved."""
        self._evidence = {}

    def _run(
        self, rgb: np.ndarray, intrinsics: CameraIntrinsics, clouds: Mapping[Sensor, PlacedCloud]
    ) -> None:
        started = time.thread_time()
        try:
            self._judge(rgb, intrinsics, clouds)
        except Exception as error:  # a watch must not take the node with it
            self._log.error(f"the check of the extrinsics failed: {one_line(error)}")
        used = time.thread_time() - started
        self._due = max(self._due, time.monotonic() + used / CPU_SHARE * (self._period_s > 0))

    def _judge(
        self, rgb: np.ndarray, intrinsics: CameraIntrinsics, clouds: Mapping[Sensor, PlacedCloud]
    ) -> None:
        if not self._has_moved(rgb):
            return
        if intrinsics.width > WIDTH:
            intrinsics = intrinsics.resized(
                WIDTH, max(1, round(intrinsics.height * WIDTH / intrinsics.width))
            )
            size = (intrinsics.width, intrinsics.height)
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        evidence = self._evidence
        for sensor, cloud in clouds.items():
            match = match_edges(rgb, intrinsics, cloud.points, cloud.T_camera_sensor)
            if len(match):
                seen = evidence.setdefault(sensor, _Evidence())
                seen.add(match, intrinsics.fx, self._topics[sensor])

    def _has_moved(self, rgb: np.ndarray) -> bool:
        grey = cv2.cvtColor(
            cv2.resize(rgb, THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        ).astype(np.float32)
        last = self._thumbnail
        if last is not None and np.abs(grey - last).mean() < MIN_MOTION * max(grey.std(), 1.0):
            return False
        self._thumbnail = grey
        return True

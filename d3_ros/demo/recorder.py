"""The recorder: a process that logs every output of the node and keeps some arrays.

    python -m d3_ros.demo.recorder FOLDER [--namespace /camera] [--node predictor]

Callbacks take the time of arrival and pass the message to a second thread, which decodes and writes
it: so keeping a message does not delay the arrival of the next. Ends on SIGINT.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float32MultiArray

from d3_ros.demo.recording import (
    METRIC,
    NORMALS,
    POINTS,
    RELATIVE,
    SCALE,
    SIGMA,
    STAMPED_OUTPUTS,
    LogWriter,
    Received,
    Recording,
    Reported,
    SpreadChoice,
)
from d3_ros.errors import MessageError, one_line
from d3_ros.messages.points import cloud_fields
from d3_ros.ros.node.diagnostics.scale_report import STATES, read_scale_message
from d3_ros.ros.node.inputs.matched_inputs import stamp_ns
from d3_ros.ros.qos import LATCHED

KEPT_OUTPUTS = (RELATIVE, METRIC, SIGMA, NORMALS, POINTS)
TYPES = {"depth/camera_info": CameraInfo, POINTS: PointCloud2}


class Recorder(Node):
    """Subscribes to all outputs of one node and writes a `Recording`.

    `fault`: why arrays are not kept any longer, in one line; empty where they are.
    """

    def __init__(
        self, recording: Recording, namespace: str, predictor: str, *, frames: int, all_depth: bool
    ) -> None:
        super().__init__("recorder", namespace=namespace)
        self._recording = recording
        self._log = LogWriter(recording.received_log)
        self._choice = SpreadChoice(frames)
        self._newest_stamp = -1
        self._all_depth = all_depth
        self.fault = ""
        self._to_save: SimpleQueue[tuple[int, str, Any] | None] = SimpleQueue()
        self._saver = threading.Thread(target=self._save_all)
        self._saver.start()
        reliable = QoSProfile(depth=10)
        for topic in STAMPED_OUTPUTS:
            self.create_subscription(
                TYPES.get(topic, Image), f"{predictor}/{topic}", self._on_output(topic), reliable
            )
        for kind, topic, qos in (
            (DiagnosticStatus, f"{predictor}/status", LATCHED),
            (Float32MultiArray, f"{predictor}/{SCALE}", reliable),
            (DiagnosticArray, "/diagnostics", reliable),
        ):
            name = topic.removeprefix(f"{predictor}/")
            self.create_subscription(kind, topic, self._on_report(name), qos)

    def finish(self) -> None:
        """Write the remaining messages and close the log."""
        self._to_save.put(None)
        self._saver.join()
        self._log.close()

    def _on_output(self, topic: str) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            now = time.time_ns()
            stamp = stamp_ns(message.header)
            self._log.write(Received(topic=topic, stamp_ns=stamp, received_ns=now))
            # The first output of a new frame decides whether the frame is kept.
            if stamp > self._newest_stamp:
                self._newest_stamp = stamp
                for forgotten in self._choice.offer(stamp)[1]:
                    self._to_save.put((forgotten, "", None))
            keep = stamp in self._choice.kept or (topic == METRIC and self._all_depth)
            if topic in KEPT_OUTPUTS and keep and not self.fault:
                self._to_save.put((stamp, topic, message))

        return callback

    def _on_report(self, topic: str) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            row = Reported(topic=topic, received_ns=time.time_ns(), values=plain_values(message))
            self._log.write(row)

        return callback

    def _save_all(self) -> None:
        """The second thread: keep messages and forget frames until None comes."""
        try:
            self._save_each()
        except Exception as error:  # a full disk, say: the rest is not kept
            self.fault = one_line(error)

    def _save_each(self) -> None:
        forgettable = tuple(t for t in KEPT_OUTPUTS if not (t == METRIC and self._all_depth))
        while (item := self._to_save.get()) is not None:
            stamp, topic, message = item
            if message is None:
                self._recording.forget(stamp, forgettable)
            elif topic == POINTS:
                self._recording.save_array(stamp, topic, organised_points(message))
            else:
                self._recording.save_array(stamp, topic, pixels_from_image(message))


def pixels_from_image(message: Image) -> np.ndarray:
    """(H, W) or (H, W, 3) float32 of one of the node's own float images: packed, little-endian.

    Raises:
        MessageError: the encoding or the layout differs.
    """
    channels = {"32FC1": 1, "32FC3": 3}.get(message.encoding)
    if channels is None or message.step != message.width * channels * 4 or message.is_bigendian:
        raise MessageError(f"not a packed float image: {message.encoding}, step {message.step}")
    pixels = np.frombuffer(message.data, "<f4").reshape(message.height, message.width, channels)
    return pixels[..., 0] if channels == 1 else pixels


def organised_points(message: PointCloud2) -> np.ndarray:
    """(H, W, 6) float32 x y z r g b of a cloud, (H, W, 9) where it has normals; invalid is NaN.

    Fields are found by name and offset; r g b are 0 to 255.

    Raises:
        MessageError: a field is missing, or the data is too short.
    """
    names = ["x", "y", "z", "rgb"]
    if any(field.name == "normal_x" for field in message.fields):
        names += ["normal_x", "normal_y", "normal_z"]
    points = cloud_fields(message, POINTS, names)
    bits = points["rgb"].astype("<f4").view("<u4")
    columns = [points[name] for name in ("x", "y", "z")]
    columns += [(bits >> shift & 255) for shift in (16, 8, 0)]
    columns += [points[name] for name in names[4:]]
    return np.stack([column.astype(np.float32) for column in columns], axis=-1)


def plain_values(message: DiagnosticStatus | DiagnosticArray | Float32MultiArray) -> dict[str, Any]:
    """A state message as values for JSON."""
    if isinstance(message, DiagnosticArray):
        return {status.name: plain_values(status) for status in message.status}
    if isinstance(message, DiagnosticStatus):
        return {
            "level": int.from_bytes(message.level, "little"),
            "message": message.message,
            **{pair.key: pair.value for pair in message.values},
        }
    # JSON knows no NaN.
    numbers = read_scale_message(message)
    values = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
    return {**values, "state": STATES[int(numbers["state"])]}


def main(argv: Sequence[str] | None = None) -> int:
    """Record until interrupted."""
    parser = argparse.ArgumentParser(
        prog="d3_ros.demo.recorder", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--namespace", default="/camera", help="of the node")
    parser.add_argument("--node", default="predictor", help="name of the node")
    parser.add_argument(
        "--frames", type=int, default=6, help="number of frames whose arrays are kept"
    )
    parser.add_argument("--all-depth", action="store_true", help="keep every metric depth image")
    args = parser.parse_args(argv)
    rclpy.init(args=[])
    recorder = Recorder(
        Recording(args.folder),
        args.namespace,
        args.node,
        frames=args.frames,
        all_depth=args.all_depth,
    )
    try:
        with suppress(KeyboardInterrupt, ExternalShutdownException):  # the normal end
            rclpy.spin(recorder)
    finally:
        recorder.finish()
        rclpy.try_shutdown()
    if recorder.fault:
        print(f"recorder: {recorder.fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The player: a process that publishes a source as a camera, with camera_info and sensor depth.

    python -m d3_ros.demo.player PATH [--namespace /camera] [--rate auto | source | HZ]

Stamps are the time of publishing, as of a live camera, so the stamp of a result tells its latency.
`--sent FILE` records the stamp of each frame before it is published. The report uses it to match
results with the truth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from d3_ros.data.played_frame import FrameSource, PlayedFrame
from d3_ros.data.sources import open_source
from d3_ros.demo.arguments import add_source_arguments, pace, source_options, whole_number
from d3_ros.demo.recording import RELATIVE, LogWriter, Sent
from d3_ros.errors import D3Error
from d3_ros.messages.camera_info import camera_info_from_intrinsics
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.inputs.matched_inputs import stamp_ns

FRAME_ID = "camera_optical_frame"
# After the node has subscribed, recorder and rviz2 need a moment to connect to the node.
SETTLE_S = 1.0
# With rate `auto`, an image without an answer for so long counts as dropped.
ANSWER_S = 60.0
# After so many unanswered images in a row the player gives up.
MOST_UNANSWERED = 3
# A node that stays unconfigured for so long could not be configured.
UNCONFIGURED_S = 3.0


class PlayerError(D3Error):
    """The node does not subscribe to the image, or does not answer."""


class Player(Node):
    """Publishes frames in a namespace and keeps track of the node's answers."""

    def __init__(self, namespace: str, predictor: str, sent: LogWriter | None) -> None:
        super().__init__("player", namespace=namespace)
        self._sent = sent
        self._answered: set[int] = set()
        # Depth 2: a best-effort reader must not lose an image because the next one follows at once.
        qos = QoSProfile(depth=2)
        self._image = self.create_publisher(Image, "image", qos)
        self._info = self.create_publisher(CameraInfo, "camera_info", qos)
        self._sensor = self.create_publisher(Image, "sensor_depth/image", qos)
        self._image_buffer, self._sensor_buffer = ImageBuffer(), ImageBuffer()
        self._state = self.create_client(GetState, f"{predictor}/get_state")
        self.create_subscription(Image, f"{predictor}/{RELATIVE}", self._on_answer, qos)

    def wait_until_heard(self, timeout_s: float) -> None:
        """Return when the node subscribes to the image.

        Raises:
            PlayerError: it does not subscribe in time, or it could not be configured.
        """
        deadline = time.monotonic() + timeout_s
        unconfigured_since: float | None = None
        while self._image.get_subscription_count() == 0:
            now = time.monotonic()
            if now > deadline:
                raise PlayerError(
                    f"nobody subscribed to {self._image.topic_name} within {timeout_s:g} s"
                )
            if self._node_state() == State.PRIMARY_STATE_UNCONFIGURED:
                unconfigured_since = unconfigured_since or now
                if now - unconfigured_since > UNCONFIGURED_S:
                    raise PlayerError("the node could not be configured; its log says why")
            else:
                unconfigured_since = None
        self.spin_until(time.monotonic() + SETTLE_S)

    def publish(self, frame: PlayedFrame) -> int:
        """Send one frame, image last, and return its stamp in nanoseconds."""
        now_ns = time.time_ns()
        header = Header(
            stamp=Time(sec=now_ns // 1_000_000_000, nanosec=now_ns % 1_000_000_000),
            frame_id=FRAME_ID,
        )
        height, width = frame.rgb.shape[:2]
        if self._sent is not None:
            self._sent.write(Sent(index=frame.index, stamp_ns=now_ns))
        self._info.publish(camera_info_from_intrinsics(frame.intrinsics, header, width, height))
        if frame.sensor is not None:
            self._sensor.publish(self._sensor_buffer.fill(header, frame.sensor, "32FC1"))
        self._image.publish(self._image_buffer.fill(header, frame.rgb, "rgb8"))
        return now_ns

    def spin_until(self, deadline: float, answered_ns: int | None = None) -> bool:
        """Handle messages until the (monotonic) time, or until the node answered this stamp."""
        while answered_ns is None or answered_ns not in self._answered:
            rest = deadline - time.monotonic()
            if rest <= 0:
                return False
            rclpy.spin_once(self, timeout_sec=min(rest, 0.5))
        return True

    def _on_answer(self, message: Image) -> None:
        self._answered.add(stamp_ns(message.header))

    def _node_state(self) -> int | None:
        """The node's lifecycle state; None if the node does not answer."""
        if not self._state.wait_for_service(timeout_sec=0.2):
            return None
        future = self._state.call_async(GetState.Request())
        rclpy.spin_until_future_complete(self, future, timeout_sec=0.5)
        answer = future.result() if future.done() else None
        return None if answer is None else answer.current_state.id


def play(player: Player, source: FrameSource, rate: float | str, total: int) -> int:
    """Publish `total` frames; a shorter source is repeated. Returns the number of frames sent.

    `rate`: Hz; or "source", the times of the source's stamps; or "auto", each frame when the one
    before is answered. The answer to the last frame is always waited for.

    Raises:
        PlayerError: the node does not answer, with rate "auto".
    """
    start = time.monotonic()
    last_ns: int | None = None
    sent = unanswered = 0
    for due_s, frame in schedule(source, rate, total):
        if rate == "auto":
            if last_ns is not None:
                answered = player.spin_until(time.monotonic() + ANSWER_S, last_ns)
                unanswered = 0 if answered else unanswered + 1
            if unanswered == MOST_UNANSWERED:
                raise PlayerError(f"no depth came back from {unanswered} frames in a row")
        else:
            player.spin_until(start + due_s)
        last_ns = player.publish(frame)
        sent += 1
    if last_ns is not None:
        player.spin_until(time.monotonic() + ANSWER_S, last_ns)
    return sent


def schedule(
    source: FrameSource, rate: float | str, total: int
) -> Iterator[tuple[float, PlayedFrame]]:
    """Frames, each with its due time in seconds after the start."""
    count = 0
    loop_start_s = 0.0
    period_s = 1.0 / (source.rate_hz or 10.0)
    while count < total:
        first_stamp: float | None = None
        due_s = loop_start_s
        for frame in source:
            if isinstance(rate, float):
                due_s = count / rate
            else:
                first_stamp = frame.stamp if first_stamp is None else first_stamp
                # A folder's frames have no time.
                into_loop_s = frame.stamp - first_stamp
                due_s = loop_start_s + (into_loop_s if into_loop_s >= 0 else 0.0)
            yield due_s, frame
            count += 1
            if count == total:
                return
        loop_start_s = due_s + period_s


def main(argv: Sequence[str] | None = None) -> int:
    """Play one source; returns 1, with one line on standard error, if that fails."""
    parser = argparse.ArgumentParser(
        prog="d3_ros.demo.player", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("path", type=Path, help="a bag, a folder with rgb/, or a video")
    add_source_arguments(parser)
    parser.add_argument("--namespace", default="/camera", help="namespace of the topics")
    parser.add_argument("--node", default="predictor", help="name of the predictor node")
    parser.add_argument("--rate", type=pace, default="source", help="auto, source, or Hz")
    parser.add_argument(
        "--frames", type=whole_number, default=0, help="number of images; 0: all frames once"
    )
    parser.add_argument("--sent", type=Path, help="file for the index and stamp of each frame")
    parser.add_argument("--wait", type=float, default=120.0, help="seconds to wait for the node")
    args = parser.parse_args(argv)
    log = None
    try:
        source = open_source(source_options(args.path, args))
        log = LogWriter(args.sent) if args.sent else None
        rclpy.init(args=[])
        player = Player(args.namespace, args.node, log)
        player.wait_until_heard(args.wait)
        play(player, source, args.rate, args.frames or len(source))
    except D3Error as error:
        print(f"player: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        if log is not None:
            log.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

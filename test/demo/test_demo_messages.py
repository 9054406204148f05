"""The demo's two ROS processes: what the player sends and when, what the recorder understands."""

from __future__ import annotations

import array
from collections.abc import Iterator
from queue import SimpleQueue
from unittest.mock import Mock

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from d3_ros.data.played_frame import PlayedFrame
from d3_ros.demo.player import schedule
from d3_ros.demo.recorder import Recorder, organised_points, pixels_from_image, plain_values
from d3_ros.errors import MessageError
from d3_ros.geometry.point_cloud import pack_cloud
from d3_ros.messages.camera_info import camera_info_from_intrinsics, intrinsics_from_camera_info
from d3_ros.messages.clouds import CloudBuffer
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport, scale_message
from d3_ros.types import CameraIntrinsics, DepthFit

pytestmark = pytest.mark.ros


class Stamped:
    """Three frames with these stamps."""

    title = ""
    warnings = ()

    def __init__(self, rate_hz: float | None, *stamps: float) -> None:
        self.rate_hz = rate_hz
        self._stamps = stamps

    def __len__(self) -> int:
        return len(self._stamps)

    def __iter__(self) -> Iterator[PlayedFrame]:
        for index, stamp in enumerate(self._stamps):
            yield PlayedFrame(index, str(index), stamp, np.zeros((1, 1, 3), np.uint8))


def test_frames_are_due_at_their_own_times_and_again_in_the_next_round() -> None:
    source = Stamped(10.0, 50.0, 50.1, 50.4)
    due = [(round(due_s, 6), frame.index) for due_s, frame in schedule(source, "source", 5)]
    # The next round starts one period of 10 Hz after the last frame.
    assert due == [(0.0, 0), (0.1, 1), (0.4, 2), (0.5, 0), (0.6, 1)]


def test_frames_at_a_given_rate() -> None:
    source = Stamped(None, float("nan"), float("nan"))
    due = [(due_s, frame.index) for due_s, frame in schedule(source, 4.0, 3)]
    assert due == [(0.0, 0), (0.25, 1), (0.5, 0)]


@pytest.mark.parametrize(
    "intrinsics",
    [
        CameraIntrinsics(8, 6, 5.0, 6.0, 3.5, 2.25),
        CameraIntrinsics(8, 6, 5.0, 6.0, 3.5, 2.5, "plumb_bob", (0.1, -0.02, 0.001, 0.002, 0.3)),
        CameraIntrinsics(8, 6, 5.0, 6.0, 3.5, 2.5, "plumb_bob", (0.1, -0.02, 0.001, 0.002)),
        CameraIntrinsics(8, 6, 5.0, 6.0, 3.5, 2.5, "equidistant", (0.1, -0.02, 0.001, 0.002)),
    ],
)
def test_the_player_tells_the_camera_as_the_node_reads_it(intrinsics: CameraIntrinsics) -> None:
    info = camera_info_from_intrinsics(intrinsics, Header(frame_id="f"), 8, 6)
    assert info.header.frame_id == "f"
    read = intrinsics_from_camera_info(info, 8, 6, topic="camera_info", image_topic="image")
    assert read == intrinsics
    assert info.p[2] == 3.5
    if info.distortion_model == "plumb_bob":
        assert len(info.d) == 5


def test_without_intrinsics_the_camera_is_uncalibrated() -> None:
    info = camera_info_from_intrinsics(None, Header(), 8, 6)
    assert (info.width, info.height) == (8, 6)
    assert info.k[0] == 0.0
    assert intrinsics_from_camera_info(info, 8, 6, topic="a", image_topic="b") is None


def test_recorder_reads_the_nodes_cloud() -> None:
    depth = np.array([[2.0, np.nan]], np.float32)
    rgb = np.array([[[10, 20, 30], [1, 2, 3]]], np.uint8)
    normals = np.array([[[0, 0, -1], [0, -1, 0]]], np.float32)
    intrinsics = CameraIntrinsics(2, 1, 2.0, 2.0, 1.0, 0.0)
    buffer = CloudBuffer()
    pack_cloud(depth, rgb, None, intrinsics, out=buffer.points(Header(), 1, 2, normals=False))
    # u = 0 is one pixel left of the centre: x = -1 / 2 * 2 m.
    points = organised_points(buffer.message)
    assert points.shape == (1, 2, 6)
    np.testing.assert_array_equal(points[0, 0], [-1, 0, 2, 10, 20, 30])
    assert np.isnan(points[0, 1, :3]).all()
    pack_cloud(depth, rgb, normals, intrinsics, out=buffer.points(Header(), 1, 2, normals=True))
    np.testing.assert_array_equal(
        organised_points(buffer.message)[0, 0], [-1, 0, 2, 10, 20, 30, 0, 0, -1]
    )


def test_recorder_reads_any_layout_and_refuses_what_is_none() -> None:
    """Fields by offset: rgb first, padding between points and rows."""
    layout = np.dtype(
        {
            "names": ["rgb", "z", "y", "x"],
            "formats": ["<f4"] * 4,
            "offsets": [0, 4, 8, 16],
            "itemsize": 24,
        }
    )
    rows = np.zeros(2, layout)
    rows["rgb"] = np.array([0x00112233, 0x00010203], np.uint32).view(np.float32)
    rows["x"], rows["y"], rows["z"] = [1, 4], [2, 5], [3, 6]
    data = b"".join(row.tobytes() + b"\xff" * 8 for row in rows)
    message = PointCloud2(height=2, width=1, point_step=24, row_step=32)
    message.fields = [
        PointField(name=name, offset=layout.fields[name][1], datatype=PointField.FLOAT32, count=1)
        for name in layout.names
    ]
    message.data = array.array("B", data)
    np.testing.assert_array_equal(
        organised_points(message), [[[1, 2, 3, 0x11, 0x22, 0x33]], [[4, 5, 6, 1, 2, 3]]]
    )
    message.data = array.array("B", data[:-9])
    with pytest.raises(MessageError, match="need 56 bytes of data, got 55"):
        organised_points(message)
    message.fields = message.fields[1:]
    with pytest.raises(MessageError, match="no field rgb"):
        organised_points(message)


def test_recorder_reads_the_nodes_images() -> None:
    depth = np.array([[1.0, np.nan, 3.0]], np.float32)
    message = ImageBuffer().fill(Header(), depth, "32FC1")
    np.testing.assert_array_equal(pixels_from_image(message), depth)
    normals = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(
        pixels_from_image(ImageBuffer().fill(Header(), normals, "32FC3")), normals
    )
    with pytest.raises(MessageError, match="rgb8"):
        pixels_from_image(Image(height=1, width=1, encoding="rgb8", step=3))


def test_state_messages_become_plain_values() -> None:
    fit = DepthFit(ok=True, state="held", scale=2.0, shift=0.5, points=7)
    values = plain_values(scale_message(ScaleReport(fit), hold_s=2.0))
    assert values["state"] == "held"
    assert values["scale"] == 2.0
    assert values["abs_rel"] is None, "JSON knows no NaN"
    status = DiagnosticStatus(
        level=DiagnosticStatus.WARN,
        name="n",
        message="m",
        values=[KeyValue(key="rate (Hz)", value="3")],
    )
    expected = {"level": 1, "message": "m", "rate (Hz)": "3"}
    assert plain_values(status) == expected
    assert plain_values(DiagnosticArray(status=[status])) == {"n": expected}


def test_a_recorder_that_cannot_write_says_why() -> None:
    """Its second thread would end in silence, and the report lack its scores."""
    recorder = Recorder.__new__(Recorder)
    recorder.fault, recorder._all_depth, recorder._to_save = "", False, SimpleQueue()
    recorder._recording = Mock(forget=Mock(side_effect=OSError(28, "No space left on device")))
    recorder._to_save.put((1, "", None))
    recorder._save_all()
    assert "No space left on device" in recorder.fault

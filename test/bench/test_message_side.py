"""The message side's benchmark: the ratio to ready messages, and the usual way's cloud."""

from __future__ import annotations

import os

import numpy as np
import pytest

from d3_ros.commands import bench

pytestmark = pytest.mark.ros


def test_the_ratio_is_ours_without_the_scale_to_ready_messages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(**ms: float) -> dict[str, object]:
        return {"node_thread_ms": {name: {"p50": value} for name, value in ms.items()}}

    report = {
        "node_points_with_normals": {
            "node_thread_ms": {"all": {"p50": 30.0}, "without the scale": {"p50": 12.0}}
        },
        "ready": run(all=5.0),
        "ready_with_normals": run(all=8.0),
    }
    bench._print_ratios(report)
    assert report["against_ready_messages"] == {"node_points_with_normals": 1.5}
    assert "node_points_with_normals: 1.50 x" in capsys.readouterr().out


def test_the_usual_cloud_by_hand() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2's client library")
    from sensor_msgs.msg import PointField
    from std_msgs.msg import Header

    from d3_ros.bench.naive_conversion import create_cloud

    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    points = np.array([[1, 2, 3], [4, 5, np.nan]], np.float32)
    cloud = create_cloud(Header(frame_id="camera"), fields, points)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, 2, 12, 24)
    assert cloud.header.frame_id == "camera"
    assert bytes(cloud.data) == points.tobytes()


def test_ready_messages_have_the_sizes_of_the_nodes() -> None:
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2's client library")
    from sensor_msgs.msg import Image

    from d3_ros.bench.ready_messages import ReadyMessages

    rclpy.init()
    try:
        node = ReadyMessages(8, 6, normals=True)
        node._on_image(Image())
        sizes = [
            len(message.data) for message in node._messages.values() if hasattr(message, "data")
        ]
        assert sizes == [8 * 6 * 4, 8 * 6 * 12, 8 * 6 * 32]
        assert len(node.ms) == 1
        node.destroy_node()
    finally:
        rclpy.shutdown()


def test_the_benchmark_has_a_domain_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A robot's own domain, which the shell names, must not get the benchmark's images."""
    pytest.importorskip("rclpy", reason="needs ROS 2's client library")
    from rclpy.node import Node

    from d3_ros.bench import node_thread

    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    before = dict(os.environ)
    with node_thread._spinning(lambda: Node("alone"), lambda node: None):
        assert os.environ["ROS_DOMAIN_ID"] != "7"
    assert dict(os.environ) == before

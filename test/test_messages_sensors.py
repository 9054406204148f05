"""Point clouds, scans and compressed depth as arrays, by hand; what is said of bad ones."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import bag_messages as bags
import cv2
import numpy as np
import pytest

from d3_ros.errors import MessageError
from d3_ros.geometry.transform import inverse_transform, transform_from_pose
from d3_ros.ros.from_compressed import depth_from_any, rgb_from_any
from d3_ros.ros.from_sensors import points_from_cloud, points_from_scan


def packed_cloud(order: str) -> Any:
    """Two rows of two points: z (float64) before x and y (float32), rows padded by 4 bytes."""
    rows = [[(1.0, 2.0, 3.0), (4.0, 5.0, float("nan"))], [(7.0, 8.0, 9.0), (10.0, 11.0, 12.0)]]
    data = b""
    for row in rows:
        for x, y, z in row:
            data += struct.pack(f"{order}Bdff", 7, z, x, y)
        data += b"\xff" * 4
    field = SimpleNamespace
    return SimpleNamespace(
        height=2,
        width=2,
        point_step=17,
        row_step=38,
        is_bigendian=order == ">",
        fields=[
            field(name="ring", offset=0, datatype=2, count=1),
            field(name="z", offset=1, datatype=8, count=1),
            field(name="x", offset=9, datatype=7, count=1),
            field(name="y", offset=13, datatype=7, count=1),
        ],
        data=np.frombuffer(data, np.uint8),
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cloud_is_read_by_its_offsets(order: str) -> None:
    points = points_from_cloud(packed_cloud(order), "/lidar")
    np.testing.assert_array_equal(points, [[1, 2, 3], [7, 8, 9], [10, 11, 12]])


def test_bad_clouds_are_one_line() -> None:
    cloud = packed_cloud("<")
    cloud.data = cloud.data[:-10]
    with pytest.raises(MessageError, match=r"'/lidar': a cloud of 2 x 2 .* needs 72 bytes"):
        points_from_cloud(cloud, "/lidar")
    cloud = packed_cloud("<")
    cloud.fields[1].datatype = 4
    with pytest.raises(MessageError, match="field z has datatype 4"):
        points_from_cloud(cloud, "/lidar")
    cloud.fields.pop(2)
    with pytest.raises(MessageError, match=r"without x \(fields: ring, z, y\)"):
        points_from_cloud(cloud, "/lidar")
    cloud = packed_cloud("<")
    cloud.width = 0
    assert points_from_cloud(cloud, "/lidar").shape == (0, 3)


def test_a_scan_by_hand() -> None:
    points = points_from_scan(bags.scan(0, [np.inf, 2.0, 3.0]), "/scan")
    np.testing.assert_allclose(
        points, [[2, 0, 0], [3 * np.cos(0.1), 3 * np.sin(0.1), 0]], atol=1e-6
    )


def test_compressed_depth_in_millimetres_and_quantised() -> None:
    pixels = np.array([[0, 1000], [2500, 65535]], np.uint16)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    bare = SimpleNamespace(format="16UC1; png compressed", data=np.frombuffer(png, np.uint8))
    expected = [[np.nan, 1.0], [2.5, 65.535]]
    np.testing.assert_allclose(depth_from_any(bare, "/d"), expected, rtol=1e-6)
    data = struct.pack("<iff", 0, 0.0, 0.0) + png
    whole = SimpleNamespace(format="16UC1; compressedDepth png", data=np.frombuffer(data, np.uint8))
    np.testing.assert_allclose(depth_from_any(whole, "/d"), expected, rtol=1e-6)
    # z = a / (value - b): 5000 / (1000 - 500) = 10, 5000 / 2000 = 2.5.
    data = struct.pack("<iff", 0, 5000.0, 500.0) + png
    floats = SimpleNamespace(
        format="32FC1; compressedDepth png", data=np.frombuffer(data, np.uint8)
    )
    np.testing.assert_allclose(
        depth_from_any(floats, "/d"), [[np.nan, 10], [2.5, 5000 / 65035]], rtol=1e-6
    )
    floats.data = floats.data[:-20]
    with pytest.raises(MessageError, match=r"'/d': .* is not a 16-bit PNG"):
        depth_from_any(floats, "/d")


def test_a_jpeg_that_was_cut_off_is_refused_and_padding_is_not() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = cv2.imencode(".jpg", grey)[1].tobytes()
    half = SimpleNamespace(format="jpeg", data=np.frombuffer(data[: len(data) // 2], np.uint8))
    with pytest.raises(MessageError, match=r"'/image': .* is not a whole JPEG or PNG"):
        rgb_from_any(half, "/image")
    padded = SimpleNamespace(format="jpeg", data=np.frombuffer(data + bytes(200), np.uint8))
    assert rgb_from_any(padded, "/image").shape == (64, 64, 3)


def test_poses_by_hand() -> None:
    """A quarter turn about z, then 1 m along x: the posed frame's x axis is the other's y."""
    pose = transform_from_pose((1, 0, 0), (0, 0, np.sqrt(0.5), np.sqrt(0.5)))
    np.testing.assert_allclose(pose @ [2, 0, 0, 1], [1, 2, 0, 1], atol=1e-12)
    np.testing.assert_allclose(inverse_transform(pose) @ pose, np.eye(4), atol=1e-12)
    for bad in ((0, 0, 0, 0), (0, 0, 0, np.nan)):
        with pytest.raises(ValueError, match="x y z qx qy qz qw"):
            transform_from_pose((0, 0, 0), bad)

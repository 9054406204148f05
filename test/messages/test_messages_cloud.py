"""PointCloud2 as consumers read it: by field offsets; and sensor depth on the image's pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image, PointCloud2, PointField

from d3_ros.errors import DataError
from d3_ros.geometry.point_cloud import pack_cloud
from d3_ros.geometry.sparse_depth import place_on_image
from d3_ros.messages.clouds import CloudBuffer
from d3_ros.ros.node.diagnostics.scale_report import (
    FIELDS,
    STATES,
    ScaleReport,
    read_scale_message,
    scale_message,
)
from d3_ros.types import CameraIntrinsics, DepthFit

pytestmark = pytest.mark.ros

CAMERA = CameraIntrinsics(width=3, height=2, fx=2.0, fy=4.0, cx=1.0, cy=0.5)
DEPTH = np.array([[2.0, np.nan, 4.0], [1.0, 8.0, np.nan]], np.float32)
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
NORMALS = np.tile(np.array([0.0, 0.6, -0.8], np.float32), (2, 3, 1))


def cloud(normals: np.ndarray | None, sigma: np.ndarray | None = None) -> PointCloud2:
    buffer = CloudBuffer()
    points = buffer.points(
        Image().header, 2, 3, normals=normals is not None, sigma=sigma is not None
    )
    pack_cloud(DEPTH, RGB, normals, CAMERA, out=points, sigma_m=sigma)
    return buffer.message


def column(message: PointCloud2, name: str) -> np.ndarray:
    """(H, W) values of a field, found by its offset as every reader finds it."""
    field = next(field for field in message.fields if field.name == name)
    assert (field.datatype, field.count) == (PointField.FLOAT32, 1)
    return np.ndarray(
        (message.height, message.width),
        "<f4",
        bytes(message.data),
        field.offset,
        (message.row_step, message.point_step),
    )


@pytest.mark.parametrize(("normals", "point_step"), [(None, 16), (NORMALS, 32)])
def test_the_cloud_is_organised(normals: np.ndarray | None, point_step: int) -> None:
    message = cloud(normals)
    assert (message.height, message.width) == (2, 3)
    assert (message.point_step, message.row_step) == (point_step, 3 * point_step)
    assert len(message.data) == 6 * point_step
    assert not message.is_dense
    assert not message.is_bigendian


@pytest.mark.parametrize("normals", [None, NORMALS])
def test_points_are_where_their_pixels_look(normals: np.ndarray | None) -> None:
    message = cloud(normals)
    nan = np.nan
    # x = (u - 1) / 2 * z, y = (v - 0.5) / 4 * z
    np.testing.assert_allclose(column(message, "x"), [[-1, nan, 2], [-0.5, 0, nan]])
    np.testing.assert_allclose(column(message, "y"), [[-0.25, nan, -0.5], [0.125, 1, nan]])
    np.testing.assert_array_equal(column(message, "z"), DEPTH)


@pytest.mark.parametrize("normals", [None, NORMALS])
def test_colour_is_blue_green_red_zero_in_memory(normals: np.ndarray | None) -> None:
    message = cloud(normals)
    offset = next(field.offset for field in message.fields if field.name == "rgb")
    points = np.frombuffer(message.data, np.uint8).reshape(6, message.point_step)
    assert points[:, offset : offset + 4].tolist() == [
        [b, g, r, 0] for r, g, b in RGB.reshape(6, 3).tolist()
    ]


def test_normals_are_fields_of_the_cloud() -> None:
    message = cloud(NORMALS)
    for name, value in (("normal_x", 0.0), ("normal_y", 0.6), ("normal_z", -0.8)):
        np.testing.assert_allclose(column(message, name), np.full((2, 3), value), rtol=1e-6)
    assert not column(message, "curvature").any()
    assert "normal_x" not in [field.name for field in cloud(None).fields]


@pytest.mark.parametrize(("normals", "point_step"), [(None, 20), (NORMALS, 36)])
def test_the_expected_error_is_the_last_field_of_the_cloud(
    normals: np.ndarray | None, point_step: int
) -> None:
    message = cloud(normals, DEPTH / 10)
    assert (message.point_step, message.row_step) == (point_step, 3 * point_step)
    assert message.fields[-1].name == "sigma"
    np.testing.assert_array_equal(column(message, "sigma"), DEPTH / 10)
    np.testing.assert_array_equal(column(message, "z"), DEPTH)
    assert "sigma" not in [field.name for field in cloud(normals).fields]


def test_the_cloud_reuses_its_memory_until_its_layout_changes() -> None:
    buffer = CloudBuffer()
    header = Image().header
    first = buffer.points(header, 2, 3, normals=True)
    assert np.shares_memory(first, buffer.points(header, 2, 3, normals=True))
    assert not np.shares_memory(first, buffer.points(header, 2, 3, normals=False))
    assert (buffer.message.point_step, len(buffer.message.fields)) == (16, 4)


def test_sensor_msgs_py_reads_the_same() -> None:
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS installation"
    )
    points = point_cloud2.read_points(cloud(NORMALS), field_names=["x", "z", "normal_z"])
    np.testing.assert_array_equal(points["z"].reshape(2, 3), DEPTH)
    np.testing.assert_allclose(points["normal_z"], np.full(6, -0.8), rtol=1e-6)


def test_a_frame_s_scale_in_numbers() -> None:
    fit = DepthFit(ok=True, state="held", scale=4.0, shift=0.5, points=7, age_s=1.5)
    report = ScaleReport(fit, {"image": 30, "scan": 5}, fused_pixels=9, disagreeing_pixels=2)
    row = read_scale_message(scale_message(report, hold_s=2.0))
    assert tuple(row) == FIELDS
    assert STATES[int(row["state"])] == "held"
    assert (row["scale"], row["shift"], row["points"], row["age_s"]) == (4.0, 0.5, 7.0, 1.5)
    assert (row["expires_s"], row["sources"]) == (0.5, 5.0)
    assert (row["fused_pixels"], row["disagreeing_pixels"]) == (9.0, 2.0)
    assert np.isnan(row["abs_rel"])
    measured = ScaleReport(DepthFit(ok=True, state="measured"))
    assert np.isnan(read_scale_message(scale_message(measured, hold_s=2.0))["expires_s"])


def test_depth_of_the_same_size_is_taken_as_it_is() -> None:
    assert place_on_image(DEPTH, 3, 2) is DEPTH


def test_coarse_depth_goes_to_single_pixels() -> None:
    nan = np.nan
    # The centre of pixel (0, 0) of half the resolution is the corner between four image pixels,
    # (0.5, 0.5): rounded up, pixel (1, 1).
    placed = place_on_image(np.array([[1.0, nan], [3.0, 4.0]], np.float32), 4, 4)
    expected = [[nan, nan, nan, nan], [nan, 1, nan, nan], [nan, nan, nan, nan], [nan, 3, nan, 4]]
    np.testing.assert_array_equal(placed, expected)


def test_of_fine_depth_the_nearest_wins() -> None:
    nan = np.nan
    fine = np.array(
        [[5, 2, nan, nan], [nan, 9, nan, 7], [1, 1, 3, nan], [6, nan, 8, 2]], np.float32
    )
    np.testing.assert_array_equal(place_on_image(fine, 2, 2), [[2, 7], [1, 2]])


def test_another_aspect_ratio_is_refused() -> None:
    with pytest.raises(DataError, match=r"848 x 480 pixels .* 1280 x 720: their aspect"):
        place_on_image(np.ones((480, 848), np.float32), 1280, 720)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.data())
def test_measurements_are_moved_and_never_changed(
    up: int, down: int, width: int, height: int, data: st.DataObject
) -> None:
    """Every value placed was measured; every measurement is placed or hidden by a nearer one."""
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 9, (height * down, width * down)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.4] = np.nan
    placed = place_on_image(depth, width * up, height * up)
    rows, columns = np.nonzero(np.isfinite(depth))
    v = ((rows + 0.5) * up / down).astype(int)
    u = ((columns + 0.5) * up / down).astype(int)
    assert np.all(placed[v, u] <= depth[rows, columns])
    assert np.isin(placed[np.isfinite(placed)], depth).all()
    occupied = np.zeros(placed.shape, bool)
    occupied[v, u] = True
    assert np.array_equal(np.isfinite(placed), occupied)

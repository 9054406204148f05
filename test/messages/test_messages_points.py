"""PointCloud2 of any layout and LaserScan to points: against hand-computed and re-read values."""

from __future__ import annotations

import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import LaserScan, PointCloud2, PointField

from d3_ros.errors import MessageError
from d3_ros.messages.points import NUMPY_TYPES, points_from_cloud, wrong_row_step
from d3_ros.messages.scans import points_from_scan

pytestmark = pytest.mark.ros
POINTS = np.array([[1.5, -2.0, 3.0], [4.0, 5.0, -6.0], [np.nan] * 3, [7.0, 8.0, 9.0]])


def cloud(
    columns: dict[str, np.ndarray],
    types: dict[str, int],
    *,
    height: int = 1,
    big_endian: bool = False,
    point_padding: int = 0,
    row_padding: int = 0,
) -> PointCloud2:
    """A cloud whose fields stand in the order of `columns`."""
    order = ">" if big_endian else "<"
    offsets, offset = {}, 0
    for name in columns:
        offsets[name] = offset
        offset += np.dtype(NUMPY_TYPES[types[name]]).itemsize
    step = offset + point_padding
    count = len(next(iter(columns.values())))
    width = count // height
    message = PointCloud2(
        height=height,
        width=width,
        point_step=step,
        row_step=width * step + row_padding,
        is_bigendian=big_endian,
    )
    message.fields = [
        PointField(name=name, offset=offsets[name], datatype=types[name], count=1)
        for name in columns
    ]
    data = bytearray(b"\xaa" * (message.row_step * height))
    for index in range(count):
        row, column = divmod(index, width)
        for name, values in columns.items():
            start = row * message.row_step + column * step + offsets[name]
            packed = np.array(values[index], order + NUMPY_TYPES[types[name]]).tobytes()
            data[start : start + len(packed)] = packed
    message.data = array.array("B", bytes(data))
    return message


def xyz(datatype: int = PointField.FLOAT32) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    columns = dict(zip("xyz", POINTS.T, strict=True))
    return columns, dict.fromkeys("xyz", datatype)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("datatype", [PointField.FLOAT32, PointField.FLOAT64])
@pytest.mark.parametrize("height", [1, 2])
def test_points_of_every_layout(big_endian: bool, datatype: int, height: int) -> None:
    columns, types = xyz(datatype)
    message = cloud(
        columns, types, height=height, big_endian=big_endian, point_padding=5, row_padding=7
    )
    points = points_from_cloud(message, "points")
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, POINTS.astype(np.float32))


def test_other_fields_and_another_order_are_passed_over() -> None:
    columns, types = xyz()
    mixed = {
        "intensity": np.arange(4),
        "z": columns["z"],
        "t": np.arange(4) * 1000,
        "x": columns["x"],
        "ring": np.arange(4),
        "y": columns["y"],
    }
    types |= {
        "intensity": PointField.UINT8,
        "t": PointField.UINT32,
        "ring": PointField.UINT16,
    }
    points = points_from_cloud(cloud(mixed, types), "points")
    np.testing.assert_array_equal(points, POINTS.astype(np.float32))


def test_integers_are_coordinates_too() -> None:
    columns = {name: np.array([1, -2]) for name in "xyz"}
    message = cloud(columns, dict.fromkeys("xyz", PointField.INT16))
    np.testing.assert_array_equal(points_from_cloud(message, "p"), [[1, 1, 1], [-2, -2, -2]])


def test_an_empty_cloud_has_no_points() -> None:
    columns, types = xyz()
    message = cloud(columns, types)
    message.width, message.row_step, message.data = 0, 0, array.array("B")
    assert points_from_cloud(message, "points").shape == (0, 3)


def test_a_driver_may_leave_row_step_unset() -> None:
    message = cloud(*xyz())
    message.row_step = 0
    np.testing.assert_array_equal(points_from_cloud(message, "p"), POINTS.astype(np.float32))


@pytest.mark.parametrize("row_step", [0, 48, 7])
def test_the_length_of_the_data_settles_a_wrong_row_step(row_step: int) -> None:
    """2 x 2 points of 12 bytes: rows of 0, of the whole cloud, of nothing."""
    message = cloud(*xyz(), height=2)
    assert not wrong_row_step(message)
    message.row_step = row_step
    assert wrong_row_step(message)
    np.testing.assert_array_equal(points_from_cloud(message, "p"), POINTS.astype(np.float32))


def test_sensor_msgs_py_reads_the_same() -> None:
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS installation"
    )
    message = cloud(*xyz(), height=2)
    theirs = point_cloud2.read_points_numpy(message, field_names=["x", "y", "z"])
    np.testing.assert_array_equal(points_from_cloud(message, "p"), theirs.reshape(-1, 3))


def spoil_fields(message: PointCloud2) -> None:
    message.fields = message.fields[:2]


def spoil_datatype(message: PointCloud2) -> None:
    message.fields[0].datatype = 99


def spoil_step(message: PointCloud2) -> None:
    message.point_step = 8


def spoil_data(message: PointCloud2) -> None:
    del message.data[-1]


def spoil_rows(message: PointCloud2) -> None:
    message.height, message.width, message.row_step = 2, 2, 12
    message.data.extend([0])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_fields, r"no field z \(it has x, y\)"),
        (spoil_datatype, "field x has the unknown datatype 99"),
        (spoil_step, "fields end at byte 12 of a point of 8 bytes"),
        (spoil_data, "need 48 bytes of data, got 47"),
        (spoil_rows, "rows of 12, need 48 bytes of data, got 49"),
    ],
)
def test_a_cloud_that_contradicts_itself_is_refused(spoil, words: str) -> None:
    message = cloud(*xyz())
    spoil(message)
    with pytest.raises(MessageError, match=words) as told:
        points_from_cloud(message, "/lidar/points")
    assert str(told.value).startswith("'/lidar/points'")
    assert "\n" not in str(told.value)


@given(
    st.integers(0, 3),
    st.integers(0, 4),
    st.integers(0, 40),
    st.integers(0, 60),
    st.lists(
        st.tuples(st.sampled_from(["x", "y", "z", "rgb"]), st.integers(0, 30), st.integers(0, 12)),
        max_size=6,
    ),
    st.binary(max_size=200),
    st.booleans(),
)
def test_no_message_makes_the_reader_fall(
    height: int,
    width: int,
    point_step: int,
    row_step: int,
    fields: list[tuple[str, int, int]],
    data: bytes,
    big_endian: bool,
) -> None:
    """Whatever the sizes say: the points, as many as it says, or one clear line."""
    message = PointCloud2(
        height=height,
        width=width,
        point_step=point_step,
        row_step=row_step,
        is_bigendian=big_endian,
        data=array.array("B", data),
    )
    message.fields = [
        PointField(name=name, offset=offset, datatype=datatype, count=1)
        for name, offset, datatype in fields
    ]
    try:
        points = points_from_cloud(message, "points")
    except MessageError as error:
        assert "\n" not in str(error)
    else:
        assert points.shape == (height * width, 3)


def test_a_scan_by_hand() -> None:
    scan = LaserScan(angle_min=-np.pi / 2, angle_increment=np.pi / 2, range_min=0.1, range_max=10.0)
    scan.ranges = array.array("f", [1.0, 2.0, 3.0, 0.05, 11.0, np.inf, -np.inf, np.nan])
    # Right, ahead, left; the others are too near, too far, no return (REP 117).
    expected = [[0, -1, 0], [2, 0, 0], [0, 3, 0]]
    np.testing.assert_allclose(points_from_scan(scan, "scan"), expected, atol=1e-6)


def test_a_scan_without_a_largest_range_is_read() -> None:
    scan = LaserScan(angle_min=0.0, angle_increment=0.1, ranges=array.array("f", [5.0]))
    np.testing.assert_allclose(points_from_scan(scan, "scan"), [[5, 0, 0]])


def test_a_scan_without_angles_is_refused() -> None:
    scan = LaserScan(angle_min=float("nan"), ranges=array.array("f", [5.0]))
    with pytest.raises(MessageError, match="'scan' has angle_min nan"):
        points_from_scan(scan, "scan")

"""Images to arrays and back: encodings, padding, byte order, faults, and memory that is reused."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from helpers.image_messages import image
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sensor_msgs.msg import Image

from d3_ros.errors import MessageError
from d3_ros.messages import cv_bridge_fallback as bridge
from d3_ros.messages.images import ImageBuffer, depth_from_image, rgb_from_image

pytestmark = pytest.mark.ros


# Two pixels: pure red, and (10, 20, 30).
RED_AND_DARK = [[[255, 0, 0], [10, 20, 30]]]


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", [[[255, 0, 0], [10, 20, 30]]]),
        ("bgr8", [[[0, 0, 255], [30, 20, 10]]]),
        ("rgba8", [[[255, 0, 0, 7], [10, 20, 30, 9]]]),
        ("bgra8", [[[0, 0, 255, 7], [30, 20, 10, 9]]]),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings_become_rgb(encoding: str, pixels: list, padding: int) -> None:
    message = image(np.array(pixels, np.uint8), encoding, padding=padding)
    rgb = rgb_from_image(message, "image")
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == RED_AND_DARK


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_mono_becomes_grey(encoding: str) -> None:
    rgb = rgb_from_image(image(np.array([[3, 200]], np.uint8), encoding, padding=2), "image")
    assert rgb.tolist() == [[[3, 3, 3], [200, 200, 200]]]


def test_rgb8_is_a_view_of_the_message() -> None:
    message = image(np.zeros((4, 6, 3), np.uint8), "rgb8", padding=4)
    rgb = rgb_from_image(message, "image")
    assert np.shares_memory(rgb, np.frombuffer(message.data, np.uint8))


def test_the_last_row_needs_no_padding() -> None:
    message = image(np.full((2, 2, 3), 9, np.uint8), "rgb8", padding=3)
    del message.data[-3:]
    assert rgb_from_image(message, "image").tolist() == np.full((2, 2, 3), 9).tolist()


@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bit_depth_is_millimetres_and_0_is_none(encoding: str, big_endian: bool) -> None:
    # 0x0102 = 258 mm reads as 513 mm where the byte order is mistaken.
    pixels = np.array([[0, 258], [1500, 65535]], np.uint16)
    depth = depth_from_image(image(pixels, encoding, padding=6, big_endian=big_endian), "depth")
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[np.nan, 0.258], [1.5, 65.535]], rtol=1e-6)


@pytest.mark.parametrize("big_endian", [False, True])
def test_float_depth_is_metres_and_what_is_no_distance_is_none(big_endian: bool) -> None:
    pixels = np.array([[1.25, 0.0, -1.0], [np.nan, np.inf, -np.inf]], np.float32)
    message = image(pixels, "32FC1", padding=4, big_endian=big_endian)
    before = bytes(message.data)
    depth = depth_from_image(message, "depth")
    np.testing.assert_array_equal(depth, [[1.25, np.nan, np.nan], [np.nan] * 3])
    assert depth.dtype == np.float32
    assert bytes(message.data) == before, "the input was changed"


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 7), st.just(3))),
    st.integers(0, 9),
)
def test_any_size_and_padding_is_read(pixels: np.ndarray, padding: int) -> None:
    assert np.array_equal(rgb_from_image(image(pixels, "rgb8", padding=padding), "i"), pixels)
    swapped = image(np.ascontiguousarray(pixels[..., ::-1]), "bgr8", padding=padding)
    assert np.array_equal(rgb_from_image(swapped, "i"), pixels)


@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.floats(width=32)
    ),
    st.integers(0, 9),
    st.booleans(),
)
def test_any_float_depth_is_read(pixels: np.ndarray, padding: int, big_endian: bool) -> None:
    depth = depth_from_image(image(pixels, "32FC1", padding=padding, big_endian=big_endian), "d")
    expected = [[v if 0 < v < np.inf else np.nan for v in row] for row in pixels.tolist()]
    np.testing.assert_array_equal(depth, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.data.pop(), ["'cam/image'", "needs 36 bytes", "got 35"]),
        (lambda m: setattr(m, "step", 11), ["'cam/image'", "step of at least 12", "got 11"]),
        (lambda m: setattr(m, "step", 0), ["'cam/image'", "step of at least 12"]),
        (lambda m: setattr(m, "width", 0), ["'cam/image'", "empty", "0 x 3"]),
        (lambda m: setattr(m, "encoding", "16UC1"), ["'cam/image'", "depth image", "remap"]),
    ],
)
def test_a_bad_colour_image_is_one_line_that_names_the_topic(change: object, words: list) -> None:
    message = image(np.zeros((3, 4, 3), np.uint8), "rgb8")
    change(message)
    with pytest.raises(MessageError) as told:
        rgb_from_image(message, "cam/image")
    assert "\n" not in str(told.value)
    for word in words:
        assert word in str(told.value)


def test_a_colour_image_is_no_depth() -> None:
    with pytest.raises(MessageError, match=r"'d' has encoding 'rgb8', which is not depth.*16UC1"):
        depth_from_image(image(np.zeros((2, 2, 3), np.uint8), "rgb8"), "d")


def test_short_depth_is_refused() -> None:
    message = image(np.ones((2, 2), np.uint16), "16UC1")
    message.data.pop()
    with pytest.raises(MessageError, match="needs 8 bytes of data, got 7"):
        depth_from_image(message, "d")


@pytest.fixture
def fresh_bridge() -> object:
    bridge.working_bridge.cache_clear()
    yield
    bridge.working_bridge.cache_clear()


def with_cv_bridge(monkeypatch: pytest.MonkeyPatch, convert: object) -> None:
    """Stand in for cv_bridge with a module whose conversion is `convert`."""
    package = types.ModuleType("cv_bridge")
    package.CvBridge = type("CvBridge", (), {"imgmsg_to_cv2": staticmethod(convert)})
    monkeypatch.setitem(sys.modules, "cv_bridge", package)
    monkeypatch.setitem(sys.modules, "cv_bridge.boost", types.ModuleType("boost"))
    monkeypatch.setitem(sys.modules, "cv_bridge.boost.cv_bridge_boost", types.ModuleType("b"))


@pytest.mark.usefixtures("fresh_bridge")
def test_without_cv_bridge_rare_encodings_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("cv_bridge", "cv_bridge.boost", "cv_bridge.boost.cv_bridge_boost"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    message = image(np.zeros((2, 2, 2), np.int16), "16SC2")
    with pytest.raises(MessageError) as told:
        rgb_from_image(message, "cam/image")
    for word in ("'cam/image'", "'16SC2'", "needs cv_bridge", "rgb8"):
        assert word in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("fresh_bridge")
def test_a_cv_bridge_for_another_numpy_is_told_and_not_used(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def convert(message: Image, encoding: str) -> np.ndarray:
        print("A module that was compiled using NumPy 1.x cannot be run", file=sys.stderr)
        raise AttributeError("_ARRAY_API not found")

    with_cv_bridge(monkeypatch, convert)
    with pytest.raises(MessageError, match=r"does not work with NumPy .*_ARRAY_API not found"):
        rgb_from_image(image(np.zeros((2, 2, 2), np.int16), "16SC2"), "image")
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("fresh_bridge")
def test_rare_encodings_go_through_a_working_cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(message: Image, encoding: str) -> np.ndarray:
        assert encoding == "rgb8"
        if message.encoding == "bgr8":
            return rgb_from_image(message, "probe")
        if message.encoding != "yuv444":
            raise RuntimeError(f"[{message.encoding}] is not a color format\nbut a riddle")
        return np.full((message.height, message.width, 3), 5, np.uint8)

    with_cv_bridge(monkeypatch, convert)
    rgb = rgb_from_image(image(np.zeros((2, 4, 3), np.uint8), "yuv444"), "image")
    assert rgb.tolist() == np.full((2, 4, 3), 5).tolist()
    with pytest.raises(MessageError, match=r"cannot turn into rgb8 \(\[8SC4\] is .* riddle\)"):
        rgb_from_image(image(np.zeros((2, 4, 4), np.int8), "8SC4"), "image")


@pytest.mark.usefixtures("fresh_bridge")
def test_the_installed_cv_bridge() -> None:
    """Where there is one that works, it and our own reading agree; else the fault is one line."""
    found, fault = bridge.working_bridge()
    if found is None:
        assert fault
        assert "\n" not in fault
        return
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(found.imgmsg_to_cv2(image(pixels, "bgr8"), "rgb8"), pixels[..., ::-1])


def test_a_buffer_is_filled_in_place() -> None:
    buffer = ImageBuffer()
    first, second = Image(), Image()
    first.header.frame_id, second.header.frame_id = "a", "b"
    message = buffer.fill(first.header, np.full((2, 3), 0.5, np.float32), "32FC1")
    data = message.data
    again = buffer.fill(second.header, np.full((2, 3), 0.25, np.float32), "32FC1")
    assert again is message
    assert again.data is data, "memory was taken anew"
    assert again.header is second.header
    assert (message.height, message.width, message.step) == (2, 3, 12)
    assert (message.encoding, message.is_bigendian) == ("32FC1", 0)
    assert np.frombuffer(message.data, "<f4").tolist() == [0.25] * 6


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("32FC1", np.array([[0.5, np.nan]], np.float32)),
        ("32FC3", np.array([[[0, 0, -1], [1, 0, 0]]], np.float32)),
        ("rgb8", np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)),
        ("16UC1", np.array([[1, 65535]], np.uint16)),
    ],
)
def test_each_encoding_has_packed_little_endian_rows(encoding: str, pixels: np.ndarray) -> None:
    message = ImageBuffer().fill(Image().header, pixels, encoding)
    assert message.step == pixels[0].nbytes
    assert bytes(message.data) == pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


def test_another_size_takes_new_memory() -> None:
    buffer = ImageBuffer()
    buffer.fill(Image().header, np.zeros((2, 3), np.float32), "32FC1")
    message = buffer.fill(Image().header, np.ones((4, 5, 3), np.uint8), "rgb8")
    assert (message.height, message.width, message.step, len(message.data)) == (4, 5, 15, 60)


def test_a_wrong_dtype_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError):
        ImageBuffer().fill(Image().header, np.zeros((2, 3), np.float64), "32FC1")


def test_millimetres_are_rounded_and_never_made_up() -> None:
    metres = np.array([[1.2344, 1.2346, np.nan], [65.535, 65.6, 0.0004]], np.float32)
    message = ImageBuffer().fill_millimetres(Image().header, metres)
    assert message.encoding == "16UC1"
    # Beyond 16 bits there is no depth, not the farthest one that fits.
    assert np.frombuffer(message.data, "<u2").tolist() == [1234, 1235, 0, 65535, 0, 0]

"""Cameras' encodings to RGB: Bayer, YUV and 16 bits, each from pixels made by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.image_messages import image
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from d3_ros.errors import MessageError
from d3_ros.messages.colour_encodings import PACKED, PLANAR
from d3_ros.messages.cv_bridge_fallback import working_bridge
from d3_ros.messages.images import rgb_from_image

pytestmark = pytest.mark.ros

ORANGE = np.array([240, 120, 30])
CHANNEL = {"r": 0, "g": 1, "b": 2}


def mosaic(pattern: str, size: tuple[int, int] = (6, 8), full: int = 255) -> np.ndarray:
    """(H, W) what a sensor with this pattern (first row, second row) sees of an orange wall."""
    pixels = np.zeros(size, np.uint16)
    for place, letter in enumerate(pattern):
        pixels[place // 2 :: 2, place % 2 :: 2] = ORANGE[CHANNEL[letter]] * full // 255
    return pixels


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("padding", [0, 3])
def test_bayer_patterns_are_named_by_their_first_pixels(pattern: str, padding: int) -> None:
    message = image(mosaic(pattern).astype(np.uint8), f"bayer_{pattern}8", padding=padding)
    rgb = rgb_from_image(message, "image")
    assert rgb.dtype == np.uint8
    assert (rgb == ORANGE).all()


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("bit_depth", [10, 12, 16])
def test_bayer_of_16_bits(pattern: str, big_endian: bool, bit_depth: int) -> None:
    pixels = mosaic(pattern, full=2**bit_depth - 1)
    message = image(pixels, f"bayer_{pattern}16", padding=2, big_endian=big_endian)
    rgb = rgb_from_image(message, "image", bit_depth)
    assert np.abs(rgb.astype(int) - ORANGE).max() <= 1


def test_16_bit_grey_is_scaled_by_its_bit_depth_and_never_by_the_picture() -> None:
    pixels = np.array([[0, 1023, 512, 4095]], np.uint16)
    grey = [0, 4, 2, 16]  # v * 255 / 65535, rounded
    assert rgb_from_image(image(pixels, "mono16"), "image")[0, :, 1].tolist() == grey
    # At 10 bits 1023 is white, and what is brighter stays white.
    ten = rgb_from_image(image(pixels, "mono16", big_endian=True), "image", 10)
    assert ten.tolist() == [[[0] * 3, [255] * 3, [128] * 3, [255] * 3]]
    dark = rgb_from_image(image(pixels // 2, "mono16"), "image", 10)
    assert dark[0, 1].tolist() == [127] * 3


@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [
        ("rgb16", [65535, 32768, 257]),
        ("bgr16", [257, 32768, 65535]),
        ("rgba16", [65535, 32768, 257, 9]),
        ("bgra16", [257, 32768, 65535, 9]),
    ],
)
@pytest.mark.parametrize("big_endian", [False, True])
def test_colour_of_16_bits(encoding: str, pixel: list[int], big_endian: bool) -> None:
    message = image(np.array([[pixel]], np.uint16), encoding, padding=5, big_endian=big_endian)
    assert rgb_from_image(message, "image").tolist() == [[[255, 128, 1]]]


@pytest.mark.parametrize(("encoding", "pixel"), [("8UC3", [3, 2, 1]), ("8UC4", [3, 2, 1, 9])])
def test_bare_opencv_types_are_blue_green_red(encoding: str, pixel: list[int]) -> None:
    message = image(np.array([[pixel]], np.uint8), encoding)
    assert rgb_from_image(message, "image").tolist() == [[[1, 2, 3]]]


# (Y, U, V) in the video range of BT.601 of saturated colours, and their RGB.
YUV_COLOURS = {
    "red": ((81, 90, 240), (255, 0, 0)),
    "green": ((145, 54, 34), (0, 255, 0)),
    "blue": ((41, 240, 110), (0, 0, 255)),
    "white": ((235, 128, 128), (255, 255, 255)),
    "black": ((16, 128, 128), (0, 0, 0)),
}


def planes(y: int, u: int, v: int, encoding: str, padding: int) -> Image:
    """A 4 x 2 image of one colour, in planes with padded rows."""
    message = Image(height=2, width=4, encoding=encoding, step=4 + padding)
    filler = [0xEE] * padding
    rows = [[y] * 4 + filler] * 2
    if encoding in ("i420", "yuv420", "yv12"):
        first, second = (v, u) if encoding == "yv12" else (u, v)
        rows += [[first] * 2 + filler[::2], [second] * 2 + filler[::2]]
    elif encoding == "nv24":
        rows += [[u, v] * 4 + filler * 2] * 2
    else:
        rows += [[v, u] * 2 + filler if encoding == "nv21" else [u, v] * 2 + filler]
    message.data.frombytes(bytes(itertools.chain.from_iterable(rows)))
    return message


@pytest.mark.parametrize("colour", YUV_COLOURS)
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", *PLANAR])
def test_yuv(encoding: str, padding: int, colour: str) -> None:
    (y, u, v), rgb = YUV_COLOURS[colour]
    if encoding in PLANAR:
        message = planes(y, u, v, encoding, padding)
    else:
        pair = [[u, y], [v, y]] if encoding in ("uyvy", "yuv422") else [[y, u], [y, v]]
        message = image(np.array([pair * 2] * 2, np.uint8), encoding, padding=padding)
    answer = rgb_from_image(message, "image")
    assert answer.shape == (2, 4, 3)
    assert np.abs(answer.astype(int) - rgb).max() <= 2


def quarters(encoding: str) -> tuple[Image, np.ndarray]:
    """A 4 x 4 image whose quarters have four colours, laid out by hand; and its RGB."""
    colours = [YUV_COLOURS[name] for name in ("red", "green", "blue", "white")]
    (y, u, v) = np.array([yuv for yuv, _ in colours], np.uint8).T.reshape(3, 2, 2)
    big = np.repeat(np.repeat(y, 2, axis=0), 2, axis=1)
    parts = {
        "nv12": [np.stack([u, v], axis=2)],
        "nv21": [np.stack([v, u], axis=2)],
        "i420": [u, v],
        "yuv420": [u, v],
        "yv12": [v, u],
    }[encoding]
    message = Image(height=4, width=4, encoding=encoding, step=4)
    message.data.frombytes(b"".join(plane.tobytes() for plane in (big, *parts)))
    rgb = np.array([rgb for _, rgb in colours]).reshape(2, 2, 3)
    return message, np.repeat(np.repeat(rgb, 2, axis=0), 2, axis=1)


@pytest.mark.parametrize("encoding", [name for name, kind in PLANAR.items() if kind.halved])
def test_colours_lie_where_they_belong(encoding: str) -> None:
    message, expected = quarters(encoding)
    assert np.abs(rgb_from_image(message, "image").astype(int) - expected).max() <= 2
    message.data.pop()
    with pytest.raises(MessageError, match="needs 24 bytes of data, got 23"):
        rgb_from_image(message, "image")


def test_nv24_has_a_colour_for_every_pixel() -> None:
    message = Image(height=1, width=2, encoding="nv24", step=2)
    (red_y, *red_uv), (blue_y, *blue_uv) = YUV_COLOURS["red"][0], YUV_COLOURS["blue"][0]
    message.data.frombytes(bytes([red_y, blue_y, *red_uv, *blue_uv]))
    ((first, second),) = rgb_from_image(message, "image").astype(int)
    assert np.abs(first - [255, 0, 0]).max() <= 2
    assert np.abs(second - [0, 0, 255]).max() <= 2


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (image(np.zeros((2, 3, 2), np.uint8), "yuyv"), "3 x 2 yuyv cannot be converted: two"),
        (image(np.zeros((2, 5, 2), np.uint8), "uyvy"), "5 x 2 uyvy cannot be converted: two"),
        (planes(0, 0, 0, "nv21", -1), "nv21 needs a step of at least 4 bytes, got 3"),
        (Image(height=2, width=4, encoding="nv24", step=4), "nv24 with step 4 needs 24 bytes"),
        (Image(height=3, width=4, encoding="nv21", step=4), "4 x 3 nv21 has an odd width or"),
        (Image(height=1, width=4, encoding="nv21", step=4), "4 x 1 nv21 has an odd width or"),
        (Image(height=2, width=3, encoding="i420", step=3), "3 x 2 i420 has an odd width or"),
        (Image(height=2, width=4, encoding="yv12", step=4), "yv12 with step 4 needs 12 bytes"),
        (image(np.zeros((2, 2), np.uint16), "16UC1"), "which is a depth image"),
        (Image(height=2, width=0, encoding="nv21"), "empty image"),
    ],
)
def test_what_cannot_be_read_is_one_line(message: Image, words: str) -> None:
    with pytest.raises(MessageError) as told:
        rgb_from_image(message, "cam/image")
    assert words in str(told.value)
    assert "'cam/image'" in str(told.value)
    assert "\n" not in str(told.value)


@given(st.sampled_from(sorted(PACKED)), st.integers(2, 5), st.integers(2, 5), st.integers(0, 4))
def test_every_encoding_is_read_at_any_padding(
    encoding: str, height: int, width: int, padding: int
) -> None:
    packed = PACKED[encoding]
    width *= 2
    shape = (height, width, packed.channels) if packed.channels > 1 else (height, width)
    top = np.iinfo(packed.dtype).max
    pixels = np.random.default_rng(height * width).integers(0, top, shape, packed.dtype)
    padding *= np.dtype(packed.dtype).itemsize
    read = rgb_from_image(image(pixels, encoding, padding=padding), "image")
    assert (read.shape, read.dtype) == ((height, width, 3), np.uint8)
    assert np.array_equal(read, rgb_from_image(image(pixels, encoding), "image"))


BRIDGED = [
    *(f"bayer_{pattern}8" for pattern in ("rggb", "bggr", "gbrg", "grbg")),
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "rgb16", "bgr16", "rgba16", "bgra16"),
    "yuv422",
]


@pytest.mark.parametrize("encoding", BRIDGED)
def test_our_reading_is_cv_bridge_s(encoding: str) -> None:
    bridge, fault = working_bridge()
    if bridge is None:
        pytest.skip(f"no cv_bridge to compare with: {fault}")
    packed = PACKED[encoding]
    shape = (6, 8, packed.channels) if packed.channels > 1 else (6, 8)
    top = np.iinfo(packed.dtype).max
    pixels = np.random.default_rng(5).integers(0, top, shape, packed.dtype, endpoint=True)
    message = image(pixels, encoding)
    try:
        theirs = np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:  # whatever its tables raise
        pytest.skip(f"this cv_bridge cannot read {encoding}: {type(error).__name__}: {error}")
    assert np.array_equal(rgb_from_image(message, "image"), theirs)

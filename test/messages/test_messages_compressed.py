"""CompressedImage to RGB: JPEG and PNG, the formats that drivers write, and damaged data."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from helpers import pictures
from helpers.image_messages import compressed
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage

from d3_ros.errors import MessageError
from d3_ros.messages.compressed import rgb_from_compressed
from d3_ros.messages.cv_bridge_fallback import working_bridge

pytestmark = pytest.mark.ros

# Three flat fields, which JPEG keeps but for rounding.
COLOURS = [(200, 40, 90), (20, 180, 60), (250, 250, 10)]
FIELDS = np.repeat(np.array([COLOURS], np.uint8).repeat(16, axis=1), 32, axis=0)


def encoded(pixels: np.ndarray, kind: str, text: str) -> CompressedImage:
    """`pixels` in the order that OpenCV expects: blue first."""
    done, data = cv2.imencode(f".{kind}", pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert done
    return compressed(data.tobytes(), text)


def differs(rgb: np.ndarray, expected: np.ndarray) -> int:
    """Largest difference in the middle of the fields: JPEG blurs colour over their borders."""
    assert (rgb.shape, rgb.dtype) == (expected.shape, np.uint8)
    return int(np.abs(rgb.astype(int) - expected.astype(int))[:, 6::16].max())


@pytest.mark.parametrize(
    "text",
    [
        "jpeg",
        "jpg",
        "",
        "rgb8; jpeg compressed bgr8",
        "bgr8; jpeg compressed bgr8",
        "bgra8; jpeg compressed bgr8",
        "yuv422_yuy2; jpeg compressed bgr8",
        "bayer_rggb8; jpeg compressed bgr8",
        "rgb8; jpeg",
    ],
)
def test_a_jpeg_is_rgb_whatever_its_format_says(text: str) -> None:
    rgb = rgb_from_compressed(encoded(FIELDS[..., ::-1], "jpg", text), "image")
    assert differs(rgb, FIELDS) <= 4


def test_channels_that_went_in_swapped_come_out_right() -> None:
    """image_transport: the encoder was given RGB where it expects BGR."""
    message = encoded(FIELDS, "jpg", "rgb8; jpeg compressed rgb8")
    assert differs(rgb_from_compressed(message, "image"), FIELDS) <= 4


def test_png_is_exact_and_alpha_is_dropped() -> None:
    bgr = FIELDS[..., ::-1]
    for text in ("png", "rgb8; png compressed bgr8"):
        assert np.array_equal(rgb_from_compressed(encoded(bgr, "png", text), "image"), FIELDS)
    bgra = np.dstack([bgr, np.full(bgr.shape[:2], 7, np.uint8)])
    assert np.array_equal(rgb_from_compressed(encoded(bgra, "png", "png"), "image"), FIELDS)


def test_16_bit_colour_and_grey_are_scaled_by_their_bit_depth() -> None:
    bgr = FIELDS[..., ::-1].astype(np.uint16)
    message = encoded(bgr * 257, "png", "rgb16; png compressed bgr16")
    assert np.array_equal(rgb_from_compressed(message, "image"), FIELDS)
    grey = encoded(np.full((2, 2), 4095, np.uint16), "png", "mono16; png compressed ")
    assert (rgb_from_compressed(grey, "image", 12) == 255).all()


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_mono(kind: str) -> None:
    message = encoded(np.full((8, 8), 77, np.uint8), kind, f"mono8; {kind} compressed ")
    rgb = rgb_from_compressed(message, "image")
    assert rgb.shape == (8, 8, 3)
    assert np.abs(rgb.astype(int) - 77).max() <= 1


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_a_bayer_mosaic_in_a_png(bits: int, dtype: type) -> None:
    mosaic = np.zeros((6, 6), dtype)
    mosaic[::2, ::2] = np.iinfo(dtype).max  # red, first
    message = encoded(mosaic, "png", f"bayer_rggb{bits}; png compressed ")
    assert (
        rgb_from_compressed(message, "image").tolist() == np.full((6, 6, 3), [255, 0, 0]).tolist()
    )


def test_the_camera_s_orientation_is_kept() -> None:
    """camera_info describes the image as it is stored, not as an EXIF tag would turn it."""
    plain = encoded(FIELDS[..., ::-1], "jpg", "jpeg")
    turned = compressed(pictures.with_orientation(bytes(plain.data), 6), "jpeg")
    assert cv2.imdecode(np.frombuffer(turned.data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (
        48,
        32,
    )
    assert rgb_from_compressed(turned, "image").shape[:2] == (32, 48)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (compressed(b"", "jpeg"), "is no picture"),
        (
            compressed(b"hello, world", "jpeg"),
            "12 bytes is no picture (JPEG, PNG",
        ),
        (
            compressed(bytes(12) + b"\x89PNG\r\n\x1a\n", "16UC1; compressedDepth png"),
            "is no picture",
        ),
        (encoded(np.ones((4, 4), np.uint16), "png", "16UC1; png compressed "), "depth image"),
        (encoded(np.ones((4, 4), np.uint16), "png", "png"), "depth image: remap 'image'"),
    ],
)
def test_what_is_no_camera_image_is_one_line(message: CompressedImage, words: str) -> None:
    with pytest.raises(MessageError) as told:
        rgb_from_compressed(message, "cam/image/compressed")
    assert words in str(told.value)
    assert "'cam/image/compressed'" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_cut_or_damaged_image_is_one_line(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """OpenCV itself would give a picture whose lower part is grey."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    data = bytes(encoded(noise, kind, kind).data)
    with pytest.raises(MessageError, match=r"is damaged or cut short: check its publisher"):
        rgb_from_compressed(compressed(data[: len(data) // 2], kind), "image")
    with pytest.raises(MessageError, match=r"is damaged or cut short"):
        rgb_from_compressed(compressed(data[:16] + data[-12:], kind), "image")
    assert capfd.readouterr().out == ""


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]),
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd9", b"IEND\xaeB`\x82"]),
)
@settings(max_examples=50, deadline=None)
def test_no_bytes_raise_anything_else(start: bytes, middle: bytes, end: bytes) -> None:
    with contextlib.suppress(MessageError):
        assert rgb_from_compressed(compressed(start + middle + end, "jpeg"), "i").ndim == 3


def test_a_header_of_a_huge_image_and_floats_are_refused() -> None:
    png = pictures.png_of_declared_size(2**31 - 1, 2**31 - 1)
    with pytest.raises(MessageError, match="pixels, more than the limit of 64 megapixels"):
        rgb_from_compressed(compressed(png, "png"), "image")
    tiff = encoded(np.zeros((4, 4, 3), np.float32), "tiff", "tiff")
    with pytest.raises(MessageError, match="has float32 pixels"):
        rgb_from_compressed(tiff, "image")


def test_our_reading_is_cv_bridge_s() -> None:
    bridge, fault = working_bridge()
    if bridge is None:
        pytest.skip(f"no cv_bridge to compare with: {fault}")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    message = encoded(noise, "jpg", "rgb8; jpeg compressed bgr8")
    theirs = bridge.compressed_imgmsg_to_cv2(message, "rgb8")
    assert np.array_equal(rgb_from_compressed(message, "image"), theirs)

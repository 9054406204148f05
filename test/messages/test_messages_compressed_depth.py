"""Compressed images and compressed depth as arrays, by hand; what is said of bad ones."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from std_msgs.msg import Header

from d3_ros.errors import MessageError
from d3_ros.messages.compressed import depth_from_any, depth_message, rgb_from_any


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
    with pytest.raises(MessageError, match=r"'/d': .* is damaged or cut short"):
        depth_from_any(floats, "/d")


def test_a_jpeg_that_was_cut_off_is_refused_and_padding_is_not() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = cv2.imencode(".jpg", grey)[1].tobytes()
    half = SimpleNamespace(format="jpeg", data=np.frombuffer(data[: len(data) // 2], np.uint8))
    with pytest.raises(MessageError, match=r"'/image': .* cut short"):
        rgb_from_any(half, "/image")
    padded = SimpleNamespace(format="jpeg", data=np.frombuffer(data + bytes(200), np.uint8))
    assert rgb_from_any(padded, "/image").shape == (64, 64, 3)


Q = 100.0
A = Q * (Q + 1.0)  # 10100


def published(metres: np.ndarray, encoding: str, max_m: float = 10.0) -> tuple[Any, np.ndarray]:
    """The message and the pixels of its PNG, read as the format is published."""
    message = depth_message(Header(), metres.astype(np.float32), encoding, max_m, Q)
    assert message.format == f"{encoding}; compressedDepth png"
    png = np.frombuffer(message.data, np.uint8)[12:]
    return message, cv2.imdecode(png, cv2.IMREAD_UNCHANGED)


@pytest.mark.ros
def test_metres_are_stored_as_the_plugin_stores_them() -> None:
    metres = np.array([[1.0, 2.0, 9.99, 10.0], [0.5, 0.1, -1.0, np.nan], [0.0, np.inf, 80.0, 4.0]])
    message, pixels = published(metres, "32FC1")
    assert bytes(message.data)[:12] == struct.pack("<iff", 0, 10100.0, -1009.0)
    # 10100 / z + 1 - 1010, rounded down; 0 for unknown, for 10 m and more, for less than 0.15 m.
    assert pixels.dtype == np.uint16
    assert pixels.tolist() == [[9091, 4041, 2, 0], [19191, 0, 0, 0], [0, 0, 0, 1516]]
    message, pixels = published(metres, "16UC1")
    assert bytes(message.data)[:12] == bytes(12)
    assert pixels.tolist() == [[1000, 2000, 9990, 10000], [500, 100, 0, 0], [0, 0, 0, 4000]]


@pytest.mark.ros
@given(st.floats(1.0, 900.0), st.integers(0, 2**32 - 1))
def test_depth_comes_back_within_the_quantisation(max_m: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    metres = np.exp(random.uniform(np.log(0.16), np.log(max_m), (6, 7))).astype(np.float32)
    metres[metres >= max_m] = 0.5
    metres[random.uniform(size=metres.shape) < 0.2] = np.nan
    message, _ = published(metres, "32FC1", max_m)
    decoded = depth_from_any(message, "/d")
    # The last level before 0 is one step, or rounding, from the largest depth.
    known = np.isfinite(metres) & ~(np.isnan(decoded) & (metres > 0.999 * max_m))
    assert np.isnan(decoded[np.isnan(metres)]).all()
    error = decoded[known] - metres[known]
    assert (error >= -1e-5 * metres[known]).all()
    assert (error <= 1.001 * metres[known] ** 2 / (A - metres[known]) + 1e-5).all()


@pytest.mark.ros
def test_depth_beyond_16_bits_of_millimetres_is_unknown() -> None:
    _, pixels = published(np.array([[65.0, 66.0, 70.0]]), "16UC1", max_m=100.0)
    assert pixels.tolist() == [[65000, 0, 0]]

"""Compressed images and compressed depth as arrays, by hand; what is said of bad ones."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from d3_ros.errors import MessageError
from d3_ros.messages.compressed import depth_from_any, rgb_from_any


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

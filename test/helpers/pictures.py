"""Picture files as cameras, phones and attackers make them."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np


def jpeg(bgr: np.ndarray, *parameters: int) -> bytes:
    return bytes(cv2.imencode(".jpg", bgr, parameters)[1])


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF segment that has one tag: how a viewer shall turn the picture."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + struct.pack("<HHI", orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def jpeg_of_declared_size(width: int, height: int) -> bytes:
    """A small JPEG whose header declares another size."""
    data = bytearray(jpeg(np.zeros((8, 8, 3), np.uint8)))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def png_of_declared_size(width: int, height: int) -> bytes:
    """A small PNG whose header declares another size, with the right checksum."""
    data = bytearray(png(np.zeros((2, 2, 3), np.uint8)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def bmp_of_declared_size(width: int, height: int) -> bytes:
    """The 54 bytes of a BMP's header and 4 of its pixels."""
    return (
        b"BM"
        + struct.pack("<IHHI", 58, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 4, 0, 0, 0, 0)
        + bytes(4)
    )

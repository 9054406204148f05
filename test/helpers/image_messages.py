"""Image messages as camera drivers make them."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import CompressedImage, Image


def image(
    pixels: np.ndarray, encoding: str, *, padding: int = 0, big_endian: bool = False
) -> Image:
    """A message as a camera's driver makes it: bytes row by row, `padding` of 0xEE after each."""
    height, width = pixels.shape[:2]
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = stored.reshape(height, -1).view(np.uint8)
    filler = np.full((height, padding), 0xEE, np.uint8)
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=int(big_endian))
    message.step = rows.shape[1] + padding
    message.data = array.array("B", np.hstack([rows, filler]).tobytes())
    return message


def compressed(data: bytes, text: str) -> CompressedImage:
    message = CompressedImage(format=text)
    message.data = array.array("B", data)
    return message

"""Images that may be compressed or not, as in bags; and the depth of compressedDepth topics."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from d3_ros.errors import MessageError
from d3_ros.imaging.image_file import decode_whole
from d3_ros.messages.compressed import rgb_from_compressed
from d3_ros.messages.images import depth_from_image, metres_from_millimetres, rgb_from_image

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage

# ConfigHeader of compressed_depth_image_transport: an int, then the two floats of the quantiser.
DEPTH_HEADER = struct.Struct("<iff")


def rgb_from_any(message: Any, topic: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or a CompressedImage.

    Raises:
        MessageError: it cannot be decoded.
    """
    if not is_compressed(message):
        return rgb_from_image(message, topic)
    return rgb_from_compressed(message, topic)


def depth_from_any(message: Any, topic: str) -> np.ndarray:
    """(H, W) float32 z-depth in metres, NaN = none, of an Image or a CompressedImage.

    Raises:
        MessageError: it cannot be decoded, or is not depth.
    """
    if not is_compressed(message):
        return depth_from_image(message, topic)
    return _depth_from_compressed(message, topic)


def is_compressed(message: Any) -> bool:
    """Whether a message is a CompressedImage rather than an Image."""
    return hasattr(message, "format")


def _depth_from_compressed(message: CompressedImage, topic: str) -> np.ndarray:
    """compressedDepth (a header, then a PNG) or a bare 16-bit PNG.

    16UC1 is millimetres. 32FC1 is inverse depth in 16 bits: z = a / (value - b) with a and b of the
    header (compressed_depth_image_transport, codec.cpp); 0 is no measurement in both.
    """
    data = np.asarray(message.data, np.uint8).tobytes()
    has_header = "compressedDepth" in message.format
    png = data[DEPTH_HEADER.size :] if has_header else data
    pixels = decode_whole(png, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise MessageError(
            f"'{topic}': a message of format {message.format!r} is not a 16-bit PNG: publish depth "
            "with compressedDepth in its png format, or raw"
        )
    if not (has_header and message.format.startswith("32FC1")):
        return metres_from_millimetres(pixels)
    _, a, b = DEPTH_HEADER.unpack(data[: DEPTH_HEADER.size])
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    return np.where((pixels > 0) & (metres > 0) & np.isfinite(metres), metres, np.float32(np.nan))

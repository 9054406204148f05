"""Camera images as JPEG or PNG: sensor_msgs/CompressedImage to RGB.

What is in the data decides, not the message's `format`, which drivers fill in as they like
("jpeg", "jpg", "rgb8; jpeg compressed bgr8"). Three things are taken from it, as image_transport's
plugin writes it: whether a grey picture is a Bayer mosaic, whether 16 bits are a camera's or a
depth image's, and whether the channels went into the encoder in the order RGB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from d3_ros.errors import MessageError
from d3_ros.imaging.image_file import FILE_ENDS, decode_whole
from d3_ros.messages.colour_encodings import PACKED, Packed, packed_to_rgb

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import CompressedImage


def rgb_from_compressed(message: CompressedImage, topic: str, bit_depth: int = 16) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG or PNG; its EXIF orientation is not followed.

    Args:
        message: the image.
        topic: where it came from, for the error's text.
        bit_depth: significant bits of 16 bit pixels, as for `rgb_from_image`.

    Raises:
        MessageError: neither JPEG nor PNG, cut short or damaged, or a depth image.
    """
    data = np.asarray(message.data, np.uint8).tobytes()
    described = f"'{topic}': {message.format!r} of {len(data)} bytes"
    # Unchanged: as stored, which also leaves the image in the orientation of its camera_info.
    pixels = decode_whole(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        if data[:3] in FILE_ENDS:
            raise MessageError(
                f"{described} is damaged or cut short: check its publisher and the network between"
            )
        raise MessageError(
            f"{described} is neither JPEG nor PNG: publish one of them, or the raw image "
            "(image.transport: raw)"
        )
    return packed_to_rgb(pixels, _encoding(pixels, message.format, described), bit_depth)


def _encoding(pixels: np.ndarray, text: str, described: str) -> Packed:
    """The encoding of the decoded pixels, which are in OpenCV's order, blue first."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MessageError(f"{described} has {pixels.dtype} pixels: publish 8 or 16 bits")
    original, _, rest = (part.strip() for part in text.partition(";"))
    bits = 8 * pixels.dtype.itemsize
    if pixels.ndim == 2:
        if original.startswith("bayer_"):
            mosaic = original.removesuffix("16").removesuffix("8")
            return PACKED.get(f"{mosaic}{bits}", PACKED[f"mono{bits}"])
        if bits == 16 and original != "mono16":
            raise MessageError(
                f"{described} has one channel of 16 bits, which is a depth image: remap 'image' to "
                "a colour or mono camera"
            )
        return PACKED[f"mono{bits}"]
    order = "rgb" if "compressed rgb" in rest else "bgr"
    return PACKED[f"{order}{'a' if pixels.shape[2] == 4 else ''}{bits}"]

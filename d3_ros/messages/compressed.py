"""sensor_msgs/CompressedImage to arrays and back: JPEG and PNG, colour and compressedDepth.

The data decides what a picture is, not the message's `format`, which drivers fill in as they like
("jpeg", "jpg", "rgb8; jpeg compressed bgr8"). Three things are taken from `format`, as
image_transport's plugin writes it: whether a grey picture is a Bayer mosaic, whether 16 bits are a
camera's or a depth image's, and whether the channels went into the encoder in the order RGB.
"""

from __future__ import annotations

import array
import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from d3_ros.errors import MessageError, one_line
from d3_ros.imaging.image_file import (
    MAX_MEGAPIXELS,
    PictureError,
    decode_picture,
    encode_jpeg,
    encode_png,
)
from d3_ros.messages.colour_encodings import PACKED, Packed, packed_to_rgb
from d3_ros.messages.images import (
    depth_from_image,
    metres_from_millimetres,
    millimetres_from_metres,
    rgb_from_image,
)

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import CompressedImage
    from std_msgs.msg import Header

# ConfigHeader of compressed_depth_image_transport: an int, then the two floats of the quantiser.
DEPTH_HEADER = struct.Struct("<iff")
_INVERSE_DEPTH = 0  # the only value that the int takes, for millimetres too


def rgb_from_any(
    message: Any, topic: str, bit_depth: int = 16, max_megapixels: float = MAX_MEGAPIXELS
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or a CompressedImage; arguments as `rgb_from_compressed`.

    Raises:
        MessageError: it cannot be decoded.
    """
    if not is_compressed(message):
        return rgb_from_image(message, topic, bit_depth)
    return rgb_from_compressed(message, topic, bit_depth, max_megapixels)


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


def rgb_from_compressed(
    message: CompressedImage,
    topic: str,
    bit_depth: int = 16,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG or PNG; its EXIF orientation is not followed.

    Args:
        message: the image.
        topic: where it came from, for the error's text.
        bit_depth: significant bits of 16 bit pixels, as for `rgb_from_image`.
        max_megapixels: larger images are not decoded, in 10⁶ pixels.

    Raises:
        MessageError: no picture, cut short or damaged, too large, or a depth image.
    """
    data = np.asarray(message.data, np.uint8).tobytes()
    described = f"'{topic}': {message.format!r} of {len(data)} bytes"
    # Unchanged: as stored, which also leaves the image in the orientation of its camera_info.
    try:
        pixels = decode_picture(data, cv2.IMREAD_UNCHANGED, max_megapixels)
        return packed_to_rgb(pixels, _encoding(pixels, message.format, described), bit_depth)
    except (PictureError, cv2.error) as error:
        raise MessageError(
            f"{described} {one_line(error)}: check its publisher and the network between, or "
            "publish the raw image (image.transport: raw)"
        ) from error


def jpeg_message(header: Header, rgb: np.ndarray, quality: int) -> CompressedImage:
    """(H, W, 3) uint8 RGB as image_transport's `compressed` plugin publishes an rgb8 image.

    `quality`: 1 to 100.
    """
    from sensor_msgs.msg import CompressedImage

    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = array.array("B", encode_jpeg(rgb, quality))
    return message


def depth_message(
    header: Header, depth_m: np.ndarray, encoding: str, max_m: float, quantization: float
) -> CompressedImage:
    """(H, W) float32 metres as compressed_depth_image_transport publishes a depth image.

    What the message cannot hold is 0, no measurement: NaN, depth from `max_m` on, and in 32FC1
    depth nearer than about `quantization`² / 65535 metres.

    Args:
        header: the message's.
        depth_m: z-depth, NaN = unknown.
        encoding: of the image that a subscriber gets. 32FC1: inverse depth in 16 bits, rounded down
            as the plugin does, which makes depth z larger by up to z² / `quantization`² metres.
            16UC1: millimetres.
        max_m: largest depth, metres.
        quantization: of 32FC1.
    """
    from sensor_msgs.msg import CompressedImage

    a = b = np.float32(0.0)
    if encoding == "16UC1":
        stored = millimetres_from_metres(np.where(depth_m <= max_m, depth_m, np.float32(np.nan)))
    else:
        a = np.float32(quantization * (quantization + 1.0))
        b = np.float32(1.0) - a / np.float32(max_m)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = a / depth_m + b
            holds = (depth_m > 0) & (depth_m < max_m) & (inverse < 65536)
        stored = np.where(holds, inverse, np.float32(0.0)).astype(np.uint16)
    message = CompressedImage(header=header, format=f"{encoding}; compressedDepth png")
    message.data = array.array("B", DEPTH_HEADER.pack(_INVERSE_DEPTH, a, b) + encode_png(stored))
    return message


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


def _depth_from_compressed(message: CompressedImage, topic: str) -> np.ndarray:
    """compressedDepth (a header, then a PNG) or a bare 16-bit PNG.

    16UC1 is millimetres. 32FC1 is inverse depth in 16 bits: z = a / (value - b) with a and b of the
    header (compressed_depth_image_transport, codec.cpp); 0 is no measurement in both.
    """
    data = np.asarray(message.data, np.uint8).tobytes()
    has_header = "compressedDepth" in message.format
    png = data[DEPTH_HEADER.size :] if has_header else data
    try:
        pixels = decode_picture(png, cv2.IMREAD_UNCHANGED)
    except PictureError as error:
        raise MessageError(
            f"'{topic}': {message.format!r} of {len(data)} bytes {error}: publish depth with "
            "compressedDepth in its png format, or raw"
        ) from error
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise MessageError(
            f"'{topic}': a message of format {message.format!r} is {pixels.dtype} of shape "
            f"{pixels.shape}, not a 16-bit PNG: publish depth with compressedDepth in its png "
            "format, or raw"
        )
    if not (has_header and message.format.startswith("32FC1")):
        return metres_from_millimetres(pixels)
    _, a, b = DEPTH_HEADER.unpack(data[: DEPTH_HEADER.size])
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    return np.where((pixels > 0) & (metres > 0) & np.isfinite(metres), metres, np.float32(np.nan))

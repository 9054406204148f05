"""sensor_msgs/Image to arrays and back: colour images and depth images.

Reading: the encodings that cameras publish are read in place, without a copy where the pixels need
no conversion. Rows may be padded (`step`), and pixels of 16 and 32 bits may be big-endian. Every
fault is a MessageError; its one line names the topic and says what to do. Messages of `rosbags`
have the same fields as ROS's own, so both are read.

Writing: `ImageBuffer` fills one message in place. Its `data` is an array.array that lives as long
as its publisher. Publishing serialises at once, so the next frame may overwrite the last. Assigning
bytes or a list to `data` instead would be checked byte by byte in Python, a hundred times slower.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import cv2
import numpy as np

from d3_ros.errors import MessageError, one_line
from d3_ros.messages.colour_encodings import PACKED, PLANAR, Planar, packed_to_rgb, planar_to_rgb
from d3_ros.messages.cv_bridge_fallback import rgb_through_cv_bridge

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

DEPTH_ENCODINGS: dict[str, type] = {
    "16UC1": np.uint16,
    "mono16": np.uint16,
    "32FC1": np.float32,
}

ENCODINGS: dict[str, tuple[type, int]] = {
    "32FC1": (np.float32, 1),
    "16UC1": (np.uint16, 1),
    "32FC3": (np.float32, 3),
    "rgb8": (np.uint8, 3),
}

# REP 118: 16 bit depth is millimetres, 0 is no measurement. A look-up table converts both, fastest.
_MILLIMETRES_TO_METRES = np.arange(65536, dtype=np.float32) * np.float32(0.001)

_MILLIMETRES_TO_METRES[0] = np.nan


def rgb_from_image(message: Image, topic: str, bit_depth: int = 16) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a colour or mono image.

    rgb8 is a view of the message's own data (do not write to it); the encodings in
    `colour_encodings` are converted by OpenCV, and any other by cv_bridge where one is installed
    and works.

    Args:
        message: the image.
        topic: where it came from, for the error's text.
        bit_depth: significant bits of 16 bit pixels; 2^bit_depth - 1 becomes 255.

    Raises:
        MessageError: unknown encoding, too little data, or a `step` or size that does not fit.
    """
    if message.encoding in DEPTH_ENCODINGS and message.encoding not in PACKED:
        raise MessageError(
            f"'{topic}' has encoding {message.encoding}, which is a depth image: "
            "remap 'image' to a colour or mono camera"
        )
    try:
        if packed := PACKED.get(message.encoding):
            if packed.channels == 2 and message.width % 2:  # OpenCV 4.5 would not refuse it
                raise MessageError(
                    f"'{topic}': {message.width} x {message.height} {message.encoding} cannot be "
                    "converted: two pixels share a colour, so the width must be even"
                )
            pixels = _view(message, topic, np.dtype(packed.dtype), packed.channels)
            return packed_to_rgb(pixels, packed, bit_depth)
        if planar := PLANAR.get(message.encoding):
            return planar_to_rgb(*_planes(message, topic, planar), planar)
    except cv2.error as error:
        raise MessageError(
            f"'{topic}': {message.width} x {message.height} {message.encoding} cannot be converted "
            f"to RGB ({one_line(error)}): check its publisher"
        ) from error
    _check_size(message, topic)
    return rgb_through_cv_bridge(message, topic)


def depth_from_image(message: Image, topic: str) -> np.ndarray:
    """(H, W) float32 z-depth in metres of a depth image, NaN where there is no measurement.

    16UC1 and mono16 are millimetres with 0 for none; in 32FC1 (metres) NaN, infinity, zero and
    negative values are none (REP 117, REP 118).

    Raises:
        MessageError: not a depth encoding, too little data, or a `step` that does not fit.
    """
    dtype = DEPTH_ENCODINGS.get(message.encoding)
    if dtype is None:
        raise MessageError(
            f"'{topic}' has encoding {message.encoding!r}, which is not depth: "
            "publish 32FC1 (metres) or 16UC1 (millimetres)"
        )
    pixels = _view(message, topic, np.dtype(dtype), 1)
    if dtype is np.uint16:
        return metres_from_millimetres(pixels)
    metres = pixels.astype(np.float32, copy=False)
    valid = (metres > 0) & (metres < np.inf)
    return np.where(valid, metres, np.float32(np.nan))


def metres_from_millimetres(pixels: np.ndarray) -> np.ndarray:
    """(H, W) uint16 millimetres, 0 = none, to float32 metres, NaN = none."""
    return np.take(_MILLIMETRES_TO_METRES, pixels)


def millimetres_from_metres(depth_m: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """(H, W) float32 metres to uint16 millimetres, rounded, 0 = none (REP 118).

    0 also for what 16 bits cannot hold: a depth is left out rather than made up.

    Args:
        depth_m: NaN = none.
        out: (H, W) uint16 to write to; a new array otherwise.
    """
    out = np.empty(depth_m.shape, np.uint16) if out is None else out
    millimetres = depth_m * np.float32(1000.0)
    holds = (millimetres >= 0.5) & (millimetres < 65535.5)
    np.copyto(out, np.rint(np.where(holds, millimetres, np.float32(0.0))), casting="unsafe")
    return out


class ImageBuffer:
    """One sensor_msgs/Image, filled in place and published again and again."""

    def __init__(self) -> None:
        from sensor_msgs.msg import Image

        self.message = Image()
        self._pixels: np.ndarray | None = None

    def pixels(self, header: Header, height: int, width: int, encoding: str) -> np.ndarray:
        """Writable (H, W) or (H, W, 3) view of the message's data, for this frame.

        Its content is whatever the last frame left. Memory is taken anew only when the size or
        the encoding changes.
        """
        message = self.message
        message.header = header
        if self._pixels is None or (message.height, message.width, message.encoding) != (
            height,
            width,
            encoding,
        ):
            dtype, channels = ENCODINGS[encoding]
            message.height, message.width, message.encoding = height, width, encoding
            message.step = width * channels * np.dtype(dtype).itemsize
            message.is_bigendian = 0
            message.data = array.array("B", bytes(message.step * height))
            shape = (height, width) if channels == 1 else (height, width, channels)
            self._pixels = np.frombuffer(message.data, dtype).reshape(shape)
        return self._pixels

    def fill(self, header: Header, pixels: np.ndarray, encoding: str) -> Image:
        """The message with a copy of (H, W) or (H, W, 3) `pixels`, whose dtype fits `encoding`."""
        height, width = pixels.shape[:2]
        np.copyto(self.pixels(header, height, width, encoding), pixels, casting="no")
        return self.message

    def fill_millimetres(self, header: Header, depth_m: np.ndarray) -> Image:
        """The message as 16UC1 of (H, W) float32 metres: see `millimetres_from_metres`."""
        height, width = depth_m.shape
        millimetres_from_metres(depth_m, out=self.pixels(header, height, width, "16UC1"))
        return self.message


def _check_size(message: Image, topic: str) -> None:
    if message.width == 0 or message.height == 0:
        raise MessageError(
            f"'{topic}' is an empty image, {message.width} x {message.height}: check its publisher"
        )


def _view(message: Image, topic: str, dtype: np.dtype, channels: int) -> np.ndarray:
    """(H, W) or (H, W, C) view of the message's data, in the machine's byte order."""
    _check_size(message, topic)
    height, width, step = message.height, message.width, message.step
    pixel_size = dtype.itemsize * channels
    _check_step(message, topic, width * pixel_size)
    # The padding after the last row carries nothing, and some drivers leave it out.
    _check_data(message, topic, step * (height - 1) + width * pixel_size)
    shape: tuple[int, ...] = (height, width)
    strides: tuple[int, ...] = (step, pixel_size)
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, dtype.itemsize)
    stored = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels: np.ndarray = np.ndarray(shape, stored, buffer=message.data, strides=strides)
    return pixels.astype(dtype, copy=False)  # a copy only where the byte order differs


def _planes(message: Image, topic: str, encoding: Planar) -> tuple[np.ndarray, np.ndarray]:
    """Views of the brightness (H, W) and of the colour, as `planar_to_rgb` takes it."""
    _check_size(message, topic)
    height, width, step = message.height, message.width, message.step
    if encoding.halved and (width % 2 or height % 2):
        raise MessageError(
            f"'{topic}': {width} x {height} {message.encoding} has an odd width or height, which "
            "this encoding cannot have: check its publisher"
        )
    rows, columns = (height // 2, width // 2) if encoding.halved else (height, width)
    # A row of one plane is half as long as the image's; one of pairs holds two values a pixel.
    row = step // 2 if encoding.apart else step if encoding.halved else 2 * step
    shape = (2, rows, columns) if encoding.apart else (rows, columns, 2)
    strides = (row * rows, row, 1) if encoding.apart else (row, 2, 1)
    _check_step(message, topic, width)
    last_row = columns if encoding.apart else 2 * columns
    planes = 2 if encoding.apart else 1
    _check_data(message, topic, step * height + row * (planes * rows - 1) + last_row)
    brightness: np.ndarray = np.ndarray((height, width), np.uint8, message.data, 0, (step, 1))
    colour: np.ndarray = np.ndarray(shape, np.uint8, message.data, step * height, strides)
    return brightness, colour


def _check_step(message: Image, topic: str, least: int) -> None:
    if message.step < least:
        raise MessageError(
            f"'{topic}': {message.width} x {message.height} {message.encoding} needs a step of at "
            f"least {least} bytes, got {message.step}: check its publisher"
        )


def _check_data(message: Image, topic: str, least: int) -> None:
    if len(message.data) < least:
        raise MessageError(
            f"'{topic}': {message.width} x {message.height} {message.encoding} with step "
            f"{message.step} needs {least} bytes of data, got {len(message.data)}: "
            "check its publisher"
        )

"""ROS messages to arrays: colour images, depth images and camera calibrations.

The encodings that cameras publish are read in place, without a copy of the message's data where the
pixels need no conversion; rows may be padded (`step`) and 16 and 32 bit pixels big-endian. Every
fault is a MessageError whose one line names the topic and says what to do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from d3_ros.errors import DataError, MessageError, one_line
from d3_ros.geometry.camera import is_distorted
from d3_ros.messages.colour_encodings import PACKED, PLANAR, packed_to_rgb, planar_to_rgb
from d3_ros.messages.cv_bridge_fallback import rgb_through_cv_bridge
from d3_ros.types import CameraIntrinsics, DistortionModel

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import CameraInfo, Image

DEPTH_ENCODINGS: dict[str, type] = {
    "16UC1": np.uint16,
    "mono16": np.uint16,
    "32FC1": np.float32,
}
DISTORTION_MODELS: tuple[DistortionModel, ...] = (
    "plumb_bob",
    "rational_polynomial",
    "equidistant",
)

# REP 118: 16 bit depth is millimetres, 0 is no measurement. One gather is the fastest way to both.
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
            pixels = _view(message, topic, np.dtype(packed.dtype), packed.channels)
            return packed_to_rgb(pixels, packed, bit_depth)
        if message.encoding in PLANAR:
            return planar_to_rgb(*_planes(message, topic), message.encoding)
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


def intrinsics_from_camera_info(
    info: CameraInfo,
    width: int,
    height: int,
    *,
    topic: str,
    image_topic: str,
    rectified: bool = False,
) -> CameraIntrinsics | None:
    """The camera at the size of its image, region of interest and binning applied.

    K and D describe the raw image, P the rectified one (sensor_msgs/CameraInfo).

    Args:
        info: the calibration, for the full sensor (`info.width` x `info.height`).
        width: columns of the image that it belongs to.
        height: rows of that image.
        topic: where `info` came from, for the error's text.
        image_topic: where the image came from, likewise.
        rectified: the image is already rectified: take P and no distortion.

    Returns:
        The intrinsics, or None where the camera is uncalibrated (K[0] = 0).

    Raises:
        MessageError: sizes disagree, or the calibration is not usable.
    """
    fx, fy, cx, cy = (
        (info.p[0], info.p[5], info.p[2], info.p[6])
        if rectified
        else (info.k[0], info.k[4], info.k[2], info.k[5])
    )
    if fx == 0.0:
        return None
    expected_width, expected_height = image_size(info)
    if (expected_width, expected_height) != (width, height):
        raise MessageError(
            f"'{topic}' describes {expected_width} x {expected_height} images but '{image_topic}' "
            f"is {width} x {height}: publish the calibration of this image size"
        )
    matrix = "P" if rectified else "K"
    if not (math.isfinite(fx + fy + cx + cy) and fx > 0 and fy > 0):
        raise MessageError(
            f"'{topic}' has an unusable {matrix}: fx={fx}, fy={fy}, cx={cx}, cy={cy}: "
            "calibrate the camera"
        )
    binning_x, binning_y = binning(info)
    model, coefficients = ("none", ()) if rectified else _distortion(info, topic)
    intrinsics = CameraIntrinsics(
        width=width,
        height=height,
        fx=fx / binning_x,
        fy=fy / binning_y,
        cx=(cx - info.roi.x_offset) / binning_x,
        cy=(cy - info.roi.y_offset) / binning_y,
        distortion_model=model,
        distortion=coefficients,
    )
    try:
        bends = is_distorted(intrinsics)
    except DataError as error:
        raise MessageError(f"'{topic}': {error}") from error
    if not bends:
        return CameraIntrinsics(
            width, height, intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
        )
    return intrinsics


def binning(info: CameraInfo) -> tuple[int, int]:
    """Pixels that were combined in x and y; 0 in the message means 1."""
    return max(info.binning_x, 1), max(info.binning_y, 1)


def image_size(info: CameraInfo) -> tuple[int, int]:
    """(width, height) of the image: region of interest, or else the full sensor, over binning."""
    width = info.roi.width or info.width
    height = info.roi.height or info.height
    binning_x, binning_y = binning(info)
    return width // binning_x, height // binning_y


def _distortion(info: CameraInfo, topic: str) -> tuple[DistortionModel, tuple[float, ...]]:
    coefficients = tuple(float(value) for value in info.d)
    model = info.distortion_model
    if not any(coefficients) and model != "equidistant":
        return "none", ()
    for known in DISTORTION_MODELS:
        if model == known:
            if known == "rational_polynomial" and not any(coefficients[8:]):
                # OpenCV also writes 12 or 14, with thin prism and tilt terms that are rarely used.
                coefficients = coefficients[:8]
            return known, coefficients
    raise MessageError(
        f"'{topic}' has distortion model {model!r}, known are {', '.join(DISTORTION_MODELS)}: "
        "rectify the image first and set the parameter image.rectified"
    )


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


def _planes(message: Image, topic: str) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) and (h, w, 2) views of the two planes of an image in one of `PLANAR`."""
    _check_size(message, topic)
    height, width, step = message.height, message.width, message.step
    share, steps = PLANAR[message.encoding]
    rows, columns = round(height * share), round(width * share)
    _check_step(message, topic, width)
    _check_data(message, topic, step * height + step * steps * (rows - 1) + 2 * columns)
    brightness: np.ndarray = np.ndarray((height, width), np.uint8, message.data, 0, (step, 1))
    colour: np.ndarray = np.ndarray(
        (rows, columns, 2), np.uint8, message.data, step * height, (step * steps, 2, 1)
    )
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

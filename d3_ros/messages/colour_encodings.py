"""The encodings of sensor_msgs/Image that show colour or grey, and how each becomes RGB.

Packed encodings are a view of the message and one conversion by OpenCV. Planar ones keep brightness
(Y) and colour (U, V) apart, laid out as Video4Linux2 does, one plane after the other:

    nv12, nv21      a row of U V pairs (nv21: V U) for every two rows of the image
    nv24            a row of U V pairs, twice as long as the image's, for every row
    i420, yv12      a plane of U, then one of V (yv12: V, then U); their rows are half as long as
                    the image's, one for every two rows
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Packed:
    """Pixels one after the other: (H, W) or, with channels, (H, W, C) of `dtype`.

    `conversion`: OpenCV's to RGB, None where it is RGB already.
    """

    dtype: type
    channels: int
    conversion: int | None


# OpenCV names a Bayer pattern after its second row and second column, ROS after its first pixels:
# what ROS calls rggb is OpenCV's BG.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_COLOUR: dict[str, tuple[int, int | None]] = {
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "mono": (1, cv2.COLOR_GRAY2RGB),
    **{f"bayer_{pattern}": (1, conversion) for pattern, conversion in _BAYER.items()},
}
PACKED: dict[str, Packed] = {
    **{f"{name}8": Packed(np.uint8, *rest) for name, rest in _COLOUR.items()},
    **{f"{name}16": Packed(np.uint16, *rest) for name, rest in _COLOUR.items()},
    # Bare OpenCV types, from drivers that pass an image on as it is: OpenCV's own order.
    "8UC1": Packed(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": Packed(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC4": Packed(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    # 4:2:2, two names each since ROS 2 Iron.
    "uyvy": Packed(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": Packed(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": Packed(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": Packed(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
}


@dataclass(frozen=True)
class Planar:
    """How the colour of a planar encoding is laid out.

    halved: a colour value belongs to 2 x 2 pixels, instead of one.
    apart: U and V are in two planes, instead of in pairs.
    v_first: V comes before U.
    """

    halved: bool
    apart: bool
    v_first: bool


PLANAR: dict[str, Planar] = {
    "nv12": Planar(halved=True, apart=False, v_first=False),
    "nv21": Planar(halved=True, apart=False, v_first=True),
    "nv24": Planar(halved=False, apart=False, v_first=False),
    "i420": Planar(halved=True, apart=True, v_first=False),
    "yuv420": Planar(halved=True, apart=True, v_first=False),  # libcamera's name of i420
    "yv12": Planar(halved=True, apart=True, v_first=True),
}

# ITU-R BT.601 in video range, the matrix of OpenCV's other YUV conversions.
_YUV_TO_RGB = np.array(
    [
        [1.164383, 0.0, 1.596027],
        [1.164383, -0.391762, -0.812968],
        [1.164383, 2.017232, 0.0],
    ]
)
_YUV_OFFSET = np.array([[16.0], [128.0], [128.0]])
_YUV_TO_RGB_AFFINE = np.hstack([_YUV_TO_RGB, -_YUV_TO_RGB @ _YUV_OFFSET])


def packed_to_rgb(pixels: np.ndarray, encoding: Packed, bit_depth: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB of the pixels of a packed encoding; RGB of 8 bits as it is.

    16 bits become 8 by a fixed factor, 2^bit_depth - 1 to 255: a factor from each image's own
    brightest pixel would make a still scene flicker.

    Raises:
        cv2.error: the size does not suit the encoding.
    """
    if encoding.dtype is np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / (2**bit_depth - 1))
    return pixels if encoding.conversion is None else cv2.cvtColor(pixels, encoding.conversion)


def planar_to_rgb(brightness: np.ndarray, colour: np.ndarray, encoding: Planar) -> np.ndarray:
    """(H, W, 3) uint8 RGB of the planes of an image.

    Args:
        brightness: (H, W) uint8.
        colour: (h, w, 2) uint8 pairs; of planes apart, (2, h, w).
        encoding: how they are laid out.
    """
    if encoding.apart:
        colour = cv2.merge(list(colour))
    if encoding.halved:
        order = cv2.COLOR_YUV2RGB_NV21 if encoding.v_first else cv2.COLOR_YUV2RGB_NV12
        return cv2.cvtColorTwoPlane(brightness, colour, order)
    return cv2.transform(cv2.merge([brightness, *cv2.split(colour)]), _YUV_TO_RGB_AFFINE)

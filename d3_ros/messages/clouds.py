"""Arrays to ROS messages, filled in place.

A message's `data` is an array.array that lives as long as its publisher: publishing serialises
synchronously, so the next frame may be written over the last. Assigning bytes or a list to `data`
instead would be checked and copied byte by byte in Python, a hundred times slower.

Headers are the input image's own, untouched; rows are packed; bytes are little-endian.
"""

from __future__ import annotations

import array
from collections.abc import Sequence

import cv2
import numpy as np
from sensor_msgs.msg import (
    CameraInfo,
    CompressedImage,
    Image,
    PointCloud2,
    PointField,
    RegionOfInterest,
)
from std_msgs.msg import Header

from d3_ros.messages.images import binning, image_size
from d3_ros.types import CameraIntrinsics

ENCODINGS: dict[str, tuple[type, int]] = {
    "32FC1": (np.float32, 1),
    "16UC1": (np.uint16, 1),
    "32FC3": (np.float32, 3),
    "rgb8": (np.uint8, 3),
}
CLOUD_FIELDS = ("x", "y", "z", "rgb")
CLOUD_FIELDS_WITH_NORMALS = (*CLOUD_FIELDS, "normal_x", "normal_y", "normal_z", "curvature")


class ImageBuffer:
    """One sensor_msgs/Image, filled in place and published again and again."""

    def __init__(self) -> None:
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
        """The message as 16UC1 of (H, W) float32 metres (REP 118).

        Rounded to the millimetre; 0, which means none, for NaN and for what 16 bits cannot hold:
        a depth is left out rather than made up.
        """
        height, width = depth_m.shape
        millimetres = depth_m * np.float32(1000.0)
        holds = (millimetres >= 0.5) & (millimetres < 65535.5)
        out = self.pixels(header, height, width, "16UC1")
        np.copyto(out, np.rint(np.where(holds, millimetres, np.float32(0.0))), casting="unsafe")
        return self.message


class CloudBuffer:
    """One organised sensor_msgs/PointCloud2, filled in place and published again and again."""

    def __init__(self) -> None:
        self.message = PointCloud2()
        self._points: np.ndarray | None = None

    def points(self, header: Header, height: int, width: int, *, normals: bool) -> np.ndarray:
        """Writable (H, W, 4) or, with normals, (H, W, 8) float32 view of the message's data.

        The columns are `CLOUD_FIELDS` or `CLOUD_FIELDS_WITH_NORMALS`; `rgb` holds the bits
        0x00RRGGBB.
        """
        message = self.message
        message.header = header
        names = CLOUD_FIELDS_WITH_NORMALS if normals else CLOUD_FIELDS
        shape = (height, width, len(names))
        if self._points is None or self._points.shape != shape:
            message.height, message.width = height, width
            message.fields = _float_fields(names)
            message.point_step = 4 * len(names)
            message.row_step = message.point_step * width
            message.is_bigendian = False
            message.is_dense = False
            message.data = array.array("B", bytes(message.row_step * height))
            self._points = np.frombuffer(message.data, np.float32).reshape(shape)
        return self._points


def light_cloud_message(header: Header, points: np.ndarray) -> PointCloud2:
    """An unorganised, dense cloud of (N, 3) float32 [x y z] metres, all finite."""
    message = PointCloud2(header=header, height=1, width=len(points), is_dense=True)
    message.fields = _float_fields(CLOUD_FIELDS[:3])
    message.point_step = 12
    message.row_step = 12 * len(points)
    message.data = array.array("B", points.astype("<f4", copy=False).tobytes())
    return message


def jpeg_message(header: Header, rgb: np.ndarray, quality: int) -> CompressedImage:
    """(H, W, 3) uint8 RGB as image_transport's `compressed` plugin publishes an rgb8 image.

    `quality`: 1 to 100.
    """
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done  # only a missing codec or an empty image fails
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = array.array("B", data.tobytes())
    return message


def _float_fields(names: Sequence[str]) -> list[PointField]:
    return [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]


def camera_info_from_intrinsics(
    intrinsics: CameraIntrinsics | None, header: Header, width: int, height: int
) -> CameraInfo:
    """CameraInfo of a full-size, unbinned image; without intrinsics: uncalibrated, K[0] = 0."""
    info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    if intrinsics is None:
        return info
    if intrinsics.distortion_model != "none":
        info.distortion_model = intrinsics.distortion_model
        info.d = list(intrinsics.distortion)
    k = intrinsics.matrix
    info.k = k.ravel().tolist()
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [*k[0].tolist(), 0.0, *k[1].tolist(), 0.0, *k[2].tolist(), 0.0]
    return info


def output_camera_info(
    info: CameraInfo, header: Header, width: int, height: int, *, rectified: bool = False
) -> CameraInfo:
    """The calibration of an image of ours that shows what the input image shows.

    Region of interest and binning are applied and cleared, as readers that know only K and the
    size expect. A size other than the input's scales K and P with half-pixel centres, pixel (0, 0)
    being the centre of the first one. D and R stay, but for a rectified image K = P[:3, :3],
    D = 0 and R = I; where P is unset, it is K.

    Args:
        info: the input's calibration, for the full sensor.
        header: the input image's.
        width: columns of the image that the answer belongs to.
        height: rows of it.
        rectified: the image is rectified.
    """
    out = CameraInfo(header=header, width=width, height=height, roi=RegionOfInterest())
    out.distortion_model = info.distortion_model
    k = _at_size(np.array(info.k).reshape(3, 3), info, width, height)
    p = _at_size(np.array(info.p).reshape(3, 4), info, width, height)
    if rectified:
        # Not the input's model: without coefficients an equidistant lens still bends rays.
        out.distortion_model, out.d = "plumb_bob", [0.0] * 5
        out.r = np.eye(3).ravel().tolist()
        if p[0, 0] == 0.0:  # unset
            p[:, :3] = k
        k = p[:, :3]
    else:
        out.d = list(info.d)
        out.r = info.r.tolist()
    out.k = k.ravel().tolist()
    out.p = p.ravel().tolist()
    return out


def _at_size(matrix: np.ndarray, info: CameraInfo, width: int, height: int) -> np.ndarray:
    """K or P after region of interest, binning and resizing; a matrix of zeros (unset) stays."""
    matrix = matrix.astype(np.float64)
    if matrix[0, 0] == 0.0:
        return matrix
    binned = np.array(binning(info), np.float64)
    scale = np.array([width, height]) / image_size(info)
    offset = np.array([info.roi.x_offset, info.roi.y_offset])
    matrix[:2, 2] = ((matrix[:2, 2] - offset) / binned + 0.5) * scale - 0.5
    matrix[:2, :2] *= (scale / binned)[:, None]
    matrix[:2, 3:] *= (scale / binned)[:, None]  # Tx, Ty of a stereo pair
    return matrix

"""sensor_msgs/CameraInfo to intrinsics and back.

K and D describe the raw image, P the rectified one. K, D and P are those of the full sensor; region
of interest and binning say which part of it the image shows. Every fault is a MessageError; its
one line names the topic and says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from d3_ros.errors import DataError, MessageError
from d3_ros.geometry.camera import is_distorted, lens_distortion
from d3_ros.types import CameraIntrinsics

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header


# No camera has a focal length outside of these, or a principal point beyond: pixels.
MIN_FOCAL_PX, MAX_PX = 0.01, 1e7


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
        The intrinsics, or None where the camera is uncalibrated: K[0] = 0, or P[0] = 0 of a
        rectified image. `why_uncalibrated` says it in words.

    Raises:
        MessageError: sizes disagree, or the calibration is not usable.
    """
    used: Literal["K", "P"] = "P" if rectified else "K"
    fx, fy, cx, cy = _focal_and_centre(info, used)
    if fx == 0.0:
        return None
    _check_size(info, width, height, topic, image_topic)
    binning_x, binning_y = binning(info)
    fx, cx = fx / binning_x, (cx - info.roi.x_offset) / binning_x
    fy, cy = fy / binning_y, (cy - info.roi.y_offset) / binning_y
    focal_lengths = all(MIN_FOCAL_PX <= focal <= MAX_PX for focal in (fx, fy))  # false for NaN
    if not (focal_lengths and abs(cx) <= MAX_PX and abs(cy) <= MAX_PX):
        raise MessageError(
            f"'{topic}' has an unusable {used}: fx={fx}, fy={fy}, cx={cx}, cy={cy} pixels: "
            "calibrate the camera"
        )
    if rectified:
        return CameraIntrinsics(width, height, fx, fy, cx, cy)
    try:
        model, coefficients = lens_distortion(info.distortion_model, info.d)
        intrinsics = CameraIntrinsics(width, height, fx, fy, cx, cy, model, coefficients)
        is_distorted(intrinsics)  # refuses coefficients that are not finite
    except DataError as error:
        raise MessageError(
            f"'{topic}': {error}; or rectify the image and set the parameter image.rectified"
        ) from error
    return intrinsics


def why_uncalibrated(info: CameraInfo, topic: str, *, rectified: bool) -> str:
    """One line that says why `intrinsics_from_camera_info` gave None, and what to do."""
    if rectified and info.k[0] > 0.0:
        return (
            f"'{topic}' has a K but no P (P[0] = 0), which image.rectified takes: publish P, or "
            "set image.rectified to false where the image is not rectified"
        )
    if not rectified and info.p[0] > 0.0:
        return (
            f"'{topic}' has a P but no K (K[0] = 0): set image.rectified to true where the image "
            "is rectified, or publish K and D"
        )
    return f"'{topic}' is uncalibrated ({'P' if rectified else 'K'}[0] = 0): calibrate the camera"


def binning(info: CameraInfo) -> tuple[int, int]:
    """Pixels that were combined in x and y; 0 in the message means 1."""
    return max(info.binning_x, 1), max(info.binning_y, 1)


def image_size(info: CameraInfo) -> tuple[int, int]:
    """(width, height) of the image: region of interest, or else the full sensor, over binning."""
    width = info.roi.width or info.width
    height = info.roi.height or info.height
    binning_x, binning_y = binning(info)
    return width // binning_x, height // binning_y


def camera_info_from_intrinsics(
    intrinsics: CameraIntrinsics | None, header: Header, width: int, height: int
) -> CameraInfo:
    """CameraInfo of a full-size, unbinned image; without intrinsics: uncalibrated, K[0] = 0."""
    from sensor_msgs.msg import CameraInfo

    info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    if intrinsics is None:
        return info
    if intrinsics.distortion_model != "none":
        info.distortion_model = intrinsics.distortion_model
        # CameraInfo defines plumb_bob with five coefficients, whatever the last ones are.
        missing = 5 - len(intrinsics.distortion) if info.distortion_model == "plumb_bob" else 0
        info.d = [*intrinsics.distortion, *[0.0] * missing]
    k = intrinsics.matrix
    info.k = k.ravel().tolist()
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [*k[0].tolist(), 0.0, *k[1].tolist(), 0.0, *k[2].tolist(), 0.0]
    return info


def output_camera_info(
    info: CameraInfo, header: Header, width: int, height: int, *, rectified: bool = False
) -> CameraInfo:
    """CameraInfo of an output image that shows the same view as the input image.

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
    from sensor_msgs.msg import CameraInfo, RegionOfInterest

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


def _focal_and_centre(info: CameraInfo, matrix: Literal["K", "P"]) -> tuple[float, ...]:
    """(fx, fy, cx, cy) in pixels of the full sensor."""
    if matrix == "K":
        return info.k[0], info.k[4], info.k[2], info.k[5]
    return info.p[0], info.p[5], info.p[2], info.p[6]


def _check_size(info: CameraInfo, width: int, height: int, topic: str, image_topic: str) -> None:
    expected = image_size(info)
    if expected == (width, height):
        return
    line = (
        f"'{topic}' describes {expected[0]} x {expected[1]} images but '{image_topic}' is "
        f"{width} x {height}"
    )
    if (info.width, info.height) == (width, height) and binning(info) != (1, 1):
        raise MessageError(
            f"{line}: width and height are those of the binned image already, and binning "
            f"{info.binning_x} x {info.binning_y} is applied to them again: publish width and "
            "height of the full sensor, or binning 0"
        )
    raise MessageError(f"{line}: publish the calibration of this image size")


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

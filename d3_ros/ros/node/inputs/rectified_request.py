"""Rectifies a frame before the network sees it (parameter output.rectified)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sensor_msgs.msg import CameraInfo

from d3_ros.errors import DataError, MessageError
from d3_ros.geometry.rectification import IDENTITY, Rotation, rectification
from d3_ros.messages.camera_info import intrinsics_from_camera_info
from d3_ros.pipeline import FrameRequest
from d3_ros.ros.node.inputs.input_topics import InputTopics
from d3_ros.types import CameraIntrinsics, CameraMounting


def rectified_request(
    request: FrameRequest, info: CameraInfo | None, topics: InputTopics
) -> FrameRequest:
    """The request of the rectified image: image, sensor depth, camera and what lies outside.

    The rectified camera is P of camera_info, or K without distortion where there is no P.

    Args:
        request: of the raw image.
        info: its calibration.
        topics: where both came from, for error messages.

    Raises:
        MessageError: there is no usable calibration.
    """
    raw = request.intrinsics
    if info is None or raw is None:
        raise MessageError(
            f"output.rectified needs a calibrated camera_info on '{topics.camera_info}': calibrate "
            "the camera, or set output.rectified to false"
        )
    size = (raw.width, raw.height)
    pinhole = intrinsics_from_camera_info(
        info, *size, topic=topics.camera_info, image_topic=topics.image, rectified=True
    )
    rotation = tuple(info.r.tolist()) if any(info.r) else IDENTITY
    try:
        found = rectification(
            raw, pinhole or CameraIntrinsics(*size, raw.fx, raw.fy, raw.cx, raw.cy), rotation
        )
    except DataError as error:
        raise MessageError(f"'{topics.camera_info}': {error}") from error
    outside = ~found.inside
    if request.outside is not None:
        outside |= found.image(request.outside.astype(np.uint8) * 255) > 0
    return replace(
        request,
        rgb=found.image(request.rgb),
        sparse=None if request.sparse is None else found.depth(request.sparse),
        intrinsics=found.camera,
        mounting=None if request.mounting is None else _turned(request.mounting, rotation),
        outside=outside if outside.any() else None,
    )


def _turned(mounting: CameraMounting, rotation: Rotation) -> CameraMounting:
    """The mounting in the rectified camera's axes."""
    x, y, z = np.array(rotation, np.float64).reshape(3, 3) @ np.array(mounting.up)
    return replace(mounting, up=(float(x), float(y), float(z)))

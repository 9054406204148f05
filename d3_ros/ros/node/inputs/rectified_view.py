"""What of a frame is predicted: the image as it came, or rectified (parameter output.rectified)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sensor_msgs.msg import CameraInfo

from d3_ros.errors import DataError, MessageError
from d3_ros.geometry.rectification import IDENTITY, rectification
from d3_ros.messages.camera_info import intrinsics_from_camera_info
from d3_ros.types import CameraIntrinsics, DepthFrame


@dataclass(frozen=True)
class CameraView:
    """An image with what belongs to it, pixel by pixel.

    `rgb`: (H, W, 3) uint8. `sparse`: (H, W) float32 metres or None. `intrinsics`: of this image.
    `rectified`: it is the image of a pinhole camera, P of camera_info. `outside`: (H, W) bool,
    pixels that show nothing, or None where all show something.
    """

    rgb: np.ndarray
    sparse: np.ndarray | None
    intrinsics: CameraIntrinsics | None
    rectified: bool
    outside: np.ndarray | None = None

    def known(self, frame: DepthFrame) -> DepthFrame:
        """The prediction without what was predicted from nothing: NaN there."""
        if self.outside is None:
            return frame
        without = partial(_without, outside=self.outside)
        return replace(
            frame,
            relative=without(frame.relative),
            metric=None if frame.metric is None else without(frame.metric),
            normals=None if frame.normals is None else without(frame.normals),
        )


def rectified_view(
    view: CameraView, info: CameraInfo | None, topic: str, image_topic: str
) -> CameraView:
    """The rectified view of a raw one.

    Where camera_info has no P, the rectified camera is K without the distortion.

    Raises:
        MessageError: there is no usable calibration.
    """
    raw = view.intrinsics
    if info is None or raw is None:
        raise MessageError(
            f"output.rectified needs a calibrated camera_info on '{topic}': calibrate the camera, "
            "or set output.rectified to false"
        )
    size = (raw.width, raw.height)
    pinhole = intrinsics_from_camera_info(
        info, *size, topic=topic, image_topic=image_topic, rectified=True
    )
    rotation = tuple(info.r.tolist()) if any(info.r) else IDENTITY
    try:
        found = rectification(
            raw, pinhole or CameraIntrinsics(*size, raw.fx, raw.fy, raw.cx, raw.cy), rotation
        )
    except DataError as error:
        raise MessageError(f"'{topic}': {error}") from error
    return CameraView(
        rgb=found.image(view.rgb),
        sparse=None if view.sparse is None else found.depth(view.sparse),
        intrinsics=found.camera,
        rectified=True,
        outside=None if found.inside.all() else ~found.inside,
    )


def _without(plane: np.ndarray, outside: np.ndarray) -> np.ndarray:
    plane = plane.copy()
    plane[outside] = np.nan
    return plane

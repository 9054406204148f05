"""Where the camera is at an image's time, so that sensor points can be carried between images."""

from __future__ import annotations

import numpy as np

from d3_ros.errors import TransformError
from d3_ros.geometry.alignment import CameraView
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.frame import NodeFrame
from d3_ros.ros.node.inputs.transforms import Transforms

REMEDY = "set sensor_depth.carry to false"


class ViewReader:
    """Gives the pose and the projection of a frame's camera, or None where they are not known.

    tf is asked when the network is done with the image. By then the transforms of the image's time
    have come, so nothing waits for them.

    Args:
        transforms: looked up through the parameter sensor_depth.fixed_frame.
        log: gets a line where tf has no transform.
    """

    def __init__(self, transforms: Transforms, log: ThrottledLogger) -> None:
        self._transforms = transforms
        self._log = log

    def __call__(self, frame: NodeFrame) -> CameraView | None:
        """The view of a frame with sensor depth; None where points are not to be carried."""
        settings, request = frame.settings.sensor_depth, frame.request
        if not settings.carry or not settings.fixed_frame:
            return None
        if request.sparse is None or request.intrinsics is None:
            return None
        try:
            pose = self._transforms.pose(frame.header, settings.fixed_frame, 0.0, REMEDY)
        except TransformError as error:
            if not self._transforms.settling:
                self._log.warn(f"sensor points of earlier images are not used: {error}")
            return None
        rectified = frame.settings.output.rectified and not frame.settings.image.rectified
        info = frame.camera_info
        if rectified and info is not None and any(info.r):
            # The rectified camera looks along other axes than the one that tf knows.
            pose = pose.copy()
            pose[:3, :3] = pose[:3, :3] @ np.reshape(info.r, (3, 3)).T
        return CameraView(pose, request.intrinsics)

"""The camera's height and tilt over the floor, from parameters or from tf."""

from __future__ import annotations

from std_msgs.msg import Header

from d3_ros.errors import TransformError
from d3_ros.geometry.ground import mounting_from_pose, mounting_from_tilt
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.inputs.transforms import TF_WAIT_S, Transforms
from d3_ros.ros.parameters.metric_settings import GroundSettings
from d3_ros.types import CameraMounting

REMEDY = "set ground.frame to '' and the parameter ground.camera_height"


class MountingReader:
    """Gives the camera's height and tilt at an image's time, or None where they are not known.

    Args:
        transforms: looked up where the parameter ground.frame names a frame.
        log: gets a line where tf has no transform.
    """

    def __init__(self, transforms: Transforms, log: ThrottledLogger) -> None:
        self._transforms = transforms
        self._log = log

    def __call__(self, camera: Header, settings: GroundSettings) -> CameraMounting | None:
        """The mounting at the time of the image with this header."""
        if settings.frame:
            try:
                pose = self._transforms.pose(camera, settings.frame, TF_WAIT_S, REMEDY)
                return mounting_from_pose(pose)
            except TransformError as error:
                if not self._transforms.settling:
                    self._log.error(str(error))
            except ValueError as error:
                self._log.error(f"parameter 'ground.frame' is {settings.frame}, but {error}")
            return None
        if settings.camera_height > 0:
            return mounting_from_tilt(settings.camera_height, settings.camera_tilt)
        return None

"""One image on its way through the node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from d3_ros.imaging.image_region import Rectangle
from d3_ros.pipeline import FrameRequest
from d3_ros.ros.node.inputs.matched_inputs import Sensor
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.types import Task


@dataclass(frozen=True)
class ReceivedImage:
    """An image message and when it arrived, in time.monotonic() seconds."""

    message: Image | CompressedImage
    at: float


@dataclass(frozen=True)
class NodeFrame:
    """A frame that is ready for the network: the pipeline's request, and what its messages need.

    Attributes:
        image: the image as it came.
        request: what the pipeline plans and finishes.
        tasks: what the network is to predict.
        topics: the outputs to publish: somebody subscribes to them, and they are due.
        settings: the parameters as of this frame.
        camera_info: the input's calibration; None where the camera is not calibrated.
        rectified: whether `request.rgb` is the image of a pinhole camera, P of camera_info.
        cloud_region: the pixels of the image that the clouds hold; None: all.
        sensor_pixels: how many pixels each sensor measured.
        preparation_ms: how long the node worked on it so far.
    """

    image: ReceivedImage
    request: FrameRequest
    tasks: tuple[Task, ...]
    topics: frozenset[str]
    settings: NodeSettings
    camera_info: CameraInfo | None
    rectified: bool
    cloud_region: Rectangle | None
    sensor_pixels: Mapping[Sensor, int]
    preparation_ms: float

    @property
    def header(self) -> Header:
        """The input's header, which all outputs repeat."""
        return self.image.message.header

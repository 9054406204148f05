"""Which part of the sensor's full image an image shows, and which of its pixels the clouds hold."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo

from d3_ros.errors import DataError, MessageError
from d3_ros.imaging.image_region import ImageRegion, Rectangle
from d3_ros.messages.camera_info import binning, image_size


def shown_region(info: CameraInfo | None, width: int, height: int) -> ImageRegion:
    """What an image of this size shows, by its calibration.

    Without a calibration, or with one of another size, the image is taken for the full one.
    """
    if info is None or image_size(info) != (width, height):
        return ImageRegion.whole(width, height)
    roi = info.roi
    shown = Rectangle(
        roi.x_offset, roi.y_offset, roi.width or info.width, roi.height or info.height
    )
    return ImageRegion((info.width, info.height), shown, binning(info))


def cloud_region(
    rectangle: Rectangle, info: CameraInfo | None, width: int, height: int, image_topic: str
) -> Rectangle:
    """The pixels of an image that the clouds hold.

    Args:
        rectangle: the parameter points.region, in pixels of the full image.
        info: the image's calibration, as for `shown_region`.
        width: of the image.
        height: of the image.
        image_topic: where the image came from, for error messages.

    Raises:
        MessageError: the rectangle leaves the full image, or the image shows nothing of it.
    """
    name = f"points.region '{' '.join(map(str, rectangle))}'"
    try:
        return shown_region(info, width, height).pixels_of(rectangle, name)
    except DataError as error:
        raise MessageError(f"'{image_topic}' gives no clouds: {error}") from error

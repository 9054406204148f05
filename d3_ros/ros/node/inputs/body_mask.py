"""The pixels of a camera's images that show the robot itself (parameter image.mask)."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo

from d3_ros.errors import DataError, MessageError
from d3_ros.imaging.image_mask import ImageMask
from d3_ros.imaging.image_region import ImageRegion
from d3_ros.ros.node.inputs.shown_region import shown_region


class BodyMask:
    """Puts `mask` on each image; the last one is kept, as all images of a camera are alike.

    Args:
        mask: of the sensor's full image; None ignores nothing.
        image_topic: where the images come from, for error messages.
    """

    def __init__(self, mask: ImageMask | None, image_topic: str) -> None:
        self._mask = mask
        self._image_topic = image_topic
        self._last: tuple[ImageRegion, np.ndarray] | None = None

    def __call__(self, info: CameraInfo | None, width: int, height: int) -> np.ndarray | None:
        """(H, W) bool, true where an image is to be ignored; None where nothing is.

        Args:
            info: the image's calibration. It says which part of the full image is shown. Without
                one, or with one of another size, the image is taken for the full one.
            width: of the image.
            height: of the image.

        Raises:
            MessageError: the mask does not fit the full image.
        """
        if self._mask is None:
            return None
        region = shown_region(info, width, height)
        if self._last is None or self._last[0] != region:
            try:
                self._last = (region, self._mask.of_region(region))
            except DataError as error:
                raise MessageError(f"'{self._image_topic}' is not masked: {error}") from error
        ignored = self._last[1]
        return ignored if ignored.any() else None

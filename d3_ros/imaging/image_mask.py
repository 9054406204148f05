"""Which pixels of a camera's image to ignore: a picture or a rectangle, on every part of the image.

A mask belongs to the full image of the camera's sensor. An image may show a region of it, with
pixels combined (binning). A pixel of the image is ignored if the mask ignores any of the sensor's
pixels that it combines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import read_image
from d3_ros.imaging.image_region import ImageRegion, Rectangle, read_rectangle
from d3_ros.imaging.picture_header import picture_kind


@dataclass(frozen=True, eq=False)
class ImageMask:
    """Pixels to ignore: `rectangle`, or where `picture`, (H, W) bool, is true.

    `name`: what error messages call it.
    """

    name: str
    rectangle: Rectangle | None = None
    picture: np.ndarray | None = None

    def of_region(self, region: ImageRegion) -> np.ndarray:
        """(H, W) bool of the image that shows this region, true where it is to be ignored.

        A picture of another size is resized where its shape is that of the full image.

        Raises:
            DataError: the mask does not fit the full image.
        """
        shown = region.shown.part_of(self._of_full(*region.full_size))
        binned_x, binned_y = region.binning
        rows, columns = region.shown.height // binned_y, region.shown.width // binned_x
        blocks = shown[: rows * binned_y, : columns * binned_x].reshape(
            rows, binned_y, columns, binned_x
        )
        return blocks.any(axis=(1, 3))

    def _of_full(self, width: int, height: int) -> np.ndarray:
        if self.picture is not None:
            return self._resized(self.picture, width, height)
        assert self.rectangle is not None
        self.rectangle.check_within(width, height, self.name)
        full = np.zeros((height, width), bool)
        self.rectangle.part_of(full)[:] = True
        return full

    def _resized(self, picture: np.ndarray, width: int, height: int) -> np.ndarray:
        own_height, own_width = picture.shape
        if (own_width, own_height) == (width, height):
            return picture
        # The same shape, but for the rounding of the smaller of the two sizes to whole pixels.
        if abs(own_width * height - width * own_height) > max(width, height, own_width, own_height):
            raise DataError(
                f"{self.name} is {own_width} x {own_height}, the full image is {width} x {height}, "
                "of another shape: make the mask on the full image"
            )
        how = cv2.INTER_AREA if width < own_width else cv2.INTER_NEAREST
        share = cv2.resize(picture.astype(np.float32), (width, height), interpolation=how)
        return np.asarray(share > 1e-4)


def read_mask(text: str, name: str) -> ImageMask | None:
    """The mask that a text describes: `x y width height`, or the path of a PNG; empty: None.

    Pixels of the PNG that are not black are ignored; transparent pixels count as black.

    Args:
        text: as above, in pixels of the full image.
        name: what the text is called in error messages.

    Raises:
        DataError: four numbers that are no rectangle, or a file that is no PNG or ignores all.
    """
    words = text.replace(",", " ").split()
    if not words:
        return None
    if len(words) == 4 and all(_is_number(word) for word in words):
        return ImageMask(f"{name} '{text}'", rectangle=read_rectangle(text, name))
    path = Path(text).expanduser()
    try:
        pixels = read_image(path, cv2.IMREAD_UNCHANGED)
        if picture_kind(path.read_bytes()) != "PNG":
            raise DataError(f"{path} is no PNG; other pictures do not keep black pixels black")
    except DataError as error:
        raise DataError(
            f"{name}: {error}; give the path of a PNG, or a rectangle 'x y width height'"
        ) from error
    ignored = _ignored(pixels)
    if ignored.all():
        raise DataError(f"{name}: {path} has no black pixel, so all would be ignored: invert it")
    return ImageMask(f"{name}: {path}", picture=ignored)


def _ignored(pixels: np.ndarray) -> np.ndarray:
    """(H, W) bool of a picture as OpenCV has it, true where a visible pixel is not black."""
    if pixels.ndim == 2:
        return pixels != 0
    coloured = (pixels[..., :3] != 0).any(axis=2)
    return coloured & (pixels[..., 3] != 0) if pixels.shape[2] == 4 else coloured


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True

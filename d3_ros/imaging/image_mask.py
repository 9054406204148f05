"""Which pixels of a camera's image to ignore: a picture or a rectangle, on every part of the image.

A mask belongs to the full image of the camera's sensor. An image may show a region of it, with
pixels combined (binning). A pixel is ignored where any of what it shows is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import read_image
from d3_ros.imaging.picture_header import picture_kind


class Rectangle(NamedTuple):
    """Pixels `x` to `x + width - 1` of the rows `y` to `y + height - 1`."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class ImageRegion:
    """What an image shows of the sensor's full image; all in pixels of the full image.

    `binning`: (x, y), how many of its pixels make one pixel of the image.
    """

    full_size: tuple[int, int]  # (width, height)
    shown: Rectangle
    binning: tuple[int, int] = (1, 1)

    @staticmethod
    def whole(width: int, height: int) -> ImageRegion:
        """Of an image that is the full image itself."""
        return ImageRegion((width, height), Rectangle(0, 0, width, height))


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
        left, top, width, height = region.shown
        shown = self._of_full(*region.full_size)[top : top + height, left : left + width]
        binned_x, binned_y = region.binning
        rows, columns = height // binned_y, width // binned_x
        blocks = shown[: rows * binned_y, : columns * binned_x].reshape(
            rows, binned_y, columns, binned_x
        )
        return blocks.any(axis=(1, 3))

    def _of_full(self, width: int, height: int) -> np.ndarray:
        if self.picture is not None:
            return self._resized(self.picture, width, height)
        assert self.rectangle is not None
        x, y, wide, high = self.rectangle
        if x + wide > width or y + high > height:
            raise DataError(
                f"{self.name} reaches to column {x + wide} and row {y + high}, the full image is "
                f"{width} x {height}: give x y width height within it"
            )
        full = np.zeros((height, width), bool)
        full[y : y + high, x : x + wide] = True
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
        return ImageMask(f"{name} '{text}'", rectangle=_rectangle(words, f"{name} '{text}'"))
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


def _rectangle(words: list[str], name: str) -> Rectangle:
    try:
        rectangle = Rectangle(*(int(word) for word in words))
    except ValueError as error:
        raise DataError(f"{name} must be whole pixels: x y width height") from error
    if min(rectangle[:2]) < 0 or min(rectangle[2:]) < 1:
        raise DataError(f"{name} must have x, y >= 0 and width, height >= 1")
    return rectangle


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True

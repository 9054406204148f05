"""Rectangles of pixels: of a sensor's full image, and of an image that shows a part of it.

An image may show a region of the sensor's full image (region of interest), with pixels combined
(binning). Rectangles that a user writes belong to the full image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from d3_ros.errors import DataError


class Rectangle(NamedTuple):
    """Pixels `x` to `x + width - 1` of the rows `y` to `y + height - 1`."""

    x: int
    y: int
    width: int
    height: int

    def part_of(self, pixels: np.ndarray) -> np.ndarray:
        """View of this part of an (H, W, ...) array."""
        return pixels[self.y : self.y + self.height, self.x : self.x + self.width]

    def check_within(self, width: int, height: int, name: str) -> None:
        """Raise DataError, which calls this rectangle `name`, where it leaves the full image."""
        right, bottom = self.x + self.width, self.y + self.height
        if right > width or bottom > height:
            raise DataError(
                f"{name} reaches to column {right} and row {bottom}, the full image is "
                f"{width} x {height}: give x y width height within it"
            )


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

    def pixels_of(self, rectangle: Rectangle, name: str) -> Rectangle:
        """The image's own pixels that show any pixel of a rectangle of the full image.

        Args:
            rectangle: in pixels of the full image.
            name: what error messages call it.

        Raises:
            DataError: the rectangle leaves the full image, or the image shows nothing of it.
        """
        rectangle.check_within(*self.full_size, name)
        shown = self.shown
        x, right = _shown_span(rectangle.x, rectangle.width, shown.x, shown.width, self.binning[0])
        y, bottom = _shown_span(
            rectangle.y, rectangle.height, shown.y, shown.height, self.binning[1]
        )
        if right <= x or bottom <= y:
            raise DataError(
                f"{name} is not in the image, which shows columns {shown.x} to "
                f"{shown.x + shown.width - 1} and rows {shown.y} to {shown.y + shown.height - 1} "
                "of the full image: give x y width height within them"
            )
        return Rectangle(x, y, right - x, bottom - y)


def _shown_span(
    first: int, count: int, shown: int, shown_count: int, binned: int
) -> tuple[int, int]:
    """First pixel of the image, and the one after the last, along one axis."""
    begin = max(first - shown, 0) // binned
    end = -(-(first + count - shown) // binned)
    return begin, min(end, shown_count // binned)


def read_rectangle(text: str, name: str) -> Rectangle | None:
    """The rectangle of a text `x y width height`; commas count as spaces; empty: None.

    Args:
        text: as above, in whole pixels.
        name: what the text is called in error messages.

    Raises:
        DataError: the text is no rectangle, or one without pixels.
    """
    words = text.replace(",", " ").split()
    if not words:
        return None
    try:
        x, y, width, height = (int(word) for word in words)
    except ValueError as error:
        raise DataError(f"{name} '{text}' must be whole pixels: x y width height") from error
    if min(x, y) < 0 or min(width, height) < 1:
        raise DataError(f"{name} '{text}' must have x, y >= 0 and width, height >= 1")
    return Rectangle(x, y, width, height)

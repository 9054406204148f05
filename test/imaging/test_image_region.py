"""Rectangles of the full image, on whole, cropped and binned images; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from d3_ros.errors import DataError
from d3_ros.imaging.image_region import ImageRegion, Rectangle, read_rectangle

NAME = "points.region '2 3 8 4'"
RECTANGLE = Rectangle(2, 3, 8, 4)
FULL = (16, 12)


@pytest.mark.parametrize("text", ["2 3 8 4", " 2, 3,8 , 4 "])
def test_a_text_is_a_rectangle(text: str) -> None:
    assert read_rectangle(text, "points.region") == RECTANGLE


@pytest.mark.parametrize("text", ["", "  "])
def test_no_text_is_no_rectangle(text: str) -> None:
    assert read_rectangle(text, "points.region") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3", "must be whole pixels: x y width height"),
        ("1 2 3 4 5", "must be whole pixels: x y width height"),
        ("1 2 3.5 4", "must be whole pixels: x y width height"),
        ("mask.png", "must be whole pixels: x y width height"),
        ("-1 0 4 4", "must have x, y >= 0 and width, height >= 1"),
        ("0 0 4 0", "must have x, y >= 0 and width, height >= 1"),
    ],
)
def test_bad_texts_are_one_line(text: str, words: str) -> None:
    with pytest.raises(DataError) as told:
        read_rectangle(text, "points.region")
    assert str(told.value) == f"points.region '{text}' {words}"


def test_the_part_of_an_image() -> None:
    pixels = np.arange(12 * 16 * 3).reshape(12, 16, 3)
    assert np.array_equal(RECTANGLE.part_of(pixels), pixels[3:7, 2:10])


@pytest.mark.parametrize(
    ("shown", "binning", "expected"),
    [
        (Rectangle(0, 0, 16, 12), (1, 1), RECTANGLE),
        # Columns 2 to 9 and rows 3 to 6; a binned pixel counts where it shows any of them.
        (Rectangle(0, 0, 16, 12), (2, 2), Rectangle(1, 1, 4, 3)),
        (Rectangle(0, 0, 16, 12), (4, 3), Rectangle(0, 1, 3, 2)),
        # The image begins at column 4 or row 5, or ends before the rectangle does.
        (Rectangle(4, 5, 12, 7), (1, 1), Rectangle(0, 0, 6, 2)),
        (Rectangle(1, 1, 6, 4), (1, 1), Rectangle(1, 2, 5, 2)),
        (Rectangle(4, 5, 12, 7), (2, 2), Rectangle(0, 0, 3, 1)),
        # Binning leaves the last column out, and with it the rectangle's last one.
        (Rectangle(1, 0, 9, 12), (2, 1), Rectangle(0, 3, 4, 4)),
    ],
)
def test_the_pixels_of_an_image_that_show_a_rectangle(
    shown: Rectangle, binning: tuple[int, int], expected: Rectangle
) -> None:
    assert ImageRegion(FULL, shown, binning).pixels_of(RECTANGLE, NAME) == expected


@pytest.mark.parametrize(
    "shown", [Rectangle(0, 0, 16, 3), Rectangle(0, 7, 16, 5), Rectangle(10, 0, 6, 12)]
)
def test_an_image_that_shows_nothing_of_a_rectangle_is_refused(shown: Rectangle) -> None:
    with pytest.raises(DataError) as told:
        ImageRegion(FULL, shown).pixels_of(RECTANGLE, NAME)
    assert str(told.value) == (
        f"{NAME} is not in the image, which shows columns {shown.x} to "
        f"{shown.x + shown.width - 1} and rows {shown.y} to {shown.y + shown.height - 1} of the "
        "full image: give x y width height within them"
    )


def test_a_rectangle_only_on_pixels_that_binning_leaves_out_is_refused() -> None:
    region = ImageRegion((5, 4), Rectangle(0, 0, 5, 4), (2, 2))
    with pytest.raises(DataError, match="is not in the image"):
        region.pixels_of(Rectangle(4, 0, 1, 4), NAME)


def test_a_rectangle_beyond_the_full_image_is_refused() -> None:
    with pytest.raises(DataError) as told:
        ImageRegion((9, 12), Rectangle(0, 0, 9, 12)).pixels_of(RECTANGLE, NAME)
    assert str(told.value) == (
        f"{NAME} reaches to column 10 and row 7, the full image is 9 x 12: give x y width height "
        "within it"
    )

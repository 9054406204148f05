"""Masks: pictures and rectangles on whole, cropped, binned and resized images; what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from d3_ros.errors import DataError
from d3_ros.imaging.image_mask import ImageMask, read_mask
from d3_ros.imaging.image_region import ImageRegion, Rectangle

WIDTH, HEIGHT = 16, 12
WHOLE = ImageRegion.whole(WIDTH, HEIGHT)


def mask_of(text: str | Path) -> ImageMask:
    mask = read_mask(str(text), "image.mask")
    assert mask is not None
    return mask


def expected(rows: slice, columns: slice, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    ignored = np.zeros(size[::-1], bool)
    ignored[rows, columns] = True
    return ignored


def png(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "body.png"
    cv2.imwrite(str(path), pixels)
    return path


def test_no_text_is_no_mask() -> None:
    assert read_mask("", "image.mask") is None
    assert read_mask("  ", "image.mask") is None


@pytest.mark.parametrize("text", ["2 9 14 3", "2, 9, 14, 3"])
def test_a_rectangle(text: str) -> None:
    ignored = mask_of(text).of_region(WHOLE)
    assert np.array_equal(ignored, expected(slice(9, 12), slice(2, 16)))


@pytest.mark.parametrize(
    ("value", "channels", "dtype"),
    [(1, 1, np.uint8), (255, 1, np.uint8), (7, 1, np.uint16), ((0, 0, 1), 3, np.uint8)],
)
def test_a_picture_ignores_what_is_not_black(
    tmp_path: Path, value: object, channels: int, dtype: type
) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, channels), dtype)
    pixels[9:, 2:] = value
    ignored = mask_of(png(tmp_path, pixels)).of_region(WHOLE)
    assert np.array_equal(ignored, expected(slice(9, 12), slice(2, 16)))


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[:, :8] = (0, 0, 0, 255)  # opaque black
    pixels[:, 8:12] = (9, 9, 9, 0)  # a colour under full transparency
    pixels[:, 12:] = (9, 9, 9, 40)
    ignored = mask_of(png(tmp_path, pixels)).of_region(WHOLE)
    assert np.array_equal(ignored, expected(slice(None), slice(12, 16)))


def test_a_region_of_interest_and_binning() -> None:
    mask = mask_of("2 9 14 3")
    # Columns 4 to 11 and rows 6 to 11 of the full image; two by three pixels become one.
    region = ImageRegion((WIDTH, HEIGHT), Rectangle(4, 6, 8, 6))
    assert np.array_equal(mask.of_region(region), expected(slice(3, 6), slice(0, 8), (8, 6)))
    binned = ImageRegion((WIDTH, HEIGHT), Rectangle(4, 6, 8, 6), binning=(2, 3))
    assert np.array_equal(mask.of_region(binned), expected(slice(1, 2), slice(0, 4), (4, 2)))


def test_a_binned_pixel_is_ignored_where_any_of_its_pixels_is() -> None:
    binned = ImageRegion((WIDTH, HEIGHT), Rectangle(0, 0, WIDTH, HEIGHT), binning=(4, 4))
    ignored = mask_of("3 3 2 1").of_region(binned)
    assert np.array_equal(ignored, expected(slice(0, 1), slice(0, 2), (4, 3)))


def test_an_odd_size_loses_its_last_pixels_as_binning_does() -> None:
    binned = ImageRegion((5, 3), Rectangle(0, 0, 5, 3), binning=(2, 2))
    assert mask_of("0 0 1 1").of_region(binned).tolist() == [[True, False]]


def test_a_picture_is_resized_where_the_shape_is_the_same(tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[9:, 2:] = 255
    mask = mask_of(png(tmp_path, pixels))
    larger = mask.of_region(ImageRegion.whole(2 * WIDTH, 2 * HEIGHT))
    assert np.array_equal(larger, expected(slice(18, 24), slice(4, 32), (32, 24)))
    # 3 of 12 rows become 2 of 6: the upper one shows a row to ignore and one to keep.
    smaller = mask.of_region(ImageRegion.whole(WIDTH // 2, HEIGHT // 2))
    assert np.array_equal(smaller, expected(slice(4, 6), slice(1, 8), (8, 6)))
    assert mask.of_region(ImageRegion.whole(9, 7)).shape == (7, 9), "rounded from 9 x 6.75"


@pytest.mark.parametrize(("width", "height"), [(WIDTH, HEIGHT + 4), (32, 18), (HEIGHT, WIDTH)])
def test_a_picture_of_another_shape_is_refused(tmp_path: Path, width: int, height: int) -> None:
    mask = mask_of(png(tmp_path, np.zeros((HEIGHT, WIDTH), np.uint8)))
    with pytest.raises(DataError, match=rf"is 16 x 12, the full image is {width} x {height}"):
        mask.of_region(ImageRegion.whole(width, height))


def test_a_rectangle_beyond_the_image_is_refused() -> None:
    with pytest.raises(DataError, match="reaches to column 16 and row 13, the full image is 16 x"):
        mask_of("2 9 14 4").of_region(WHOLE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3.5 4", "must be whole pixels"),
        ("-1 0 4 4", "must have x, y >= 0"),
        ("0 0 0 4", "must have x, y >= 0 and width, height >= 1"),
        ("nan 0 4 4", "must be whole pixels"),
        ("1 2 3", "cannot be read"),
        ("/no/such/file.png", "/no/such/file.png cannot be read"),
    ],
)
def test_bad_texts_are_one_line(text: str, words: str) -> None:
    with pytest.raises(DataError, match=r"image\.mask") as told:
        read_mask(text, "image.mask")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_bad_pictures_are_one_line(tmp_path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH), np.uint8)
    jpeg = tmp_path / "body.jpg"
    cv2.imwrite(str(jpeg), picture)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(png(tmp_path, picture).read_bytes()[:40])
    white = png(tmp_path, picture + 255)
    for path, words in (
        (jpeg, "is no PNG"),
        (damaged, "is damaged or cut short"),
        (white, "has no black pixel, so all would be ignored: invert it"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(DataError, match=r"image\.mask: .*") as told:
            read_mask(str(path), "image.mask")
        assert words in str(told.value)
        assert str(path) in str(told.value)
        assert "\n" not in str(told.value)

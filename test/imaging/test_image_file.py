"""Picture files: whole or not at all, never larger than allowed, read and written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import (
    PictureError,
    decode_picture,
    files_by_stem,
    read_image,
    read_rgb,
    write_image,
    write_whole,
)
from d3_ros.imaging.picture_header import picture_header


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_comes_back(tmp_path: Path, dtype: type) -> None:
    image = np.arange(12 * 16).reshape(12, 16).astype(dtype)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", cv2.IMREAD_UNCHANGED), image)


def test_a_missing_folder_and_a_full_disk_are_told(tmp_path: Path) -> None:
    """`cv2.imwrite` answers False and goes on."""
    image = np.zeros((12, 16), np.uint8)
    with pytest.raises(DataError, match=r"none/a\.png cannot be written \(No such file"):
        write_image(tmp_path / "none" / "a.png", image)
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"full\.png cannot be written \(No space left"):
        write_image(full, image)


NOISE = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
KINDS = [
    (".jpg", ()),
    (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    (".png", ()),
    (".bmp", ()),
    (".tif", ()),
    (".webp", ()),
    (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
]


@pytest.mark.parametrize(("suffix", "parameters"), KINDS)
def test_size_and_end_are_read_from_the_structure(suffix: str, parameters: tuple[int, ...]) -> None:
    data = bytes(cv2.imencode(suffix, NOISE, parameters)[1])
    header = picture_header(data)
    assert header is not None
    assert (header.width, header.height, header.end) == (53, 37, len(data))
    for length in range(len(data)):
        cut = picture_header(data[:length])
        assert cut is None or cut.end is None, f"cut at {length}"


@pytest.mark.parametrize(("suffix", "parameters"), KINDS)
@pytest.mark.parametrize("behind", [b"\x55" * 62, b"\x55" * 513, b"\xff" * 300, b"\xff\xd8\xff"])
def test_bytes_behind_the_end_are_no_fault(
    suffix: str, parameters: tuple[int, ...], behind: bytes
) -> None:
    """Padding of a camera, the video of a phone's motion photo."""
    data = bytes(cv2.imencode(suffix, NOISE, parameters)[1])
    expected = decode_picture(data, cv2.IMREAD_COLOR)
    assert np.array_equal(decode_picture(data + behind, cv2.IMREAD_COLOR), expected)
    with pytest.raises(PictureError, match="is damaged or cut short"):
        decode_picture(data[: len(data) * 2 // 3], cv2.IMREAD_COLOR)


def test_a_thumbnail_does_not_hide_a_cut() -> None:
    """A JPEG within the EXIF segment ends with the same two bytes."""
    thumbnail = pictures.jpeg(NOISE[:8, :8])
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = pictures.jpeg(NOISE)
    whole = data[:2] + segment + data[2:]
    assert decode_picture(whole, cv2.IMREAD_COLOR).shape == NOISE.shape
    with pytest.raises(PictureError, match="cut short"):
        decode_picture(whole[:-2] + bytes(80), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    "data",
    [
        pictures.jpeg_of_declared_size(12_000, 12_000),
        pictures.jpeg_of_declared_size(30_000, 30_000),
        pictures.jpeg_of_declared_size(60_000, 60_000),
        pictures.png_of_declared_size(30_000, 30_000),
        pictures.png_of_declared_size(2**31 - 1, 2**31 - 1),
    ],
)
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    with pytest.raises(PictureError, match=r"is \d+ x \d+ pixels, more than the limit of 64 mega"):
        decode_picture(data, cv2.IMREAD_UNCHANGED)


def test_the_limit_is_an_argument_and_the_limit_itself_is_allowed() -> None:
    data = pictures.png(NOISE)
    assert decode_picture(data, cv2.IMREAD_COLOR, 37 * 53 / 1e6).shape == NOISE.shape
    with pytest.raises(PictureError, match=r"53 x 37 pixels, more than the limit of 0\.0019 mega"):
        decode_picture(data, cv2.IMREAD_COLOR, 0.0019)


def test_a_bmp_of_58_bytes_is_one_line() -> None:
    for width, height in ((20_000, 20_000), (-1, 1), (0, 0), (2**31 - 1, -(2**31))):
        with pytest.raises(PictureError, match="is damaged"):
            decode_picture(pictures.bmp_of_declared_size(width, height), cv2.IMREAD_COLOR)


@given(
    st.sampled_from([bytes(cv2.imencode(s, NOISE[:8, :8], p)[1]) for s, p in KINDS]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 10_000),
)
@settings(max_examples=2000, deadline=None)
def test_damaged_files_are_decoded_or_refused(
    data: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        image = decode_picture(bytes(damaged[: max(length, 4)]), cv2.IMREAD_UNCHANGED, 0.01)
    except PictureError as error:
        assert "\n" not in str(error)
    else:
        assert image.shape[0] * image.shape[1] <= 10_000


def test_a_picture_is_read_as_stored(tmp_path: Path) -> None:
    """Its depth and its intrinsics are those of the stored pixels, whatever EXIF says."""
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(pictures.jpeg(NOISE))
    for orientation in range(1, 9):
        turned = tmp_path / f"{orientation}.jpg"
        turned.write_bytes(pictures.with_orientation(plain.read_bytes(), orientation))
        assert np.array_equal(read_rgb(turned), read_rgb(plain))


def test_two_pictures_of_one_stem_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"a\.(jpg|png) are both frame 'a': remove one"):
        files_by_stem(tmp_path, {".jpg", ".png"})


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    whole = Path.write_bytes

    def full_after_three_bytes(self: Path, data: bytes) -> int:
        whole(self, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_after_three_bytes)
    with pytest.raises(DataError, match=r"a\.txt cannot be written \(No space left"):
        write_whole(path, "something new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(DataError, match="Is a directory"):
        write_whole(tmp_path, "text")

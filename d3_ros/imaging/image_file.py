"""Picture files to arrays and back, whole or not at all, and the files of a folder in order.

Nothing is decoded before its size is known: see `decode_picture`. A file is written under another
name and renamed when it is whole: see `write_whole`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from d3_ros.errors import DataError, one_line
from d3_ros.imaging.picture_header import picture_header, picture_kind

# What OpenCV reads, and what people have.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

MAX_MEGAPIXELS = 64.0
# As stored: in 8-bit colour, and not turned as the EXIF orientation asks. The intrinsics and the
# depth of a camera's image are those of the image as stored.
AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


class PictureError(DataError):
    """A picture cannot be decoded. The text begins with "is": callers put the file's name first."""


def decode_picture(data: bytes, flags: int, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """`cv2.imdecode` of a JPEG, PNG, BMP, TIFF or WebP file that is whole and not too large.

    OpenCV takes memory for whatever size the header declares, and fills up what is missing of a cut
    file with grey. So size and wholeness are read from the file's structure first. Bytes behind the
    picture's end are no fault.

    Args:
        data: the file's content.
        flags: cv2.IMREAD_UNCHANGED, for example.
        max_megapixels: limit of width x height, in 10⁶ pixels.

    Raises:
        PictureError: no picture, cut short or damaged, or larger than the limit.
    """
    if picture_kind(data) is None:
        raise PictureError("is no picture (JPEG, PNG, BMP, TIFF or WebP)")
    header = picture_header(data)
    if header is None or header.end is None:
        raise PictureError("is damaged or cut short")
    if header.width * header.height > max_megapixels * 1e6:
        raise PictureError(
            f"is {header.width} x {header.height} pixels, more than the limit of "
            f"{max_megapixels:g} megapixels"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8, header.end), flags)
    except cv2.error as error:
        raise PictureError(f"is damaged ({one_line(error)})") from error
    if image is None:
        raise PictureError("is damaged or of a kind that OpenCV cannot read")
    return image


def read_image(path: Path, flags: int, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """The picture in a file, as `decode_picture` gives it.

    Raises:
        DataError: the file cannot be read, is no picture, was cut short, or is too large.
    """
    try:
        return decode_picture(path.read_bytes(), flags, max_megapixels)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except PictureError as error:
        raise DataError(f"{path} {error}") from error


def decode_rgb(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture as stored; its EXIF orientation is not followed.

    Raises:
        PictureError: as `decode_picture`.
    """
    return cv2.cvtColor(decode_picture(data, AS_STORED), cv2.COLOR_BGR2RGB)


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture as stored; its EXIF orientation is not followed.

    Raises:
        DataError: as `read_image`.
    """
    return cv2.cvtColor(read_image(path, AS_STORED), cv2.COLOR_BGR2RGB)


def read_millimetres(path: Path) -> np.ndarray:
    """(H, W) uint16 millimetres of a depth PNG, 0 = not known.

    Raises:
        DataError: as `read_image`, or it is another kind of picture.
    """
    image = read_image(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise DataError(
            f"{path}: depth must be a PNG of one channel of uint16 millimetres, this one is "
            f"{image.dtype} of shape {image.shape}"
        )
    return image


def write_image(path: Path, image: np.ndarray, parameters: Sequence[int] = ()) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: its suffix says how.
        image: as OpenCV wants it, colours as BGR.
        parameters: OpenCV's, of this kind of file.

    Raises:
        DataError: the file cannot be written, or its suffix is that of no picture.
    """
    check_picture_name(path)
    write_whole(path, _encoded(path.suffix, image, parameters))


def check_picture_name(path: Path) -> None:
    """Refuse a name that `write_image` cannot write to.

    Raises:
        DataError: the suffix is that of no picture.
    """
    if path.suffix.lower() not in PICTURES:
        raise DataError(f"{path}: give a name that ends in .png or .jpg")


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file, whole or not at all: under another name first, which is then renamed.

    Args:
        path: of the file; a file that is there is replaced. A device or pipe is written to.
        data: its content; a text is written as UTF-8.

    Raises:
        DataError: the file cannot be written; `path` is as it was.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)  # a folder refuses
            return
        try:
            unfinished.write_bytes(content)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror})") from error


def encode_jpeg(rgb: np.ndarray, quality: int = 88) -> bytes:
    """An (H, W, 3) uint8 RGB picture as the bytes of a JPEG file; `quality` is 1 to 100."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return _encoded(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(image: np.ndarray) -> bytes:
    """A picture as OpenCV has it (colours as BGR, or one channel) as the bytes of a PNG file."""
    return _encoded(".png", image)


def jpeg_artefacts(image: np.ndarray, quality: int) -> np.ndarray:
    """An (H, W, 3) uint8 picture as it comes back from a JPEG; the order of channels stays."""
    data = _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def _encoded(suffix: str, image: np.ndarray, parameters: Sequence[int] = ()) -> bytes:
    done, data = cv2.imencode(suffix, image, parameters)
    assert done, f"OpenCV always encodes {image.dtype} of shape {image.shape} as {suffix}"
    return data.tobytes()


def files_by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """Files by stem, numbers in numeric order (9 before 10); empty if the folder does not exist.

    Raises:
        DataError: two files have the same stem, so it is not clear which of them is meant.
    """
    if not folder.is_dir():
        return {}
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    ]
    files.sort(
        key=lambda path: [
            part.zfill(20) if part.isdecimal() else part for part in re.split(r"(\d+)", path.stem)
        ]
    )
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise DataError(f"{other} and {path.name} are both frame '{path.stem}': remove one")
    return by_stem

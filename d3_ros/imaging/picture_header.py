"""The size of a picture file, and where it ends, read from its structure without decoding it.

A decoder takes memory for the size that a header declares, and fills up what is missing of a cut
file with grey. Both are found out here first, in time linear in the file's length. Bytes behind a
picture's end (padding, a second picture, the video of a phone's motion photo) are no fault.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

PictureKind = Literal["JPEG", "PNG", "BMP", "TIFF", "WebP"]


@dataclass(frozen=True)
class PictureHeader:
    """What a picture file says about itself.

    `width`, `height`: pixels, as declared; at least 1. `end`: length in bytes of the whole picture;
    None where the file ends before its picture does.
    """

    kind: PictureKind
    width: int
    height: int
    end: int | None


def picture_kind(data: bytes) -> PictureKind | None:
    """What kind of picture a file begins like; None: none that is known."""
    for kind, start in _STARTS.items():
        if start.match(data):
            return kind
    return None


def picture_header(data: bytes) -> PictureHeader | None:
    """The header of a JPEG, PNG, BMP, TIFF or WebP file; None: no such file or without a size."""
    kind = picture_kind(data)
    if kind is None:
        return None
    try:
        width, height, end = _READERS[kind](data)
    except (struct.error, IndexError, KeyError):  # cut within the header
        return None
    return PictureHeader(kind, width, height, end) if width > 0 and height > 0 else None


_STARTS: dict[PictureKind, re.Pattern[bytes]] = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}

# A marker of a JPEG is 0xFF and a byte. In compressed data 0xFF 0x00 is an escaped 0xFF, and
# 0xD0 to 0xD7 restart the decoder; 0xFF itself is padding before a marker.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_END_OF_IMAGE, _START_OF_IMAGE, _STANDALONE = 0xD9, 0xD8, 0x01
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame, of any process


def _jpeg(data: bytes) -> tuple[int, int, int | None]:
    width = height = 0
    place = 2
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return width, height, place
        if marker in (_START_OF_IMAGE, _STANDALONE):
            continue
        if place + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, place)
        if marker in _SIZES and not width:
            height, width = struct.unpack_from(">HH", data, place + 3)
        # A length below 2 is damaged; what follows the marker is searched then.
        place += max(length, 2)
    return width, height, None


def _png(data: bytes) -> tuple[int, int, int | None]:
    if data[12:16] != b"IHDR":
        return 0, 0, None
    width, height = struct.unpack_from(">II", data, 16)
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        last = data[place + 4 : place + 8] == b"IEND"
        place += 12 + length
        if last:
            return width, height, place if place <= len(data) else None
    return width, height, None


def _bmp(data: bytes) -> tuple[int, int, int | None]:
    first_pixel, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows from the top
    if compression in (1, 2):  # run lengths: only the decoder finds their end
        return width, height, len(data)
    end = first_pixel + (max(width, 0) * bits + 31) // 32 * 4 * height
    return width, height, end if end <= len(data) else None


_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_PLACES, _TIFF_LENGTHS = (273, 324), (279, 325)  # of strips, of tiles
_TIFF_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q"}  # of a value, by its type


def _tiff(data: bytes) -> tuple[int, int, int | None]:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    values: dict[int, tuple[int, ...]] = {}
    end = directory + 2 + 12 * count + 4
    whole = end <= len(data)
    for entry in range(count if whole else 0):
        place = directory + 2 + 12 * entry
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, place)
        form = f"{order}{length}{_TIFF_CODES.get(kind, 'B')}"
        place += 8
        if struct.calcsize(form) > 4:
            (place,) = struct.unpack_from(f"{order}I", data, place)
        end = max(end, place + struct.calcsize(form))
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT, *_TIFF_PLACES, *_TIFF_LENGTHS):
            # Of a tag that comes twice the larger value, whichever the decoder believes.
            values[tag] = max(values.get(tag, ()), struct.unpack_from(form, data, place))
    for places, lengths in zip(_TIFF_PLACES, _TIFF_LENGTHS, strict=True):
        ends = map(sum, zip(values.get(places, ()), values.get(lengths, ()), strict=False))
        end = max(end, *ends, 0)
    return values[_TIFF_WIDTH][0], values[_TIFF_HEIGHT][0], end if end <= len(data) else None


def _webp(data: bytes) -> tuple[int, int, int | None]:
    (length,) = struct.unpack_from("<I", data, 4)
    end = length + 8 if length + 8 <= len(data) else None
    chunk = data[12:16]
    if chunk == b"VP8X":
        wide, high = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        wide, high = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        wide, high = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    return wide, high, end


_READERS: dict[PictureKind, Callable[[bytes], tuple[int, int, int | None]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "BMP": _bmp,
    "TIFF": _tiff,
    "WebP": _webp,
}

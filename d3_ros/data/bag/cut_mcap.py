"""An MCAP file that was cut off, as a robot without power leaves it, read up to its last record.

An MCAP is a magic number, records (a byte, eight bytes of length, the content) and the magic number
again. `CutMcap` shows a reader the whole records, and behind them the end that is missing: an end
of data, a footer that says that there is no index, and the magic number. Nothing is copied.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO, cast

MAGIC = b"\x89MCAP0\r\n"
FOOTER, DATA_END = 0x02, 0x0F
_END = struct.pack("<BQI", DATA_END, 4, 0) + struct.pack("<BQQQI", FOOTER, 20, 0, 0, 0) + MAGIC


def is_cut(path: Path) -> bool:
    """Whether a file begins as an MCAP does, and does not end as one."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read() != MAGIC


class CutMcap:
    """Stands for the path of an MCAP file that was cut off, where `rosbags` expects a path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.suffix = path.suffix
        self._length = _whole_records(path)

    def exists(self) -> bool:
        """As of a path."""
        return True

    def is_dir(self) -> bool:
        """As of a path."""
        return False

    def open(self, _mode: str) -> BinaryIO:
        """The file, up to its last whole record, with an end."""
        return cast(BinaryIO, io.BufferedReader(_Mended(self._path, self._length)))

    def __str__(self) -> str:
        return str(self._path)


class _Mended(io.RawIOBase):
    """The first `length` bytes of a file, then `_END`."""

    def __init__(self, path: Path, length: int) -> None:
        self._file = path.open("rb")
        self._length = length
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place}.get(whence, self._length + len(_END))
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        if self._place < self._length:
            self._file.seek(self._place)
            data = self._file.read(min(len(buffer), self._length - self._place))
        else:
            start = self._place - self._length
            data = _END[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _whole_records(path: Path) -> int:
    """Length of a file up to the end of its last whole record, before any end of data."""
    size, place = path.stat().st_size, len(MAGIC)
    with path.open("rb") as file:
        while place + 9 <= size:
            file.seek(place)
            operation, length = struct.unpack("<BQ", file.read(9))
            if operation in (DATA_END, FOOTER) or place + 9 + length > size:
                break
            place += 9 + length
    return place

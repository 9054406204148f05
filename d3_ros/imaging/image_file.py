"""Picture files to arrays and back, whole or not at all, and the files of a folder in order."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from d3_ros.errors import DataError

# What OpenCV reads, and what people have.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

# Beginning of a file -> what stands at its end: the end markers of JPEG and PNG.
FILE_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PN": b"IEND"}


def decode_whole(data: bytes, flags: int) -> np.ndarray | None:
    """`cv2.imdecode`, but None also for a JPEG or PNG that was cut off.

    OpenCV fills up what is missing with grey and says so on standard error only. Zeros after the
    end, with which some cameras pad their JPEGs, are no fault.
    """
    end = FILE_ENDS.get(data[:3])
    if not data or (end is not None and end not in data.rstrip(b"\0")[-64:]):
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def read_image(path: Path, flags: int) -> np.ndarray:
    """`cv2.imread`.

    Raises:
        DataError: the file cannot be read, is no picture, or was cut off.
    """
    try:
        image = decode_whole(path.read_bytes(), flags)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if image is None:
        raise DataError(f"{path}: not a whole picture that OpenCV can read: was it cut off?")
    return image


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture.

    Raises:
        DataError: as `read_image`.
    """
    return cv2.cvtColor(read_image(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


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
    """`cv2.imwrite`, which leaves a full disk and a missing folder to whoever reads its answer.

    Args:
        path: its suffix says how.
        image: as OpenCV wants it, colours as BGR.
        parameters: OpenCV's, of this kind of file.

    Raises:
        DataError: the file cannot be written.
    """
    data = _encoded(path.suffix, image, parameters)
    try:
        path.write_bytes(data)
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
    """Files by stem in the order in which people count, 9 before 10; none where no folder is."""
    if not folder.is_dir():
        return {}
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    ]
    files.sort(key=lambda path: [part.zfill(20) for part in re.split(r"(\d+)", path.stem)])
    return {path.stem: path for path in files}

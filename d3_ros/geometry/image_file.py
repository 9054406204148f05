"""Picture files to arrays, whole or not at all."""

from __future__ import annotations

import cv2
import numpy as np

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

"""The way to cv_bridge for rare encodings, where there is a cv_bridge that works.

Stock cv_bridge of Humble and Jazzy is compiled against NumPy 1 and fails, or worse, once NumPy 2 is
installed beside it; on machines without ROS it is often absent. So it is tried once, on a small
image, and what is wrong with it is said in one line.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from d3_ros.errors import MessageError, one_line

if TYPE_CHECKING:  # bags are read where no ROS is installed
    from sensor_msgs.msg import Image


def rgb_through_cv_bridge(message: Image, topic: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image in any encoding that cv_bridge knows.

    Raises:
        MessageError: there is no working cv_bridge, or it does not know the encoding.
    """
    bridge, fault = working_bridge()
    if bridge is None:
        raise MessageError(
            f"'{topic}' has encoding {message.encoding!r}, which needs cv_bridge, and {fault}: "
            "publish rgb8, bgr8 or mono8, or mend cv_bridge"
        )
    try:
        rgb = bridge.imgmsg_to_cv2(message, "rgb8")
    except Exception as error:  # cv_bridge raises whatever OpenCV, NumPy or its tables raise
        raise MessageError(
            f"'{topic}' has encoding {message.encoding!r}, which cv_bridge cannot turn into rgb8 "
            f"({one_line(error)}): publish rgb8, bgr8 or mono8"
        ) from error
    return np.ascontiguousarray(rgb)


@lru_cache(maxsize=1)
def working_bridge() -> tuple[Any | None, str]:
    """A working CvBridge, or None and what is wrong."""
    try:
        from sensor_msgs.msg import Image

        probe = Image(height=1, width=2, encoding="bgr8", step=6)
        probe.data.frombytes(bytes(range(6)))
        # NumPy prints a page on standard error where a module was compiled for its other major.
        with contextlib.redirect_stderr(io.StringIO()):
            # The compiled part first: importing it alone fails cleanly, using it half-imported
            # crashes the process.
            importlib.import_module("cv_bridge.boost.cv_bridge_boost")
            bridge = importlib.import_module("cv_bridge").CvBridge()
            answer = bridge.imgmsg_to_cv2(probe, "rgb8")
    except ModuleNotFoundError as error:
        return None, f"it is not installed (no module {error.name})"
    except Exception as error:
        return (
            None,
            f"the one installed does not work with NumPy {np.__version__} ({one_line(error)})",
        )
    if np.asarray(answer).tolist() != [[[2, 1, 0], [5, 4, 3]]]:
        return None, f"the one installed swaps colours wrongly with NumPy {np.__version__}"
    return bridge, ""

"""What d3_ros raises when its user, a file or a message is at fault.

The message is one line that names the file, topic or parameter and says what to do: the command
line and the node print it as it is, without a traceback. Programming mistakes stay ordinary
exceptions and keep their traceback.
"""

from __future__ import annotations

import sys


class D3Error(Exception):
    """Base of all errors that are told to the user in one line."""


class BundleError(D3Error):
    """A model bundle is missing, damaged, or not what it says it is."""


class DeviceError(D3Error):
    """The compute device asked for is not there or cannot hold the network."""


class NonFiniteError(D3Error):
    """The network answered with NaN or infinity: nothing of this frame may be published."""


class MessageError(D3Error):
    """A ROS message cannot be read: wrong encoding, too little data, sizes that disagree."""


class DataError(D3Error):
    """An input file or dataset cannot be read or does not fit."""


class TransformError(D3Error):
    """Where a sensor is, as seen from the camera, is not known."""


def missing_package(error: ModuleNotFoundError) -> str:
    """What to do about a package that this Python lacks, in one line.

    Raises:
        ModuleNotFoundError: `error` itself, where the missing module is one of this package.
    """
    package = (error.name or "d3_ros").split(".")[0]
    if package == "d3_ros":
        raise error
    return (
        f"the Python package '{error.name}' is not installed for {sys.executable}: use the Python "
        "of the environment that scripts/setup made, .venv/bin/python, or install the package"
        + (". It comes with ROS 2: source its setup.bash" if package == "rclpy" else "")
    )


def one_line(error: BaseException | str, limit: int | None = None) -> str:
    """The text of an error or message on one line, of at most `limit` characters.

    The name of the exception's class stands in for an empty text.
    """
    text = " ".join(str(error).split())
    return text[:limit] or type(error).__name__

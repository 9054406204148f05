"""Fast DDS, ROS 2's default middleware: the profile for large messages, and who must set it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from d3_ros.errors import D3Error

# Fast DDS 2 (Humble to Jazzy) reads the first name, Fast DDS 3 (Kilted and newer) the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Files in the working directory that Fast DDS reads where no variable names one.
PROFILE_FILES = ("DEFAULT_FASTRTPS_PROFILES.xml", "DEFAULT_FASTDDS_PROFILES.xml")
# Size of the shared memory of a process where no profile sets it.
DEFAULT_SEGMENT_BYTES = 2**19
# Four processes with config/fastdds.xml need so much in /dev/shm.
SHARED_MEMORY_BYTES = 160 * 2**20
# What rclpy needs of it just to be imported, with some to spare.
LEAST_SHARED_MEMORY_BYTES = 2**16


def transports_are_chosen(environment: Mapping[str, str]) -> bool:
    """Whether the user has a profile of his own, or chose transports by a variable."""
    names = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
    return any(environment.get(name) for name in names) or any(
        Path(name).exists() for name in PROFILE_FILES
    )


def has_shared_memory() -> bool:
    """Whether /dev/shm has room for the profile's segments."""
    folder = Path("/dev/shm")
    return folder.is_dir() and shutil.disk_usage(folder).free >= SHARED_MEMORY_BYTES


def profile_variables(profile: Path | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that give processes the profile for large messages.

    None are needed where the user chose himself, and where there is no room for the profile.
    """
    if profile is None or transports_are_chosen(environment) or not has_shared_memory():
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(profile))


def check_shared_memory() -> None:
    """Refuse to go on where /dev/shm is full; call it before rclpy is imported.

    The tracing library that rclpy loads writes to a file there, and the system ends a process
    that does so without room for it (SIGBUS), without a word. With a little room left all is well:
    Fast DDS then sends over UDP by itself.

    Raises:
        D3Error: it is full; the line has the remedy.
    """
    folder = Path("/dev/shm")
    if folder.is_dir() and shutil.disk_usage(folder).free < LEAST_SHARED_MEMORY_BYTES:
        raise D3Error(
            "/dev/shm is full, and ROS needs a little of it: free it, or give the container more "
            "(docker run --shm-size=256m)"
        )


class LargeMessageCheck:
    """Warns once when a message is larger than the shared memory that Fast DDS has.

    Args:
        middleware: as rclpy.get_rmw_implementation_identifier() gives it.
        profile: the profile that the warning recommends.
        warn: takes the line.
    """

    def __init__(
        self, middleware: str, profile: Path | None, warn: Callable[[str], object]
    ) -> None:
        self._profile = profile
        self._warn = warn
        self._is_needed = "fastrtps" in middleware and not transports_are_chosen(os.environ)

    def check(self, topic: str, message: Any) -> None:
        """Look at a message that is published; `topic` is its full name."""
        size = len(getattr(message, "data", b""))
        if not self._is_needed or size <= DEFAULT_SEGMENT_BYTES:
            return
        self._is_needed = False
        room = "" if has_shared_memory() else " (it needs 160 MB of /dev/shm, which are not free)"
        self._warn(
            f"'{topic}' has {size / 1e6:.1f} MB, but the shared memory of Fast DDS holds 0.5 MB by "
            "default: messages get late or lost on this machine. Set "
            f"{' (Kilted and newer: '.join(PROFILE_VARIABLES)}) to "
            f"{self._profile or 'config/fastdds.xml'} in all processes{room}"
        )

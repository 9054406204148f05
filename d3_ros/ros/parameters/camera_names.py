"""Which names cameras may have. It imports nothing heavy: the launch file checks them, too."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

_CAMERA_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")


def top_names(parameters: Iterable[str]) -> set[str]:
    """First parts of the parameters' names (`depth` of `depth.encoding`): no camera's name."""
    return {name.partition(".")[0] for name in parameters}


def fault_of_cameras(names: Sequence[str], taken: Collection[str]) -> str:
    """Why cameras may not have these names; empty where they may.

    Args:
        names: one per camera; a camera without prefix has an empty one.
        taken: see top_names.
    """
    if not names or len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        return f"must be different names, or one empty one, got {list(names)}"
    for name in filter(None, names):
        if not _CAMERA_NAME.fullmatch(name) or name in taken:
            return (
                f"'{name}' cannot be a camera's name: take letters, digits and _, and no "
                "parameter's name"
            )
    return ""

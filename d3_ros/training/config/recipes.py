"""The recipes that the package ships in config/training, found by path or by bare name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from d3_ros.errors import DataError


def find_config(path_or_name: str | Path) -> Path:
    """The YAML file at a path, or the one of that name in the package's config/training.

    Raises:
        DataError: there is no such file. If a recipe was renamed, the message has its new name.
    """
    path = Path(path_or_name).expanduser()
    prefixes = filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    shares = [Path(prefix) / "share" / "d3_ros" for prefix in prefixes]
    folders = [
        share / "config" / "training" for share in (*shares, Path(__file__).resolve().parents[3])
    ]
    shipped = [folder / path.name for folder in folders if len(path.parts) == 1]
    for candidate in (path, *shipped):
        if candidate.is_file():
            return candidate
    today = re.sub(r"^nano_(\d)_", r"nano_0\1_", path.name)
    if any((folder / today).is_file() for folder in folders):
        raise DataError(f"{path}: there is no such file; the recipe is now called {today}")
    raise DataError(f"{path}: there is no such file, nor a recipe of that name in config/training")

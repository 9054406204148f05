"""The configurations that the package ships in config/training, found by path or by bare name."""

from __future__ import annotations

import re
from pathlib import Path

from d3_ros.errors import DataError, one_line
from d3_ros.network.bundle.lookup import expanded, shipped_folders

RECIPE = "recipe.yaml"


def find_config(path_or_name: str | Path) -> Path:
    """The YAML file at a path, or the one of that name or relative path in config/training.

    Raises:
        DataError: there is no such file. If a recipe was renamed, the message has its new name.
    """
    path = expanded(path_or_name)
    folders = _shipped()
    shipped = [folder / path for folder in folders if not path.is_absolute()]
    today = re.sub(r"^nano_(\d)_", r"nano_0\1_", path.name)
    try:
        for candidate in (path, *shipped):
            if candidate.is_file():
                return candidate
        renamed = any((folder / today).is_file() for folder in folders)
    except (OSError, ValueError) as error:  # a name too long for the file system, or with a NUL
        raise DataError(f"a configuration cannot have this name: {one_line(error, 200)}") from error
    if renamed:
        raise DataError(f"{path}: there is no such file; the recipe is now called {today}")
    raise DataError(f"{path}: there is no such file, nor a recipe of that name in config/training")


def find_recipe(path_or_name: str | Path) -> Path:
    """The recipe.yaml of a recipe's folder, by its path or by its name in config/training.

    Raises:
        DataError: there is no such folder, or it has no recipe.yaml.
    """
    folder = expanded(path_or_name)
    shipped = [place / folder.name for place in _shipped() if len(folder.parts) == 1]
    for candidate in (folder, *shipped):
        if (candidate / RECIPE).is_file():
            return candidate / RECIPE
    raise DataError(f"{folder}: no folder with a {RECIPE}, nor a recipe of that name is there")


def _shipped() -> list[Path]:
    return [folder / "training" for folder in shipped_folders("config")]

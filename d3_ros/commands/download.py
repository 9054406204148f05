"""Fetch the official D³-Predictor checkpoints and what 'convert' needs of Stable Diffusion 2.1.

From the Hugging Face hub: Stable Diffusion 2.1 at a pinned commit, the checkpoints at the newest
one or at --revision. Every file is verified against the hub's digest of it (SHA-256 of large files,
git's object id of small ones) and, where this project knows it, its own. An interrupted download
goes on where it stopped. The environment variables HF_TOKEN and HF_ENDPOINT are honoured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3_ros.types import TASKS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    from d3_ros.network.bundle.lookup import official_folder

    parser.add_argument(
        "--output",
        type=Path,
        default=official_folder(),
        metavar="DIR",
        help="where to put the files",
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which checkpoints"
    )
    parser.add_argument(
        "--repo",
        nargs="+",
        default=[],
        metavar="REPO",
        help="hub repositories that hold the checkpoints, instead of the authors' collection",
    )
    parser.add_argument(
        "--revision", metavar="REV", help="commit, tag or branch of the checkpoints' repositories"
    )


def run(args: argparse.Namespace) -> int:
    """Download, verify, and say what to do next."""
    from d3_ros.network.bundle.hub import BASE, fetch, find_checkpoints

    base = args.output / "stable-diffusion-2-1"
    checkpoints = find_checkpoints(tuple(args.tasks), tuple(args.repo), args.revision)
    flags = []
    for task, source in checkpoints.items():
        commit, (path,) = fetch(source, args.output)
        print(f"{path}: verified, {source.repo} at {commit}")
        flags.append(f"--{task} {path}")
    commit, files = fetch(BASE, base)
    print(f"{base}: {len(files)} files verified, {BASE.repo} at {commit}")
    print(f"Next: python -m d3_ros convert {' '.join(flags)} --base {base}")
    return 0

"""Render synthetic frames with exact depth, normals, intrinsics and poses, or a walk as a bag.

Everything is procedural and follows from the seed. Needs the optional package embreex.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from d3_ros.errors import D3Error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, help="folder to write: rgb/ depth/ normals/")
    where.add_argument("--bag", type=Path, help="ROS 2 bag to write instead (with --walk)")
    parser.add_argument("--frames", type=int, default=100, help="how many frames")
    parser.add_argument("--seed", type=int, default=0, help="number of the series of scenes")
    parser.add_argument("--size", default="320x240", metavar="WxH", help="pixels")
    parser.add_argument("--walk", action="store_true", help="one walk through one room")
    parser.add_argument(
        "--kind",
        default="room,table,corridor,stairs,street",
        help="kinds of scenes, separated by commas",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second in the bag, Hz")


def run(args: argparse.Namespace) -> int:
    """Render what the options say.

    Raises:
        D3Error: options that do not fit together, or an output that already exists.
    """
    from d3_ros.training import render_dataset

    size = _size(args.size)
    if args.frames < 1 or args.jobs < 1 or args.rate <= 0:
        raise D3Error("--frames, --jobs and --rate must be positive")
    if args.bag is not None:
        if not args.walk:
            raise D3Error("--bag holds a walk: add --walk")
        from d3_ros.training import render_bag

        count = render_bag.write_walk(
            args.bag, frames=args.frames, seed=args.seed, size=size, rate_hz=args.rate
        )
    elif args.walk:
        count = render_dataset.render_walk_folder(
            args.output, frames=args.frames, seed=args.seed, size=size
        )
    else:
        count = render_dataset.render_folder(
            args.output,
            frames=args.frames,
            seed=args.seed,
            size=size,
            kinds=args.kind.split(","),
            jobs=args.jobs,
        )
    print(f"{count} frames in {args.bag or args.output}")
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 32 and int(height) >= 32):
        raise D3Error(f"--size {text}: write it as WIDTHxHEIGHT in pixels, such as 320x240")
    return int(width), int(height)

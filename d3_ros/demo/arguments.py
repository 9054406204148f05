"""Command line arguments of the input, for the demo and for the player that it starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from d3_ros.data.held_out_points import DEFAULT_POINTS
from d3_ros.data.played_frame import SourceOptions
from d3_ros.geometry.camera import checked_intrinsics


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `source_options` reads. The path is each command's own."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--intrinsics",
        nargs=4,
        type=float,
        metavar=("FX", "FY", "CX", "CY"),
        help="focal lengths and principal point, pixels, of a folder or video; a bag has its own",
    )
    group.add_argument(
        "--points",
        type=whole_number,
        metavar="N",
        help="how many measured pixels, at random, the node is given as sparse depth; 0: none "
        f"(default: {DEFAULT_POINTS}, at most half; all if the truth is a topic of its own)",
    )
    group.add_argument(
        "--seed", type=whole_number, default=0, help="seed of that choice (default: 0)"
    )
    group.add_argument("--image-topic", metavar="TOPIC", help="colour images in a bag")
    group.add_argument(
        "--sensor-topic",
        metavar="TOPIC",
        help="registered depth images in a bag (default: sensor_depth/image beside the images)",
    )
    group.add_argument(
        "--truth-topic",
        metavar="TOPIC",
        help="depth images in a bag to score with (default: truth/depth beside the images)",
    )


def source_options(path: Path, args: argparse.Namespace) -> SourceOptions:
    """The parsed arguments as options."""
    return SourceOptions(
        path=path,
        intrinsics=None if args.intrinsics is None else checked_intrinsics(args.intrinsics),
        points=args.points,
        seed=args.seed,
        image_topic=args.image_topic,
        sensor_topic=args.sensor_topic,
        truth_topic=args.truth_topic,
    )


def source_argv(options: SourceOptions) -> list[str]:
    """The command line that gives another process the same options."""
    argv = [str(options.path), "--seed", str(options.seed)]
    if options.intrinsics is not None:
        argv += ["--intrinsics", *(repr(value) for value in options.intrinsics)]
    for name in ("points", "image_topic", "sensor_topic", "truth_topic"):
        value = getattr(options, name)
        if value is not None:
            argv += [f"--{name.replace('_', '-')}", str(value)]
    return argv


def pace(text: str) -> float | str:
    """`auto`, `source`, or a rate in Hz above 0."""
    if text in ("auto", "source"):
        return text
    try:
        rate = float(text)
    except ValueError:
        rate = float("nan")
    if not 0.0 < rate <= 1000.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not auto, source or a rate up to 1000 Hz")
    return rate


def whole_number(text: str) -> int:
    """0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 on")
    return int(text)

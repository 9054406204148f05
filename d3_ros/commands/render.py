"""Render synthetic frames with exact depth, normals, intrinsics and poses, or a walk as a bag.

Scenes are procedural; the same seed gives the same frames. To render for your own camera, give its
calibration (--camera with the intrinsics.json of 'bag extract' or a ROS calibration YAML, or
--intrinsics) and its place on the robot (--height, --tilt). Needs the optional package embreex.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from d3_ros.errors import D3Error

if TYPE_CHECKING:
    from d3_ros.synthetic.mesh.rig import Rig

DEFAULT_KINDS = ("room", "table", "corridor", "stairs", "street")
MORE_KINDS = (
    "shapes",
    "worktop",
    "longtable",
    "lowcam",
    "clutter",
    "above",
    "forest",
    "yard",
    "hall",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, help="new folder for rgb/, depth/ and normals/")
    where.add_argument("--bag", type=Path, help="new ROS 2 bag instead of a folder (with --walk)")
    parser.add_argument("--frames", type=int, default=100, help="number of frames")
    parser.add_argument(
        "--test", type=int, default=0, help="number of frames that split.txt keeps for testing"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    parser.add_argument(
        "--size", metavar="WxH", help="pixels (default: the camera's own, or 320x240)"
    )
    parser.add_argument(
        "--walk", action="store_true", help="one walk through one room, or the --kind given"
    )
    parser.add_argument(
        "--kind",
        help=f"kinds of scenes, separated by commas: {', '.join((*DEFAULT_KINDS, *MORE_KINDS))} "
        f"(default: the first {len(DEFAULT_KINDS)}; a walk: room)",
    )
    parser.add_argument(
        "--assets",
        nargs="+",
        default=[],
        metavar="FOLDER|PACKAGE",
        help="pictures for half of the surfaces that they fit: folders, or installed Python "
        "packages (robosuite has some); names such as wood_3.png tell where they "
        "belong; not for a walk",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--camera", type=Path, metavar="FILE", help="intrinsics.json, or a ROS calibration YAML"
    )
    camera.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="pixels, of a camera of --size without distortion",
    )
    parser.add_argument(
        "--height",
        metavar="M[:M]",
        help="height of the camera above the floor, m, or a range to draw from",
    )
    parser.add_argument(
        "--tilt",
        metavar="DEG[:DEG]",
        help="downward tilt of the camera, degrees, or a range; with --height; write a "
        "negative one as --tilt=-5:25",
    )
    parser.add_argument(
        "--lidar",
        type=int,
        default=0,
        metavar="RINGS",
        help="with --bag: also a LiDAR of so many rings, on /lidar/points, and its /tf_static",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument("--rate", type=float, default=10.0, help="frame rate of the bag, Hz")


def run(args: argparse.Namespace) -> int:
    """Render frames or a walk.

    Raises:
        D3Error: options contradict each other, or the output exists or cannot be written.
    """
    from d3_ros.synthetic import dataset as render_dataset
    from d3_ros.synthetic.mesh.picture_textures import find_pictures

    if args.frames < 1 or args.jobs < 1 or not 0 < args.rate <= 1000:
        raise D3Error("--frames, --jobs and --rate must be positive, --rate at most 1000 Hz")
    if args.seed < 0:
        raise D3Error("--seed must be 0, 1, 2, ...")
    if not 0 <= args.test < args.frames or (args.test and (args.walk or args.bag is not None)):
        raise D3Error("--test must be less than --frames, and is not for a walk")
    if args.assets and (args.walk or args.bag is not None):
        raise D3Error("--assets is not for a walk")
    if not 0 <= args.lidar <= 128 or (args.lidar and args.bag is None):
        raise D3Error("--lidar is a number of rings up to 128, and goes with --bag")
    rig = replace(_rig(args), lidar_rings=args.lidar)
    kinds = args.kind.split(",") if args.kind else DEFAULT_KINDS
    if not (args.walk or args.bag is not None):
        count = render_dataset.render_folder(
            args.output,
            frames=args.frames,
            seed=args.seed,
            rig=rig,
            kinds=kinds,
            jobs=args.jobs,
            test_frames=args.test,
            pictures=find_pictures(args.assets) if args.assets else None,
        )
    elif not args.walk:
        raise D3Error("--bag holds a walk: add --walk")
    elif args.kind and len(kinds) > 1:
        raise D3Error("a walk goes through one scene: give one --kind")
    elif args.bag is not None:
        from d3_ros.synthetic import bag as render_bag

        count = render_bag.write_walk(
            args.bag,
            frames=args.frames,
            seed=args.seed,
            rig=rig,
            kind=kinds[0],
            rate_hz=args.rate,
            jobs=args.jobs,
        )
    else:
        count = render_dataset.render_walk_folder(
            args.output,
            frames=args.frames,
            seed=args.seed,
            rig=rig,
            kind=kinds[0],
            jobs=args.jobs,
        )
    print(f"{count} frames in {args.bag or args.output}")
    return 0


def _rig(args: argparse.Namespace) -> Rig:
    from d3_ros.geometry.camera import checked_intrinsics
    from d3_ros.synthetic.mesh.rig import Mounting, make_rig, read_camera
    from d3_ros.types import CameraIntrinsics

    camera = None if args.camera is None else read_camera(args.camera)
    size = _size(args.size or "320x240") if args.size or camera is None else None
    if args.intrinsics is not None:
        assert size is not None
        camera = CameraIntrinsics(*size, *checked_intrinsics(args.intrinsics))
    if (args.height is None) != (args.tilt is None):
        raise D3Error("--height without --tilt, or the reverse: give both")
    mounting = None
    if args.height is not None:
        mounting = Mounting(_range("--height", args.height), _range("--tilt", args.tilt))
    return make_rig(size, camera, mounting)


def _range(option: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high or low)
    except ValueError as error:
        raise D3Error(f"{option} {text}: write one number, or two as LOW:HIGH") from error


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 32 and int(height) >= 32):
        raise D3Error(f"--size {text}: write it as WIDTHxHEIGHT in pixels, such as 320x240")
    return int(width), int(height)

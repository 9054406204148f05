"""Look into a ROS bag, or make training data of it. No ROS installation is needed.

'bag info BAG' lists the topics. 'bag extract BAG --output DIR' writes rgb/, depth/ (16-bit
millimetres, 0 = not measured), intrinsics.json and contact_sheet.png, a picture to look at. Topics
that are not named are found where there is only one that fits.

'bag check-calibration BAG' compares the depth edges of a LiDAR or depth camera with the edges of
the image, says whether the extrinsic calibration is right, and draws it. It also takes a folder of
frames. The exit status is 0 for right, 3 for off, 4 for cannot tell.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3_ros.errors import D3Error

if TYPE_CHECKING:
    import numpy as np

    from d3_ros.data.bag.camera import BagCameraOptions
    from d3_ros.data.bag.extract import Extraction, ExtractOptions


# Exit status of check-calibration.
CALIBRATION_STATUS = {"right": 0, "off": 3, "unclear": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    actions = parser.add_subparsers(
        dest="action", metavar="info|extract|check-calibration", required=True
    )
    info = actions.add_parser("info", help="list the topics", description="List a bag's topics.")
    info.add_argument("bag", type=Path, help="a folder (ROS 2), or an .mcap, .db3 or .bag file")
    extract = actions.add_parser(
        "extract",
        help="write training data",
        description="Write the frames of one camera and its depth sensor as training data.",
        formatter_class=parser.formatter_class,
    )
    extract.add_argument("bag", type=Path, help="a folder (ROS 2), or an .mcap, .db3 or .bag file")
    extract.add_argument("--output", type=Path, required=True, help="folder to make")
    add_topic_arguments(extract)
    add_choice_arguments(extract)
    check = actions.add_parser(
        "check-calibration",
        help="is the extrinsic calibration of LiDAR or depth camera right?",
        description="Compare depth edges with image edges: is the extrinsic calibration right? "
        "Exit status: 0 right, 3 off, 4 cannot tell.",
        formatter_class=parser.formatter_class,
    )
    check.add_argument(
        "bag",
        type=Path,
        help="a bag, or a folder of frames: KITTI's layout, or rgb/, depth/ and intrinsics.json",
    )
    check.add_argument(
        "--output", type=Path, default=Path("calibration.png"), help="picture to write"
    )
    check.add_argument("--frames", type=int, default=60, help="most frames that are looked at")
    add_topic_arguments(check)


def add_topic_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which topics of a bag to read, and how."""
    from d3_ros.data.bag.camera import BagCameraOptions

    topic = parser.add_argument_group("topics")
    topic.add_argument("--image", metavar="TOPIC", help="colour images, raw or compressed")
    topic.add_argument("--camera-info", metavar="TOPIC", help="their calibration")
    sensor = topic.add_mutually_exclusive_group()
    sensor.add_argument(
        "--depth", metavar="TOPIC", help="depth images registered to the colour images"
    )
    sensor.add_argument("--points", metavar="TOPIC", help="PointCloud2 of a LiDAR or depth camera")
    sensor.add_argument("--scan", metavar="TOPIC", help="LaserScan")
    default = BagCameraOptions(Path())
    group = parser.add_argument_group("geometry")
    group.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="pixels; instead of camera_info",
    )
    group.add_argument(
        "--extrinsics",
        type=float,
        nargs=7,
        metavar=("X", "Y", "Z", "QX", "QY", "QZ", "QW"),
        help="T_camera_sensor: maps the sensor's points into the camera's optical frame, metres; "
        "instead of the bag's /tf_static",
    )
    group.add_argument(
        "--rectified", action="store_true", help="the images are rectified: P of camera_info holds"
    )
    group.add_argument(
        "--tolerance",
        type=float,
        default=default.tolerance_s,
        help="largest difference between the stamps of image and measurement, s",
    )
    group.add_argument(
        "--min-depth", type=float, default=default.min_depth_m, help="least z-depth, m"
    )
    group.add_argument(
        "--max-depth", type=float, default=default.max_depth_m, help="largest z-depth, m"
    )
    group.add_argument(
        "--min-range",
        type=float,
        default=default.min_range_m,
        help="least distance of a point from its sensor, m; drivers write (0, 0, 0) for no return",
    )
    group.add_argument(
        "--max-range",
        type=float,
        default=default.max_range_m,
        help="largest distance of a point from its sensor, m",
    )


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which frames to take."""
    from d3_ros.data.bag.extract import ExtractOptions

    default = ExtractOptions()
    group = parser.add_argument_group("choice of frames")
    group.add_argument(
        "--every", type=float, default=default.every_s, help="least time between two frames, s"
    )
    group.add_argument(
        "--min-motion",
        type=float,
        default=default.min_motion,
        help="least difference to the last frame taken: 0.02 is a pan by 2 of 640 pixels, 1 "
        "another place; 0 takes all",
    )
    group.add_argument(
        "--min-points", type=int, default=default.min_points, help="fewest measured pixels"
    )
    group.add_argument(
        "--test-share",
        type=float,
        default=default.test_share,
        help="share of the frames, the last ones, that split.txt keeps for testing",
    )
    group.add_argument(
        "--gap",
        type=float,
        default=default.gap_s,
        help="with --test-share: seconds before the tested frames that are left unused",
    )


def camera_options(args: argparse.Namespace) -> BagCameraOptions:
    """What the command line says about the bag.

    Raises:
        D3Error: a number is out of range.
    """
    from d3_ros.data.bag.camera import BagCameraOptions
    from d3_ros.data.bag.file import LATE_S
    from d3_ros.data.bag.topics import KINDS
    from d3_ros.geometry.camera import checked_intrinsics
    from d3_ros.geometry.rigid import rigid_transform

    kind = next((kind for kind in KINDS if getattr(args, kind) is not None), None)
    extrinsics = None
    if args.extrinsics is not None:
        try:
            extrinsics = rigid_transform(args.extrinsics[:3], args.extrinsics[3:])
        except ValueError as error:
            raise D3Error(f"--extrinsics: {error}") from error
    if not 0 <= args.min_depth < args.max_depth:
        raise D3Error("--min-depth must be below --max-depth, and not negative")
    if not 0 <= args.tolerance <= LATE_S:
        raise D3Error(f"--tolerance must be 0 to {LATE_S:g} s")
    if not 0 <= args.min_range < args.max_range:
        raise D3Error("--min-range must be below --max-range, and not negative")
    return BagCameraOptions(
        path=args.bag,
        image=args.image,
        info=args.camera_info,
        sensor=None if kind is None else getattr(args, kind),
        kind=kind,
        intrinsics=None if args.intrinsics is None else checked_intrinsics(args.intrinsics),
        rectified=args.rectified,
        T_camera_sensor=extrinsics,
        tolerance_s=args.tolerance,
        min_depth_m=args.min_depth,
        max_depth_m=args.max_depth,
        min_range_m=args.min_range,
        max_range_m=args.max_range,
    )


def choice_options(args: argparse.Namespace) -> ExtractOptions:
    """What the command line says about the choice of frames."""
    from d3_ros.data.bag.extract import ExtractOptions

    return ExtractOptions(
        every_s=args.every,
        min_motion=args.min_motion,
        min_points=args.min_points,
        test_share=args.test_share,
        gap_s=args.gap,
    )


def extract_bag(camera: BagCameraOptions, choice: ExtractOptions, output: Path) -> Extraction:
    """Extract the frames of `camera` that `choice` takes into the folder `output`.

    Raises:
        D3Error: the bag, its topics or `output` are not usable.
    """
    from d3_ros.data.bag.camera import BagCamera
    from d3_ros.data.bag.extract import extract

    recording = BagCamera(camera)
    topics = recording.topics
    for file in recording.cut:
        print(f"{camera.path}: {file} was cut off; what is whole of it is read")
    print(f"{camera.path}: {topics.image} with {topics.kind} of {topics.sensor}")
    source = described(camera) | {
        "image": topics.image,
        "info": topics.info,
        "sensor": topics.sensor,
    }
    return extract(recording, output, choice, source)


def described(camera: BagCameraOptions) -> dict[str, Any]:
    """The options as JSON values, for extraction.json."""
    return {field.name: _plain(getattr(camera, field.name)) for field in fields(camera)}


def run(args: argparse.Namespace) -> int:
    """List the topics of a bag, or extract its frames.

    Raises:
        D3Error: the bag, its topics or the output are not usable.
    """
    if not args.bag.exists():
        raise D3Error(f"{args.bag}: no such file or folder")
    if args.action == "info":
        _print_topics(args.bag)
        return 0
    if args.action == "check-calibration":
        return _check_calibration(args)
    report = extract_bag(camera_options(args), choice_options(args), args.output)
    print("\n".join(report.lines()))
    print(f"{args.output}: look at {args.output / 'contact_sheet.png'}")
    return 0


def _check_calibration(args: argparse.Namespace) -> int:
    from d3_ros.data.bag.camera import BagCamera
    from d3_ros.data.bag.file import is_bag
    from d3_ros.data.calibration_frames import bag_frames, folder_frames, only_cloud
    from d3_ros.evaluation.extrinsics import check_recording
    from d3_ros.imaging.image_file import check_picture_name

    if args.frames < 1:
        raise D3Error("--frames must be positive")
    check_picture_name(args.output)  # now, not after all frames were read
    if is_bag(args.bag):
        if not (args.depth or args.points or args.scan):
            args.points = only_cloud(args.bag)
        camera = BagCamera(camera_options(args))
        topics = camera.topics
        print(f"{args.bag}: {topics.image} with {topics.kind} of {topics.sensor}")
        frames = bag_frames(camera, args.frames)
    else:
        frames = folder_frames(args.bag, args.frames, _folder_calibration(args))
    check, lines = check_recording(frames, args.output)
    print("\n".join(lines))
    print(f"look at {args.output}: the marked edges should lie on the outlines in the image")
    return CALIBRATION_STATUS[check.verdict]


def _folder_calibration(args: argparse.Namespace) -> np.ndarray | None:
    """T_camera_sensor as given, (4, 4); options that a folder does not read are refused."""
    from d3_ros.data.bag.camera import BagCameraOptions

    given = camera_options(args)
    if given != BagCameraOptions(given.path, T_camera_sensor=given.T_camera_sensor):
        raise D3Error(
            f"{args.bag} is a folder of frames, of which --frames and --extrinsics are read: the "
            "other options are for a bag. Intrinsics come from its intrinsics.json"
        )
    return given.T_camera_sensor


def _print_topics(bag: Path) -> None:
    from d3_ros.data.bag.file import CAMERA_INFO, COMPRESSED, IMAGE, POINTS, SCAN, read_contents

    options = {
        IMAGE: "--image or --depth",
        COMPRESSED: "--image or --depth",
        CAMERA_INFO: "--camera-info",
        POINTS: "--points",
        SCAN: "--scan",
    }
    contents = read_contents(bag)
    for file in contents.cut:
        print(f"{bag}: {file} was cut off; what is whole of it is read")
    print(f"{bag}: {contents.duration_s:.1f} s, {len(contents.topics)} topics")
    width = max([5, *map(len, contents.topics)])
    for name, (kind, count) in sorted(contents.topics.items()):
        rate = f"{count / contents.duration_s:6.1f} Hz" if contents.duration_s > 0 else ""
        print(f"  {name:{width}} {count:7} {rate}  {kind:32} {options.get(kind, '')}".rstrip())


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Path):
        return str(value.resolve())
    return value.tolist() if hasattr(value, "tolist") else value

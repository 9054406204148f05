"""Fine-tune a bundle to a robot's own domain, from its bag or from a folder of frames.

The frames are extracted from the bag (see 'bag extract') and split by time: the last part is held
out. The bundle is trained on the rest, then both bundles are scored on the held-out part. The new
one is written to OUTPUT only if it is better there beyond doubt (see --judge). OUTPUT.run holds the
run itself and its report (report/index.html). Give the same command again to go on with an
interrupted run. KEY=VALUE replaces a value of the configuration, for example
'stages=[{size: null, batch: 8, steps: 1000}]'. The configuration is config/training/finetune.yaml,
or finetune_lora.yaml beside it for a bundle of Stable Diffusion's size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from d3_ros.commands import bag
from d3_ros.commands.train import output_that_cannot_be_written, training_package_missing
from d3_ros.errors import D3Error

if TYPE_CHECKING:
    from d3_ros.evaluation.compare import Difference

TEST_SHARE = 0.3  # of the recording's time, at its end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    from d3_ros.evaluation.scores import POINTS, PROTOCOLS

    frames = parser.add_mutually_exclusive_group(required=True)
    frames.add_argument("--bag", type=Path, help="a folder (ROS 2), or an .mcap, .db3 or .bag file")
    frames.add_argument(
        "--data", type=Path, help="folder of frames with a split.txt (lines 'NAME train|test')"
    )
    parser.add_argument("--model", default="d3_nano", help="bundle to start from: name or folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new bundle")
    parser.add_argument("--config", help="YAML file; default: the one that fits the bundle's size")
    parser.add_argument(
        "--judge",
        default="sparse_fit",
        choices=[name for name in PROTOCOLS if name != "normals"],
        help=f"the score whose AbsRel decides. sparse_fit: metres from {POINTS} measured points, "
        "as on a robot with a depth sensor; affine_depth or affine_disparity: after an affine fit "
        "to the measured depth or its inverse, for a robot that will have a camera only",
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="any key of the configuration"
    )
    bag.add_topic_arguments(parser)
    bag.add_choice_arguments(parser)
    parser.set_defaults(test_share=TEST_SHARE)


def run(args: argparse.Namespace) -> int:
    """Extract, train, compare.

    Raises:
        D3Error: something is not usable, or the result is not better; one line says which.
    """
    with training_package_missing():
        from d3_ros.training.config.recipes import find_config
        from d3_ros.training.loop.finetune import finetune, finetune_config, run_folder
    if args.output.exists():
        raise D3Error(f"{args.output} exists: remove it, or give another --output")
    data = args.data
    if data is None:
        data = run_folder(args.output) / "data"
        if not data.is_dir():  # an extraction is whole or not there
            extraction = bag.extract_bag(bag.camera_options(args), bag.choice_options(args), data)
            print("\n".join(extraction.lines()))
        else:
            _refuse_other_extraction(data, args)
    config = None if args.config is None else find_config(args.config)
    made = finetune_config(args.model, data, args.output, config, args.settings)
    with output_that_cannot_be_written(args.output):
        outcome = finetune(made, args.output, args.judge)
    told = _told(outcome.decisive)
    if not outcome.better:
        raise D3Error(
            f"not better than {args.model} on {outcome.decisive.frames} held-out frames: {told}; "
            f"{args.output} is not written, what was trained is {outcome.trained}, see "
            f"{outcome.report / 'index.html'}"
        )
    print(f"\nbetter on {outcome.decisive.frames} held-out frames: {told}")
    for difference in outcome.worse:
        print(f"but worse: {_told(difference)}")
    print(f"bundle in {args.output}, report in {outcome.report / 'index.html'}")
    return 0


def _refuse_other_extraction(data: Path, args: argparse.Namespace) -> None:
    """An earlier run with the same output may have extracted another bag, or otherwise."""
    from d3_ros.data.bag.extract import extracted_from, other_options

    remedy = f"remove {data.parent}, or give another --output"
    source = extracted_from(data)
    if source is not None and Path(source).resolve() != args.bag.resolve():
        raise D3Error(f"{data} was extracted from {source}: {remedy}")
    asked = bag.described(bag.camera_options(args))
    if others := other_options(data, asked, bag.choice_options(args)):
        told = ", ".join(f"{name} {had!r}, not {now!r}" for name, (had, now) in others.items())
        raise D3Error(f"{data} was extracted with {told}: {remedy}")


def _told(difference: Difference) -> str:
    return (
        f"{difference.key} {difference.first:.4f} before, {difference.second:.4f} after "
        f"(difference {difference.low:+.4f} to {difference.high:+.4f})"
    )

"""Fine-tune a bundle to a robot's own domain, from its bag or from a folder of frames.

The frames are extracted from the bag ('bag extract' tells more) and split by time: the last part is
held out. The bundle is trained on the rest, and both bundles are scored on the held-out part. Only
where the new one is better beyond doubt is it written to OUTPUT; the run itself, with its report
(report/index.html), is in OUTPUT.run. An interrupted command goes on where it was when it is given
again. KEY=VALUE replaces what config/finetune.yaml says (config/finetune_lora.yaml for a bundle of
Stable Diffusion's size): data.augment=false, 'stages=[{size: null, batch: 8, steps: 1000}]', ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3_ros.commands import bag
from d3_ros.commands.train import training_package_missing
from d3_ros.errors import D3Error

TEST_SHARE = 0.3  # of the time, its end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    frames = parser.add_mutually_exclusive_group(required=True)
    frames.add_argument("--bag", type=Path, help="folder with metadata.yaml, or .mcap, .db3, .bag")
    frames.add_argument(
        "--data", type=Path, help="folder of frames with a split.txt (lines 'NAME train|test')"
    )
    parser.add_argument("--model", default="d3_nano", help="bundle to start from: name or folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new bundle")
    parser.add_argument("--config", help="YAML file; default: the one that fits the bundle's size")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="replaces the file's")
    bag.add_topic_arguments(parser)
    bag.add_choice_arguments(parser)
    parser.set_defaults(test_share=TEST_SHARE)


def run(args: argparse.Namespace) -> int:
    """Extract, train, compare.

    Raises:
        D3Error: something is not usable, or the result is not better; one line says which.
    """
    with training_package_missing():
        from d3_ros.training.config import find_config
        from d3_ros.training.finetune import finetune, finetune_config, run_folder
    if args.output.exists():
        raise D3Error(f"{args.output} exists: remove it, or give another --output")
    data = args.data
    if data is None:
        data = run_folder(args.output) / "data"
        if not data.is_dir():  # an extraction is whole or not there
            extraction = bag.extract_bag(bag.camera_options(args), bag.choice_options(args), data)
            print("\n".join(extraction.lines()))
    config = None if args.config is None else find_config(args.config)
    outcome = finetune(
        finetune_config(args.model, data, args.output, config, args.settings), args.output
    )
    found = outcome.decisive
    told = (
        f"AbsRel after an affine fit on {found.frames} held-out frames: {found.first:.4f} before, "
        f"{found.second:.4f} after (difference {found.low:+.4f} to {found.high:+.4f})"
    )
    if not outcome.better:
        raise D3Error(
            f"not better than {args.model}: {told}; {args.output} is not written, what was trained "
            f"is {outcome.trained}, see {outcome.report / 'index.html'}"
        )
    print(f"{told}\nbetter: bundle in {args.output}, report {outcome.report / 'index.html'}")
    return 0

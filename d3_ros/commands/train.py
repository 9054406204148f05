"""Train a bundle by a configuration or a recipe. The same command goes on where it was cut off.

--recipe FOLDER does everything: it renders frames, then trains one stage after the other. First it
tells what that costs, with the time of a step as measured on this machine; --dry-run stops there.
With --config, one run is trained from frames that are there already.

Give the frames and the output folder as data=FOLDER output=FOLDER. Any other KEY=VALUE replaces a
value of the configuration: seed=2 optimizer.learning_rate=1e-5 ... The output folder gets the
bundles best/ and last/, checkpoints/, pictures/, log.jsonl and, if TensorBoard is installed, its
event files. For several GPUs use 'accelerate launch -m d3_ros train ...', for several CPU processes
'torchrun --nproc-per-node 2 -m d3_ros train ...'.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d3_ros.errors import D3Error, one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", help="YAML file, or the name of one in config/training")
    what.add_argument(
        "--recipe", help="folder with a recipe.yaml, or the name of one in config/training"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        help="folder for frames, checkpoints and bundles of --recipe (default: runs/NAME)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the recipe and tell its cost, nothing else"
    )
    parser.add_argument(
        "--stage",
        default="network",
        choices=("network", "codec"),
        help="codec: distil the bundle's VAE into the small codec of fast mode, from any images; "
        "with label_weight above 0 it also learns from the depth and normals of labelled frames",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="do not train: print the cost of a step, part by part (needs no data and no "
        "GPU, and weights only where training starts from a bundle)",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="data=FOLDER, output=FOLDER, any key",
    )


def run(args: argparse.Namespace) -> int:
    """Train as the configuration says.

    Raises:
        D3Error: a setting, the configuration or the data is not usable, or training diverged.
    """
    if args.recipe is not None:
        return _run_recipe(args)
    if args.workdir is not None or args.dry_run:
        raise D3Error("--workdir and --dry-run are for --recipe")
    outputs = [text.partition("=")[2] for text in args.settings if text.startswith("output=")]
    settings = [text for text in args.settings if not text.startswith("output=")]
    with training_package_missing():
        from d3_ros.training.config.recipes import find_config
        from d3_ros.training.config.train_config import load_config
    path = find_config(args.config)
    if args.profile:
        from d3_ros.training.loop.profile import profile, table

        config = load_config(path, settings)
        print("\n".join(table(config, profile(config))))
        return 0
    if not outputs:
        raise D3Error("give the output folder on the command line: output=FOLDER")
    output = Path(outputs[-1])
    with output_that_cannot_be_written(output):
        if args.stage == "codec":
            from d3_ros.training.config.codec_config import load_codec_config
            from d3_ros.training.loop.distil_codec import distil

            bundle = distil(load_codec_config(path, settings), output)
        else:
            with training_package_missing():
                from d3_ros.training.loop.train import train
            bundle = train(load_config(path, settings), output)
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        print(f"bundle in {bundle}")
    return 0


def _run_recipe(args: argparse.Namespace) -> int:
    if args.settings or args.profile or args.stage != "network":
        raise D3Error("--recipe takes no settings, --stage or --profile: its files say everything")
    with training_package_missing():
        from d3_ros.training.config.recipes import find_recipe
        from d3_ros.training.loop.recipe import run_recipe
    path = find_recipe(args.recipe)
    workdir = args.workdir or Path("runs") / path.parent.name
    with output_that_cannot_be_written(workdir):
        bundle = run_recipe(path, workdir, dry_run=args.dry_run)
    if bundle is not None and os.environ.get("RANK", "0") == "0":
        print(f"bundle in {bundle}")
    return 0


@contextmanager
def output_that_cannot_be_written(output: Path) -> Iterator[None]:
    """Tell in one line that the output is a file, may not be written, or that the disk is full."""
    try:
        yield
    except OSError as error:
        raise D3Error(
            f"{output} cannot be written ({one_line(error)}): free space or give another output"
        ) from error


@contextmanager
def training_package_missing() -> Iterator[None]:
    """Tell in one line which optional package an import inside the block lacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("d3_ros"):
            raise
        raise D3Error(
            f"training needs {error.name}: pip install -r scripts/requirements/training.txt"
        ) from error

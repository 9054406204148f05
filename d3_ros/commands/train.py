"""Train a bundle by a configuration. The same command goes on with a run that was cut off.

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
    parser.add_argument(
        "--config", required=True, help="YAML file, or the name of one in config/training"
    )
    parser.add_argument(
        "--stage",
        default="network",
        choices=("network", "codec"),
        help="codec: distil the bundle's VAE into the small codec of fast mode, from any images",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="do not train: print the cost of a step, part by part (needs no data and no weights)",
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

"""Train a bundle as a configuration says; goes on where an earlier run was cut off.

Give the frames and the output folder as data=FOLDER output=FOLDER, and any other KEY=VALUE to
replace what the configuration says: seed=2 optimizer.learning_rate=1e-5 ... The output folder gets
best/ and last/ (bundles), checkpoints/, pictures/, log.jsonl and, where tensorboard is installed,
its event files. Several GPUs: 'accelerate launch -m d3_ros train ...'. Several CPU processes:
'torchrun --nproc-per-node 2 -m d3_ros train ...'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3_ros.errors import D3Error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="YAML file, as those in config/")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="data=, output=, others")


def run(args: argparse.Namespace) -> int:
    """Train as the configuration says.

    Raises:
        D3Error: a setting, the configuration or the data is not usable, or training diverged.
    """
    outputs = [text.partition("=")[2] for text in args.settings if text.startswith("output=")]
    settings = [text for text in args.settings if not text.startswith("output=")]
    try:
        from d3_ros.training.config import load_config
        from d3_ros.training.train import train
    except ModuleNotFoundError as error:
        raise D3Error(
            f"training needs {error.name}: pip install -r scripts/requirements/training.txt"
        ) from error
    if not outputs:
        raise D3Error("output=FOLDER is missing on the command line")
    bundle = train(load_config(args.config, settings), Path(outputs[-1]))
    print(f"bundle in {bundle}")
    return 0

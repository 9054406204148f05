"""Train a small D³-Predictor from labelled frames; goes on where an earlier run was cut off.

Give the data folder (rgb/, depth/, normals/ as 'render' writes them) and the output folder as
data=FOLDER output=FOLDER, and any other KEY=VALUE to replace what the configuration says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3_ros.errors import D3Error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="YAML file")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="data=, output=, others")


def run(args: argparse.Namespace) -> int:
    """Train as the configuration says.

    Raises:
        D3Error: a setting, the configuration or the data is not usable, or training diverged.
    """
    from d3_ros.training.config import load_config
    from d3_ros.training.train import train

    paths: dict[str, Path] = {}
    overrides = []
    for setting in args.settings:
        key, _, value = setting.partition("=")
        if key in ("data", "output"):
            paths[key] = Path(value)
        else:
            overrides.append(setting)
    if missing := {"data", "output"} - paths.keys():
        raise D3Error(f"{min(missing)}=FOLDER is missing on the command line")
    bundle = train(load_config(args.config, overrides), paths["data"], paths["output"])
    print(f"bundle in {bundle}")
    return 0

"""Make a model bundle from the official D³-Predictor checkpoints.

Needs the checkpoints (one or both) and their base, Stable Diffusion 2.1: its configurations,
tokenizer and text encoder, but not its UNet. 'download' fetches all of them. Peak memory is about
the size of one network; nothing that is pickled in the checkpoints is run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3_ros.errors import DataError
from d3_ros.types import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    from d3_ros.network.bundle.lookup import official_folder

    base = official_folder() / "stable-diffusion-2-1"
    parser.add_argument("--depth", type=Path, metavar="FILE", help="depth_checkpoint.pth")
    parser.add_argument("--normals", type=Path, metavar="FILE", help="normal_checkpoint.pth")
    parser.add_argument(
        "--base",
        default=str(base),
        metavar="FOLDER_OR_REPO",
        help="Stable Diffusion 2.1 in diffusers' layout (unet/config.json, vae/config.json, "
        "tokenizer/, text_encoder/), or a hub repository that is in the local Hugging Face cache",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the bundle folder to write; left out: NAME in the user cache, where it is found by "
        "name",
    )
    parser.add_argument("--name", default="d3_sd21", help="the bundle's name")
    parser.add_argument(
        "--dtype", choices=("fp16", "fp32"), default="fp16", help="how the weights are stored"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and say where the bundle is."""
    from tqdm import tqdm

    from d3_ros.network.bundle.hub import base_folder
    from d3_ros.network.bundle.lookup import user_cache
    from d3_ros.network.bundle.official_checkpoint import STEPS, convert

    checkpoints: dict[Task, Path] = {}
    if args.depth is not None:
        checkpoints["depth"] = args.depth
    if args.normals is not None:
        checkpoints["normals"] = args.normals
    if not checkpoints:
        raise DataError("give --depth FILE, --normals FILE, or both")
    output = args.output if args.output is not None else user_cache() / args.name
    base = base_folder(args.base)
    with tqdm(total=STEPS, bar_format="{desc}: |{bar}| {n}/{total} [{elapsed}]") as bar:

        def progress(step: str) -> None:
            bar.update(0 if bar.desc == "" else 1)
            bar.set_description_str(step)

        bundle = convert(
            checkpoints,
            base,
            output,
            name=args.name,
            dtype=args.dtype,
            progress=progress,
        )
        bar.update(1)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {', '.join(bundle.network.tasks)}, {size / 1e9:.2f} GB, verified")
    return 0

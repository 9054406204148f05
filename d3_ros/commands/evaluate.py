"""Score a bundle on folders of frames with measured depth, after an affine fit to the truth.

A folder has rgb/NAME.* and depth/NAME.png (16-bit millimetres, 0 = not measured) and may have
normals/NAME.png as 'render' writes them.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    from d3_ros.network.processing_size import HELP

    parser.add_argument("--model", default="d3_nano", help="bundle: name or folder")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of frames")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "fp16", "bf16", "fp32"))
    parser.add_argument("--processing-size", default="bundle", metavar="SIZE", help=HELP)
    parser.add_argument("--csv", type=Path, help="write the scores of every frame here")


def run(args: argparse.Namespace) -> int:
    """Print the mean scores of every folder.

    Raises:
        D3Error: the bundle or a folder is not usable.
    """
    from tqdm import tqdm

    from d3_ros.evaluation.dataset import evaluate, frames, mean_scores
    from d3_ros.network import D3Predictor

    predictor = D3Predictor.from_pretrained(
        args.model, args.device, args.dtype, args.processing_size
    )
    table: list[dict[str, float | str]] = []
    print(f"{'folder':24} {'frames':>6}  mean scores after an affine fit")
    for folder in args.data:
        scores = evaluate(predictor, folder)
        rows = list(tqdm(scores, total=len(frames(folder)), desc=folder.name, leave=False))
        means = "  ".join(f"{key} {value:.4f}" for key, value in mean_scores(rows).items())
        print(f"{folder.name:24} {len(rows):6}  {means}")
        table += [{"folder": str(folder), **row} for row in rows]
    if args.csv is not None:
        with args.csv.open("w", newline="") as file:
            keys = list(dict.fromkeys(key for row in table for key in row))
            writer = csv.DictWriter(file, keys)
            writer.writeheader()
            writer.writerows(table)
    return 0

"""Score a bundle on frames with measured depth or normals, or compare two bundles on them.

A folder has rgb/NAME.* and depth/NAME.png (16-bit millimetres, 0 = not measured) or .npy (metres),
and may have normals/ and split.txt, as 'render' and 'bag extract' write them; or it has the
official layout. Depth is scored after an affine fit to the truth, in depth and in disparity, and as
the robot has it, from a few measured points; normals as they are. With --scale: how metric scale
depends on the number of points, beside the global affine fit and the interpolation of the points.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

from d3_ros.errors import D3Error

if TYPE_CHECKING:
    from d3_ros.network import D3Predictor
    from d3_ros.network.bundle import Codec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    from d3_ros.evaluation.scores import POINTS
    from d3_ros.network.processing_size import HELP

    parser.add_argument("--model", default="d3_nano", help="bundle: name or folder")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of frames")
    parser.add_argument(
        "--against", metavar="MODEL", help="another bundle; says whether --model is better than it"
    )
    parser.add_argument(
        "--output", type=Path, help="folder to write index.html, report.json and frames.csv into"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("test", "train", "all"),
        help="which frames, where the folder has a split.txt",
    )
    parser.add_argument(
        "--points", type=int, default=POINTS, help="measured points a frame, for the sparse fit"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "fp16", "bf16", "fp32"))
    parser.add_argument(
        "--codec",
        default="vae",
        choices=("vae", "tiny"),
        help="of --model; with '--against' the same model: what the tiny codec gives up",
    )
    parser.add_argument("--processing-size", default="bundle", metavar="SIZE", help=HELP)
    parser.add_argument(
        "--scale", action="store_true", help="score metric scale from sparse points"
    )
    parser.add_argument("--seeds", type=int, default=5, help="draws of the points, for --scale")
    parser.add_argument("--limit", type=int, default=10, help="frames a folder, for --scale")
    parser.add_argument("--csv", type=Path, help="write the table of --scale here")


def run(args: argparse.Namespace) -> int:
    """Print the mean scores of every folder, and write what was asked for.

    Raises:
        D3Error: a bundle or a folder is not usable.
    """
    predictor = _load(args.model, args, args.codec)
    if args.scale:
        table: list[dict[str, float | str]] = []
        for folder in args.data:
            table += _scale(folder, predictor, args.limit, args.seeds)
        _write_csv(args.csv, table)
        return 0
    from d3_ros.evaluation.run import evaluate_bundles

    if args.points < 1:
        raise D3Error("--points must be positive")
    name = args.model if args.codec == "vae" else f"{args.model} (codec {args.codec})"
    bundles = [(name, predictor)]
    if args.against is not None:
        bundles.insert(0, (args.against, _load(args.against, args)))
    evaluate_bundles(bundles, args.data, part=args.split, points=args.points, output=args.output)
    return 0


def _load(model: str, args: argparse.Namespace, codec: Codec = "vae") -> D3Predictor:
    from d3_ros.network import D3Predictor

    return D3Predictor.from_pretrained(
        model, args.device, args.dtype, args.processing_size, codec=codec
    )


def _scale(
    folder: Path, predictor: D3Predictor, limit: int, seeds: int
) -> list[dict[str, float | str]]:
    """Print the scale table of one folder and return its rows."""
    import numpy as np

    from d3_ros.evaluation.scale import table_rows
    from d3_ros.evaluation.scale_frames import load_frames

    def relative_depth(rgb: np.ndarray) -> np.ndarray:
        depth = predictor(rgb, tasks=("depth",)).depth
        assert depth is not None
        return depth

    frames = list(load_frames(folder, relative_depth, limit))
    predicted = (folder / "predicted.npz").is_file()
    source = "predicted.npz" if predicted else "the bundle"
    print(f"\n{folder.name}: {len(frames)} frames, relative depth of {source}, {seeds} seeds")
    print(f"{'points':>7} {'taken':20} {'AbsRel':>8} {'global':>8} {'points':>8}", end=" ")
    print(f"{'RMSE m':>8} {'global':>8} {'points':>8} {'pixels':>7} {'frames':>7}")
    rows: list[dict[str, float | str]] = []
    for points, taken, score in table_rows(frames, seeds, predicted):
        figures = [score.aligned, score.global_fit, score.interpolated, score.aligned_rmse_m]
        figures += [score.global_fit_rmse_m, score.interpolated_rmse_m]
        print(f"{points:>7} {taken:20} " + " ".join(f"{one:8.4f}" for one in figures), end=" ")
        print(f"{score.coverage:7.0%} {score.answered:7.0%}", flush=True)
        rows.append({"folder": str(folder), "points": points, "taken": taken, **vars(score)})
    return rows


def _write_csv(path: Path | None, table: list[dict[str, float | str]]) -> None:
    if path is None:
        return
    with path.open("w", newline="") as file:
        keys = list(dict.fromkeys(key for row in table for key in row))
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(table)

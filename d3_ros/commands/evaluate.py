"""Score a bundle on folders of frames with measured depth, after an affine fit to the truth.

A folder has rgb/NAME.* and depth/NAME.png (16-bit millimetres, 0 = not measured) and may have
normals/NAME.png as 'render' writes them. With --scale: metric scale from a few measured points
instead, beside the global affine fit and the interpolation of the points alone; --data may then be
a folder of such folders, and --time prints how long it takes.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from d3_ros.errors import DataError

if TYPE_CHECKING:
    from d3_ros.network import D3Predictor

# Where --scale looks when no --data is given, from the folder that the command is run in.
FRAMES = Path("../shared/data")
TIMED_FRAMES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    from d3_ros.network.processing_size import HELP

    parser.add_argument("--model", default="d3_nano", help="bundle: name or folder")
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[], help="folders of frames (or --scale --time)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "fp16", "bf16", "fp32"))
    parser.add_argument("--processing-size", default="bundle", metavar="SIZE", help=HELP)
    parser.add_argument(
        "--scale", action="store_true", help="score metric scale from sparse points"
    )
    parser.add_argument("--seeds", type=int, default=5, help="draws of the points, for --scale")
    parser.add_argument("--limit", type=int, default=10, help="frames a folder, for --scale")
    parser.add_argument(
        "--time", action="store_true", help="time the stages of the alignment, with --scale"
    )
    parser.add_argument("--csv", type=Path, help="write the scores of every frame here")
    parser.add_argument("--json", type=Path, help="write the scores here as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the mean scores of every folder.

    Raises:
        D3Error: the bundle or a folder is not usable.
    """
    from tqdm import tqdm

    from d3_ros.evaluation.dataset import evaluate, frames, mean_scores
    from d3_ros.evaluation.scale_frames import frame_folders
    from d3_ros.network import D3Predictor

    if args.time and not args.scale:
        raise DataError("--time measures the alignment: give --scale too")
    table: list[dict[str, float | str]] = []
    if args.time:
        table += _time_scale()
    folders = args.data
    if args.scale and not folders and not args.time:
        folders = [FRAMES]
    if not folders and not args.time:
        raise DataError("--data is missing: name folders of frames")
    if args.scale:
        folders = [inner for folder in folders for inner in frame_folders(folder)]
    if not folders:
        _write(args, table)
        return 0
    predictor = D3Predictor.from_pretrained(
        args.model, args.device, args.dtype, args.processing_size
    )
    if args.scale:
        for folder in folders:
            table += _scale(folder, predictor, args.limit, args.seeds)
        _write(args, table)
        return 0
    print(f"{'folder':24} {'frames':>6}  mean scores after an affine fit")
    for folder in folders:
        scores = evaluate(predictor, folder)
        rows = list(tqdm(scores, total=len(frames(folder)), desc=folder.name, leave=False))
        means = "  ".join(f"{key} {value:.4f}" for key, value in mean_scores(rows).items())
        print(f"{folder.name:24} {len(rows):6}  {means}")
        table += [{"folder": str(folder), **row} for row in rows]
    _write(args, table)
    return 0


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
    print(f"{'RMSE m':>8} {'global':>8} {'points':>8} {'better':>7} {'pixels':>7} {'frames':>7}")
    rows: list[dict[str, float | str]] = []
    for points, taken, score in table_rows(frames, seeds, predicted):
        figures = [score.aligned, score.global_fit, score.interpolated, score.aligned_rmse_m]
        figures += [score.global_fit_rmse_m, score.interpolated_rmse_m]
        print(f"{points:>7} {taken:20} " + " ".join(f"{one:8.4f}" for one in figures), end=" ")
        print(f"{score.over_global:7.0%} {score.coverage:7.0%} {score.answered:7.0%}", end="")
        print("" if score.beats_both else "  <", end="")
        print(f"  refused: {score.refusal}" if score.refusal else "", flush=True)
        rows.append({"folder": str(folder), "points": points, "taken": taken, **vars(score)})
    return rows


def _time_scale() -> list[dict[str, float | str]]:
    """Print how long each stage of the alignment takes, and return it as rows."""
    from tqdm import tqdm

    from d3_ros.evaluation.scale_bench import timings

    print(f"640 x 480 pixels, milliseconds over {TIMED_FRAMES} frames; CPU: of all cores together")
    print(f"{'points':>7} {'stage':16} {'p50':>6} {'p95':>6} {'CPU':>6}")
    rows: list[dict[str, float | str]] = []
    for one in tqdm(timings(TIMED_FRAMES), desc="timing", leave=False):
        figures = f"{one.p50_ms:6.2f} {one.p95_ms:6.2f} {one.cpu_ms:6.2f}"
        tqdm.write(f"{one.points:>7} {one.stage:16} {figures}")
        rows.append({"time": one.stage, **vars(one)})
    return rows


def _write(args: argparse.Namespace, table: list[dict[str, float | str]]) -> None:
    _write_csv(args.csv, table)
    if args.json is not None:
        args.json.write_text(json.dumps(table, indent=1))


def _write_csv(path: Path | None, table: list[dict[str, float | str]]) -> None:
    if path is None:
        return
    with path.open("w", newline="") as file:
        keys = list(dict.fromkeys(key for row in table for key in row))
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(table)

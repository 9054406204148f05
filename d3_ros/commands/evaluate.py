"""Score a bundle on frames with measured depth or normals, or compare two bundles on them.

A folder has rgb/NAME.* and depth/NAME.png (16-bit millimetres, 0 = not measured) or .npy (metres),
and may have normals/ and split.txt, as 'render' and 'bag extract' write them; or it has the
official layout. Depth is scored after an affine fit to the truth, in depth and in disparity, and as
the robot has it, from a few measured points; normals as they are. With --scale: how metric scale
depends on the number of points, beside the global affine fit and the interpolation of the points
alone; --data may then be a folder of such folders, and --time prints how long it takes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from d3_ros.errors import D3Error

if TYPE_CHECKING:
    from d3_ros.network import D3Predictor
    from d3_ros.network.bundle.folder import Codec

# Where --scale looks when no --data is given, from the folder that the command is run in.
FRAMES = Path("../shared/data")
TIMED_FRAMES = 100
# Options that only one of the two kinds of score reads.
ONLY_WITH_SCALE = ("csv", "json", "seeds", "limit")
NOT_WITH_SCALE = ("against", "output", "split", "points", "intrinsics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    from d3_ros.evaluation.scores import POINTS
    from d3_ros.network.inference.processing_size import HELP

    parser.add_argument("--model", default="d3_nano", help="bundle: name or folder")
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[], help="folders of frames (or --scale --time)"
    )
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
    parser.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="of folders without normals, pixels: score normals against the measured depth's",
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
    parser.add_argument(
        "--time", action="store_true", help="time the stages of the alignment, with --scale"
    )
    parser.add_argument("--csv", type=Path, help="file for the table of --scale")
    parser.add_argument("--json", type=Path, help="file for the table of --scale, as JSON")
    names = (*ONLY_WITH_SCALE, *NOT_WITH_SCALE)
    parser.set_defaults(defaults={name: parser.get_default(name) for name in names})


def run(args: argparse.Namespace) -> int:
    """Print the mean scores of every folder, and write what was asked for.

    Raises:
        D3Error: a bundle or a folder is not usable.
    """
    _check_options(args)
    table: list[dict[str, float | str]] = _time_scale() if args.time else []
    folders = args.data
    if args.scale:
        from d3_ros.data.readers import frame_folders

        given = folders or ([] if args.time else [FRAMES])
        folders = [inner for folder in given for inner in frame_folders(folder)]
    if not folders:
        if not args.time:
            raise D3Error("--data is missing: name folders of frames")
        _write(args, table)
        return 0
    predictor = _load(args.model, args, args.codec)
    if args.scale:
        for folder in folders:
            table += _scale(folder, predictor, args.limit, args.seeds)
        _write(args, table)
        return 0
    from d3_ros.evaluation.run import evaluate_bundles

    if args.points < 1:
        raise D3Error("--points must be positive")
    name = args.model if args.codec == "vae" else f"{args.model} (codec {args.codec})"
    bundles = [(name, predictor)]
    if args.against is not None:
        bundles.insert(0, (args.against, _load(args.against, args)))
    if args.intrinsics is not None and min(args.intrinsics[:2]) <= 0:
        raise D3Error("--intrinsics: fx and fy must be positive, in pixels")
    evaluate_bundles(
        bundles,
        folders,
        part=args.split,
        points=args.points,
        output=args.output,
        intrinsics=args.intrinsics,
    )
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

    from d3_ros.bench.alignment import timings

    print(f"640 x 480 pixels, milliseconds over {TIMED_FRAMES} frames; CPU: of all cores together")
    print(f"{'points':>7} {'stage':16} {'p50':>6} {'p95':>6} {'CPU':>6}")
    rows: list[dict[str, float | str]] = []
    for one in tqdm(timings(TIMED_FRAMES), desc="timing", leave=False):
        figures = f"{one.p50_ms:6.2f} {one.p95_ms:6.2f} {one.cpu_ms:6.2f}"
        tqdm.write(f"{one.points:>7} {one.stage:16} {figures}")
        rows.append({"time": one.stage, **vars(one)})
    return rows


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that the chosen kind of score does not read."""
    if args.time and not args.scale:
        raise D3Error("--time measures the alignment: give --scale too")
    for name in NOT_WITH_SCALE if args.scale else ONLY_WITH_SCALE:
        if getattr(args, name) != args.defaults[name]:
            remedy = "it is not for --scale" if args.scale else "it belongs to --scale"
            raise D3Error(f"--{name} would have no effect: {remedy} (see --help)")
    for path in (args.csv, args.json):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise D3Error(f"{path} cannot be written: name a file in a folder that exists")


def _write(args: argparse.Namespace, table: list[dict[str, float | str]]) -> None:
    from d3_ros.evaluation.output_folder import write_table
    from d3_ros.imaging.image_file import write_whole

    if args.csv is not None:
        write_table(args.csv, table)
    if args.json is not None:
        write_whole(args.json, json.dumps(table, indent=1) + "\n")

"""Score a bundle on frames with measured depth or normals, or compare two bundles.

A folder of frames has rgb/NAME.* and depth/NAME.png (16-bit millimetres, 0 = not measured) or .npy
(metres), and optionally normals/ and split.txt, as 'render' and 'bag extract' write them. The
official layout is read too. Of a folder of such folders, all are scored: 'all' is then the mean
over all frames, 'mean of sets' the mean of the folders' means. Depth is scored three times: after
an affine fit to the truth in depth, the same in disparity, and as metric depth from a few measured
points. Steps of depth are scored after the first of these fits, where depth is measured densely:
AbsRel at steps, F1 of boundaries, the share of clean steps that are seen, and their width. Normals
are scored as they are. With --scale, the command instead shows how the error of metric depth
depends on the number of points, beside other methods. --time measures how long the alignment takes.
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

# Default of --data with --scale, relative to the current folder.
FRAMES = Path("../shared/data")
TIMED_FRAMES = 100
SCALE_LEGEND = """\
Metric depth from sparse points, by three methods, on the same pixels of the same frames:
  node    the alignment of the node: relative depth of the network, fitted to the points, corrected
  global  one scale and shift for the whole image
  alone   interpolation of the points, without the network
AbsRel is the mean of |depth - truth| / truth, smaller is better. points: how many are given; taken:
how they are chosen. gain: share of the global AbsRel that the node removes. pixels: share of the
measured pixels with metric depth. frames: share of the frames with a fit. "<" marks rows in which
another method than the node's has the smallest AbsRel. Of the node's depth: steps: AbsRel within
5 pixels of a step of depth. edges: F1 of depth boundaries, within 3 pixels, of densely measured
frames. 1s, 2s: shares of pixels whose error is within one and two expected errors (68, 95 %).
told: the error that the node reports over the true one, median over frames."""
# Options that only one of the two kinds of score reads.
ONLY_WITH_SCALE = ("csv", "json", "seeds", "limit")
NOT_WITH_SCALE = ("against", "output", "split", "points", "intrinsics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    from d3_ros.evaluation.scores import POINTS
    from d3_ros.network.inference.choose_runtime import RUNTIMES
    from d3_ros.network.inference.processing_size import HELP

    parser.add_argument("--model", default="d3_nano", help="bundle: name or folder")
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[], help="folders of frames (or --scale --time)"
    )
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="another bundle; the report says whether --model is better",
    )
    parser.add_argument(
        "--output", type=Path, help="folder for index.html, report.json and frames.csv"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("test", "train", "all"),
        help="part of the frames, if the folder has a split.txt",
    )
    parser.add_argument(
        "--points", type=int, default=POINTS, help="measured points per frame for the metric score"
    )
    parser.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="camera of folders without normals, pixels: their true normals come from the depth",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "fp16", "bf16", "fp32", "int8"),
        help="int8 needs a model exported to it",
    )
    parser.add_argument(
        "--codec",
        default="vae",
        choices=("vae", "tiny"),
        help="codec of --model; give the same model to --against to see what the tiny codec loses",
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=RUNTIMES,
        help="auto: onnx where the model has ONNX graphs for dtype and codec and PyTorch has no "
        "GPU, else torch",
    )
    parser.add_argument("--processing-size", default="bundle", metavar="SIZE", help=HELP)
    parser.add_argument(
        "--scale", action="store_true", help="score metric scale from sparse points"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="random choices of the points, with --scale"
    )
    parser.add_argument("--limit", type=int, default=10, help="frames per folder, with --scale")
    parser.add_argument(
        "--time", action="store_true", help="measure the stages of the alignment, with --scale"
    )
    parser.add_argument("--csv", type=Path, help="file for the table of --scale")
    parser.add_argument("--json", type=Path, help="file for the table of --scale, as JSON")
    names = (*ONLY_WITH_SCALE, *NOT_WITH_SCALE)
    parser.set_defaults(defaults={name: parser.get_default(name) for name in names})


def run(args: argparse.Namespace) -> int:
    """Print the mean scores of every folder, and write the results.

    Raises:
        D3Error: a bundle or a folder is not usable.
    """
    _check_options(args)
    table: list[dict[str, float | str]] = _time_scale() if args.time else []
    default = [FRAMES] if args.scale and not args.time else []
    folders = [inner for folder in args.data or default for inner in _folders(folder)]
    if not folders:
        if not args.time:
            raise D3Error("--data is missing: name folders of frames")
        _write(args, table)
        return 0
    predictor = _load(args.model, args, args.codec)
    if args.scale:
        print(SCALE_LEGEND)
        for folder in folders:
            table += _scale(folder, predictor, args.limit, args.seeds)
        _write(args, table)
        return 0
    from d3_ros.evaluation.run import evaluate_bundles
    from d3_ros.geometry.camera import checked_intrinsics

    if args.points < 1:
        raise D3Error("--points must be positive")
    name = args.model if args.codec == "vae" else f"{args.model} (codec {args.codec})"
    bundles = [(name, predictor)]
    if args.against is not None:
        bundles.insert(0, (args.against, _load(args.against, args)))
    if args.intrinsics is not None:
        checked_intrinsics(args.intrinsics)
    evaluate_bundles(
        bundles,
        folders,
        part=args.split,
        points=args.points,
        output=args.output,
        intrinsics=args.intrinsics,
    )
    return 0


def _folders(folder: Path) -> list[Path]:
    """The folder itself if it has pictures or is not there, or else the folders of frames in it."""
    from d3_ros.data.readers import frame_folders

    if (folder / "rgb").is_dir() or not folder.is_dir():
        return [folder]
    return frame_folders(folder)


def _load(model: str, args: argparse.Namespace, codec: Codec = "vae") -> D3Predictor:
    from d3_ros.network import D3Predictor

    return D3Predictor.from_pretrained(
        model, args.device, args.dtype, args.processing_size, codec=codec, runtime=args.runtime
    )


def _scale(
    folder: Path, predictor: D3Predictor, limit: int, seeds: int
) -> list[dict[str, float | str]]:
    """Print the scale table of one folder and return its rows."""
    import numpy as np
    from tqdm import tqdm

    from d3_ros.evaluation.scale import table_rows
    from d3_ros.evaluation.scale_frames import load_frames

    def relative_depth(rgb: np.ndarray) -> np.ndarray:
        depth = predictor(rgb, tasks=("depth",)).depth
        assert depth is not None
        return depth

    loaded = load_frames(folder, relative_depth, limit)
    frames = list(tqdm(loaded, desc=folder.name, unit="frame", leave=False))
    predicted = (folder / "predicted.npz").is_file()
    source = "predicted.npz" if predicted else "the bundle"
    print(f"\n{folder.parent.name}/{folder.name}: {len(frames)} frames", end=", ")
    print(f"relative depth of {source}, {seeds} seeds")
    print(f"{'':28} {'AbsRel':>8} {'':8} {'':8} {'RMSE, m':>8}")
    print(f"{'points':>7} {'taken':20} {'node':>8} {'global':>8} {'alone':>8}", end=" ")
    print(
        f"{'node':>8} {'global':>8} {'alone':>8} {'gain':>7} {'pixels':>7} {'frames':>7}", end=" "
    )
    print(f"{'steps':>7} {'edges':>6} {'1s':>5} {'2s':>5} {'told':>5}")
    rows: list[dict[str, float | str]] = []
    progress = tqdm(table_rows(frames, seeds, predicted), unit="row", leave=False)
    for points, taken, score in progress:
        figures = [score.aligned, score.global_fit, score.interpolated, score.aligned_rmse_m]
        figures += [score.global_fit_rmse_m, score.interpolated_rmse_m]
        print(f"{points:>7} {taken:20} " + " ".join(f"{one:8.4f}" for one in figures), end=" ")
        print(f"{score.over_global:7.0%} {score.coverage:7.0%} {score.answered:7.0%}", end=" ")
        print(f"{score.at_steps:7.4f} {score.boundary_f1:6.3f}", end=" ")
        print(f"{score.within_1_sigma:5.0%} {score.within_2_sigma:5.0%}", end=" ")
        print(f"{score.reported:5.2f}", end="")
        print("" if score.beats_both else "  <", end="")
        print(f"  refused: {score.refusal}" if score.refusal else "", flush=True)
        rows.append({"folder": str(folder), "points": points, "taken": taken, **vars(score)})
    return rows


def _time_scale() -> list[dict[str, float | str]]:
    """Print the time of each stage of the alignment, and return it as rows."""
    from tqdm import tqdm

    from d3_ros.bench.alignment import timings

    print(f"640 x 480 pixels, milliseconds over {TIMED_FRAMES} frames; CPU: of all cores together")
    print(f"{'points':>7} {'image':>5} {'stage':16} {'p50':>6} {'p95':>6} {'CPU':>6}")
    rows: list[dict[str, float | str]] = []
    for one in tqdm(timings(TIMED_FRAMES), desc="timing", leave=False):
        figures = f"{one.p50_ms:6.2f} {one.p95_ms:6.2f} {one.cpu_ms:6.2f}"
        tqdm.write(f"{one.points:>7} {'yes' if one.image else 'no':>5} {one.stage:16} {figures}")
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
    if args.limit < 1 or args.seeds < 1:
        raise D3Error("--limit and --seeds must be at least 1")
    for path in (args.csv, args.json):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise D3Error(f"{path} cannot be written: name a file in a folder that exists")


def _write(args: argparse.Namespace, table: list[dict[str, float | str]]) -> None:
    from d3_ros.evaluation.output_folder import without_nan, write_table
    from d3_ros.imaging.image_file import write_whole

    if args.csv is not None:
        write_table(args.csv, table)
    if args.json is not None:
        write_whole(args.json, json.dumps(without_nan(table), indent=1) + "\n")

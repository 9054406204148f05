"""Write ONNX graphs into a model bundle: it then runs on ONNX Runtime, without PyTorch.

The graphs work for any image size and number of images, and are taken by themselves where
onnxruntime is installed and PyTorch has no GPU (--runtime auto). They are checked here against
PyTorch, and carry an image with its answer, which is checked again on every machine that loads
them. int8 needs --images, some pictures like the robot's own: the quantisation is fitted to them,
and its loss is measured on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import PICTURES, files_by_stem, read_rgb
from d3_ros.network.bundle.manifest import ONNX_PRECISIONS, OnnxExport
from d3_ros.types import TASKS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--model", default="d3_nano", help="model bundle: a name or a folder")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="a new bundle folder; left out: the graphs are added to the bundle itself",
    )
    parser.add_argument(
        "--dtype", choices=ONNX_PRECISIONS, default="fp32", help="what the graphs compute in"
    )
    parser.add_argument("--codec", choices=("vae", "tiny"), default="vae", help="which codec")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="which tasks; left out: all")
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=[],
        metavar="HxW",
        help="processing sizes at which to compare with PyTorch, besides the model's own",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="for int8: image files, or folders of them, like those that the robot will see",
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        default=0.03,
        metavar="LOSS",
        help="for int8: refuse a larger mean difference from float on held-out images; depth in "
        "[0, 1], normals in [-1, 1]",
    )


def run(args: argparse.Namespace) -> int:
    """Export, compare with PyTorch, and say what was written."""
    from d3_ros.network.bundle.onnx_export import export_bundle
    from d3_ros.network.bundle.onnx_quantise import export_int8

    if args.dtype == "int8":
        if not args.images:
            raise DataError("--dtype int8 needs --images: some of the robot's own")
        folder, export, losses = export_int8(
            args.model,
            [read_rgb(path) for path in _image_files(args.images)],
            args.output,
            max_loss=args.max_loss,
            codec=args.codec,
            tasks=args.tasks,
        )
        for task, loss in losses.items():
            print(f"{task}: mean difference {loss:.4f} from float on held-out images")
    else:
        folder, export = export_bundle(
            args.model, args.output, precision=args.dtype, codec=args.codec, tasks=args.tasks
        )
    size = sum((folder / file).stat().st_size for file in export.files)
    print(f"{folder / export.folder}: {' and '.join(export.tasks)}, {size / 1e6:.1f} MB")
    for wanted in ("bundle", *args.sizes):
        print(_comparison(folder, export, wanted))
    return 0


def _comparison(folder: Path, export: OnnxExport, size: str) -> str:
    """One line: how far the graphs are from PyTorch in float32 at a processing size."""
    import numpy as np

    from d3_ros.network import D3Predictor
    from d3_ros.network.bundle.onnx_export import check_image

    rgb = check_image((240, 320))
    codec = export.codec
    ours, theirs = (
        predictor(rgb, export.tasks)
        for predictor in (
            D3Predictor.from_pretrained(
                folder, "cpu", export.precision, size, codec=codec, runtime="onnx"
            ),
            D3Predictor.from_pretrained(folder, "cpu", "fp32", size, codec=codec, runtime="torch"),
        )
    )
    differences = []
    for task in export.tasks:
        difference = np.abs(getattr(ours, task) - getattr(theirs, task))
        differences.append(
            f"{task} {np.nanmean(difference):.2g} (largest {np.nanmax(difference):.2g})"
        )
    return f"mean difference from PyTorch at size {size}: {', '.join(differences)}"


def _image_files(arguments: list[Path]) -> list[Path]:
    paths: list[Path] = []
    for argument in arguments:
        if argument.is_dir():
            paths += files_by_stem(argument, PICTURES).values()
        else:
            paths.append(argument)
    return paths

"""Predict depth, surface normals and a point cloud for image files.

For each image NAME it writes NAME_depth.png (16 bit: 65535 times the affine-invariant depth, 0 is
near; these are not millimetres), NAME_depth_color.png, NAME_normals.png (x right is red, y up is
green, towards the viewer is blue) and NAME.ply (binary, coloured, optical frame: x right, y down,
z forward). The depth of one image has no scale: the cloud puts depth 0 and 1 at the two distances
of --depth-range, so its proportions are an assumption unless you know them. Pixels saturated at
either end are left out of it.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from d3_ros.errors import DataError
from d3_ros.types import CameraIntrinsics, D3Prediction

if TYPE_CHECKING:
    import numpy as np

ASSUMED_FIELD_OF_VIEW_DEG = 60.0
RESULTS = ("_depth.png", "_depth_color.png", "_normals.png", ".ply")  # behind the image's name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    from d3_ros.network.inference.choose_runtime import RUNTIMES
    from d3_ros.network.inference.onnx_runtime import PROVIDERS
    from d3_ros.network.inference.processing_size import HELP

    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them"
    )
    parser.add_argument("--model", default="d3_nano", help="model bundle: a name or a folder")
    parser.add_argument(
        "--output", type=Path, default=Path("predictions"), metavar="DIR", help="where to write"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "fp16", "bf16", "fp32", "int8"),
        help="auto is fp16 with PyTorch on CUDA, else fp32; int8 needs a model exported to it",
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=RUNTIMES,
        help="auto: onnx where the model has ONNX graphs for dtype and codec and PyTorch has no "
        "GPU, else torch",
    )
    parser.add_argument(
        "--providers",
        nargs="+",
        default=[],
        choices=tuple(PROVIDERS),
        help="ONNX execution providers, in order of preference; left out: by --device",
    )
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime; 0 is one per core")
    parser.add_argument(
        "--codec",
        default="vae",
        choices=("vae", "tiny"),
        help="tiny: the small codec distilled from the VAE, where the model has one",
    )
    parser.add_argument("--processing-size", default="bundle", metavar="SIZE", help=HELP)
    parser.add_argument(
        "--intrinsics",
        nargs=4,
        type=float,
        metavar=("FX", "FY", "CX", "CY"),
        help="of the cameras that took the images, in pixels; left out: a pinhole with "
        f"{ASSUMED_FIELD_OF_VIEW_DEG:.0f} degrees across the image's width",
    )
    parser.add_argument(
        "--depth-range",
        nargs=2,
        type=float,
        default=[0.5, 5.0],
        metavar=("NEAR", "FAR"),
        help="metres that depth 0 and depth 1 stand for in the cloud",
    )


def run(args: argparse.Namespace) -> int:
    """Predict every image; 1 when one could not be read, the others are done all the same."""
    from tqdm import tqdm

    from d3_ros.network import D3Predictor

    near_m, far_m = args.depth_range
    if not 0 < near_m < far_m < math.inf:
        raise DataError(f"--depth-range {near_m} {far_m}: needs 0 < NEAR < FAR")
    paths = _image_files(args.images)
    predictor = D3Predictor.from_pretrained(
        args.model,
        args.device,
        args.dtype,
        args.processing_size,
        codec=args.codec,
        runtime=args.runtime,
        providers=args.providers,
        threads=args.threads,
    )
    _refuse_to_overwrite(paths, args.output)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output {args.output}: {error.strerror}") from error
    unreadable = 0
    for path in tqdm(paths, unit="image"):
        try:
            rgb = _read_rgb(path)
            if looks_like_depth(path):
                tqdm.write(
                    f"d3_ros predict: note: {path} has one channel of 16 bits, as depth images "
                    "have. It is taken as a grey photo; the network needs the camera's image",
                    file=sys.stderr,
                )
        except DataError as error:
            unreadable += 1
            tqdm.write(f"d3_ros predict: {error}", file=sys.stderr)
            continue
        _write(
            args.output / path.stem,
            rgb,
            predictor(rgb),
            _intrinsics(rgb.shape[1], rgb.shape[0], args.intrinsics),
            (near_m, far_m),
        )
    print(f"{len(paths) - unreadable} of {len(paths)} images predicted, in {args.output}")
    return 1 if unreadable else 0


def _image_files(arguments: list[Path]) -> list[Path]:
    """The files themselves, and the images in folders; no two may write the same names."""
    from d3_ros.imaging.image_file import PICTURES, files_by_stem

    paths: list[Path] = []
    for argument in arguments:
        if argument.is_dir():
            paths += files_by_stem(argument, PICTURES).values()
        else:
            paths.append(argument)
    if not paths:
        raise DataError(f"no image files in {', '.join(map(str, arguments))}")
    names: dict[str, Path] = {}
    for path in paths:
        if path.stem in names:
            raise DataError(
                f"{names[path.stem]} and {path} would write the same files: predict them apart"
            )
        names[path.stem] = path
    return paths


def _refuse_to_overwrite(paths: list[Path], output: Path) -> None:
    """No result may take the place of an input, such as the measured depth beside a picture."""
    inputs = {path.resolve() for path in paths}
    for path in paths:
        for suffix in RESULTS:
            result = output / f"{path.stem}{suffix}"
            if result.resolve() in inputs:
                raise DataError(
                    f"{result} is one of the images, and the depth of {path.name} would take its "
                    "place: give another --output"
                )


def _read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB; grey and 16-bit images are converted."""
    import cv2

    from d3_ros.imaging.image_file import read_image

    # Unlike a camera's images, a photo is turned as its EXIF orientation asks.
    return cv2.cvtColor(read_image(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def looks_like_depth(path: Path) -> bool:
    """Whether a file is a PNG of one channel of 16 bits, as its header says."""
    with path.open("rb") as file:
        head = file.read(26)
    # Signature, length and name of IHDR, width, height, then bits of a sample and colour type.
    return head.startswith(b"\x89PNG") and head[24:] == bytes((16, 0))


def _intrinsics(width: int, height: int, given: list[float] | None) -> CameraIntrinsics:
    from d3_ros.geometry.camera import checked_intrinsics

    if given is not None:
        return CameraIntrinsics(width, height, *checked_intrinsics(given))
    focal = width / 2 / math.tan(math.radians(ASSUMED_FIELD_OF_VIEW_DEG) / 2)
    return CameraIntrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _write(
    stem: Path,
    rgb: np.ndarray,
    prediction: D3Prediction,
    intrinsics: CameraIntrinsics,
    range_m: tuple[float, float],
) -> None:
    import cv2
    import numpy as np

    from d3_ros.geometry.camera import ray_map
    from d3_ros.geometry.point_cloud import ply_file
    from d3_ros.imaging.colour_maps import colour_depth, colour_normals
    from d3_ros.imaging.image_file import write_image, write_whole

    def save(suffix: str, image: np.ndarray) -> None:
        write_image(stem.with_name(f"{stem.name}_{suffix}.png"), image)

    depth, normals = prediction.depth, prediction.normals
    if normals is not None:
        save("normals", cv2.cvtColor(colour_normals(normals), cv2.COLOR_RGB2BGR))
    if depth is None:
        return
    save("depth", np.rint(depth * 65535).astype(np.uint16))
    save("depth_color", cv2.cvtColor(colour_depth(depth), cv2.COLOR_RGB2BGR))
    near_m, far_m = range_m
    depth_m = near_m + depth * (far_m - near_m)
    depth_m = np.where((depth > 0) & (depth < 1), depth_m, np.nan).astype(np.float32)
    cloud = ply_file(ray_map(intrinsics) * depth_m[..., None], rgb, normals)
    write_whole(stem.with_name(f"{stem.name}.ply"), cloud)

"""bundle.json: what it says, read strictly and written from the same dataclass. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from d3_ros.errors import BundleError, one_line
from d3_ros.network.bundle.files import check_digests, read_json
from d3_ros.network.bundle.lookup import MANIFEST, find_bundle
from d3_ros.network.inference.processing_size import LARGEST_SIDE
from d3_ros.network.model.task_spec import TaskSpec
from d3_ros.types import TASKS, Task

FORMAT = 1
# A d3_ros that does not know a format refuses the bundle and names the format.
FORMAT_WITH_ONNX = 2
FORMAT_WITH_SKIPS = 3
FORMATS = (FORMAT, FORMAT_WITH_ONNX, FORMAT_WITH_SKIPS)
Codec = Literal["vae", "tiny"]
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONDITIONING = "conditioning.safetensors"
CODEC = "codec"
CODEC_FILES = frozenset({f"{CODEC}/{CONFIG}", f"{CODEC}/{WEIGHTS}"})
Precision = Literal["fp32", "fp16", "int8"]
ONNX_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
ONNX_WEIGHTS, ONNX_CHECK, ONNX_ENCODER = "weights.bin", "check.npz", "encode.onnx"
ONNX_JOINT = "joint.onnx"


@dataclass(frozen=True)
class OnnxExport:
    """The ONNX graphs of a bundle for one codec and precision, in a folder of their own.

    The folder holds `encode.onnx` (image to latent), one graph per task (latent to output), their
    weights in `weights.bin`, and `check.npz`: an image and the answers that PyTorch gave. With
    `joint`, `joint.onnx` computes all tasks of one image, in one pass through the UNet they share.
    `tolerance` is the largest mean absolute difference from those answers that is accepted on
    another machine. `size_multiple`: image sides must be multiples of it. `versions`: of the
    packages that exported it.
    """

    codec: Codec
    precision: Precision
    tasks: tuple[Task, ...]
    size_multiple: int
    tolerance: float
    opset: int
    versions: Mapping[str, str]
    joint: bool = False

    @property
    def folder(self) -> str:
        """Where its files are, relative to the bundle."""
        return f"onnx/{self.codec}_{self.precision}"

    @property
    def files(self) -> set[str]:
        """Its files, relative to the bundle."""
        graphs = {ONNX_ENCODER, *(f"{task}.onnx" for task in self.tasks)}
        graphs |= {ONNX_JOINT} if self.joint else set()
        return {f"{self.folder}/{name}" for name in graphs | {ONNX_WEIGHTS, ONNX_CHECK}}

    def as_json(self) -> dict[str, Any]:
        """The JSON object to write; `joint` only where it is true."""
        content = asdict(self)
        if not self.joint:
            del content["joint"]
        return content


@dataclass(frozen=True)
class Manifest:
    """The content of bundle.json.

    `sha256` maps each other file (POSIX path) to its hexadecimal digest. `onnx`: the ONNX graphs
    that the bundle has besides the weights for PyTorch. `has_skips`: a TinyCodec with skips stands
    in the VAE's place or beside it.
    """

    name: str
    license: str
    source: str
    tasks: Mapping[Task, TaskSpec]
    sha256: Mapping[str, str]
    onnx: tuple[OnnxExport, ...] = ()
    has_skips: bool = False

    def as_json(self) -> dict[str, Any]:
        """The JSON object to write."""
        version = FORMAT_WITH_ONNX if self.onnx else FORMAT
        return {
            "format": FORMAT_WITH_SKIPS if self.has_skips else version,
            "name": self.name,
            "license": self.license,
            "source": self.source,
            "tasks": {task: _task_as_json(spec) for task, spec in self.tasks.items()},
            **({"onnx": [export.as_json() for export in self.onnx]} if self.onnx else {}),
            "sha256": dict(self.sha256),
        }


def read_manifest(path_or_name: str | Path) -> tuple[Path, Manifest]:
    """The folder and the manifest of a bundle; no other file is read.

    Raises:
        BundleError: there is no such bundle, or its manifest makes no sense.
    """
    folder = find_bundle(path_or_name)
    path = folder / MANIFEST
    manifest = parse_manifest(read_json(path), path)
    if unlisted := _needed_files(manifest) - manifest.sha256.keys():
        raise BundleError(f"{path} has no sha256 of {min(unlisted)}; get it again")
    return folder, manifest


def open_bundle(path_or_name: str | Path) -> tuple[Path, Manifest]:
    """`read_manifest`, after a check of every file of the bundle.

    Raises:
        BundleError: there is no such bundle, or a file is missing, extra or damaged.
    """
    folder, manifest = read_manifest(path_or_name)
    check_digests(folder, manifest.sha256, {MANIFEST})
    return folder, manifest


def _needed_files(manifest: Manifest) -> set[str]:
    modules = {"vae", *(spec.unet for spec in manifest.tasks.values())}
    needed = {CONDITIONING} | {f"{name}/{file}" for name in modules for file in (CONFIG, WEIGHTS)}
    for export in manifest.onnx:
        needed |= export.files
    return needed | CODEC_FILES if CODEC_FILES & manifest.sha256.keys() else needed


def parse_manifest(content: Any, path: Path) -> Manifest:
    """Check the JSON value of `path` and make a Manifest of it.

    Raises:
        BundleError: a key is missing, unknown, or has a value that makes no sense.
    """
    where = str(path)
    _require(isinstance(content, dict), where, "is not a JSON object")
    version = content.get("format")
    _require(
        version in FORMATS,
        where,
        f"has format {_shown(version)}, this d3_ros reads {FORMATS[0]} to {FORMATS[-1]}: get the "
        "bundle that fits",
    )
    needed = {"format", "name", "license", "source", "tasks", "sha256"}
    needed |= {"onnx"} if version == FORMAT_WITH_ONNX else set()
    optional = {"onnx"} if version == FORMAT_WITH_SKIPS else set()
    _check_keys(content, needed, optional, where)
    for key in ("name", "license", "source"):
        _require(isinstance(content[key], str), where, f"{key} must be a text")
    tasks, hashes = content["tasks"], content["sha256"]
    _require(isinstance(tasks, dict) and bool(tasks), where, "tasks must name depth or normals")
    _require(set(tasks) <= set(TASKS), where, f"tasks must be some of {', '.join(TASKS)}")
    _require(
        isinstance(hashes, dict)
        and all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in hashes.values()),
        where,
        "sha256 must map each file to 64 hexadecimal digits",
    )
    return Manifest(
        name=content["name"],
        license=content["license"],
        source=content["source"],
        tasks={task: _parse_task(tasks[task], f"{where}: tasks.{task}") for task in tasks},
        sha256=hashes,
        onnx=_parse_onnx(content.get("onnx", []), set(tasks), f"{where}: onnx"),
        has_skips=version == FORMAT_WITH_SKIPS,
    )


def _parse_onnx(content: Any, tasks: set[str], where: str) -> tuple[OnnxExport, ...]:
    _require(isinstance(content, list), where, "is not a JSON array")
    exports = []
    for entry in content:
        _require(isinstance(entry, dict), where, "holds something that is not a JSON object")
        _check_keys(entry, {*OnnxExport.__dataclass_fields__} - {"joint"}, {"joint"}, where)
        own, multiple, tolerance = entry["tasks"], entry["size_multiple"], entry["tolerance"]
        versions, opset = entry["versions"], entry["opset"]
        _require(entry["codec"] in get_args(Codec), where, "codec must be vae or tiny")
        _require(entry["precision"] in ONNX_PRECISIONS, where, "precision is unknown")
        _require(isinstance(own, list) and bool(own), where, "tasks must be a list")
        known = all(isinstance(task, str) and task in tasks for task in own)
        _require(known, where, "tasks must be those of the bundle")
        _require(_are_integers([multiple, opset], 2), where, "holds no whole numbers")
        _require(isinstance(entry.get("joint", False), bool), where, "joint must be true or false")
        _require(1 <= multiple <= 256, where, "size_multiple must be from 1 to 256")
        _require(_is_number(tolerance) and 0 < tolerance < 1, where, "tolerance must be in (0, 1)")
        _require(
            isinstance(versions, dict) and all(isinstance(v, str) for v in versions.values()),
            where,
            "versions must map packages to texts",
        )
        whole = {"size_multiple": int(multiple), "opset": int(opset)}  # JSON may have 8.0
        exports.append(OnnxExport(**{**entry, **whole, "tasks": tuple(own)}))
    kinds = [(export.codec, export.precision) for export in exports]
    _require(len(set(kinds)) == len(kinds), where, "names a codec and precision twice")
    return tuple(exports)


def _task_as_json(spec: TaskSpec) -> dict[str, Any]:
    axes = {} if spec.axes is None else {"axes": list(spec.axes)}
    return {
        "unet": spec.unet,
        "timestep": spec.timestep,
        "prompt": spec.prompt,
        "processing_size": list(spec.processing_size),
        **axes,
    }


def _parse_task(content: Any, where: str) -> TaskSpec:
    _require(isinstance(content, dict), where, "is not a JSON object")
    _check_keys(content, {"unet", "timestep", "prompt", "processing_size"}, {"axes"}, where)
    unet, timestep, axes = content["unet"], content["timestep"], content.get("axes")
    size = content["processing_size"]
    _require(
        isinstance(unet, str) and re.fullmatch(r"unet\w*", unet) is not None,
        where,
        f"unet must be a folder name that begins with 'unet', got {_shown(unet)}",
    )
    _require(_is_number(timestep) and 0 <= timestep < 1000, where, "timestep must be in [0, 1000)")
    _require(isinstance(content["prompt"], str), where, "prompt must be a text")
    _require(
        _are_integers(size, 2) and all(0 < side <= LARGEST_SIDE for side in size),
        f"{where}.processing_size",
        f"must be 2 whole numbers from 1 to {LARGEST_SIDE}, got {_shown(size)}",
    )
    _require(
        axes is None or (_are_integers(axes, 3) and all(abs(sign) == 1 for sign in axes)),
        f"{where}.axes",
        f"must be three signs, 1 or -1, got {_shown(axes)}",
    )
    return TaskSpec(
        unet=unet,
        prompt=content["prompt"],
        processing_size=(int(size[0]), int(size[1])),
        timestep=float(timestep),
        axes=None if axes is None else (int(axes[0]), int(axes[1]), int(axes[2])),
    )


def _are_integers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(_is_number(item) and item == math.floor(item) for item in value)
    )


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number; a whole number may be of any size."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return one_line(repr(value), 80)


def _check_keys(content: Mapping[str, Any], needed: set[str], optional: set[str], at: str) -> None:
    if missing := needed - content.keys():
        raise BundleError(f"{at} lacks {one_line(min(missing), 80)}: get the bundle again")
    if unknown := content.keys() - needed - optional:
        raise BundleError(
            f"{at} has an unknown key {one_line(min(unknown), 80)}: get the bundle again"
        )


def _require(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise BundleError(f"{where} {what}")

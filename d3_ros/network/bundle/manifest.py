"""bundle.json: what it says, read strictly and written from the same dataclass. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from d3_ros.errors import BundleError, one_line
from d3_ros.network.bundle.files import check_digests, read_json
from d3_ros.network.bundle.lookup import MANIFEST, find_bundle
from d3_ros.network.inference.processing_size import LARGEST_SIDE
from d3_ros.network.model.task_spec import TaskSpec
from d3_ros.types import TASKS, Task

FORMAT = 1
Codec = Literal["vae", "tiny"]
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONDITIONING = "conditioning.safetensors"
CODEC = "codec"
CODEC_FILES = frozenset({f"{CODEC}/{CONFIG}", f"{CODEC}/{WEIGHTS}"})


@dataclass(frozen=True)
class Manifest:
    """The content of bundle.json. `sha256` maps each other file (POSIX path) to its hex digest."""

    name: str
    license: str
    source: str
    tasks: Mapping[Task, TaskSpec]
    sha256: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The JSON object to write."""
        return {
            "format": FORMAT,
            "name": self.name,
            "license": self.license,
            "source": self.source,
            "tasks": {task: _task_as_json(spec) for task, spec in self.tasks.items()},
            "sha256": dict(self.sha256),
        }


def open_bundle(path_or_name: str | Path) -> tuple[Path, Manifest]:
    """The folder and the manifest of a bundle, after a check of every file.

    Raises:
        BundleError: there is no such bundle, or a file is missing, extra or damaged.
    """
    folder = find_bundle(path_or_name)
    path = folder / MANIFEST
    manifest = parse_manifest(read_json(path), path)
    if unlisted := _needed_files(manifest) - manifest.sha256.keys():
        raise BundleError(f"{path} has no sha256 of {min(unlisted)}; get it again")
    check_digests(folder, manifest.sha256, {MANIFEST})
    return folder, manifest


def _needed_files(manifest: Manifest) -> set[str]:
    modules = {"vae", *(spec.unet for spec in manifest.tasks.values())}
    needed = {CONDITIONING} | {f"{name}/{file}" for name in modules for file in (CONFIG, WEIGHTS)}
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
        version == FORMAT,
        where,
        f"has format {_shown(version)}, this d3_ros reads {FORMAT}: get the bundle that fits",
    )
    _check_keys(content, {"format", "name", "license", "source", "tasks", "sha256"}, set(), where)
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
    )


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

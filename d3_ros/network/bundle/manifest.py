"""bundle.json: what it says, read strictly and written from the same dataclass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3_ros.errors import BundleError
from d3_ros.network.model.d3_network import TaskSpec
from d3_ros.types import TASKS, Task

FORMAT = 1


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
        f"has format {version!r}, this d3_ros reads {FORMAT}: get the bundle that goes with it",
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
    _require(
        isinstance(unet, str) and re.fullmatch(r"unet\w*", unet) is not None,
        where,
        f"unet must be a folder name that begins with 'unet', got {unet!r}",
    )
    _require(_is_number(timestep) and 0 <= timestep < 1000, where, "timestep must be in [0, 1000)")
    _require(isinstance(content["prompt"], str), where, "prompt must be a text")
    return TaskSpec(
        unet=unet,
        prompt=content["prompt"],
        processing_size=_integers(content["processing_size"], 2, f"{where}.processing_size"),
        timestep=float(timestep),
        axes=None if axes is None else _integers(axes, 3, f"{where}.axes"),
    )


def _integers(value: Any, count: int, where: str) -> tuple[Any, ...]:
    valid = isinstance(value, list) and len(value) == count
    _require(
        valid and all(_is_number(item) and item == int(item) for item in value),
        where,
        f"must be {count} whole numbers, got {value!r}",
    )
    return tuple(int(item) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_keys(content: Mapping[str, Any], needed: set[str], optional: set[str], at: str) -> None:
    if missing := needed - content.keys():
        raise BundleError(f"{at} lacks {min(missing)}: get the bundle again")
    if unknown := content.keys() - needed - optional:
        raise BundleError(f"{at} has an unknown key {min(unknown)}: get the bundle again")


def _require(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise BundleError(f"{where} {what}")

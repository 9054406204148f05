"""A run that goes on has the settings that it was begun with, but for a few that may change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import write_whole
from d3_ros.training.config.codec_config import CodecTrainConfig
from d3_ros.training.config.train_config import TrainConfig

NOTE = "configuration.json"  # in the output folder
# These say how and where the run computes, not what it learns.
OF_THE_MACHINE = (
    *("workers", "worker_processes", "threads", "micro_batch", "gradient_checkpointing"),
    *("latent_cache", "data.cache_gb", "every", "checkpoint_every", "device", "name", "license"),
)
# These may change in a run that is not finished: folders that were moved, and the remedies for a
# run that diverges or is too short.
ADJUSTABLE = (
    *("data.datasets", "model.start"),
    *("stages", "steps", "optimizer.learning_rate", "optimizer.clip_norm"),
    *("optimizer.warmup_steps", "learning_rate", "clip_norm", "warmup_steps"),
)


def check_settings(
    config: TrainConfig | CodecTrainConfig,
    output: Path,
    steps_done: int | None,
    say: Callable[[str], None],
) -> None:
    """Compare the settings with those of the run in `output`, if it has kept any.

    Args:
        config: of this run.
        output: folder of the run.
        steps_done: at the newest checkpoint; None: there is none, the run begins now.
        say: is told which settings have changed, if they may.

    Raises:
        DataError: settings have changed that may not; the message names them.
    """
    note = output / NOTE
    if steps_done is None or not note.is_file():
        return
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{note} is damaged: give another output folder") from error
    changed = [key for key in _differences(before, _plain(config)) if not _is(key, OF_THE_MACHINE)]
    finished = steps_done >= config.steps
    refused = [key for key in changed if finished or not _is(key, ADJUSTABLE)]
    if refused:
        state = "is finished" if finished else "was begun"
        raise DataError(
            f"{output} {state}, with other settings ({', '.join(refused)}; see {NOTE}): give "
            "another output folder, or the settings as they were"
        )
    if changed:
        say(f"{output}: goes on with other settings than before: {', '.join(changed)}")


def keep_settings(config: TrainConfig | CodecTrainConfig, output: Path) -> None:
    """Write the settings into the output folder, for the run that goes on from here.

    Raises:
        DataError: they cannot be written.
    """
    write_whole(output / NOTE, json.dumps(_plain(config), indent=1) + "\n")


def _plain(config: TrainConfig | CodecTrainConfig) -> Any:
    """The settings as JSON has them; a folder's path does not depend on the current folder."""
    plain = json.loads(json.dumps(asdict(config), default=str))
    if isinstance(config, TrainConfig):
        for dataset in plain["data"]["datasets"]:
            dataset["path"] = _resolved(dataset["path"])
        plain["model"]["start"] = _resolved(plain["model"]["start"])
    else:
        plain |= {key: _resolved(plain[key]) for key in ("data", "model")}
    return plain


def _resolved(path: str | None) -> str | None:
    """The whole path of a folder that is there; a bundle's name stays."""
    return str(Path(path).resolve()) if path and Path(path).is_dir() else path


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Names of the settings that differ, as in data.cache_gb."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield name


def _is(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)

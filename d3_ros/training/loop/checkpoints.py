"""Checkpoints that are whole or absent, so that a run can be killed at any moment.

    OUTPUT/checkpoints/step_00000150/   accelerate's files, and ours: training_state.pt

A checkpoint is written under another name and renamed when it is whole. Only then the one before it
is removed. Several machines need OUTPUT on a disk that they share.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError

from d3_ros.errors import DataError, one_line

FOLDER = "checkpoints"
STATE = "training_state.pt"
# Loading a checkpoint that is damaged, or of another network or configuration.
CHECKPOINT_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    UnpicklingError,
    SafetensorError,
)


@dataclass
class TrainingState:
    """The steps done and the best validation score so far."""

    step: int = 0
    best: float = float("inf")


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no number in any of the tensors is NaN or infinite."""
    return bool(torch.stack([tensor.isfinite().all().cpu() for tensor in tensors]).all())


def latest(output: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    return max((output / FOLDER).glob("step_*"), default=None)


def steps_done(output: Path) -> int | None:
    """Steps at the newest whole checkpoint; None: there is none."""
    newest = latest(output)
    return None if newest is None else int(newest.name.rpartition("_")[2])


def save(
    accelerator: Accelerator, output: Path, state: TrainingState, ema: EMAModel | None
) -> Path:
    """Write the run as of `state.step`. Returns the checkpoint's folder.

    Raises:
        DataError: it cannot be written. It is removed, the checkpoint before it is kept.
    """
    folder = output / FOLDER / f"step_{state.step:08d}"
    unfinished = folder.with_name(f"unfinished_{folder.name}")
    with removed_on_failure(unfinished):
        if accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(unfinished))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            content: dict[str, Any] = {"step": state.step, "best": state.best}
            if ema is not None:
                content["ema"] = ema.state_dict()
            torch.save(content, unfinished / STATE)
            _to_disk(unfinished)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
            _to_disk(folder.parent)
            _remove_all_but(folder)
    accelerator.wait_for_everyone()
    return folder


@contextmanager
def removed_on_failure(unfinished: Path) -> Iterator[None]:
    """Remove a file or folder if the block cannot write it to its end.

    Raises:
        DataError: with the reason, for example that the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save raises RuntimeError
        shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise DataError(
            f"{unfinished} cannot be written ({one_line(error, 200)}): free some space and give "
            "the same command again; the run goes on from the checkpoint before"
        ) from error


def resume(accelerator: Accelerator, output: Path, ema: EMAModel | None) -> TrainingState:
    """Load the newest checkpoint of `output` into the run. Without one, the state is a new run's.

    Raises:
        DataError: the checkpoint cannot be read, or does not fit the network or the optimiser.
            Other settings of its run are not compared.
    """
    folder = latest(output)
    if folder is None:
        return TrainingState()
    try:
        accelerator.load_state(str(folder))
        content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        if ema is not None:
            ema.load_state_dict(content["ema"])
            ema.to(accelerator.device)
    except CHECKPOINT_ERRORS as error:
        raise DataError(
            f"{folder} does not fit this configuration ({one_line(error, 200)}): "
            "give another output folder"
        ) from error
    if accelerator.is_main_process:
        _remove_all_but(folder)
    return TrainingState(step=content["step"], best=content["best"])


def _to_disk(folder: Path) -> None:
    """Wait until a folder's files are on the disk, so that a power cut cannot leave names alone."""
    for path in (*(p for p in folder.iterdir() if p.is_file()), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_all_but(folder: Path) -> None:
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)

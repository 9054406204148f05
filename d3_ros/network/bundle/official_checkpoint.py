"""Converts the official D³-Predictor checkpoints into a bundle.

A checkpoint is the state dict of the authors' *training* module. Inference needs the student UNet,
the VAE and the learned timestep; the teacher, the adapters and their time embedding are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from d3_ros.errors import BundleError, one_line
from d3_ros.network.bundle.files import regular_size
from d3_ros.network.bundle.folder import (
    STORED_DTYPES,
    UNET_CLASSES,
    VAE_CLASSES,
    Bundle,
    build_module,
    fill_module,
    load_bundle,
    write_bundle,
)
from d3_ros.network.model.d3_network import D3Network, DiffusersModel, size_multiple
from d3_ros.network.model.task_spec import OFFICIAL_NORMAL_AXES, PROMPTS, TaskSpec
from d3_ros.types import Task

UNET_PREFIX = "d3_predictor."
VAE_PREFIX = "ae.ae."
TIMESTEP = "timestep"
TRAINING_ONLY = ("visual_experts.", "adapters.", "mapping.", "time_emb.", "time_in_proj.")
STEPS = 4  # of `convert`, for a progress bar
LICENSE = "CreativeML Open RAIL++-M (Stable Diffusion 2.1), and the D³-Predictor authors' terms"
SOURCE = "https://github.com/X-GenGroup/D3-Predictor"


@dataclass(frozen=True)
class Checkpoint:
    """One task's tensors by their diffusers names, memory-mapped, and its learned timestep."""

    path: Path
    unet: Mapping[str, torch.Tensor]
    vae: Mapping[str, torch.Tensor]
    timestep: float


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an official checkpoint without running anything that is in it.

    Raises:
        BundleError: the file cannot be read, or holds a tensor that is neither needed nor known to
            be for training only.
    """
    regular_size(path)
    try:
        # Memory-mapped: 8 GB of teacher and adapters are never read from the disk.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise BundleError(
            f"{path} cannot be read as a PyTorch state dict: {one_line(error, 200)}"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    ):
        raise BundleError(f"{path} is not a state dict of tensors: give an official checkpoint")
    unet, vae, timestep = {}, {}, None
    for name, tensor in state.items():
        kept = name == TIMESTEP or name.startswith((UNET_PREFIX, VAE_PREFIX))
        if kept and (tensor.layout is not torch.strided or tensor.dtype not in STORED_DTYPES):
            raise BundleError(f"{path}: {one_line(name, 80)} is no tensor of floats: get it again")
        if name.startswith(UNET_PREFIX):
            unet[name.removeprefix(UNET_PREFIX)] = tensor
        elif name.startswith(VAE_PREFIX):
            vae[name.removeprefix(VAE_PREFIX)] = tensor
        elif name == TIMESTEP and tensor.numel() == 1:
            timestep = float(tensor)
        elif not name.startswith(TRAINING_ONLY):
            raise BundleError(
                f"{path} has an unknown tensor {one_line(name, 80)}: give an official checkpoint"
            )
    if timestep is None or not 0 <= timestep < 1000:
        raise BundleError(
            f"{path} has no scalar '{TIMESTEP}' in [0, 1000): give an official checkpoint"
        )
    return Checkpoint(path, unet, vae, timestep)


def convert(
    checkpoints: Mapping[Task, Path],
    base: Path,
    output: Path,
    *,
    name: str,
    dtype: Literal["fp16", "fp32"] = "fp16",
    progress: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Make a bundle from one or both official checkpoints, then load what was written.

    Args:
        checkpoints: file by task.
        base: Stable Diffusion 2.1, or any folder in diffusers' layout: `unet/config.json` and
            `vae/config.json` (the architecture), `tokenizer/` and `text_encoder/`.
        output: the bundle folder to write; it must not exist.
        name: the bundle's name.
        dtype: how the weights are stored.
        progress: called with the name of each of the `STEPS` steps as it begins.

    Raises:
        BundleError: an input is missing, damaged or does not fit; one line that names it.
    """
    if output.exists():
        raise BundleError(f"{output} exists: remove it or choose another folder")
    progress("reading the checkpoints")
    read = {task: read_checkpoint(path) for task, path in checkpoints.items()}
    vae = _module(base / "vae", VAE_CLASSES, _common_vae(list(read.values())), read)
    unets = {
        f"unet_{task}": _module(base / "unet", UNET_CLASSES, checkpoint.unet, {task: checkpoint})
        for task, checkpoint in read.items()
    }

    progress("embedding the prompts")
    from d3_ros.network.bundle.prompt_embeddings import (
        prompt_embeddings,  # transformers takes seconds to import
    )

    embeddings = prompt_embeddings(base, {task: PROMPTS[task] for task in read})
    specs = {
        task: TaskSpec(
            unet=f"unet_{task}",
            prompt=PROMPTS[task],
            processing_size=_processing_size(unets[f"unet_{task}"], size_multiple(vae)),
            timestep=checkpoint.timestep,
            axes=OFFICIAL_NORMAL_AXES if task == "normals" else None,
        )
        for task, checkpoint in read.items()
    }
    try:
        network = D3Network(vae, unets, specs, embeddings)
    except ValueError as error:
        raise BundleError(f"{base} does not fit the checkpoints: {error}") from error

    progress("writing the bundle")
    files = ", ".join(checkpoint.path.name for checkpoint in read.values())
    source = f"{SOURCE}: {files}; base {base.name}"
    stored_as = {"fp16": torch.float16, "fp32": torch.float32}[dtype]
    write_bundle(output, network, name=name, license=LICENSE, source=source, dtype=stored_as)
    progress("checking the bundle")
    return load_bundle(output, dtype=stored_as)


def _module(
    folder: Path,
    classes: tuple[str, ...],
    tensors: Mapping[str, torch.Tensor],
    origins: Mapping[Task, Checkpoint],
) -> DiffusersModel:
    module = build_module(folder, classes)
    fill_module(module, tensors, ", ".join(str(origin.path) for origin in origins.values()))
    return module.eval()


def _common_vae(checkpoints: list[Checkpoint]) -> Mapping[str, torch.Tensor]:
    """The VAE of all checkpoints; the authors froze it, so it is the same in each."""
    first, *others = checkpoints
    for other in others:
        for name in sorted(first.vae.keys() | other.vae.keys()):
            ours, theirs = first.vae.get(name), other.vae.get(name)
            if ours is None or theirs is None or not torch.equal(ours, theirs):
                raise BundleError(
                    f"{first.path} and {other.path} hold different VAEs ({name}): convert each "
                    "into a bundle of its own"
                )
    return first.vae


def _processing_size(unet: DiffusersModel, multiple: int) -> tuple[int, int]:
    """The size the base was made for: its UNet's latent size times the VAE's reduction."""
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return height * multiple, width * multiple

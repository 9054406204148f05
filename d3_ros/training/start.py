"""The network that training starts from, what of it learns, and its teacher."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from d3_ros.errors import DataError
from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec, load_bundle
from d3_ros.network.bundle import UNET_CLASSES, VAE_CLASSES, load_module
from d3_ros.network.hub import base_folder
from d3_ros.network.lookup import MANIFEST
from d3_ros.network.model import DiffusersModel
from d3_ros.training.config import ModelConfig, TrainConfig
from d3_ros.training.lora import add_lora
from d3_ros.training.nano import build_network
from d3_ros.types import Task


def start_network(config: TrainConfig) -> D3Network:
    """The D3Network that `config` starts from, float32, with what is not to learn frozen.

    Its processing size is the last stage's. Tasks that are not trained stay as they are: where a
    trained one shares its UNet with them, it gets its own copy.

    Raises:
        DataError, D3Error: the start is not there or lacks a task.
    """
    model, size = config.model, config.stages[-1].size
    if model.new is not None:
        torch.manual_seed(config.seed)
        network = build_network(model.new, size)
    else:
        network = _from_folder(model, config.tasks.trained, size)
    if missing := set(config.tasks.trained) - set(network.tasks):
        raise DataError(f"{model.start} has no {min(missing)}: set tasks.{min(missing)} to 0")
    vae: DiffusersModel = network.vae
    network.requires_grad_(False)
    vae.requires_grad_(model.train_vae)
    for task in config.tasks.trained:
        network.timesteps[task].requires_grad_(True)
        unet: DiffusersModel = network.unets[network.specs[task].unet]
        if model.lora is None:
            unet.requires_grad_(True)
        elif not any(p.requires_grad for p in unet.parameters()):  # once, if two tasks share it
            add_lora(unet, model.lora)
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
    # AutoencoderTiny's own checkpointing forgets to map [-1, 1] to [0, 1] (diffusers 0.42); it is
    # small enough to do without.
    if config.gradient_checkpointing and not isinstance(vae, AutoencoderTiny):
        vae.enable_gradient_checkpointing()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.train()


def load_teacher(folder_or_repo: str, dtype: torch.dtype) -> DiffusersModel:
    """The frozen UNet of Stable Diffusion, a folder or a repository in the local hub cache.

    Raises:
        BundleError: there is none, or its weights are not its own.
    """
    folder = base_folder(folder_or_repo) / "unet"
    return load_module(folder, UNET_CLASSES, "cpu", dtype).requires_grad_(False)


def _from_folder(model: ModelConfig, trained: tuple[Task, ...], size: tuple[int, int]) -> D3Network:
    assert model.start is not None
    path = Path(model.start).expanduser()
    is_name = len(path.parts) == 1 and not path.is_dir()
    if not is_name and not (path / MANIFEST).is_file():
        return _from_stable_diffusion(base_folder(model.start), trained, size)
    network = load_bundle(model.start).network
    specs = {task: replace(spec, processing_size=size) for task, spec in network.specs.items()}
    unets = dict(network.unets.items())
    kept = {specs[task].unet for task in specs if task not in trained}
    if kept and model.train_vae:
        raise DataError(
            "model.train_vae would spoil the tasks that are not trained "
            f"({', '.join(sorted(set(specs) - set(trained)))}): train them too, or set it to false"
        )
    for task in trained:
        if task in specs and specs[task].unet in kept:
            unets[f"unet_{task}"] = deepcopy(unets[specs[task].unet])
            specs[task] = replace(specs[task], unet=f"unet_{task}")
    prompts = {task: network.prompt_embedding(task) for task in specs}
    return D3Network(network.vae, unets, specs, prompts)


def _from_stable_diffusion(
    folder: Path, trained: tuple[Task, ...], size: tuple[int, int]
) -> D3Network:
    from d3_ros.network.text import prompt_embeddings

    return D3Network(
        load_module(folder / "vae", VAE_CLASSES, "cpu", torch.float32),
        {
            f"unet_{task}": load_module(folder / "unet", UNET_CLASSES, "cpu", torch.float32)
            for task in trained
        },
        {
            task: TaskSpec(
                unet=f"unet_{task}",
                prompt=PROMPTS[task],
                processing_size=size,
                axes=OFFICIAL_NORMAL_AXES if task == "normals" else None,
            )
            for task in trained
        },
        prompt_embeddings(folder, {task: PROMPTS[task] for task in trained}),
    )

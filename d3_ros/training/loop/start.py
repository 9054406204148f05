"""The network that training starts from, with frozen and trained parts, and its teacher."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from d3_ros.errors import DataError, one_line
from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec, load_bundle
from d3_ros.network.bundle.folder import UNET_CLASSES, VAE_CLASSES, build_module, load_module
from d3_ros.network.bundle.hub import base_folder
from d3_ros.network.bundle.lookup import MANIFEST, expanded
from d3_ros.network.model.d3_network import DiffusersModel
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.config.model_config import ModelConfig
from d3_ros.training.config.train_config import TrainConfig
from d3_ros.training.loop.add_skips import add_skips
from d3_ros.training.loop.bend_depth import bend_depth
from d3_ros.training.loop.lora import add_lora
from d3_ros.training.loop.small_network import build_network
from d3_ros.types import Task

TOKENS = 77  # length of the prompts of Stable Diffusion's text encoder
OFFICIAL_SIZE = (768, 768)
SD_LICENSE = "CreativeML Open RAIL++-M (Stable Diffusion 2.1)"


@dataclass(frozen=True)
class Start:
    """The network that a run starts from.

    `license` is that of its weights, None for random ones. `config` has all sizes settled.
    """

    network: D3Network
    license: str | None
    config: TrainConfig


def start_from(config: TrainConfig, *, blank: bool = False) -> Start:
    """The float32 network that `config` starts from. The parts that are not trained are frozen.

    The processing size of the trained tasks is that of the last stage. Other tasks stay as they
    are: a trained task that shares its UNet with one of them gets a copy of it. With `blank` the
    network has no weights (meta device), to count the cost of a step.

    Raises:
        DataError, D3Error: the start is not there, or lacks a task.
    """
    model, trained = config.model, config.tasks.trained
    try:
        start = _built(config, blank)
    except ValueError as error:  # of the network's own checks
        raise DataError(f"model or stages: {one_line(error, 200)}") from error
    if not isinstance(start.network.vae, TinyCodec):
        for key in ("sharpening", "depth_curve", "near_margin", "bundle_depth_curve"):
            if getattr(model, key) is not None:
                where = model.start or "a new model"
                raise DataError(f"model.{key}: {where} has no small codec (model.skips)")
    if config.objective != "d3" and isinstance(start.network.vae, TinyCodec):
        raise DataError(
            f"objective {config.objective} is for networks whose decoders see the latent alone: "
            "set it to d3"
        )
    if missing := set(trained) - set(start.network.tasks):
        raise DataError(f"{model.start} has no {min(missing)}: set tasks.{min(missing)} to 0")
    if model.timesteps is not None:
        for task in trained:
            with torch.no_grad():
                start.network.timesteps[task].fill_(model.timesteps.of(task))
    _check_sizes(start)
    if blank:
        start.network.to("meta")
    torch.manual_seed(config.seed)  # of LoRA's matrices
    _freeze(start.network, config)
    return start


def _built(config: TrainConfig, blank: bool) -> Start:
    model = config.model
    if model.new is not None:
        torch.manual_seed(config.seed)
        return Start(build_network(model.new, config.size), None, config)
    if (folder := _stable_diffusion(model)) is not None:
        config = config.settled(OFFICIAL_SIZE)
        network = _from_stable_diffusion(folder, config.tasks.trained, config.size, blank)
        return Start(network, SD_LICENSE, config)
    return _from_bundle(config)


def _check_sizes(start: Start) -> None:
    multiple = start.network.size_multiple
    for stage in start.config.stages:
        for size in filter(None, (stage.size, *stage.more_sizes)):
            if size[0] % multiple or size[1] % multiple:
                raise DataError(f"stages: sizes must be multiples of {multiple}, not {list(size)}")


def freeze_vae(network: D3Network, model: ModelConfig) -> None:
    """Let those weights of the VAE or codec learn that `model` wants to, and no others."""
    vae: DiffusersModel = network.vae
    vae.requires_grad_(model.train_vae)
    picture = vae.picture if isinstance(vae, TinyCodec) else None
    if picture is not None and picture.backbone is not None and not model.train_backbone:
        picture.backbone.requires_grad_(False)
    if not model.train_unet:  # nothing is learned through the UNet, which costs the most
        vae.encoder.requires_grad_(False)
        if picture is not None:
            picture.inward.requires_grad_(False)


def _freeze(network: D3Network, config: TrainConfig) -> None:
    vae: DiffusersModel = network.vae
    network.requires_grad_(False)
    freeze_vae(network, config.model)
    trains_unet = config.objective != "autoencoder" and config.model.train_unet
    for task in config.tasks.trained if trains_unet else ():
        learn_timestep = config.objective == "d3" and config.model.learn_timestep
        network.timesteps[task].requires_grad_(learn_timestep)
        unet: DiffusersModel = network.unets[network.specs[task].unet]
        if config.model.lora is None:
            unet.requires_grad_(True)
        elif not any(p.requires_grad for p in unet.parameters()):  # once if two tasks share it
            add_lora(unet, config.model.lora)
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
    # Not AutoencoderTiny: its checkpointing forgets to map [-1, 1] to [0, 1] (diffusers 0.42).
    if config.gradient_checkpointing and type(network.vae) is AutoencoderKL:
        vae.enable_gradient_checkpointing()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()


def load_teacher(folder_or_repo: str, dtype: torch.dtype) -> DiffusersModel:
    """The frozen UNet of Stable Diffusion, a folder or a repository in the local hub cache.

    Raises:
        BundleError: there is none, or its weights are not its own.
    """
    folder = base_folder(folder_or_repo) / "unet"
    return load_module(folder, UNET_CLASSES, "cpu", dtype).requires_grad_(False)


def blank_teacher(folder_or_repo: str) -> DiffusersModel:
    """The teacher's UNet without weights."""
    folder = base_folder(folder_or_repo) / "unet"
    return build_module(folder, UNET_CLASSES).requires_grad_(False).eval()


def caption_encoder(model: ModelConfig) -> Path | None:
    """The Stable Diffusion folder whose text encoder embeds captions; None if they are not used.

    Raises:
        DataError: neither the teacher nor the start is Stable Diffusion.
    """
    if not model.captions:
        return None
    if model.teacher is not None:
        return base_folder(model.teacher)
    folder = None if model.start is None else _stable_diffusion(model)
    if folder is None:
        raise DataError("model.captions needs the text encoder of a teacher: set it to false")
    return folder


def _stable_diffusion(model: ModelConfig) -> Path | None:
    """The Stable Diffusion folder that `model.start` means; None if it means a bundle."""
    assert model.start is not None
    path = expanded(model.start)
    try:
        is_name = len(path.parts) == 1 and not path.is_dir()
        is_bundle = is_name or (path / MANIFEST).is_file()
    except OSError as error:  # a name too long for the file system
        raise DataError(f"model.start: {one_line(error, 200)}") from error
    return None if is_bundle else base_folder(model.start)


def _from_bundle(config: TrainConfig) -> Start:
    model, trained = config.model, config.tasks.trained
    assert model.start is not None
    bundle = load_bundle(model.start)
    network = bundle.network
    if model.skips is not None and not isinstance(network.vae, TinyCodec):
        torch.manual_seed(config.seed)
        network = add_skips(network, model.skips)
    if isinstance(network.vae, TinyCodec):
        _adapt_codec(network.vae, model, trained)
    specs, unets = dict(network.specs), dict(network.unets.items())
    config = config.settled(next(iter(specs.values())).processing_size)
    kept = {spec.unet for task, spec in specs.items() if task not in trained}
    if kept and model.train_vae:
        raise DataError(
            "model.train_vae would spoil the tasks that are not trained "
            f"({', '.join(sorted(set(specs) - set(trained)))}): train them, too, or set it to false"
        )
    for task in set(trained) & set(specs):
        name = specs[task].unet
        if name in kept:
            name = f"unet_{task}"
            unets[name] = deepcopy(unets[specs[task].unet])
        specs[task] = replace(specs[task], unet=name, processing_size=config.size)
    prompts = {task: network.prompt_embedding(task) for task in specs}
    return Start(D3Network(network.vae, unets, specs, prompts), bundle.license, config)


def _adapt_codec(codec: TinyCodec, model: ModelConfig, trained: tuple[Task, ...]) -> None:
    if model.sharpening is not None:
        codec.config = replace(codec.config, sharpening=model.sharpening)
    if model.near_margin is not None:
        codec.config = replace(codec.config, near_margin=model.near_margin)
    if model.depth_curve is not None:
        if "depth" not in trained:
            raise DataError("model.depth_curve: train depth, too (tasks.depth), or leave it out")
        bend_depth(codec, model.depth_curve)
    if model.bundle_depth_curve is not None and not codec.config.depth_curve:
        raise DataError("model.bundle_depth_curve: the network has none; give model.depth_curve")


def _from_stable_diffusion(
    folder: Path, trained: tuple[Task, ...], size: tuple[int, int], blank: bool
) -> D3Network:
    def module(name: str, classes: tuple[str, ...]) -> DiffusersModel:
        if blank:
            return build_module(folder / name, classes)
        return load_module(folder / name, classes, "cpu", torch.float32)

    unets = {f"unet_{task}": module("unet", UNET_CLASSES) for task in trained}
    if blank:
        width = next(iter(unets.values())).config.cross_attention_dim
        prompts = {task: torch.empty(TOKENS, width) for task in trained}
    else:
        from d3_ros.network.bundle.prompt_embeddings import prompt_embeddings

        prompts = prompt_embeddings(folder, {task: PROMPTS[task] for task in trained})
    specs = {
        task: TaskSpec(
            unet=f"unet_{task}",
            prompt=PROMPTS[task],
            processing_size=size,
            axes=OFFICIAL_NORMAL_AXES if task == "normals" else None,
        )
        for task in trained
    }
    return D3Network(module("vae", VAE_CLASSES), unets, specs, prompts)

"""Model bundles: a D³-Predictor as a folder in diffusers' layout, checked file by file.

    bundle.json                   format, name, licence, source, tasks, sha256 of every other file
    conditioning.safetensors      prompt embedding (77, C) per task
    vae/, unet_depth/, ...        config.json + diffusion_pytorch_model.safetensors
    codec/                        the same of a TinyCodec, where one was distilled

Where a TinyCodec with skips was trained with the UNet, it stands in vae/. A bundle with skips, in
vae/ or in codec/, has format 3.

Loading is strict and offline: whatever is missing, extra or damaged is a BundleError in one line.
"""

from __future__ import annotations

import inspect
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from d3_ros.errors import BundleError, one_line
from d3_ros.network.bundle.files import (
    appearing_folder,
    files_in,
    read_json,
    regular_size,
    sha256_of,
    write_json,
)
from d3_ros.network.bundle.lookup import MANIFEST, find_bundle
from d3_ros.network.bundle.manifest import (
    CODEC,
    CODEC_FILES,
    CONDITIONING,
    CONFIG,
    WEIGHTS,
    Codec,
    Manifest,
    open_bundle,
)
from d3_ros.network.model.d3_network import D3Network, DiffusersModel
from d3_ros.network.model.task_spec import TaskSpec
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.types import Task

# diffusers' image autoencoders; classes outside these lists are never instantiated from a file.
VAE_CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL", "AutoencoderDC")
UNET_CLASSES = ("UNet2DConditionModel",)
STORED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Bounds of a config.json: a number beyond them describes no network, or one that is built for ever.
MOST_DEPTH = 32  # layers of a block, blocks of a level, levels
MOST_CHANNELS = 1 << 16


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: where it came from, and its network (in eval mode)."""

    path: Path
    name: str
    license: str
    source: str
    network: D3Network


def load_bundle(
    path_or_name: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    codec: Codec = "vae",
) -> Bundle:
    """Check and load the bundle that a path or a name means (see `find_bundle`).

    Args:
        path_or_name: bundle folder, or a name.
        device: where the network's tensors are to be.
        dtype: of its weights.
        codec: what maps between images and latents: the VAE ("vae"), or the small codec that was
            distilled from it ("tiny"). The other one is checked but not loaded.

    Raises:
        BundleError: there is no such bundle, or a file is missing, extra, damaged or does not fit;
            one line that names the file and the remedy.
    """
    folder, manifest = open_bundle(path_or_name)
    names = {spec.unet for spec in manifest.tasks.values()}
    embeddings = _read_tensors(folder / CONDITIONING, device, dtype)
    try:
        network = D3Network(
            vae=load_codec(folder, device, dtype)
            if codec == "tiny"
            else _load_vae(folder / "vae", device, dtype),
            unets={
                name: load_module(folder / name, UNET_CLASSES, device, dtype)
                for name in sorted(names)
            },
            tasks=manifest.tasks,
            prompt_embeddings=embeddings,  # type: ignore[arg-type]  # keys are checked there
        )
    except ValueError as error:
        raise BundleError(f"{folder}: {error}; get the bundle again") from error
    network.to(device).eval()
    return Bundle(folder, manifest.name, manifest.license, manifest.source, network)


def write_bundle(
    folder: str | Path,
    network: D3Network,
    *,
    name: str,
    license: str,  # noqa: A002  # the key in bundle.json
    source: str,
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
) -> Path:
    """Write `network` as a bundle folder, its weights stored as `dtype`; return the folder.

    The folder appears complete or not at all: it is written beside its place and renamed. The
    specs' timesteps are taken from the network as it is now (they are trained).

    Raises:
        BundleError: the folder exists and is not to be overwritten, or is not a bundle, or `dtype`
            cannot hold a weight.
    """
    folder = Path(folder)
    with appearing_folder(
        folder, replace=overwrite and (folder / MANIFEST).is_file()
    ) as unfinished:
        _write_files(unfinished, network, dtype)
        manifest = Manifest(
            name=name,
            license=license,
            source=source,
            tasks=_current_specs(network),
            sha256={file: sha256_of(unfinished / file) for file in files_in(unfinished)},
            has_skips=isinstance(network.vae, TinyCodec),
        )
        write_json(unfinished / MANIFEST, manifest.as_json())
    return folder


def add_codec(source: str | Path, folder: str | Path, codec: TinyCodec) -> Path:
    """Write the bundle `source` to a new folder, with `codec` in it; return the folder.

    The other files are copied byte for byte, except ONNX graphs of a codec that this one replaces.
    The folder appears complete or not at all.

    Raises:
        BundleError: `source` is no bundle, the folder exists, or fp16 cannot hold a weight.
    """
    origin, manifest = open_bundle(source)
    replaced = [export for export in manifest.onnx if export.codec == "tiny"]
    folder = Path(folder)
    with appearing_folder(folder) as unfinished:
        shutil.copytree(origin, unfinished, dirs_exist_ok=True)
        for export in replaced:
            shutil.rmtree(unfinished / export.folder)
        (unfinished / CODEC).mkdir(exist_ok=True)
        write_json(unfinished / CODEC / CONFIG, codec.config.as_json())
        tensors = {k: _stored(v, torch.float16, k) for k, v in codec.state_dict().items()}
        _write_tensors(unfinished / CODEC / WEIGHTS, tensors)
        digests = {**manifest.sha256, **{n: sha256_of(unfinished / n) for n in CODEC_FILES}}
        gone = {file for export in replaced for file in export.files}
        manifest = replace(
            manifest,
            onnx=tuple(export for export in manifest.onnx if export not in replaced),
            has_skips=manifest.has_skips or bool(codec.config.skips),
            sha256={name: digests[name] for name in sorted(digests.keys() - gone)},
        )
        write_json(unfinished / MANIFEST, manifest.as_json())
    return folder


def has_codec(path_or_name: str | Path) -> bool:
    """Whether the bundle that a path or a name means has a tiny codec.

    Raises:
        BundleError: there is no such bundle.
    """
    return (find_bundle(path_or_name) / CODEC / CONFIG).is_file()


def load_codec(folder: Path, device: str | torch.device, dtype: torch.dtype) -> TinyCodec:
    """The TinyCodec of a bundle folder.

    Raises:
        BundleError: the bundle has none, or it is not usable.
    """
    if not (folder / CODEC / CONFIG).is_file():
        raise BundleError(
            f"{folder} has no tiny codec: use codec vae, or distil one with "
            "'python -m d3_ros train --stage codec'"
        )
    return _read_codec(folder / CODEC, device, dtype)


def _read_codec(folder: Path, device: str | torch.device, dtype: torch.dtype) -> TinyCodec:
    path, weights = folder / CONFIG, folder / WEIGHTS
    config = read_json(path)
    _check_bounds(config, path)
    codec = _built(lambda: TinyCodec(CodecConfig.from_json(config)), path, "tiny codec")
    fill_module(codec, _read_tensors(weights, device, dtype), str(weights))
    return codec.eval()


def _load_vae(folder: Path, device: str | torch.device, dtype: torch.dtype) -> DiffusersModel:
    config = read_json(folder / CONFIG)
    if isinstance(config, dict) and config.get("_class_name") == TinyCodec.__name__:
        return _read_codec(folder, device, dtype)
    return load_module(folder, VAE_CLASSES, device, dtype)


def load_module(
    folder: Path, classes: tuple[str, ...], device: str | torch.device, dtype: torch.dtype
) -> DiffusersModel:
    """Build the diffusers module of a folder (config.json, weights) without initialising it twice.

    Raises:
        BundleError: a class outside `classes`, or weights that are not exactly the module's.
    """
    module = build_module(folder, classes)
    fill_module(module, _read_tensors(folder / WEIGHTS, device, dtype), str(folder / WEIGHTS))
    return module.eval()


def build_module(folder: Path, classes: tuple[str, ...]) -> DiffusersModel:
    """The module that a folder's config.json describes, without storage (meta device)."""
    path = folder / CONFIG
    config = read_json(path)
    class_name = config.get("_class_name") if isinstance(config, dict) else None
    if class_name not in classes:
        raise BundleError(f"{path}: _class_name is {class_name!r}, not one of {', '.join(classes)}")
    _check_bounds(config, path)
    module = _built(lambda: getattr(diffusers, class_name).from_config(config), path, class_name)
    for name in ("scaling_factor", "shift_factor"):
        factor = module.config.get(name)
        if not (factor is None or (isinstance(factor, (int, float)) and math.isfinite(factor))):
            raise BundleError(f"{path}: {name} must be a finite number: get the bundle again")
    return module


def _built(build: Callable[[], DiffusersModel], path: Path, what: str) -> DiffusersModel:
    """The module that `build` makes, without storage; any error is the fault of the config."""
    try:
        with torch.device("meta"):
            return build()
    except Exception as error:
        raise BundleError(f"{path} does not describe a {what}: {one_line(error, 300)}") from error


def _check_bounds(value: Any, path: Path, key: str = "", depth: int = 0) -> None:
    """Refuse numbers and lists of a config that no network has, before anything is built."""
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = ((key, item) for item in value)
    deep = any(word in key for word in ("layers", "blocks"))
    if (
        (isinstance(value, (dict, list)) and (len(value) > 512 or depth > 4))
        or (isinstance(value, list) and len(value) > MOST_DEPTH)
        or (isinstance(value, float) and not math.isfinite(value))
        or (isinstance(value, int) and abs(value) > (MOST_DEPTH if deep else MOST_CHANNELS))
    ):
        raise BundleError(f"{path}: {key or 'it'} is out of bounds: get the bundle again")
    for name, child in children:
        _check_bounds(child, path, name, depth + 1)


def fill_module(module: DiffusersModel, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """Make `tensors` the weights of `module`; they must be exactly its own, by name and shape."""
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if missing := wanted.keys() - tensors.keys():
        raise BundleError(f"{origin} lacks {len(missing)} tensors, {min(missing)} among them")
    if extra := tensors.keys() - wanted.keys():
        raise BundleError(f"{origin} has {len(extra)} unknown tensors, {min(extra)} among them")
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise BundleError(
                f"{origin}: {name} is {tuple(tensors[name].shape)}, the network's is {tuple(shape)}"
            )
    module.load_state_dict(dict(tensors), assign=True)


def _write_files(folder: Path, network: D3Network, dtype: torch.dtype) -> None:
    if isinstance(network.vae, TinyCodec) and not network.vae.config.skips:
        raise BundleError("a network with a tiny codec lacks its VAE: load it with codec vae")
    modules: dict[str, DiffusersModel] = {"vae": network.vae, **dict(network.unets.items())}
    for name, module in modules.items():
        (folder / name).mkdir()
        write_json(folder / name / CONFIG, _config_of(module))
        tensors = {key: _stored(value, dtype, key) for key, value in module.state_dict().items()}
        _write_tensors(folder / name / WEIGHTS, tensors)
    embeddings = {
        str(task): _stored(network.prompt_embedding(task), dtype, f"prompt of {task}")
        for task in network.tasks
    }
    _write_tensors(folder / CONDITIONING, embeddings)


def _config_of(module: DiffusersModel) -> dict[str, Any]:
    if isinstance(module, TinyCodec):
        return module.config.as_json()
    # Only what the constructor takes: AutoencoderTiny adds derived values to its config.
    accepted = inspect.signature(type(module).__init__).parameters
    return {
        "_class_name": type(module).__name__,
        "_diffusers_version": diffusers.__version__,
        **{key: value for key, value in module.config.items() if key in accepted},
    }


def _stored(tensor: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    stored = tensor.detach().to("cpu", dtype).contiguous()
    if not bool(torch.isfinite(stored).all()):
        raise BundleError(f"{name} is not finite as {dtype}: store it as fp32, or mend the weights")
    return stored


def _current_specs(network: D3Network) -> dict[Task, TaskSpec]:
    return {
        task: replace(spec, timestep=float(network.timesteps[task].detach()))
        for task, spec in network.specs.items()
    }


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, for one
        raise BundleError(f"{path} cannot be written: {one_line(error)}") from error
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def _read_tensors(
    path: Path, device: str | torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    regular_size(path)
    try:
        tensors = load_file(path, device=str(device))
        stored = {tensor.dtype for tensor in tensors.values()}
        if strange := stored - {*STORED_DTYPES}:
            raise ValueError(f"it holds {min(map(str, strange))}")
        return {name: tensor.to(dtype) for name, tensor in tensors.items()}
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # safetensors raises whatever its parser meets
        raise BundleError(f"{path} cannot be read: {one_line(error, 300)}") from error

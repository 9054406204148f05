"""Model bundles: a D³-Predictor as a folder in diffusers' layout, checked file by file.

    bundle.json                   format, name, licence, source, tasks, sha256 of every other file
    conditioning.safetensors      prompt embedding (77, C) per task
    vae/, unet_depth/, ...        config.json + diffusion_pytorch_model.safetensors
    codec/                        the same of a TinyCodec, where one was distilled

Loading is strict and offline: whatever is missing, extra or damaged is a BundleError in one line.
Every byte is hashed at every start. That costs about 0.7 s per GB and core, next to reading the
files, which loading does anyway; a cheaper check would not see a damaged file.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from d3_ros.errors import BundleError, one_line
from d3_ros.network.bundle.lookup import MANIFEST, find_bundle
from d3_ros.network.bundle.manifest import Manifest, parse_manifest
from d3_ros.network.model.d3_network import D3Network, DiffusersModel, TaskSpec
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.types import Task

CONDITIONING = "conditioning.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
# diffusers' image autoencoders; classes outside these lists are never instantiated from a file.
VAE_CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL", "AutoencoderDC")
UNET_CLASSES = ("UNet2DConditionModel",)
CODEC = "codec"
CODEC_FILES = frozenset({f"{CODEC}/{CONFIG}", f"{CODEC}/{WEIGHTS}"})
Codec = Literal["vae", "tiny"]


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
        codec: between images and latents, the VAE or the small codec distilled from it; what is
            not asked for is checked but not loaded.

    Raises:
        BundleError: there is no such bundle, or a file is missing, extra, damaged or does not fit;
            one line that names the file and the remedy.
    """
    folder = find_bundle(path_or_name)
    manifest = parse_manifest(_read_json(folder / MANIFEST), folder / MANIFEST)
    _check_files(folder, manifest)
    names = {spec.unet for spec in manifest.tasks.values()}
    embeddings = _read_tensors(folder / CONDITIONING, device, dtype)
    try:
        network = D3Network(
            vae=load_codec(folder, device, dtype)
            if codec == "tiny"
            else load_module(folder / "vae", VAE_CLASSES, device, dtype),
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
    if folder.exists() and not (overwrite and (folder / MANIFEST).is_file()):
        raise BundleError(f"{folder} exists: remove it or choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    unfinished.mkdir()
    try:
        _write_files(unfinished, network, dtype)
        manifest = Manifest(
            name=name,
            license=license,
            source=source,
            tasks=_current_specs(network),
            sha256={relative: _sha256(unfinished / relative) for relative in _files(unfinished)},
        )
        _write_json(unfinished / MANIFEST, manifest.as_json())
        if folder.exists():
            replaced = unfinished.with_name(f"{unfinished.name}-replaced")
            folder.rename(replaced)
            unfinished.rename(folder)
            shutil.rmtree(replaced)
        else:
            unfinished.rename(folder)
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)
    return folder


def add_codec(source: str | Path, folder: str | Path, codec: TinyCodec) -> Path:
    """Write the bundle `source` to a new folder, with `codec` in it; return the folder.

    The other files are copied byte for byte. The folder appears complete or not at all.

    Raises:
        BundleError: `source` is no bundle, the folder exists, or fp16 cannot hold a weight.
    """
    origin, folder = find_bundle(source), Path(folder)
    if folder.exists():
        raise BundleError(f"{folder} exists: remove it or choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    try:
        shutil.copytree(origin, unfinished)
        manifest = parse_manifest(_read_json(unfinished / MANIFEST), origin / MANIFEST)
        (unfinished / CODEC).mkdir(exist_ok=True)
        _write_json(unfinished / CODEC / CONFIG, codec.config.as_json())
        tensors = {k: _stored(v, torch.float16, k) for k, v in codec.state_dict().items()}
        _write_tensors(unfinished / CODEC / WEIGHTS, tensors)
        written = {name: _sha256(unfinished / name) for name in CODEC_FILES}
        manifest = replace(manifest, sha256=dict(sorted({**manifest.sha256, **written}.items())))
        _write_json(unfinished / MANIFEST, manifest.as_json())
        unfinished.rename(folder)
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)
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
    path = folder / CODEC / CONFIG
    if not path.is_file():
        raise BundleError(
            f"{folder} has no tiny codec: use codec vae, or distil one with "
            "'python -m d3_ros train --stage codec'"
        )
    try:
        with torch.device("meta"):
            codec = TinyCodec(CodecConfig.from_json(_read_json(path)))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path} does not describe a tiny codec: {one_line(error)}") from error
    weights = folder / CODEC / WEIGHTS
    fill_module(codec, _read_tensors(weights, device, dtype), str(weights))
    return codec.eval()


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
    config = _read_json(path)
    class_name = config.get("_class_name") if isinstance(config, dict) else None
    if class_name not in classes:
        raise BundleError(f"{path}: _class_name is {class_name!r}, not one of {', '.join(classes)}")
    try:
        with torch.device("meta"):
            return getattr(diffusers, class_name).from_config(config)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BundleError(f"{path} does not describe a {class_name}: {one_line(error)}") from error


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


def _check_files(folder: Path, manifest: Manifest) -> None:
    present, listed = set(_files(folder)) - {MANIFEST}, set(manifest.sha256)
    needed = {CONDITIONING} | {
        f"{module}/{file}"
        for module in {"vae", *(spec.unet for spec in manifest.tasks.values())}
        for file in (CONFIG, WEIGHTS)
    }
    if listed.intersection(CODEC_FILES):
        needed |= CODEC_FILES
    if unlisted := needed - listed:
        raise BundleError(f"{folder / MANIFEST} has no sha256 of {min(unlisted)}; get it again")
    if missing := listed - present:
        raise BundleError(f"{folder / min(missing)} is missing: get the bundle again")
    if extra := present - listed:
        raise BundleError(f"{folder / min(extra)} is not part of the bundle: remove it")
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter lock
        files = sorted(listed)
        for file, digest in zip(files, pool.map(lambda f: _sha256(folder / f), files), strict=True):
            if digest != manifest.sha256[file]:
                raise BundleError(
                    f"{folder / file} is damaged (its sha256 is not that in {MANIFEST}): "
                    "get the bundle again"
                )


def _write_files(folder: Path, network: D3Network, dtype: torch.dtype) -> None:
    if isinstance(network.vae, TinyCodec):
        raise BundleError("a network with a tiny codec lacks its VAE: load it with codec vae")
    modules: dict[str, DiffusersModel] = {"vae": network.vae, **dict(network.unets.items())}
    for name, module in modules.items():
        (folder / name).mkdir()
        # Only what the constructor takes: AutoencoderTiny adds derived values to its config.
        accepted = inspect.signature(type(module).__init__).parameters
        config = {
            "_class_name": type(module).__name__,
            "_diffusers_version": diffusers.__version__,
            **{key: value for key, value in module.config.items() if key in accepted},
        }
        _write_json(folder / name / CONFIG, config)
        tensors = {key: _stored(value, dtype, key) for key, value in module.state_dict().items()}
        _write_tensors(folder / name / WEIGHTS, tensors)
    embeddings = {
        str(task): _stored(network.prompt_embedding(task), dtype, f"prompt of {task}")
        for task in network.tasks
    }
    _write_tensors(folder / CONDITIONING, embeddings)


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


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {one_line(error)}") from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def _read_tensors(
    path: Path, device: str | torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {one_line(error)}") from error
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}

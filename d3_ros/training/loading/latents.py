"""A cache of latents, for images that come again while the VAE is fixed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from d3_ros.errors import DataError, one_line
from d3_ros.network import D3Network
from d3_ros.training.loading.sample import Batch


class LatentCache:
    """Encodes images, each only once if its sample has an `image_key` (it was not augmented).

    Cached images are encoded one by one, so that the bits of a latent do not depend on the batch
    in which it was first seen.

    Args:
        network: its VAE encodes; the VAE must not be trained.
        where: "memory", "disk" (`folder`, kept for the next run), or "none".
        folder: has a subfolder per VAE; files in it are whole or absent.
    """

    def __init__(
        self, network: D3Network, where: Literal["none", "memory", "disk"], folder: Path
    ) -> None:
        self.network = network
        self.where = where
        self.folder = folder / _fingerprint(network) if where == "disk" else folder
        self.memory: dict[str, torch.Tensor] = {}
        if where == "disk":
            self.folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def encode(self, batch: Batch) -> torch.Tensor:
        """(B, c, h, w) scaled latents of the batch's images, on their device."""
        if self.where == "none" or any(key is None for key in batch.image_keys):
            return self._encoded(batch.image)
        latents = []
        for image, key in zip(batch.image, batch.image_keys, strict=True):
            # One image at several sizes has several latents.
            name = f"{key} {tuple(image.shape)}"
            latent = self._read(name)
            if latent is None:
                latent = self._encoded(image[None])[0]
                self._write(name, latent)
            latents.append(latent.to(image.device))
        return torch.stack(latents)

    def _encoded(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.encode(images.contiguous(memory_format=torch.channels_last)).float()

    def _read(self, name: str) -> torch.Tensor | None:
        if self.where == "memory":
            return self.memory.get(name)
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            return load_file(path)["latent"]
        except (OSError, SafetensorError, KeyError):  # damaged: encoded again, and overwritten
            return None

    def _write(self, name: str, latent: torch.Tensor) -> None:
        stored = latent.to("cpu").contiguous()
        if self.where == "memory":
            self.memory[name] = stored
            return
        path = self._path(name)
        unfinished = path.with_suffix(f".{os.getpid()}")
        try:
            save_file({"latent": stored}, unfinished)
            unfinished.replace(path)
        except (OSError, SafetensorError) as error:
            unfinished.unlink(missing_ok=True)
            raise DataError(
                f"{path} cannot be written ({one_line(error)}): free some space, or set "
                "latent_cache to none"
            ) from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"


def _fingerprint(network: D3Network) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.vae.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

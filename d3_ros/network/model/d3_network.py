"""The D³-Predictor network: VAE encode, one UNet pass per task, VAE decode; no noise anywhere.

Source: "D³-Predictor: Noise-Free Deterministic Diffusion for Dense Prediction" (arXiv 2512.07062).
The modules are diffusers' own, so that the official weights fit by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from d3_ros.network.model.task_spec import TaskSpec
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.types import TASKS, Task

# An nn.Module with a `config`; diffusers' lazily imported classes are opaque to type checkers.
DiffusersModel: TypeAlias = Any


class LearnedTimesteps(nn.ParameterDict):
    """One learned scalar per task, float32 also when the network is cast to another dtype.

    Half precision would round 187.3 to 187.25, and bfloat16 to 187.0, which changes the output.
    """

    def _apply(
        self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
    ) -> LearnedTimesteps:
        super()._apply(lambda tensor: tensor.to(device=fn(tensor).device), recurse)
        return self


class D3Network(nn.Module):
    """A D³-Predictor for one or both tasks, differentiable, for inference and training alike.

    Args:
        vae: any diffusers image autoencoder, AutoencoderKL and AutoencoderTiny among them, or a
            TinyCodec: distilled from one, or trained with the UNet.
        unets: UNet2DConditionModel by name (the names that the tasks' specs use).
        tasks: spec by task, "depth" and/or "normals".
        prompt_embeddings: (L, C) float tensor by task; L is 77 for CLIP text encoders and C the
            UNet's cross_attention_dim.

    Raises:
        ValueError: the parts do not fit each other (the message says which).
    """

    def __init__(
        self,
        vae: DiffusersModel,
        unets: Mapping[str, DiffusersModel],
        tasks: Mapping[Task, TaskSpec],
        prompt_embeddings: Mapping[Task, torch.Tensor],
    ) -> None:
        super().__init__()
        _check_parts(vae, unets, tasks, prompt_embeddings)
        self.vae = vae
        self.unets = nn.ModuleDict(unets)
        self.specs = {task: tasks[task] for task in TASKS if task in tasks}
        self.timesteps = LearnedTimesteps(
            {
                task: nn.Parameter(torch.tensor(spec.timestep, dtype=torch.float32))
                for task, spec in self.specs.items()
            }
        )
        for task in self.specs:
            self.register_buffer(f"prompt_{task}", prompt_embeddings[task].detach().clone())

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of this network, in the order of `d3_ros.types.TASKS`."""
        return tuple(self.specs)

    @property
    def size_multiple(self) -> int:
        """Image height and width must be multiples of this many pixels (the VAE's reduction)."""
        return size_multiple(self.vae)

    def prompt_embedding(self, task: Task) -> torch.Tensor:
        """(L, C) embedding of the task's prompt."""
        return self.get_buffer(f"prompt_{task}")

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) image in [-1, 1] -> (B, c, h/f, w/f) latent, the posterior's mode, scaled.

        The official code draws a sample of the posterior; the mode keeps inference noise-free.
        A TinyCodec with skips appends the picture's features as further channels.
        `predict_latent` hands them on unchanged, and the decoder uses them.
        """
        encoded = self.vae.encode(image)
        if isinstance(self.vae, TinyCodec):
            return encoded
        if hasattr(encoded, "latent_dist"):
            latent = encoded.latent_dist.mode()
        else:
            latent = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        return (latent - self._latent_shift) * self.vae.config.scaling_factor

    def predict_latent(self, latent: torch.Tensor, task: Task) -> torch.Tensor:
        """(B, c, h, w) clean image latent -> (B, c, h, w) latent of the task's output image."""
        batch = latent.shape[0]
        own, features = self.split_features(latent)
        prompt = self.prompt_embedding(task).to(latent.dtype).expand(batch, -1, -1)
        unet = self.unets[self.specs[task].unet]
        # diffusers builds the sinusoids from the float32 timestep before it casts them.
        answer = unet(own, self.timesteps[task].expand(batch), prompt, return_dict=False)[0]
        return self.join_features(answer, features)

    def split_features(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `encode` gave -> the latent that a UNet sees, and the picture's features or none."""
        channels = self.vae.config.latent_channels
        return latent[:, :channels], latent[:, channels:]

    @staticmethod
    def join_features(latent: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The reverse of `split_features`, for the latent of a task."""
        return torch.cat([latent, features], dim=1) if features.shape[1] else latent

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) scaled latent -> (B, 3, h·f, w·f) image, about [-1, 1], not clipped."""
        latent = latent / self.vae.config.scaling_factor + self._latent_shift
        return self.vae.decode(latent, return_dict=False)[0]

    def decode_task(self, latent: torch.Tensor, task: Task) -> torch.Tensor:
        """`decode` for a task: (B, 1, h·f, w·f) where a TinyCodec decodes depth."""
        if isinstance(self.vae, TinyCodec):
            return self.vae.decode(latent, task)
        return self.decode(latent)

    def predict_latents(
        self, latent: torch.Tensor, tasks: Iterable[Task]
    ) -> dict[Task, torch.Tensor]:
        """`predict_latent` for each of `tasks`."""
        return {task: self.predict_latent(latent, task) for task in tasks}

    def decode_tasks(self, latents: Mapping[Task, torch.Tensor]) -> dict[Task, torch.Tensor]:
        """`decode_task` for each task's latent."""
        return {task: self.decode_task(latent, task) for task, latent in latents.items()}

    def forward(
        self, image: torch.Tensor, tasks: Iterable[Task] | None = None
    ) -> dict[Task, torch.Tensor]:
        """(B, 3, h, w) image in [-1, 1] -> per task the decoded (B, 3 or 1, h, w); one encode.

        h and w are multiples of `size_multiple`; `tasks` None means all.
        """
        chosen = self.tasks if tasks is None else tuple(tasks)
        return self.decode_tasks(self.predict_latents(self.encode(image), chosen))

    @property
    def _latent_shift(self) -> float:
        return getattr(self.vae.config, "shift_factor", None) or 0.0


def size_multiple(vae: DiffusersModel) -> int:
    """Reduction of a diffusers autoencoder: image pixels per latent pixel along one axis."""
    compression = getattr(
        vae, "spatial_compression_ratio", None
    )  # AutoencoderDC and TinyCodec know
    if compression is not None:
        return int(compression)
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _check_parts(
    vae: DiffusersModel,
    unets: Mapping[str, DiffusersModel],
    tasks: Mapping[Task, TaskSpec],
    prompt_embeddings: Mapping[Task, torch.Tensor],
) -> None:
    if not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(f"tasks must be some of {', '.join(TASKS)}, got {sorted(tasks)}")
    if set(tasks) != set(prompt_embeddings):
        raise ValueError(f"prompt embeddings for {sorted(prompt_embeddings)}, not {sorted(tasks)}")
    if set(unets) != {spec.unet for spec in tasks.values()}:
        raise ValueError(f"UNets {sorted(unets)} are not those that the tasks name")
    for task, spec in tasks.items():
        config = unets[spec.unet].config
        width = config.cross_attention_dim
        embedding = prompt_embeddings[task]
        if embedding.ndim != 2 or embedding.shape[1] != width:
            raise ValueError(
                f"prompt embedding of {task} must be (length, {width}), not "
                f"{tuple(embedding.shape)}"
            )
        channels = vae.config.latent_channels
        if config.in_channels != channels or config.out_channels != channels:
            raise ValueError(f"{spec.unet} must map {channels} latent channels to {channels}")
        multiple = size_multiple(vae)
        if any(side <= 0 or side % multiple for side in spec.processing_size):
            raise ValueError(
                f"processing size {spec.processing_size} of {task} must be multiples of {multiple}"
            )
        if isinstance(vae, TinyCodec) and task not in vae.config.tasks:
            raise ValueError(f"the tiny codec has no decoder of {task}")
        if task == "normals" and (spec.axes is None or {abs(sign) for sign in spec.axes} != {1}):
            raise ValueError(f"axes of the normals must be three signs, 1 or -1, got {spec.axes}")

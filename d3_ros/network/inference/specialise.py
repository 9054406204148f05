"""Specialisation: makes a D3Network faster for its fixed timesteps and prompts.

The optimisations are independent of each other. Each is exact up to rounding: 1e-4 in float32 on
the decoded images. `specialise` applies the chosen ones and drops weights that are not needed any
longer. "depth_channel" is exact too, but not in `EXACT`: it averages the channels before they are
clipped to [0, 1], the official code afterwards. The depth differs in pixels where only some of the
channels are saturated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from d3_ros.network.inference.conditioning import (
    TaskRows,
    fix_prompts,
    fold_time,
    fuse_self_attention,
)
from d3_ros.network.inference.decoding import fold_upsampling, set_task_heads
from d3_ros.network.model.d3_network import D3Network
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.types import Task

OPTIMISATIONS: Mapping[str, str] = {
    "time": "time embedding and its projections become biases",
    "prompt": "what attention makes of the fixed prompt is constant",
    "qkv": "self-attention computes queries, keys and values in one product",
    "upsampling": "doubling and 3x3 convolution of the decoder become one transposed convolution",
    "depth_channel": "the decoder's last convolution gives one depth channel, not three to average",
    "batch_unet": "tasks that share a UNet go through it as one batch",
    "batch_decode": "all tasks go through the decoder as one batch, while images are small",
    "channels_last": "convolutions run in channels-last memory order",
}
EXACT = tuple(name for name in OPTIMISATIONS if name != "depth_channel")
"""The optimisations that change a prediction by rounding only."""
DECODED_PIXELS = 800_000
"""Pixels that are decoded at once at most. Stable Diffusion's decoder takes 1.5 KB a pixel in fp16;
more pixels would fill the memory, and this many keep a GPU busy. Two images of 480 x 640 fit.
"""


class SpecialisedNetwork(D3Network):
    """A D3Network for inference, built by `specialise`: tasks in batches, constants precomputed.

    With "depth_channel" in `applied`, the depth image has one channel. `skipped` maps each
    optimisation that was not applied to the reason.
    """

    def __init__(self, network: D3Network, wanted: Collection[str]) -> None:
        super().__init__(
            network.vae,
            dict(network.unets.items()),
            network.specs,
            {task: network.prompt_embedding(task) for task in network.tasks},
        )
        for task in self.tasks:
            self.timesteps[task] = network.timesteps[task]
        self.skipped: dict[str, str] = {}
        self._rows = {name: TaskRows() for name in self.unets}
        self._decoder_rows = TaskRows()
        self._wanted = frozenset(wanted)
        self.eval().requires_grad_(False)
        self._specialise_unets()
        self._specialise_decoder()
        if "channels_last" in self._wanted:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def applied(self) -> tuple[str, ...]:
        """The optimisations in effect, in the order of `OPTIMISATIONS`."""
        return tuple(n for n in OPTIMISATIONS if n in self._wanted and n not in self.skipped)

    def tasks_of(self, unet: str) -> tuple[Task, ...]:
        """The tasks that go through the UNet of that name."""
        return tuple(task for task, spec in self.specs.items() if spec.unet == unet)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) image in [-1, 1] -> (B, c, h/f, w/f) latent: the mode, scaled."""
        if "channels_last" in self._wanted:
            image = image.contiguous(memory_format=torch.channels_last)
        return super().encode(image)

    def predict_latent(self, latent: torch.Tensor, task: Task) -> torch.Tensor:
        """(B, c, h, w) clean image latent -> (B, c, h, w) latent of the task's output image."""
        return self._run_unet(latent, self.specs[task].unet, (task,))[task]

    def predict_latents(
        self, latent: torch.Tensor, tasks: Iterable[Task]
    ) -> dict[Task, torch.Tensor]:
        """`predict_latent` for each of `tasks`; tasks that share a UNet take one pass."""
        chosen = tuple(tasks)
        latents: dict[Task, torch.Tensor] = {}
        for name in self.unets:
            together = tuple(task for task in self.tasks_of(name) if task in chosen)
            groups = [together] if "batch_unet" in self._wanted else [(t,) for t in together]
            for group in filter(None, groups):
                latents |= self._run_unet(latent, name, group)
        return {task: latents[task] for task in chosen}

    def decode_tasks(self, latents: Mapping[Task, torch.Tensor]) -> dict[Task, torch.Tensor]:
        """(B, c, h, w) latent per task -> (B, 3, h·f, w·f) images, depth's perhaps (B, 1, ...)."""
        order = [task for task in self.tasks if task in latents]
        if isinstance(self.vae, TinyCodec):
            return super().decode_tasks(latents)
        shapes = {latents[task].shape for task in order}
        batch, _, height, width = max(shapes)
        most = max(1, DECODED_PIXELS // (height * width * self.size_multiple**2))
        fits = len(shapes) == 1 and len(order) * batch <= most
        groups = [order] if "batch_decode" in self.applied and fits else [[t] for t in order]
        decoded: dict[Task, torch.Tensor] = {}
        for group in groups:
            self._decoder_rows.rows = self._slice(self.tasks, group)
            together = torch.cat([latents[task] for task in group])
            if len(group) > 1 or len(together) <= most:
                images = self.decode(together)
            else:
                images = torch.cat([self.decode(part) for part in together.split(most)])
            decoded |= dict(zip(group, images.chunk(len(group)), strict=True))
        if "depth" in decoded and "depth_channel" in self.applied:
            decoded["depth"] = decoded["depth"][:, :1]
        return {task: decoded[task] for task in latents}

    def _run_unet(
        self, latent: torch.Tensor, name: str, tasks: tuple[Task, ...]
    ) -> dict[Task, torch.Tensor]:
        of_unet = self.tasks_of(name)
        self._rows[name].rows = self._slice(of_unet, tasks)
        batch = len(latent)
        timesteps = torch.stack([self.timesteps[task] for task in tasks]).repeat_interleave(batch)
        prompt = None
        if "prompt" not in self.applied:
            prompts = torch.stack([self.prompt_embedding(task) for task in tasks])
            prompt = prompts.to(latent.dtype).repeat_interleave(batch, dim=0)
        own, features = self.split_features(latent)
        sample = own if len(tasks) == 1 else own.repeat(len(tasks), 1, 1, 1)
        output = self.unets[name](sample, timesteps, prompt, return_dict=False)[0]
        answers = output.chunk(len(tasks))
        return {
            task: self.join_features(answer, features)
            for task, answer in zip(tasks, answers, strict=True)
        }

    @staticmethod
    def _slice(rows: Iterable[Task], tasks: Iterable[Task]) -> slice:
        order, chosen = list(rows), list(tasks)
        first = order.index(chosen[0])
        assert order[first : first + len(chosen)] == chosen  # at most two tasks, in their order
        return slice(first, first + len(chosen))

    def _specialise_unets(self) -> None:
        for name, unet in self.unets.items():
            tasks, rows = self.tasks_of(name), self._rows[name]
            prompts = torch.stack([self.prompt_embedding(task) for task in tasks]).float()
            timesteps = torch.stack([self.timesteps[task] for task in tasks]).detach()
            if "time" in self._wanted:
                self._note("time", fold_time(unet, timesteps, rows))
            if "prompt" in self._wanted:
                self._note("prompt", fix_prompts(unet, prompts, rows))
            if "qkv" in self._wanted:
                self._note("qkv", fuse_self_attention(unet))

    def _specialise_decoder(self) -> None:
        if "upsampling" in self._wanted:
            self._note("upsampling", fold_upsampling(self.vae))
        if "batch_decode" in self._wanted and isinstance(self.vae, TinyCodec):
            self._note("batch_decode", "the tiny codec has a decoder per task")
        if "depth_channel" in self._wanted and "depth" in self.tasks:
            reason = set_task_heads(self.vae, self.tasks, {"depth"}, self._decoder_rows)
            self._note("depth_channel", reason)

    def _note(self, optimisation: str, reason: str) -> None:
        if reason:
            self.skipped[optimisation] = reason


def specialise(network: D3Network, optimisations: Collection[str] = EXACT) -> SpecialisedNetwork:
    """Make `network` fast for inference on its device and in its dtype.

    The modules of `network` are changed: it cannot be used afterwards. Its tensors are not written
    to, so other networks may share them.

    Args:
        network: in its final dtype; constants are computed in float32 and then rounded to it.
        optimisations: names out of `OPTIMISATIONS`.

    Raises:
        ValueError: an optimisation of an unknown name.
    """
    if unknown := set(optimisations) - OPTIMISATIONS.keys():
        raise ValueError(f"unknown optimisation {min(unknown)}: {', '.join(OPTIMISATIONS)}")
    with torch.no_grad():
        return SpecialisedNetwork(network, optimisations)

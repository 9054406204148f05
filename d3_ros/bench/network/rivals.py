"""Other ways of getting depth from an image, with random weights: what ours is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from d3_ros.bench.network.architectures import (
    PROMPT_TOKENS,
    Architecture,
    cast,
    random_unet,
    random_vae,
)
from d3_ros.network.model.task_spec import INITIAL_TIMESTEP
from d3_ros.types import Task

Frame = Callable[[np.ndarray], object]
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class OfficialWay:
    """D³-Predictor as its authors' code runs it, for one task; two tasks are two of these.

    bfloat16, eager, the prompt through the text encoder at every frame, a square image, a sample of
    the posterior, three channels to the host.
    """

    def __init__(
        self, architecture: Architecture, task: Task, size: int, device: torch.device
    ) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel

        self.task, self.size, self.device, self.dtype = task, size, device, torch.bfloat16
        with torch.device(device):
            text = CLIPTextModel(CLIPTextConfig(**architecture.text_encoder))
            parts = (text, random_unet(architecture), random_vae(architecture))
            self.text, self.unet, self.vae = (cast(part, self.dtype) for part in parts)
            self.tokens = torch.ones(1, PROMPT_TOKENS, dtype=torch.long)
            self.timestep = torch.tensor(INITIAL_TIMESTEP)

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (H, W) depth or (H, W, 3) normals."""
        prompt = self.text(self.tokens).last_hidden_state
        image = torch.tensor(rgb, device=self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
        resized = F.interpolate(image, (self.size, self.size), mode="bilinear").to(self.dtype)
        scale = self.vae.config.scaling_factor
        latent = self.vae.encode(resized).latent_dist.sample() * scale
        output = self.unet(latent, self.timestep.to(self.dtype).expand(1), prompt).sample
        decoded = self.vae.decode(output / scale).sample
        decoded = F.interpolate(decoded.float(), rgb.shape[:2], mode="bilinear")
        unit = (decoded[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1).cpu().numpy()
        if self.task == "depth":
            return unit.mean(axis=-1)
        vectors = unit * 2 - 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def official_way(
    architecture: Architecture, tasks: tuple[Task, ...], size: int, device: torch.device
) -> Frame:
    """All tasks one after the other; each has its own text encoder, VAE and UNet."""
    ways = [OfficialWay(architecture, task, size, device) for task in tasks]
    return lambda rgb: [way(rgb) for way in ways]


def marigold(architecture: Architecture, size: int, device: torch.device) -> Frame:
    """diffusers' Marigold depth pipeline, one step, fp16 (fp32 on the CPU)."""
    from diffusers import DDIMScheduler, MarigoldDepthPipeline

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        unet, vae = random_unet(architecture, in_channels=8), random_vae(architecture)
        prompt = torch.zeros(1, 2, architecture.unet["cross_attention_dim"], dtype=dtype)
    pipeline: Any = MarigoldDepthPipeline(
        unet=cast(unet, dtype),
        vae=cast(vae, dtype),
        scheduler=DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
        text_encoder=None,
        tokenizer=None,
        prediction_type="depth",
        default_denoising_steps=1,
        default_processing_resolution=size,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.empty_text_embedding = prompt  # which it would compute once by itself

    def frame(rgb: np.ndarray) -> object:
        image = torch.tensor(rgb).permute(2, 0, 1)[None].float() / 255
        return pipeline(image, num_inference_steps=1, ensemble_size=1).prediction

    return frame


def depth_anything(
    architecture: Architecture, letter: str, size: int, device: torch.device
) -> Frame:
    """Depth Anything V2 of transformers, fp16 (fp32 on the CPU), eager, transform on the device.

    `size`: the shorter side of what it sees; both sides are rounded to patches of 14.
    """
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    backbone, whole = architecture.depth_anything[letter]
    config = DepthAnythingConfig(
        backbone_config=Dinov2Config(**backbone, image_size=518, reshape_hidden_states=False),
        reassemble_hidden_size=backbone["hidden_size"],
        **whole,
    )
    with torch.device(device):
        model = cast(DepthAnythingForDepthEstimation(config), dtype)
        mean, deviation = (
            torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )

    @torch.inference_mode()
    def frame(rgb: np.ndarray) -> np.ndarray:
        scale = size / min(rgb.shape[:2])
        sides = [max(1, round(side * scale / 14)) * 14 for side in rgb.shape[:2]]
        image = torch.tensor(rgb, device=device).permute(2, 0, 1)[None].float() / 255
        image = F.interpolate(image, sides, mode="bicubic", align_corners=False)
        depth = model(((image - mean) / deviation).to(dtype)).predicted_depth
        resized = F.interpolate(depth[:, None].float(), rgb.shape[:2], mode="bilinear")
        return resized[0, 0].cpu().numpy()

    return frame

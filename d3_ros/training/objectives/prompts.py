"""The prompt of every training image: its own caption, or the fixed prompt of the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from d3_ros.network import D3Network
from d3_ros.types import Task


class Prompts:
    """Prompt embeddings of a batch; each caption is encoded once.

    Args:
        network: has the prompt embeddings of the tasks.
        base: Stable Diffusion's folder; its text encoder embeds captions. None: ignore captions.
    """

    def __init__(self, network: D3Network, base: Path | None) -> None:
        self._network = network
        self._known: dict[str, torch.Tensor] = {}
        self._encode = None
        if base is not None:
            from d3_ros.network.bundle.prompt_embeddings import PromptEncoder

            self._encode = PromptEncoder(base)

    def embed(self, task: Task, captions: Sequence[str | None], like: torch.Tensor) -> torch.Tensor:
        """(B, L, C) embeddings for images with these captions, as `like` in device and dtype."""
        own = self._network.prompt_embedding(task).to(like)
        if self._encode is None:
            return own.expand(len(captions), -1, -1)
        rows = []
        for caption in captions:
            if caption is not None and caption not in self._known:
                self._known[caption] = self._encode(caption).clone()
            rows.append(own if caption is None else self._known[caption].to(like))
        return torch.stack(rows)

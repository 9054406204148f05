"""Prompt embeddings, computed when a bundle is made: inference needs no text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from d3_ros.errors import BundleError, one_line
from d3_ros.types import Task


class PromptEncoder:
    """Stable Diffusion 2.1's tokenizer and text encoder, float32 on the CPU.

    Args:
        base: a folder in diffusers' layout with `tokenizer/` and `text_encoder/` (safetensors).

    Raises:
        BundleError: tokenizer or text encoder cannot be read.
    """

    def __init__(self, base: Path) -> None:
        logging.disable_progress_bar()
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(
                base / "tokenizer", local_files_only=True
            )
            encoder = CLIPTextModel.from_pretrained(
                base / "text_encoder", local_files_only=True, use_safetensors=True
            )
        except Exception as error:  # whatever transformers meets in a damaged file
            raise BundleError(
                f"{base}: tokenizer or text encoder cannot be read: {one_line(error)}"
            ) from error
        self._encoder = encoder.float().eval()

    @torch.inference_mode()
    def __call__(self, prompt: str) -> torch.Tensor:
        """(77, C) last hidden state; the prompt is padded to the tokenizer's model_max_length."""
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self._encoder(tokens.input_ids).last_hidden_state[0]


def prompt_embeddings(base: Path, prompts: Mapping[Task, str]) -> dict[Task, torch.Tensor]:
    """The embedding of every prompt, by task, with the encoder in `base` (see `PromptEncoder`).

    Raises:
        BundleError: tokenizer or text encoder cannot be read.
    """
    encoder = PromptEncoder(base)
    return {task: encoder(prompt) for task, prompt in prompts.items()}

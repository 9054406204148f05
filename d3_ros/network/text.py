"""Prompt embeddings, computed once when a bundle is made: inference needs no text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from d3_ros.errors import BundleError
from d3_ros.types import Task


def prompt_embeddings(base: Path, prompts: Mapping[Task, str]) -> dict[Task, torch.Tensor]:
    """(77, C) float32 last hidden state per prompt, as Stable Diffusion 2.1 conditions its UNet.

    Args:
        base: a folder in diffusers' layout with `tokenizer/` and `text_encoder/` (safetensors).
        prompts: text by task; padded to the tokenizer's model_max_length.

    Raises:
        BundleError: tokenizer or text encoder cannot be read.
    """
    logging.disable_progress_bar()
    try:
        tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            base / "text_encoder", local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{base}: tokenizer or text encoder cannot be read: {reason}") from error
    encoder = encoder.float().eval()
    with torch.inference_mode():
        return {
            task: encoder(
                tokenizer(
                    prompt,
                    padding="max_length",
                    max_length=tokenizer.model_max_length,
                    truncation=True,
                    return_tensors="pt",
                ).input_ids
            ).last_hidden_state[0]
            for task, prompt in prompts.items()
        }

"""What the authors publish, in miniature: checkpoints of their training module, and a base."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from d3_ros.network.bundle.official_checkpoint import TIMESTEP, UNET_PREFIX, VAE_PREFIX

START, END, PAD = "<|startoftext|>", "<|endoftext|>", "!"


def write_checkpoint(
    path: Path,
    unet: torch.nn.Module,
    vae: torch.nn.Module,
    timestep: float,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """The state dict of the authors' module: student, teacher, adapters, VAE; None removes."""
    student = {f"d3_predictor.{k}": v for k, v in unet.state_dict().items()}
    teacher = {f"visual_experts.{k}": v for k, v in unet.state_dict().items()}
    training = {
        "adapters.mid.layers.0.up_proj.weight": torch.ones(4, 4),
        "adapters.us1.layers.2.norm.linear.weight": torch.ones(4, 4),
        "mapping.blocks.0.up_proj.weight": torch.ones(4, 4),
        "time_emb.weight": torch.ones(4, 1),
        "time_in_proj.weight": torch.ones(4, 4),
    }
    state = {
        "timestep": torch.tensor(timestep),
        **{f"ae.ae.{k}": v for k, v in vae.state_dict().items()},
        **training,
        **teacher,
        **student,
        **(changes or {}),
    }
    torch.save({k: v for k, v in state.items() if v is not None}, path)
    return path


def vocabulary() -> dict[str, int]:
    """Every printable ASCII character, alone and at the end of a word; '!' comes first."""
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*characters, *(f"{c}</w>" for c in characters), START, END]
    return {token: index for index, token in enumerate(tokens)}


def write_base(folder: Path, unet: Any, vae: Any, width: int) -> Path:
    """A folder in diffusers' layout: configurations, tokenizer, a random CLIP text encoder."""
    unet.save_config(folder / "unet")
    vae.save_config(folder / "vae")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "vocab.json").write_text(json.dumps(vocabulary()))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": PAD}
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special})
    )
    text_encoder(width).save_pretrained(folder / "text_encoder")
    return folder


def text_encoder(width: int) -> CLIPTextModel:
    """A CLIP text encoder of one layer; the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary()),
                hidden_size=width,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=vocabulary()[START],
                eos_token_id=vocabulary()[END],
                pad_token_id=vocabulary()[PAD],
            )
        ).eval()


def small_checkpoint() -> bytes:
    """A file that `read_checkpoint` reads, of three tensors."""
    state = {TIMESTEP: torch.tensor(200.0), f"{UNET_PREFIX}w": torch.zeros(3, 2)}
    file = io.BytesIO()
    torch.save({**state, f"{VAE_PREFIX}w": torch.zeros(4, dtype=torch.float16)}, file)
    return file.getvalue()

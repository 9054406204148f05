"""Turns the conditioning of a UNet, its timestep and its prompt, into constants.

Both are fixed once a bundle is loaded. The time embedding becomes part of the bias of a
convolution, and what attention makes of the prompt becomes constants of its layer. Where
several tasks share a UNet, every constant has one row per task, and `TaskRows` selects the rows of
the current batch. No function here writes into a given tensor: networks may share weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from d3_ros.network.model.d3_network import DiffusersModel


@dataclass
class TaskRows:
    """The tasks of the current batch: `rows` of the constants; images are in task-major order."""

    rows: slice = field(default_factory=lambda: slice(0, 1))

    def per_image(self, constants: torch.Tensor, batch: int) -> torch.Tensor:
        """(T, ...) constants -> (B, ...) for a batch of B images."""
        chosen = constants[self.rows]
        # Not repeat_interleave: an exported graph must work for other batch sizes too.
        each = chosen[:, None].expand(-1, batch // len(chosen), *(-1,) * (chosen.ndim - 1))
        return each.flatten(0, 1)


class ConditionedConv2d(nn.Module):
    """A convolution whose bias includes the time embedding, one bias per task.

    Args:
        convolution: gives weight, bias and geometry.
        shifts: (T, C) added to the output channels for each task's timestep.
        tasks: the tasks of the current batch.
    """

    def __init__(self, convolution: nn.Conv2d, shifts: torch.Tensor, tasks: TaskRows) -> None:
        super().__init__()
        self.weight = convolution.weight
        bias = shifts if convolution.bias is None else convolution.bias + shifts
        self.register_buffer("bias", bias.detach().to(convolution.weight.dtype))
        self._geometry: Any = (convolution.stride, convolution.padding, convolution.dilation)
        self._tasks = tasks

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> (B, C, h, w)."""
        bias = self.get_buffer("bias")[self._tasks.rows]
        if len(bias) == 1:
            return F.conv2d(image, self.weight, bias[0], *self._geometry)
        bias = self._tasks.per_image(self.get_buffer("bias"), image.shape[0])
        return F.conv2d(image, self.weight, None, *self._geometry) + bias[:, :, None, None]


class FixedPromptAttention(nn.Module):
    """Cross-attention to constant prompts, whose keys and values are computed once.

    Args:
        attention: the layer it replaces.
        prompts: (T, L, C) float32 prompt embedding per task.
        tasks: the tasks of the current batch.
    """

    def __init__(self, attention: Attention, prompts: torch.Tensor, tasks: TaskRows) -> None:
        super().__init__()
        self.to_q, self.to_out, self.heads = attention.to_q, attention.to_out[0], attention.heads
        for name, layer in (("key", attention.to_k), ("value", attention.to_v)):
            projected = _of_prompts(prompts, layer).to(layer.weight.dtype)
            self.register_buffer(name, projected)  # (T, L, C)
        self._tasks = tasks

    def forward(self, hidden_states: torch.Tensor, **_: object) -> torch.Tensor:
        """(B, N, C) -> (B, N, C); ignores diffusers' other arguments."""
        batch = hidden_states.shape[0]
        key, value = (
            _to_heads(self._tasks.per_image(self.get_buffer(name), batch), self.heads)
            for name in ("key", "value")
        )
        query = _to_heads(self.to_q(hidden_states), self.heads)
        return self.to_out(_from_heads(F.scaled_dot_product_attention(query, key, value)))


class ShortPromptAttention(nn.Module):
    """`FixedPromptAttention` to a prompt of few tokens: two products with constant matrices.

    A head's weights on the L tokens are linear in the hidden state before the softmax, and its
    answer is linear in them. So queries, keys and values are never computed. It takes less than
    `FixedPromptAttention` where heads * L is below the layer's width.

    Args:
        attention: the layer it replaces.
        prompts: (T, L, C) float32 prompt embedding per task.
        tasks: the tasks of the current batch.
    """

    def __init__(self, attention: Attention, prompts: torch.Tensor, tasks: TaskRows) -> None:
        super().__init__()
        self._tokens, self._tasks = prompts.shape[1], tasks
        to_q, to_out = attention.to_q, attention.to_out[0]
        assert isinstance(to_out, nn.Linear)  # as _is_plain has checked

        def heads(rows: torch.Tensor) -> torch.Tensor:
            """(..., heads * d) -> (..., heads, d)"""
            return rows.float().unflatten(-1, (attention.heads, -1))

        keys, values = (
            heads(_of_prompts(prompts, layer)) for layer in (attention.to_k, attention.to_v)
        )
        keys = keys / keys.shape[-1] ** 0.5
        query = heads(to_q.weight.mT)  # (C, heads, d)
        answer = heads(to_out.weight)
        constants = {
            # (T, heads * L, C) and (T, C, heads * L)
            "score": torch.einsum("chd,tlhd->thlc", query, keys).flatten(1, 2),
            "answer": torch.einsum("chd,tlhd->tchl", answer, values).flatten(2),
        }
        if to_q.bias is not None:  # (T, heads * L)
            bias = torch.einsum("hd,tlhd->thl", heads(to_q.bias), keys)
            constants["score_bias"] = bias.flatten(1)
        if to_out.bias is not None:  # (T, C)
            constants["answer_bias"] = to_out.bias.expand(len(prompts), -1)
        for name, constant in constants.items():
            self.register_buffer(name, constant.detach().to(to_q.weight.dtype))

    def forward(self, hidden_states: torch.Tensor, **_: object) -> torch.Tensor:
        """(B, N, C) -> (B, N, C); ignores diffusers' other arguments."""
        scores = self._product(hidden_states, "score")
        weights = scores.unflatten(-1, (-1, self._tokens)).softmax(dim=-1).flatten(-2)
        return self._product(weights, "answer")

    def _product(self, states: torch.Tensor, name: str) -> torch.Tensor:
        """(B, N, c) times the constant matrix of each image's task, plus its bias if there is one.

        The answer is (B, N, c').
        """
        matrix, bias = self.get_buffer(name), self._buffers.get(f"{name}_bias")
        rows = self._tasks.rows
        if len(matrix[rows]) == 1:
            return F.linear(states, matrix[rows][0], None if bias is None else bias[rows][0])
        answer = states @ self._tasks.per_image(matrix, len(states)).transpose(
            1, 2
        )  # not .mT: exported
        if bias is None:
            return answer
        return answer + self._tasks.per_image(bias, len(states))[:, None]


class FusedSelfAttention(nn.Module):
    """Self-attention that computes queries, keys and values in one matrix product."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        parts = (attention.to_q, attention.to_k, attention.to_v)
        width = sum(layer.out_features for layer in parts)
        has_bias = parts[0].bias is not None
        with torch.device("meta"):
            self.to_qkv = nn.Linear(parts[0].in_features, width, bias=has_bias)
        self.to_qkv.weight = _frozen(torch.cat([layer.weight for layer in parts]))
        if has_bias:
            self.to_qkv.bias = _frozen(torch.cat([layer.bias for layer in parts]))
        self.to_out, self.heads = attention.to_out[0], attention.heads

    def forward(self, hidden_states: torch.Tensor, **_: object) -> torch.Tensor:
        """(B, N, C) -> (B, N, C)."""
        query, key, value = (
            _to_heads(part, self.heads) for part in self.to_qkv(hidden_states).chunk(3, dim=-1)
        )
        return self.to_out(_from_heads(F.scaled_dot_product_attention(query, key, value)))


class _NoEmbedding(nn.Module):
    """Takes the place of the time embedding; the blocks then add nothing."""

    def forward(self, *_: object) -> None:
        return None


def fold_time(unet: DiffusersModel, timesteps: torch.Tensor, tasks: TaskRows) -> str:
    """Turn the time embedding of (T,) float32 `timesteps` into biases; drop what computed it.

    Returns:
        The reason why this UNet cannot be changed; empty if it was.
    """
    blocks: list[Any] = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    if any(block.time_embedding_norm != "default" for block in blocks):
        return "its time embedding is not a plain addition"
    if unet.class_embedding is not None or unet.config.addition_embed_type is not None:
        return "its time embedding is mixed with another one"
    embedding = _in_float(unet.time_embedding)(unet.time_proj(timesteps))
    if unet.time_embed_act is not None:
        embedding = unet.time_embed_act(embedding)
    for block in blocks:
        activated = embedding if block.skip_time_act else block.nonlinearity(embedding)
        shifts = _in_float(block.time_emb_proj)(activated)
        block.conv1 = ConditionedConv2d(block.conv1, shifts, tasks)
        block.time_emb_proj = None
    unet.time_embedding, unet.time_proj = _NoEmbedding(), nn.Identity()
    return ""


def fix_prompts(unet: DiffusersModel, prompts: torch.Tensor, tasks: TaskRows) -> str:
    """Make (T, L, C) float32 `prompts` constants of every cross-attention.

    Returns:
        The reason why this UNet cannot be changed; empty if it was.
    """
    if unet.encoder_hid_proj is not None:
        return "it projects its prompt in a way of its own"
    blocks = _transformer_blocks(unet)
    if not all(_is_plain(block.attn2) for block in blocks):
        return "its cross-attention is not the plain one"
    for block in blocks:
        attention = block.attn2
        short = attention.heads * prompts.shape[1] < attention.inner_dim
        kind = ShortPromptAttention if short else FixedPromptAttention
        block.attn2 = kind(attention, prompts, tasks)
    return ""


def fuse_self_attention(unet: DiffusersModel) -> str:
    """Replace every self-attention by a `FusedSelfAttention`.

    Returns:
        The reason why this UNet cannot be changed; empty if it was.
    """
    blocks = _transformer_blocks(unet)
    if not all(_is_plain(block.attn1) and not block.only_cross_attention for block in blocks):
        return "its self-attention is not the plain one"
    for block in blocks:
        block.attn1 = FusedSelfAttention(block.attn1)
    return ""


def _transformer_blocks(unet: DiffusersModel) -> list[DiffusersModel]:
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    return [block for block in blocks if block.attn2 is not None]


def _is_plain(attention: object) -> bool:
    """Whether an attention has only linear projections and heads, as the modules above compute."""
    if not isinstance(attention, Attention):
        return False
    projections = (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
    # Nothing that stands in the place of one: an adapter has weights beside it.
    return all(type(layer) is nn.Linear for layer in projections) and not (
        attention.group_norm is not None
        or attention.spatial_norm is not None
        or attention.norm_cross is not None
        or attention.norm_q is not None
        or attention.norm_k is not None
        or attention.added_kv_proj_dim is not None
        or attention.residual_connection
        or attention.rescale_output_factor != 1
        or not attention.scale_qk
        or attention.inner_kv_dim != attention.inner_dim
    )


def _in_float(module: nn.Module) -> nn.Module:
    """A float32 copy, for constants that are computed once."""
    return copy.deepcopy(module).float()


def _of_prompts(prompts: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    """(T, L, C) float32: what a projection of any precision makes of (T, L, c) prompts."""
    bias = None if layer.bias is None else layer.bias.float()
    return F.linear(prompts, layer.weight.float(), bias)


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _to_heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _from_heads(attended: torch.Tensor) -> torch.Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return attended.transpose(1, 2).flatten(2)

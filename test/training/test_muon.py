"""Muon: orthogonal updates, which weights get them, and the state it goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.training_configs import small_config
from torch import nn

from d3_ros.training.loop.muon import Muon, new_optimizer, orthogonal, orthogonal_by_shape
from d3_ros.training.loop.small_network import build_network


@pytest.mark.parametrize("shape", [(16, 16), (24, 200), (200, 24), (48, 432)])
def test_updates_are_about_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    # Singular values over two decades: the gradients that plain momentum leaves to one direction.
    rank = min(shape)
    spread = torch.logspace(0, -2, rank)
    left, right = (torch.linalg.qr(torch.randn(n, rank)).Q for n in shape)
    update = orthogonal(left @ torch.diag(spread) @ right.T).float()
    assert update.shape == shape
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.5
    assert values.max() < 1.3
    # The directions are the gradient's own: left' update right is about diagonal and positive.
    assert (left.T @ update @ right).diagonal().min() > 0.4


@pytest.mark.parametrize("shape", [(24, 200), (200, 24)])
def test_several_at_once_are_each_as_alone(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    several = torch.randn(3, *shape) * torch.tensor([1e-3, 1.0, 30.0])[:, None, None]
    for one, alone in zip(orthogonal(several), several, strict=True):
        # bfloat16 has 8 bits, and fifteen products add up their rounding.
        torch.testing.assert_close(one.float(), orthogonal(alone).float(), rtol=0, atol=0.02)


def test_matrices_taken_by_shape_come_back_in_their_places() -> None:
    torch.manual_seed(0)
    shapes = [(16, 40), (24, 16), (16, 40), (8, 8), (24, 16), (16, 40)]
    matrices = [torch.randn(shape) for shape in shapes]
    for answer, matrix in zip(orthogonal_by_shape(matrices), matrices, strict=True):
        torch.testing.assert_close(answer.float(), orthogonal(matrix).float(), rtol=0, atol=0.02)


def test_a_scaled_gradient_gives_the_same_step() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(8, 4, 3, 3)
    moved = []
    for scale in (1.0, 2.0**-10):
        weight = nn.Parameter(torch.zeros(8, 4, 3, 3))
        weight.grad = gradient * scale
        Muon([{"params": [weight], "matrices": True}], lr=1e-2, weight_decay=0.0).step()
        moved.append(weight.detach())
    torch.testing.assert_close(moved[0], moved[1])
    # The size of AdamW's steps: 0.2 of the learning rate, root mean square.
    assert moved[0].square().mean().sqrt().item() == pytest.approx(2e-3, rel=0.3)


def test_memory_layout_does_not_matter() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(start.clone().contiguous(memory_format=layout))
        weight.grad = gradient.clone()
        Muon([{"params": [weight], "matrices": True}], lr=0.1).step()
        assert weight.is_contiguous(memory_format=layout)
        results.append(weight.detach().contiguous())
    torch.testing.assert_close(results[0], results[1])


def test_a_fit_is_found() -> None:
    """Least squares whose inputs differ in scale by a decade and are mixed."""
    torch.manual_seed(0)
    mix = torch.linalg.qr(torch.randn(32, 32)).Q * torch.logspace(0, -1, 32)
    inputs, wanted = torch.randn(256, 32) @ mix.T, torch.randn(16, 32)
    weight = nn.Parameter(torch.zeros(16, 32))
    optimizer = Muon([{"params": [weight], "matrices": True}], lr=0.3, weight_decay=0.0)
    losses = []
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * (1 - step / 200)
        loss = (inputs @ (weight - wanted).T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_unets_inner_weights_are_muons_and_the_rest_adamws(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert config.model.new is not None
    model = nn.ModuleDict({"network": build_network(config.model.new, (16, 16))})
    named = dict(model.named_parameters())
    optimizer = new_optimizer(replace(config.optimizer, kind="muon"), model)
    matrices, rest = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert len(matrices) + len(rest) == len(named) and not matrices & rest
    by_name = {name: id(weight) in matrices for name, weight in named.items()}
    assert by_name["network.unets.unet.mid_block.resnets.0.conv1.weight"]
    assert by_name["network.unets.unet.mid_block.attentions.0.proj_in.weight"]
    assert not by_name["network.unets.unet.conv_in.weight"]
    assert not by_name["network.unets.unet.conv_out.weight"]
    assert not by_name["network.unets.unet.time_embedding.linear_1.weight"]
    assert not by_name["network.unets.unet.mid_block.resnets.0.time_emb_proj.weight"]
    assert not any(by_name[name] for name in named if "attn2.to_k" in name)
    assert not any(by_name[name] for name in named if name.startswith("network.vae."))
    assert not any(by_name[name] for name, weight in named.items() if weight.ndim < 2)


def test_a_loaded_state_goes_on_bit_for_bit() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(4, 8, 8)

    def fresh(weight: torch.Tensor, bias: torch.Tensor) -> tuple[Muon, list[nn.Parameter]]:
        weights = [nn.Parameter(weight.clone()), nn.Parameter(bias.clone())]
        groups = [
            {"params": weights[:1], "matrices": True},
            {"params": weights[1:], "matrices": False},
        ]
        return Muon(groups, lr=0.1, fused=True), weights

    def go(optimizer: Muon, weights: list[nn.Parameter], steps: range) -> None:
        for i in steps:
            weights[0].grad, weights[1].grad = gradients[i].clone(), gradients[i, 0].clone()
            optimizer.step()

    whole, of_whole = fresh(torch.ones(8, 8), torch.ones(8))
    go(whole, of_whole, range(4))
    first, of_first = fresh(torch.ones(8, 8), torch.ones(8))
    go(first, of_first, range(2))
    second, of_second = fresh(of_first[0].detach(), of_first[1].detach())
    second.load_state_dict(first.state_dict())
    go(second, of_second, range(2, 4))
    for one, other in zip(of_whole, of_second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_vae_has_a_learning_rate_of_its_own(tmp_path: Path, kind: str) -> None:
    config = small_config(tmp_path)
    assert config.model.new is not None
    model = nn.ModuleDict({"network": build_network(config.model.new, (16, 16))})
    options = replace(config.optimizer, kind=kind, vae_rate=4.0)
    factors = {
        id(weight): group["factor"]
        for group in new_optimizer(options, model).param_groups
        for weight in group["params"]
    }
    for name, weight in model.named_parameters():
        assert factors[id(weight)] == (4.0 if name.startswith("network.vae.") else 1.0)


def test_a_step_whose_gradient_overflowed_in_fp16_changes_nothing() -> None:
    """The loss scaler of fp16 sets `found_inf` and leaves the step to the optimiser."""
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([{"params": [weight], "matrices": True}], lr=0.1)
    weight.grad = torch.full((4, 4), torch.inf)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(weight, torch.ones(4, 4))
    weight.grad = torch.eye(4)
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert not torch.equal(weight, torch.ones(4, 4))
    assert weight.isfinite().all()

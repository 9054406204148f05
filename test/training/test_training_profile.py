"""The cost of a step: operations counted by hand, bytes by hand, and a real step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.official_files import write_base
from helpers.tiny_network import CROSS_ATTENTION_DIM, tiny_unet, tiny_vae
from helpers.training_configs import NANO, small_config
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from d3_ros.__main__ import main
from d3_ros.training.loop import profile as profiling
from d3_ros.training.loop.profile import STAGES, profile


def test_alive_bytes_by_hand() -> None:
    alive = profiling._AliveBytes()
    with FakeTensorMode(), alive:
        first = torch.empty(1000, dtype=torch.float32)
        view = first.view(10, 100)
        assert alive.now == 4000  # a view has no bytes of its own
        second = first + 1
        assert alive.now == 8000
        del first, view
        assert alive.now == 4000
        del second
    assert (alive.now, alive.peak) == (0, 8000)


@pytest.mark.parametrize("device", ["meta", "fake"])
def test_attention_is_counted_wherever_it_runs(device: str) -> None:
    """softmax(q k) v of 2 heads, 64 tokens, 8 channels: two products of 2 * 2 * 64 * 64 * 8."""
    counter = FlopCounterMode(display=False, custom_mapping=profiling._CPU_ATTENTION)
    with FakeTensorMode(), counter:
        q = torch.empty(1, 2, 64, 8, device="cpu" if device == "fake" else "meta")
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * 2 * 2 * 64 * 64 * 8


def test_a_small_step_is_counted_and_timed(tmp_path: Path) -> None:
    config = small_config(tmp_path, "tasks={depth: 1.0, normals: 1.0}")
    costs = profile(config)
    assert [cost.name for cost in costs] == list(STAGES)
    by_name = {cost.name: cost for cost in costs}
    assert by_name["encode"].flop == 0  # the VAE learns: it is part of the forward pass
    assert by_name["teacher"].flop == 0
    # A product of the forward pass has two in the backward pass; the image's own slope is not
    # needed, and fused attention computes its scores again.
    ratio = by_name["backward"].flop / by_name["forward"].flop
    assert 1.8 < ratio < 2.1
    assert all(cost.milliseconds is not None for cost in costs)
    half = profiling._count(small_config(tmp_path))[STAGES.index("forward")]
    assert half.flop < by_name["forward"].flop  # normals on half of the images


def test_the_teacher_costs_three_passes_and_checkpointing_one_more(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_base(base, tiny_unet(), tiny_vae(), CROSS_ATTENTION_DIM)  # no weights in it
    settings = (
        "model.new=null",
        f"model.start={base}",
        f"model.teacher={base}",
        "model.train_vae=false",
        "tasks={depth: 1.0, normals: 0.0}",
        "stages=[{size: [64, 64], batch: 2, steps: 1}]",
    )
    kept, recomputed = (
        {
            c.name: c
            for c in profiling._count(
                small_config(tmp_path, *settings, f"gradient_checkpointing={on}")
            )
        }
        for on in ("false", "true")
    )
    assert kept["teacher"].flop == recomputed["teacher"].flop > 0
    assert kept["encode"].flop > 0
    assert recomputed["backward"].flop > kept["backward"].flop
    assert recomputed["forward"].peak_bytes < kept["forward"].peak_bytes
    with (
        FakeTensorMode(),
        FlopCounterMode(display=False, custom_mapping=profiling._CPU_ATTENTION) as counter,
    ):
        # One pass of two latents; the vectors of the prompt are 77 long.
        tiny_unet()(torch.empty(2, 4, 8, 8), 7, torch.empty(2, 77, CROSS_ATTENTION_DIM))
    assert kept["teacher"].flop == 3 * counter.get_total_flops()


def test_the_command_prints_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "REPEATS", 1)
    small = (
        "objective=d3",
        "micro_batch=4",
        "stages=[{size: [32, 64], batch: 4, steps: 1}]",
        "model.new={vae_channels: 8, unet_channels: [16, 16, 16, 16], norm_groups: 4, "
        "head_width: 8}",
    )
    assert main(["train", "--config", str(NANO), "--profile", *small]) == 0
    told = capsys.readouterr().out
    assert "a step of 4 images" in told
    assert "steps/s" in told

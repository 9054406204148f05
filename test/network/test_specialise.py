"""Specialised networks: the plain one's numbers, fewer operations, less memory.

On the architecture of full size, at a small image size; weights are random, so nothing beside the
repository is needed. That the plain network is the official one is test_network_conformance's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from helpers.full_size_network import Weights, full_size_network
from helpers.tiny_network import CROSS_ATTENTION_DIM, SIZE, tiny_network, tiny_unet
from torch import nn

from d3_ros.bench.network.flops import Work, counted, work_by_stage
from d3_ros.network import D3Network, D3Predictor, TaskSpec
from d3_ros.network.inference.conditioning import (
    FixedPromptAttention,
    ShortPromptAttention,
    TaskRows,
    fix_prompts,
)
from d3_ros.network.inference.decoding import folded
from d3_ros.network.inference.specialise import EXACT, OPTIMISATIONS, specialise
from d3_ros.network.inference.torch_runtime import TorchRuntime
from d3_ros.types import Task

TOLERANCE = 1e-4
ALL = tuple(OPTIMISATIONS)
IMAGE_SIZE = (64, 64)
Outputs = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.rand(1, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def plain(sd21_weights: Weights, picture: torch.Tensor) -> Outputs:
    """What the plain network of full size says about the picture."""
    with torch.inference_mode():
        outputs = full_size_network(sd21_weights, shared_unet=True)(picture)
    assert all(
        0.1 < image.std() < 10 for image in outputs.values()
    )  # the tolerance means something
    return outputs


def assert_same(actual: Outputs, plain: Outputs) -> None:
    """Within the tolerance; a depth image of one channel is the plain one's mean."""
    assert actual.keys() == plain.keys()
    for task, expected in plain.items():
        if actual[task].shape[1] == 1:
            assert task == "depth"
            expected = expected.mean(dim=1, keepdim=True)
        torch.testing.assert_close(actual[task], expected, rtol=0, atol=TOLERANCE)


# --- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMISATIONS)
def test_every_optimisation_alone_is_exact(
    sd21_weights: Weights, picture: torch.Tensor, plain: Outputs, name: str
) -> None:
    """Tasks that share a UNet: constants with a row per task."""
    network = specialise(full_size_network(sd21_weights, shared_unet=True), [name])
    assert network.applied == (name,)
    with torch.inference_mode():
        assert_same(network(picture), plain)


def test_all_optimisations_together_are_exact(
    sd21_weights: Weights, picture: torch.Tensor, plain: Outputs
) -> None:
    tensors = [*sd21_weights["vae"].values(), *sd21_weights["unet"].values()]
    versions = [tensor._version for tensor in tensors]
    network = specialise(full_size_network(sd21_weights, shared_unet=True), ALL)
    assert versions == [tensor._version for tensor in tensors]  # nothing was written to
    assert network.applied == ALL
    assert not network.skipped
    with torch.inference_mode():
        together = network(picture)
        assert together["depth"].shape == (1, 1, *IMAGE_SIZE)
        assert together["normals"].shape == (1, 3, *IMAGE_SIZE)
        assert_same(together, plain)
        for task in ("depth", "normals"):  # the constants of the other task must not be taken
            assert_same(network(picture, [task]), {task: plain[task]})


@pytest.mark.parametrize("shared_unet", [False, True])
def test_batches_of_images_are_exact(shared_unet: bool) -> None:
    """Images and tasks in one batch: nobody gets another's constants."""
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.inference_mode():
        expected = tiny_network(shared_unet=shared_unet)(images)
        special = specialise(tiny_network(shared_unet=shared_unet), ALL)
        assert_same(special(images), expected)


@pytest.mark.parametrize("out_bias", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_prompt_of_few_tokens_is_exact_and_takes_fewer_operations(
    bias: bool, out_bias: bool
) -> None:
    """One layer, two tasks and three images: the way for short prompts beside diffusers' own."""
    torch.manual_seed(4)
    layer = Attention(24, cross_attention_dim=10, heads=3, dim_head=8, bias=bias, out_bias=out_bias)
    prompts, hidden = torch.randn(2, 5, 10), torch.randn(6, 7, 24)
    rows = TaskRows(slice(0, 2))
    short, long = (
        kind(layer, prompts, rows) for kind in (ShortPromptAttention, FixedPromptAttention)
    )
    with torch.inference_mode():
        expected = layer(hidden, prompts.repeat_interleave(3, dim=0))
        for ours in (short, long):
            torch.testing.assert_close(ours(hidden), expected, rtol=0, atol=1e-5)
        rows.rows = slice(1, 2)
        expected = layer(hidden, prompts[1:].expand(6, -1, -1))
        torch.testing.assert_close(short(hidden), expected, rtol=0, atol=1e-5)
    multiplications = [
        sum(c.numel() for name, c in module.named_buffers() if "bias" not in name)
        + sum(p.numel() for name, p in module.named_parameters() if "weight" in name)
        for module in (short, long)
    ]
    assert multiplications[0] < multiplications[1]


def test_attention_with_an_adapter_beside_a_projection_is_left_alone() -> None:
    class Adapted(nn.Linear):
        """As peft's: weights of its own beside the layer's."""

    unet = tiny_unet()
    attention = next(m for name, m in unet.named_modules() if name.endswith("attn2"))
    attention.to_q = Adapted(attention.to_q.in_features, attention.to_q.out_features, bias=False)
    prompts = torch.randn(1, 2, CROSS_ATTENTION_DIM)
    assert fix_prompts(unet, prompts, TaskRows()) == "its cross-attention is not the plain one"


@pytest.mark.parametrize(
    ("tokens", "kind"), [(1, ShortPromptAttention), (77, FixedPromptAttention)]
)
def test_the_length_of_the_prompt_decides_how_it_is_attended_to(
    tokens: int, kind: type[nn.Module]
) -> None:
    unet = tiny_unet()
    prompts = torch.randn(1, tokens, CROSS_ATTENTION_DIM)
    assert fix_prompts(unet, prompts, TaskRows()) == ""
    attended = {type(m) for name, m in unet.named_modules() if name.endswith("attn2")}
    assert attended == {kind}


@pytest.mark.parametrize(
    ("limit", "decodes"), [(6 * 64 * 96, [6]), (6 * 64 * 96 - 1, [3, 3]), (2 * 64 * 96, [2, 1] * 2)]
)
def test_only_so_much_is_decoded_at_once(
    monkeypatch: pytest.MonkeyPatch, limit: int, decodes: list[int]
) -> None:
    """Three images and two tasks; memory is what counts, the answer stays."""
    monkeypatch.setattr("d3_ros.network.inference.specialise.DECODED_PIXELS", limit)
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    network = specialise(tiny_network(), ALL)
    calls = []
    network.vae.decoder.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    with torch.inference_mode():
        assert_same(network(images), tiny_network()(images))
    assert calls == decodes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_close_to_float32_as_the_plain_way(dtype: torch.dtype) -> None:
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.inference_mode():
        exact = tiny_network()(images)["normals"]
        plain = tiny_network().to(dtype)(images.to(dtype))["normals"].float() - exact
        special = specialise(tiny_network().to(dtype))(images.to(dtype))["normals"].float() - exact
    # Which way is closer depends on the half-precision kernels of the processor.
    assert 0 < special.square().mean().sqrt() < 2 * plain.square().mean().sqrt()


def test_prediction_of_the_predictor_is_the_same() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    plain, fast = (
        D3Predictor(TorchRuntime(tiny_network(), optimisations=names))(rgb) for names in ((), EXACT)
    )
    assert plain.depth is not None
    assert plain.normals is not None
    np.testing.assert_allclose(fast.depth, plain.depth, rtol=0, atol=TOLERANCE)
    # Made unit vectors of, short ones are less certain: some are a hundredth long here.
    np.testing.assert_allclose(fast.normals, plain.normals, rtol=0, atol=100 * TOLERANCE)
    assert np.abs(fast.normals - plain.normals).mean() < TOLERANCE


def test_depth_channel_differs_only_where_some_channels_saturate() -> None:
    """The one place where the mean is taken before clipping instead of after it."""
    wide, narrow = (tiny_network() for _ in "ab")
    for network in (wide, narrow):
        with torch.no_grad():
            network.vae.decoder.conv_out.weight.mul_(4)
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    with torch.inference_mode():
        image = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1
        decoded = wide(image, ["depth"])["depth"][0]
    saturated = (decoded.abs() > 1).any(dim=0).numpy()
    assert 0 < saturated.mean() < 1
    plain = D3Predictor(TorchRuntime(wide))(rgb, ["depth"]).depth
    fast = D3Predictor(TorchRuntime(narrow, optimisations=["depth_channel"]))(rgb, ["depth"]).depth
    assert plain is not None
    assert fast is not None
    difference = np.abs(fast - plain)
    assert difference[~saturated].max() < TOLERANCE
    assert difference.max() > TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (7, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_upsampling_is_the_pair(height: int, width: int, bias: bool) -> None:
    torch.manual_seed(height)
    convolution = nn.Conv2d(5, 3, 3, padding=1, bias=bias)
    image = torch.randn(2, 5, height, width)
    with torch.no_grad():
        expected = convolution(F.interpolate(image, scale_factor=2.0, mode="nearest"))
        torch.testing.assert_close(folded(convolution)(image), expected, rtol=0, atol=1e-5)


# --- what is not known stays as it is ------------------------------------------------------------


def test_a_unet_of_another_kind_is_left_alone() -> None:
    def network() -> D3Network:
        torch.manual_seed(0)
        unet = tiny_unet(resnet_time_scale_shift="scale_shift")
        spec = TaskSpec("unet", "", SIZE, timestep=99.5)
        prompt = torch.ones(4, CROSS_ATTENTION_DIM)
        return D3Network(tiny_network().vae, {"unet": unet}, {"depth": spec}, {"depth": prompt})

    special = specialise(network().eval())
    assert special.skipped == {"time": "its time embedding is not a plain addition"}
    assert "time" not in special.applied
    image = torch.rand(1, 3, *SIZE)
    with torch.inference_mode():
        assert_same(special(image), network().eval()(image))


def test_unknown_optimisations_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown optimisation warp"):
        specialise(tiny_network(), ["time", "warp"])


# --- what it saves -------------------------------------------------------------------------------


def flops_by_stage(
    network: D3Network, size: tuple[int, int], tasks: list[Task] | None = None
) -> dict[str, int]:
    return {stage: work.flops for stage, work in work_by_stage(network, size, tasks).items()}


def test_weights_that_nothing_needs_are_dropped() -> None:
    plain, special = full_size_network(), specialise(full_size_network(), ALL)
    names = special.state_dict().keys()
    assert not [n for n in names if "time_emb" in n or "attn2.to_k" in n or "attn2.to_v" in n]

    def size(network: D3Network) -> int:
        return sum(tensor.numel() for tensor in network.state_dict().values())

    # Per UNet, a row of constants takes the place of layers that computed it:
    # the time MLP and its projection to every residual block's channels,
    channels = 2 * 320 + 2 * 640 + 4 * 1280 + 2 * 1280 + 6 * 1280 + 3 * 640 + 3 * 320
    time = (320 + 1) * 1280 + (1280 + 1) * 1280 + (1280 + 1) * channels
    # keys and values of 77 tokens, which 16 layers of these widths made from 1024 channels.
    widths = 5 * (320 + 640 + 1280) + 1280
    prompt = 2 * widths * (1024 - 77)
    # Against it, in the VAE: 16 taps instead of 9 where it doubles, and a head for the mean.
    more = (16 - 9) * (512**2 + 512**2 + 256**2) + 9 * 128 + 1
    assert size(plain) - size(special) == 2 * (time + prompt) - more


def test_plain_flops_are_the_known_ones() -> None:
    at_vga = flops_by_stage(full_size_network(), (480, 640), ["depth"])
    tera = {stage: count / 1e12 for stage, count in at_vga.items()}
    assert tera == pytest.approx({"encode": 1.32, "unet": 0.97, "decode": 2.95}, abs=0.005)
    assert sum(tera.values()) == pytest.approx(5.24, abs=0.005)
    at_trained = flops_by_stage(full_size_network(), (768, 768), ["depth"])
    assert sum(at_trained.values()) / 1e12 == pytest.approx(10.5, abs=0.05)


def test_flops_saved_are_those_computed_by_hand() -> None:
    """At 480 x 640, depth; operations are twice the multiply-accumulates."""
    plain = flops_by_stage(full_size_network(), (480, 640), ["depth"])
    channels, widths = 20160, 12480  # of residual blocks and of cross-attention: see above
    # Doubled to 120 x 160, 240 x 320 and 480 x 640, with 512, 512 and 256 channels.
    doubled = 120 * 160 * 512**2 + 240 * 320 * 512**2 + 480 * 640 * 256**2
    saved = {
        "time": ("unet", 2 * (320 * 1280 + 1280 * 1280 + 1280 * channels)),
        "prompt": ("unet", 2 * 2 * 77 * 1024 * widths),
        "upsampling": ("decode", 2 * (9 - 4) * doubled),
        "depth_channel": ("decode", 2 * 9 * 128 * 2 * 480 * 640),
    }
    for name, (stage, count) in saved.items():
        special = flops_by_stage(specialise(full_size_network(), [name]), (480, 640), ["depth"])
        assert special == {**plain, stage: plain[stage] - count}, name
    together = flops_by_stage(specialise(full_size_network(), ALL), (480, 640), ["depth"])
    fewer = sum(count for _, count in saved.values())
    assert sum(together.values()) == sum(plain.values()) - fewer
    assert sum(together.values()) / 1e12 == pytest.approx(4.78, abs=0.005)


def test_two_tasks_encode_once() -> None:
    one, two = (flops_by_stage(full_size_network(), (480, 640), t) for t in (["depth"], None))
    assert two["encode"] == one["encode"]
    assert two["unet"] == 2 * one["unet"]
    assert two["decode"] == 2 * one["decode"]


def test_the_cpu_counts_what_the_meta_device_counts() -> None:
    """CPU attention has a kernel of its own, which PyTorch's counter does not know."""
    network = tiny_network().requires_grad_(False)
    on_cpu = flops_by_stage(network, SIZE)
    assert min(on_cpu.values()) > 0
    assert on_cpu == flops_by_stage(network.to("meta"), SIZE)


def test_counting_by_hand() -> None:
    a, b = torch.zeros(3, 4), torch.zeros(4, 5)
    product, work = counted(lambda: torch.relu(a @ b))
    assert product.shape == (3, 5)
    assert work == Work(flops=2 * 3 * 4 * 5, bytes=4 * (12 + 20 + 15))
    query, key = torch.zeros(1, 2, 6, 8), torch.zeros(1, 2, 7, 8)
    _, work = counted(lambda: F.scaled_dot_product_attention(query, key, key))
    assert work.flops == 2 * (2 * 2 * 6 * 7 * 8)  # two products of 6 x 7 x 8, two heads

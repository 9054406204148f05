"""Near depths have a finer scale behind the curve, and the depth that comes out stays linear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.skip_network import skip_network

from d3_ros.errors import DataError
from d3_ros.network import D3Predictor
from d3_ros.network.bundle.folder import write_bundle
from d3_ros.network.bundle.onnx_export import export_bundle
from d3_ros.network.model.depth_curve import LEAST_CURVE, MOST_CURVE, bent, unbent
from d3_ros.network.model.tiny_codec import CodecConfig, TinyCodec
from d3_ros.training.loop.bend_depth import bend_depth


@pytest.mark.parametrize("curve", [LEAST_CURVE, 0.5, 3.0, MOST_CURVE])
def test_near_depths_have_a_finer_scale(curve: float) -> None:
    answer = torch.linspace(-1, 1, 201)
    depth = bent(answer, curve)
    assert depth[[0, -1]].tolist() == pytest.approx([-1, 1], abs=1e-6)
    steps = depth.double().diff()
    assert (steps > 0).all()
    assert float(steps[-1] / steps[0]) == pytest.approx(2.718281828 ** (0.995 * curve), rel=0.01)
    for value in (-1.0, -0.3, 0.8, 1.0):
        assert float(bent(torch.tensor(unbent(value, curve)), curve)) == pytest.approx(
            value, abs=1e-5
        )


def test_far_out_the_depth_is_finite_and_no_curve_is_no_change() -> None:
    far = torch.tensor([-3e38, -1e4, -3.0, 2.5, 5.0, 1e4, 3e38], requires_grad=True)
    depth = bent(far, 6.0)
    assert torch.isfinite(depth).all()
    assert (depth.diff() >= 0).all()
    (slope,) = torch.autograd.grad(depth[:6].sum(), far)
    assert (slope[3:6] > 0).all(), "training can bring back what is far out"
    half = torch.linspace(-1, -0.9, 60).to(torch.bfloat16)
    assert bent(half, 3.0).dtype == torch.float32
    torch.testing.assert_close(bent(half, 3.0), bent(half.float(), 3.0), rtol=0, atol=0)
    assert bent(far, 0.0) is far
    assert unbent(0.3, 0.0) == 0.3


def depth_codec(curve: float) -> TinyCodec:
    codec = skip_network().vae
    assert isinstance(codec, TinyCodec)
    codec.config = replace(codec.config, depth_curve=curve)
    return codec


def test_the_codec_bends_every_depth_that_it_proposes_and_nothing_else() -> None:
    straight, curved = depth_codec(0.0), depth_codec(2.0)
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        latent = straight.encode(image)
        plain, answer = (codec.decode(latent, "depth") for codec in (straight, curved))
        torch.testing.assert_close(answer, bent(plain, 2.0))
        torch.testing.assert_close(
            curved.decode(latent, "normals"), straight.decode(latent, "normals")
        )
        count = straight.config.depth_components
        proposed, trained = (codec.depth_mixture(latent) for codec in (straight, curved))
        torch.testing.assert_close(trained[:, :count], bent(proposed[:, :count], 2.0))
        torch.testing.assert_close(trained[:, count:], proposed[:, count:])
        torch.testing.assert_close(curved.decode_with_mixture(latent, "depth")[0], answer)


def test_training_begins_with_the_answers_that_the_start_gave() -> None:
    """Two depths stay, what is between them comes out nearer, and the order stays."""
    codec = skip_network().vae
    assert isinstance(codec, TinyCodec)
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        latent = codec.encode(image)
        before = codec.decode(latent, "depth").flatten()
        weights = codec.depth_mixture(latent)[:, codec.config.depth_components :]
        bend_depth(codec, 3.0)
        after = codec.decode(latent, "depth").flatten()
        torch.testing.assert_close(
            codec.depth_mixture(latent)[:, codec.config.depth_components :], weights
        )
    assert codec.config.depth_curve == 3.0
    inside = (before > -0.8) & (before < 0.8)
    assert inside.any()
    assert (after[inside] <= before[inside] + 1e-5).all()
    order = before.argsort()
    assert (after[order].diff() > -1e-5).all()
    lower, upper = (unbent(end, 3.0) for end in (-0.8, 0.8))
    expected = bent((before + 0.8) / 1.6 * (upper - lower) + lower, 3.0)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)
    bend_depth(codec, 3.0)  # nothing is left to do
    with pytest.raises(DataError, match=r"the start has 3, which cannot become 2: leave it out"):
        bend_depth(codec, 2.0)


def test_a_curve_needs_skips_and_is_written_only_where_it_is_used() -> None:
    config = skip_network().vae.config
    assert "depth_curve" not in config.as_json()
    some = replace(config, depth_curve=3.0)
    assert some.as_json()["depth_curve"] == 3.0
    assert CodecConfig.from_json(some.as_json()) == some
    assert CodecConfig.from_json(config.as_json()) == config
    for wrong in (-1.0, 1e-3, 6.5, "3"):
        with pytest.raises(ValueError, match=r"depth_curve must be 0, or 0\.1 to 6"):
            replace(config, depth_curve=wrong)
    with pytest.raises(ValueError, match="depth_curve needs skips"):
        replace(config, skips=(), depth_components=1, backbone=None, depth_curve=2.0)


def test_onnx_bends_as_pytorch_does(tmp_path: Path) -> None:
    network = skip_network()
    network.vae.config = replace(network.vae.config, depth_curve=3.0, sharpening=2, near_margin=0.1)
    start = write_bundle(tmp_path / "b", network, name="b", license="MIT", source="test")
    folder, _ = export_bundle(start, tmp_path / "onnx")
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    by_torch, by_onnx = (
        D3Predictor.from_pretrained(folder, "cpu", "fp32", runtime=runtime)(rgb, ["depth"]).depth
        for runtime in ("torch", "onnx")
    )
    np.testing.assert_allclose(by_onnx, by_torch, rtol=0, atol=1e-4)


def test_a_margin_keeps_what_is_nearer_than_the_near_end() -> None:
    """An affine map that leaves the far end where it is; off by default, and not for normals."""
    network = skip_network()
    codec = network.vae
    assert isinstance(codec, TinyCodec)
    latent = network.encode(torch.rand(1, 3, 32, 48) * 2 - 1)
    with torch.no_grad():
        plain = {task: codec.decode(latent, task) for task in ("depth", "normals")}
        codec.config = replace(codec.config, near_margin=0.2)
        kept = {task: codec.decode(latent, task) for task in ("depth", "normals")}
    torch.testing.assert_close(kept["normals"], plain["normals"], rtol=0, atol=0)
    torch.testing.assert_close(kept["depth"], plain["depth"] * 0.8 + 0.2)
    assert codec.config.as_json()["near_margin"] == 0.2
    assert CodecConfig.from_json(codec.config.as_json()) == codec.config
    assert "near_margin" not in replace(codec.config, near_margin=0.0).as_json()
    for wrong in (-0.1, 0.6, "a"):
        with pytest.raises(ValueError, match="near_margin must be 0 to 0"):
            replace(codec.config, near_margin=wrong)

"""D3Network and D3Predictor on a tiny network: what holds whatever the weights are."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from helpers.tiny_network import CROSS_ATTENTION_DIM, SIZE, tiny_network, tiny_unet
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.errors import DataError, DeviceError, NonFiniteError
from d3_ros.network import D3Network, D3Predictor, TaskSpec
from d3_ros.network.inference import image_transform as image
from d3_ros.network.inference.processing_size import choose_size
from d3_ros.network.inference.specialise import EXACT
from d3_ros.network.inference.torch_runtime import (
    HostLink,
    TorchRuntime,
    choose_device,
    choose_dtype,
)


@pytest.fixture(scope="module")
def network() -> D3Network:
    return tiny_network()


@pytest.fixture(scope="module")
def predictor(network: D3Network) -> D3Predictor:
    return D3Predictor(TorchRuntime(copy.deepcopy(network)))


def picture(height: int = 48, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- the network ---------------------------------------------------------------------------------


def test_forward_is_the_three_steps_with_one_encode(
    network: D3Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_in = torch.rand(2, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        latent = network.encode(image_in)
        assert latent.shape == (2, 4, 8, 12)
        expected = {t: network.decode(network.predict_latent(latent, t)) for t in network.tasks}
        calls = []
        encode = network.encode
        monkeypatch.setattr(network, "encode", lambda x: calls.append(1) or encode(x))
        decoded = network(image_in)
    assert len(calls) == 1
    assert list(decoded) == ["depth", "normals"]
    for task in network.tasks:
        assert decoded[task].shape == (2, 3, 64, 96)
        torch.testing.assert_close(decoded[task], expected[task])
    assert not torch.equal(decoded["depth"], decoded["normals"])


def test_the_latent_is_the_scaled_mode(network: D3Network) -> None:
    """Twice the same answer, and 0.18215 times the first half of the moments."""
    image_in = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        moments = network.vae.quant_conv(network.vae.encoder(image_in))
        first, second = network.encode(image_in), network.encode(image_in)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, moments[:, :4] * 0.18215)


def test_everything_is_differentiable(network: D3Network) -> None:
    trained = copy.deepcopy(network)
    trained(torch.rand(1, 3, 32, 32))["depth"].square().sum().backward()
    gradient = trained.timesteps["depth"].grad
    assert gradient is not None
    assert gradient.item() != 0.0
    assert trained.timesteps["normals"].grad is None
    unet = trained.unets["unet_depth"]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in unet.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_timesteps_stay_exact_in_half_precision(dtype: torch.dtype) -> None:
    network = tiny_network().to(dtype)
    assert network.timesteps["depth"].item() == np.float32(187.3)
    assert network.prompt_embedding("depth").dtype == dtype
    assert next(network.unets["unet_depth"].parameters()).dtype == dtype
    seen = []
    unet = network.unets["unet_depth"]
    unet.time_proj.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32, dtype=dtype), ["depth"])
    assert seen[0].dtype == torch.float32
    assert seen[0].item() == np.float32(187.3)


def test_attention_is_torchs_fused_one(network: D3Network) -> None:
    processors = network.unets["unet_depth"].attn_processors.values()
    assert {type(processor).__name__ for processor in processors} == {"AttnProcessor2_0"}


def test_two_tasks_may_share_a_unet() -> None:
    network = tiny_network(shared_unet=True)
    assert list(network.unets) == ["unet"]
    with torch.no_grad():
        decoded = network(torch.rand(1, 3, 32, 32))
    assert not torch.equal(decoded["depth"], decoded["normals"])  # prompt and timestep differ


def test_a_tiny_autoencoder_does_as_well() -> None:
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8)
    )
    network = D3Network(
        vae,
        {"unet": tiny_unet()},
        {"depth": TaskSpec("unet", "", (64, 64))},
        {"depth": torch.zeros(77, CROSS_ATTENTION_DIM)},
    )
    with torch.no_grad():
        assert network.encode(torch.zeros(1, 3, 40, 64)).shape == (1, 4, 5, 8)
        assert network(torch.zeros(1, 3, 40, 64))["depth"].shape == (1, 3, 40, 64)
    assert network.size_multiple == 8


@pytest.mark.parametrize(
    ("spec", "embedding", "message"),
    [
        (TaskSpec("other", "", (64, 64)), torch.zeros(77, 8), "not those that the tasks name"),
        (TaskSpec("unet", "", (64, 64)), torch.zeros(77, 9), r"must be \(length, 8\)"),
        (TaskSpec("unet", "", (64, 60)), torch.zeros(77, 8), "multiples of 8"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    network: D3Network, spec: TaskSpec, embedding: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        D3Network(network.vae, {"unet": tiny_unet()}, {"depth": spec}, {"depth": embedding})


def test_normals_need_their_axes(network: D3Network) -> None:
    with pytest.raises(ValueError, match="axes of the normals"):
        D3Network(
            network.vae,
            {"unet": tiny_unet()},
            {"normals": TaskSpec("unet", "", (64, 64))},
            {"normals": torch.zeros(77, 8)},
        )


# --- the image transform and the post-processing -------------------------------------------------


def test_the_transform_is_bilinear_without_antialias() -> None:
    """Four pixels in a row to two: half-pixel centres, so each is the mean of its two."""
    row = np.array([0, 255, 51, 102], np.uint8)
    rgb = np.repeat(row[None, :, None], 3, axis=2)
    out = image.to_network(torch.from_numpy(rgb), (1, 2))
    assert out.shape == (1, 3, 1, 2)
    assert out.dtype == torch.float32
    expected = torch.tensor([0.5 * 255, 0.5 * (51 + 102)]) / 255 * 2 - 1
    torch.testing.assert_close(out[0, :, 0], expected.expand(3, 2))
    # Eight to two: an antialiasing filter would average four; bilinear looks at pixels 1 and 2.
    row = np.array([255, 0, 0, 255, 255, 255, 51, 255], np.uint8)
    rgb = np.repeat(row[None, :, None], 3, axis=2)
    out = image.to_network(torch.from_numpy(rgb), (1, 2))
    expected = torch.tensor([0.0, 0.5 * (255 + 51)]) / 255 * 2 - 1
    torch.testing.assert_close(out[0, :, 0], expected.expand(3, 2))


def test_channels_and_pixels_keep_their_places() -> None:
    rgb = picture(3, 5)
    out = image.to_network(torch.from_numpy(rgb), (3, 5))[0].numpy()
    np.testing.assert_allclose(out, rgb.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_read_only_and_reversed_images_are_taken() -> None:
    rgb = picture(4, 6)
    rgb.setflags(write=False)
    link = HostLink(torch.device("cpu"))
    straight = link.upload([rgb])[0].clone()
    assert torch.equal(straight.flip(2), link.upload([rgb[:, :, ::-1]])[0])


def test_depth_is_the_mean_of_the_clipped_channels() -> None:
    decoded = torch.tensor([-2.0, 0.0, 3.0]).reshape(1, 3, 1, 1)  # -> 0, 0.5, 1
    assert image.to_depth(decoded, (1, 1)).item() == pytest.approx(0.5)
    assert image.to_depth(decoded, (4, 2)).shape == (4, 2)


def test_normals_are_unit_vectors_in_the_optical_frame() -> None:
    """A wall head-on is blue (0, 0, 1) in the official convention: (0, 0, -1) to the camera."""
    wall, floor, right = [0.0, 0.0, 1.0], [0.0, 0.8, 0.0], [0.5, 0.0, 0.5]
    decoded = torch.tensor([wall, floor, right]).T.reshape(1, 3, 1, 3)
    normals = image.to_normals(decoded, (1, 3), (1, -1, -1))[0].numpy()
    half = np.sqrt(0.5)
    np.testing.assert_allclose(normals, [[0, 0, -1], [0, -1, 0], [half, 0, -half]], atol=1e-6)


def test_a_vector_without_direction_is_nan() -> None:
    normals = image.to_normals(torch.full((1, 3, 1, 1), 1e-5), (1, 1), (1, -1, -1))
    assert torch.isnan(normals).all()


# --- processing size -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "image_size", "trained", "expected"),
    [
        ("bundle", (480, 640), (768, 768), (768, 768)),
        ("480x640", (100, 100), (768, 768), (480, 640)),
        # sqrt(768² / (4/3)) = 665 -> 640; 640 · 4/3 = 853 -> 832
        ("aspect", (480, 640), (768, 768), (640, 832)),
        ("aspect", (640, 480), (768, 768), (832, 640)),
        ("aspect", (500, 500), (768, 768), (768, 768)),
        # sqrt(240 · 320 / (4/3)) = 240 -> 256; 256 · 4/3 = 341 -> 320
        ("aspect", (480, 640), (240, 320), (256, 320)),
        ("aspect:384", (720, 1280), (768, 768), (384, 704)),  # 384 · 16/9 = 683 -> 704
        ("aspect:1", (480, 640), (768, 768), (64, 64)),
    ],
)
def test_processing_sizes_by_hand(
    wanted: str, image_size: tuple[int, int], trained: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert choose_size(wanted, image_size, trained, 8) == expected


@given(st.integers(200, 2000), st.floats(1.0, 2.5), st.booleans())
def test_aspect_keeps_aspect_and_area(shorter: int, aspect: float, portrait: bool) -> None:
    size = (shorter, round(shorter * aspect))
    size = size[::-1] if portrait else size
    height, width = choose_size("aspect", size, (768, 768), 8)
    assert height % 64 == 0
    assert width % 64 == 0
    assert (height > width) <= (size[0] > size[1])
    assert abs(np.log((width / height) / (size[1] / size[0]))) < 0.08
    assert 0.8 < height * width / 768**2 < 1.25


@pytest.mark.parametrize("wanted", ["480", "480x", "0x64", "60x64", "aspect:0", "aspect:x", ""])
def test_wrong_processing_sizes_are_told(network: D3Network, wanted: str) -> None:
    with pytest.raises(DataError, match="processing size"):
        D3Predictor(TorchRuntime(copy.deepcopy(network)), processing_size=wanted)


# --- the predictor -------------------------------------------------------------------------------


def test_prediction_has_the_images_size_and_the_stated_ranges(predictor: D3Predictor) -> None:
    rgb = picture(51, 83)
    before = rgb.copy()
    prediction = predictor(rgb)
    depth, normals = prediction.depth, prediction.normals
    assert depth is not None
    assert normals is not None
    assert (depth.shape, depth.dtype) == ((51, 83), np.float32)
    assert (normals.shape, normals.dtype) == ((51, 83, 3), np.float32)
    assert depth.min() >= 0
    assert depth.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(rgb, before)
    again = predictor(rgb)
    np.testing.assert_array_equal(depth, again.depth)
    np.testing.assert_array_equal(normals, again.normals)


def test_prediction_is_what_the_network_says(predictor: D3Predictor) -> None:
    rgb = picture(*SIZE)  # at the processing size there is nothing to resize
    with torch.no_grad():
        tensor = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1
        decoded = predictor.runtime.network(tensor)
    depth = (decoded["depth"][0] / 2 + 0.5).clamp(0, 1).mean(0).numpy()
    np.testing.assert_allclose(predictor(rgb).depth, depth, atol=1e-5)
    xyz = decoded["normals"][0].clamp(-1, 1).permute(1, 2, 0).numpy() * [1, -1, -1]
    xyz /= np.linalg.norm(xyz, axis=-1, keepdims=True)
    np.testing.assert_allclose(predictor(rgb).normals, xyz, atol=1e-4)


def test_only_what_is_asked_for_is_computed(predictor: D3Predictor) -> None:
    calls = []
    handle = predictor.runtime.network.unets["unet_normals"].register_forward_hook(
        lambda module, args, output: calls.append(1)
    )
    try:
        prediction = predictor(picture(), tasks=["depth"])
    finally:
        handle.remove()
    assert prediction.normals is None
    assert prediction.depth is not None
    assert not calls


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6, 3), np.float32),
        np.zeros((0, 6, 3), np.uint8),
        [[0, 0, 0]],
    ],
)
def test_other_inputs_are_refused(predictor: D3Predictor, rgb: np.ndarray) -> None:
    with pytest.raises(ValueError, match="rgb must be"):
        predictor(rgb)


def test_unknown_tasks_are_refused(predictor: D3Predictor) -> None:
    with pytest.raises(ValueError, match="tasks must be some of depth, normals"):
        predictor(picture(), tasks=("matting",))  # type: ignore[arg-type]


def test_a_network_that_overflows_is_not_published() -> None:
    network = tiny_network()
    with torch.no_grad():
        network.vae.decoder.conv_out.bias.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match="depth is not finite in fp32"):
        D3Predictor(TorchRuntime(network)).warm_up((32, 32))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_close(tiny_bundle: Path, dtype: str) -> None:
    exact = D3Predictor.from_pretrained(tiny_bundle, "cpu", "fp32")
    half = D3Predictor.from_pretrained(tiny_bundle, "cpu", dtype)
    rgb = picture()
    exact_depth, half_depth = exact(rgb).depth, half(rgb).depth
    assert exact_depth is not None
    assert half_depth is not None
    assert half_depth.dtype == np.float32
    step = 2.0**-8 if dtype == "bf16" else 2.0**-11  # of the format, near 1
    assert 0 < np.abs(exact_depth - half_depth).max() < 32 * step


def test_cuda_that_is_not_there_is_told(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"'cuda' is not there.*use device cpu") as raised:
        D3Predictor.from_pretrained(tiny_bundle, device="cuda")
    assert "\n" not in str(raised.value)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(DeviceError, match="'cuda:1' is not there: torch sees 1"):
        choose_device("cuda:1")


def test_devices_and_dtypes_by_name() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert choose_dtype("auto", cuda) == torch.float16
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("bf16", cpu) == torch.bfloat16
    with pytest.raises(DeviceError, match="'fp8' is not one of auto, fp16, bf16, fp32"):
        choose_dtype("fp8", cpu)
    with pytest.raises(DeviceError, match="'gpu' is not one of"):
        choose_device("gpu")
    with pytest.raises(DeviceError, match="'gpu' is not one of"):
        D3Predictor.from_pretrained("d3_nano", device="gpu")  # has graphs of ONNX Runtime


def test_too_little_memory_is_told(predictor: D3Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor.runtime.network, "encode", full)
    with pytest.raises(DeviceError, match="too little free memory"):
        predictor(picture())


def test_tasks_of_different_sizes_see_the_image_at_their_own() -> None:
    network = tiny_network()
    network.specs["normals"] = TaskSpec("unet_normals", "", (32, 32), axes=(1, -1, -1))
    sizes = []
    encode = network.encode
    network.encode = lambda x: sizes.append(tuple(x.shape[-2:])) or encode(x)  # type: ignore
    prediction = D3Predictor(TorchRuntime(network))(picture())
    assert sizes == [SIZE, (32, 32)]
    assert prediction.normals is not None
    assert prediction.normals.shape == (48, 80, 3)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_any_image_size(height: int, width: int) -> None:
    prediction = SMALL(picture(height, width))
    assert prediction.depth is not None
    assert prediction.depth.shape == (height, width)


SMALL = D3Predictor(TorchRuntime(tiny_network()), processing_size=(16, 16))


@pytest.mark.parametrize("optimisations", [(), EXACT])
def test_images_go_through_together_and_each_gets_its_own_answer(
    tiny_bundle: Path, optimisations: tuple[str, ...]
) -> None:
    predictor = D3Predictor.from_pretrained(
        tiny_bundle, device="cpu", dtype="fp32", optimisations=optimisations
    )
    rng = np.random.default_rng(4)
    sizes = [(48, 64), (30, 50), (48, 64), (48, 64)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    together = predictor.predict_batch(images)
    assert len(together) == len(images)
    for rgb, answer in zip(images, together, strict=True):
        alone = predictor(rgb)
        assert answer.depth is not None and answer.normals is not None
        assert answer.depth.shape == rgb.shape[:2]
        np.testing.assert_allclose(answer.depth, alone.depth, atol=1e-5)
        # A short vector of a random network magnifies the rounding when it is normalised.
        np.testing.assert_allclose(answer.normals, alone.normals, atol=1e-3)
    assert predictor.predict_batch([]) == []
    (depth_only,) = predictor.predict_batch(images[:1], ("depth",))
    assert depth_only.normals is None

"""Bundles: what is written is what is read, and every fault is one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from helpers.paths import ROOT
from helpers.tiny_network import SIZE, tiny_network
from safetensors.torch import load_file, save_file

from d3_ros.errors import BundleError
from d3_ros.network import load_bundle, write_bundle
from d3_ros.network.bundle.files import sha256_of
from d3_ros.network.bundle.lookup import find_bundle, model_folders

UNET = "unet_depth/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def edit_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rehash(folder: Path, file: str) -> None:
    digest = sha256_of(folder / file)
    edit_manifest(folder, lambda content: content["sha256"].update({file: digest}))


def fault(path: Path | str) -> str:
    """The one line that loading gives."""
    with pytest.raises(BundleError) as raised:
        load_bundle(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("shared_unet", [False, True])
def test_round_trip_is_exact(tmp_path: Path, shared_unet: bool) -> None:
    network = tiny_network(shared_unet=shared_unet)
    with torch.no_grad():
        network.timesteps["depth"].add_(0.123)  # as training does
    folder = write_bundle(
        tmp_path / "a" / "b", network, name="b", license="MIT", source="s", dtype=torch.float32
    )
    bundle = load_bundle(folder)
    assert (bundle.name, bundle.license, bundle.source, bundle.path) == ("b", "MIT", "s", folder)
    assert not bundle.network.training
    assert bundle.network.specs["normals"].axes == (1, -1, -1)
    assert bundle.network.specs["depth"].processing_size == SIZE
    state = bundle.network.state_dict()  # timesteps and prompt embeddings among it
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor), name
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, actual = network(image), bundle.network(image)
    for task in network.tasks:
        # The weights are the same bits; sums differ in their last ones with where memory lies.
        torch.testing.assert_close(actual[task], expected[task], rtol=0, atol=1e-4)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    hashed = json.loads((folder / "bundle.json").read_text())["sha256"]
    assert files == sorted([*hashed, "bundle.json"])
    assert len([f for f in files if f.startswith("unet")]) == (2 if shared_unet else 4)
    assert list(folder.parent.iterdir()) == [folder]


def test_stored_in_half_and_loaded_as_asked(tiny_bundle: Path) -> None:
    assert load_file(tiny_bundle / UNET)["conv_in.weight"].dtype == torch.float16
    for dtype in (torch.float32, torch.bfloat16):
        network = load_bundle(tiny_bundle, dtype=dtype).network
        assert {p.dtype for p in network.unets.parameters()} == {dtype}
        assert network.prompt_embedding("depth").shape == (77, 8)
        assert network.timesteps["depth"].dtype == torch.float32


def test_a_tiny_autoencoder_is_loaded_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = tiny_network()
    network.vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8)
    )
    folder = write_bundle(tmp_path / "t", network, name="t", license="", source="")
    config = json.loads((folder / "vae" / "config.json").read_text())
    assert config["_class_name"] == "AutoencoderTiny"
    assert config["encoder_block_out_channels"] == [8, 8, 8, 8]
    assert isinstance(load_bundle(folder).network.vae, AutoencoderTiny)
    assert capfd.readouterr().err == ""


def test_files_are_readable_for_everyone(tiny_bundle: Path) -> None:
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in tiny_bundle.rglob("*"))


def test_nothing_is_overwritten_unasked(copy: Path) -> None:
    before = (copy / "bundle.json").read_text()
    with pytest.raises(BundleError, match="exists"):
        write_bundle(copy, tiny_network(1), name="x", license="", source="")
    assert (copy / "bundle.json").read_text() == before
    write_bundle(copy, tiny_network(1), name="x", license="", source="", overwrite=True)
    assert load_bundle(copy).name == "x"
    assert list(copy.parent.iterdir()) == [copy]
    other = copy.parent / "photos"
    other.mkdir()
    with pytest.raises(BundleError, match="exists"):
        write_bundle(other, tiny_network(1), name="x", license="", source="", overwrite=True)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.unets["unet_depth"].conv_in.weight.mul_(1e6)
    with pytest.raises(BundleError, match=r"conv_in\.weight is not finite as torch\.float16"):
        write_bundle(tmp_path / "x", network, name="x", license="", source="")
    assert list(tmp_path.iterdir()) == []


# --- damage --------------------------------------------------------------------------------------


def test_damaged_file(copy: Path) -> None:
    content = bytearray((copy / UNET).read_bytes())
    content[-1] ^= 1
    (copy / UNET).write_bytes(content)
    message = fault(copy)
    assert str(copy / UNET) in message
    assert "damaged" in message
    assert "get the bundle again" in message


def test_missing_file(copy: Path) -> None:
    (copy / "vae" / "config.json").unlink()
    assert fault(copy) == f"{copy}/vae/config.json is missing: get the bundle again"


def test_extra_file(copy: Path) -> None:
    (copy / "vae" / "evil.bin").write_bytes(b"")
    assert fault(copy) == f"{copy}/vae/evil.bin is not part of the bundle: remove it"


def test_file_that_is_needed_but_not_listed(copy: Path) -> None:
    (copy / UNET).unlink()
    edit_manifest(copy, lambda content: content["sha256"].pop(UNET))
    assert "has no sha256 of " + UNET in fault(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("[]", "is not a JSON object"),
        ("{}", "has format None, this d3_ros reads 1 to 3"),
    ],
)
def test_manifest_that_is_none(copy: Path, content: str, message: str) -> None:
    (copy / "bundle.json").write_text(content)
    answer = fault(copy)
    assert message in answer
    assert str(copy / "bundle.json") in answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("license"), "lacks license"),
        (lambda c: c.update(extra=1), "unknown key extra"),
        (lambda c: c.update(format=4), "has format 4"),
        (lambda c: c.update(format=2), "lacks onnx"),
        (lambda c: c.update(tasks={}), "tasks must name depth or normals"),
        (lambda c: c["tasks"].update(matting={}), "tasks must be some of depth, normals"),
        (lambda c: c["tasks"]["depth"].pop("prompt"), "tasks.depth lacks prompt"),
        (lambda c: c["tasks"]["depth"].update(unet="../unet"), "begins with 'unet'"),
        (lambda c: c["tasks"]["depth"].update(timestep=1000), r"timestep must be in [0, 1000)"),
        (lambda c: c["tasks"]["depth"].update(timestep=float("nan")), "timestep must be in"),
        (lambda c: c["tasks"]["depth"].update(processing_size=[64]), "must be 2 whole numbers"),
        (lambda c: c["tasks"]["depth"].update(processing_size=[64, 60]), "multiples of 8"),
        (lambda c: c["tasks"]["normals"].update(axes=[1, 1, 2]), "three signs"),
        (lambda c: c["tasks"]["normals"].pop("axes"), "three signs"),
        (lambda c: c["sha256"].update(x="zz"), "64 hexadecimal digits"),
        (lambda c: c.update(name=3), "name must be a text"),
    ],
)
def test_manifest_that_makes_no_sense(
    copy: Path, change: Callable[[dict], None], message: str
) -> None:
    edit_manifest(copy, change)
    answer = fault(copy)
    assert message in answer
    assert str(copy) in answer


def test_classes_outside_the_list_are_not_built(copy: Path) -> None:
    path = copy / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "_class_name": "StableDiffusionPipeline"}))
    rehash(copy, "vae/config.json")
    assert "_class_name is 'StableDiffusionPipeline', not one of AutoencoderKL" in fault(copy)


def test_config_that_describes_nothing(copy: Path) -> None:
    path = copy / "unet_depth" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "down_block_types": ["NoSuchBlock"]}))
    rehash(copy, "unet_depth/config.json")
    assert "does not describe a UNet2DConditionModel" in fault(copy)


def test_weights_must_be_exactly_the_networks(copy: Path) -> None:
    tensors = load_file(copy / UNET)
    for change, message in (
        ({"conv_in.bias": None}, "lacks 1 tensors, conv_in.bias among them"),
        ({"spare": torch.zeros(1)}, "has 1 unknown tensors, spare among them"),
        ({"conv_in.bias": torch.zeros(9)}, "conv_in.bias is (9,), the network's is (8,)"),
    ):
        changed = {k: v for k, v in {**tensors, **change}.items() if v is not None}
        save_file(changed, copy / UNET)
        rehash(copy, UNET)
        assert message in fault(copy)
    (copy / UNET).write_bytes(b"not safetensors")
    rehash(copy, UNET)
    assert f"{copy / UNET} cannot be read" in fault(copy)


def test_prompt_embeddings_must_be_those_of_the_tasks(copy: Path) -> None:
    tensors = load_file(copy / "conditioning.safetensors")
    save_file({"depth": tensors["depth"]}, copy / "conditioning.safetensors")
    rehash(copy, "conditioning.safetensors")
    assert "prompt embeddings for ['depth']" in fault(copy)


# --- by name -------------------------------------------------------------------------------------


def test_names_are_looked_up_where_bundles_are_kept(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "prefix" / "share" / "d3_ros" / "models"
    variable, cache = tmp_path / "variable", tmp_path / "cache" / "d3_ros" / "models"
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}/none:{tmp_path}/prefix")
    monkeypatch.setenv("D3_ROS_MODELS", str(variable))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    source = ROOT / "models"
    assert model_folders()[1:] == [installed, source, variable, cache]
    for folder in (cache, variable, installed):  # each is found before the one made earlier
        shutil.copytree(tiny_bundle, folder / "some_model")
        assert find_bundle("some_model") == folder / "some_model"
    assert load_bundle("some_model").path == installed / "some_model"
    (tmp_path / "some_model").mkdir()  # a folder that is no bundle hides nothing
    assert find_bundle("some_model") == installed / "some_model"

    message = fault("no_model")
    assert "unknown model 'no_model'" in message
    assert "some_model" in message
    assert str(variable) in message


def test_paths(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_bundle.parent)
    assert find_bundle(tiny_bundle) == tiny_bundle
    assert find_bundle("./tiny") == Path("tiny")
    assert f"{tmp_path} has no bundle.json" in fault(tmp_path)
    assert f"{tmp_path}/x is not a folder" in fault(tmp_path / "x")

"""Bundles and checkpoints that somebody broke or made up: always one line, never a hang."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.official_files import small_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3_ros.errors import BundleError
from d3_ros.network import load_bundle
from d3_ros.network.bundle.files import appearing_folder, sha256_of
from d3_ros.network.bundle.lookup import find_bundle
from d3_ros.network.bundle.manifest import parse_manifest
from d3_ros.network.bundle.official_checkpoint import read_checkpoint
from d3_ros.network.inference.processing_size import LARGEST_SIDE, choose_size

UNET = "unet_depth/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def rehash(folder: Path, file: str) -> None:
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    content["sha256"][file] = sha256_of(folder / file)
    path.write_text(json.dumps(content))


def fault(path: Path | str) -> str:
    with pytest.raises(BundleError) as raised:
        load_bundle(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [UNET, "vae/config.json", "conditioning.safetensors"])
@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), "cannot be read"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: path.symlink_to("/dev/full"), "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    ],
    ids=["dangling", "loop", "fifo", "full", "endless"],
)
def test_what_is_no_file(
    copy: Path, file: str, replace: Callable[[Path], object], message: str
) -> None:
    (copy / file).unlink()
    replace(copy / file)
    answer = fault(copy)
    assert message in answer
    assert str(copy / file) in answer


@pytest.mark.parametrize("replace", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_manifest_that_is_no_file(copy: Path, replace: Callable[[Path], object]) -> None:
    (copy / "bundle.json").unlink()
    replace(copy / "bundle.json")
    assert "has no bundle.json" in fault(copy)


def test_a_link_to_a_file_is_a_file(copy: Path) -> None:
    """`colcon build --symlink-install` makes such bundles."""
    (copy / UNET).rename(copy.parent / "elsewhere")
    (copy / UNET).symlink_to(copy.parent / "elsewhere")
    assert load_bundle(copy).name == "tiny"


def test_files_that_are_too_large(copy: Path) -> None:
    with (copy / "bundle.json").open("r+b") as file:
        file.truncate(1 << 40)  # takes no disk
    assert "bundle.json has 1099511627776 bytes" in fault(copy)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody_at_all/x", "a\0b", ""])
def test_names_that_no_file_system_has(name: str) -> None:
    with pytest.raises(BundleError):
        find_bundle(name)


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "old").touch()
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if ".unfinished-" in path.name:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with (
        pytest.raises(BundleError, match=r"b cannot be written: .*No space left"),
        appearing_folder(folder, replace=True) as unfinished,
    ):
        (unfinished / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "old"]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path) -> None:
    """In a container, every run may have the number 1."""
    for kind in ("unfinished", "replaced"):
        left = tmp_path / f".b.{kind}-{os.getpid()}"
        left.mkdir()
        (left / "half").touch()
    for name in ("first", "second"):
        with appearing_folder(tmp_path / "b", replace=True) as folder:
            (folder / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "second"]


# --- manifests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "cannot be read"),
        ('{"a":' * 100_000, "cannot be read"),
        ("9" * 5000, "cannot be read"),
        ('{"format": 1e999}', "has format inf"),
        ("\ufeff{}", "cannot be read"),
    ],
)
def test_json_that_breaks_readers(copy: Path, text: str, message: str) -> None:
    (copy / "bundle.json").write_text(text)
    assert message in fault(copy)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e400, -8, 0, 10**9, 8.5, "8", None])
@pytest.mark.parametrize(("task", "key"), [("depth", "processing_size"), ("normals", "axes")])
def test_numbers_out_of_bounds(copy: Path, task: str, key: str, value: object) -> None:
    content = json.loads((copy / "bundle.json").read_text())
    content["tasks"][task][key][0] = value
    (copy / "bundle.json").write_text(json.dumps(content))
    assert f"tasks.{task}.{key} must be" in fault(copy)


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("unet_depth", "norm_num_groups", 0, "does not describe a UNet2DConditionModel"),
        ("unet_depth", "in_channels", 2**62, "in_channels is out of bounds"),
        ("unet_depth", "layers_per_block", 10**7, "layers_per_block is out of bounds"),
        ("unet_depth", "layers_per_block", [10**7] * 2, "layers_per_block is out of bounds"),
        ("unet_depth", "transformer_layers_per_block", 10**6, "is out of bounds"),
        ("unet_depth", "block_out_channels", [8] * 1000, "block_out_channels is out of bounds"),
        ("unet_depth", "norm_eps", float("nan"), "norm_eps is out of bounds"),
        ("unet_depth", "attention_head_dim", "x", "does not describe a UNet2DConditionModel"),
        ("vae", "scaling_factor", "x", "scaling_factor must be a finite number"),
        ("vae", "scaling_factor", float("inf"), "scaling_factor is out of bounds"),
        ("vae", "latent_channels", -1, "vae/config.json does not describe a AutoencoderKL"),
    ],
)
def test_configurations_out_of_bounds(
    copy: Path, file: str, key: str, value: object, message: str
) -> None:
    path = copy / file / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    rehash(copy, f"{file}/config.json")
    assert message in fault(copy)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["depth", "normals", "unet", 64, 1, -1, 187.3]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["unet", "prompt", "processing_size", "timestep", "axes", "depth", "codec", "tasks"]
            ),
            children,
            max_size=6,
        )
    ),
    max_leaves=12,
)
KEYS = ("format", "name", "license", "source", "tasks", "sha256", "onnx")


def fuzz_manifest(content: Any) -> None:
    """A manifest of any JSON value is read or refused, in one line."""
    try:
        parse_manifest(content, Path("bundle.json"))
    except BundleError as error:
        assert "\n" not in str(error)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, VALUES)), st.sampled_from([0, 1, 2]))
@settings(max_examples=1500, deadline=None)
def test_manifests_of_anything(content: dict[str, Any], version: int) -> None:
    fuzz_manifest(content)
    plausible = {"format": version, "name": "n", "license": "", "source": "", "sha256": {}}
    fuzz_manifest({**content, **plausible})
    fuzz_manifest({**plausible, **{k: content[k] for k in ("tasks", "onnx") if k in content}})


# --- weights -------------------------------------------------------------------------------------


def safetensors(dtype: str, shape: list[int], size: int) -> bytes:
    header = {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * size


@pytest.mark.parametrize(
    "content",
    [
        safetensors("F4", [4], 2),
        safetensors("F8_E4M3", [4], 4),
        safetensors("I64", [1], 8),
        safetensors("C64", [1], 8),
        safetensors("F32", [2**62], 4),
        struct.pack("<Q", 2**63) + b"{}",
        b"",
    ],
    ids=["F4", "F8", "I64", "C64", "shape", "header", "empty"],
)
def test_weights_of_other_kinds(copy: Path, content: bytes) -> None:
    (copy / UNET).write_bytes(content)
    rehash(copy, UNET)
    assert f"{copy / UNET} cannot be read" in fault(copy)


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def fuzz_checkpoint(data: bytes, path: Path) -> bool:
    """A checkpoint of any bytes is read or refused, in one line; whether it was read."""
    path.write_bytes(data)
    try:
        read_checkpoint(path)
    except BundleError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize(
    "timestep", [float("nan"), float("inf"), -1.0, 1000.0, 5 + 1j, True, torch.zeros(2)]
)
def test_timesteps_that_are_none(tmp_path: Path, timestep: Any) -> None:
    state = {"timestep": torch.as_tensor(timestep), "d3_predictor.w": torch.zeros(2)}
    assert not fuzz_checkpoint(saved(state), tmp_path / "c.pth")


def test_checkpoints_of_other_things(tmp_path: Path) -> None:
    assert fuzz_checkpoint(small_checkpoint(), tmp_path / "c.pth")
    good = {"timestep": torch.tensor(200.0)}
    for more in (
        {3: torch.zeros(1)},
        {"d3_predictor.w": torch.zeros(2, 2).to_sparse()},
        {"d3_predictor.w": torch.zeros(2, dtype=torch.int32)},
        {"d3_predictor.w": [1.0]},
    ):
        assert not fuzz_checkpoint(saved({**good, **more}), tmp_path / "c.pth")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes of a checkpoint's pickle, or of the archive around it, are others."""
    if rng.random() < 0.5:
        broken = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        return bytes(broken[: rng.choice([len(broken), rng.randrange(len(broken))])])
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            content = bytearray(source.read(name))
            if name.endswith("data.pkl"):
                for _ in range(rng.randint(1, 4)):
                    content[rng.randrange(len(content))] = rng.randrange(256)
            target.writestr(name, bytes(content))
    return file.getvalue()


@given(st.integers(0, 2**32))
@settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_checkpoints(tmp_path: Path, seed: int) -> None:
    fuzz_checkpoint(damaged(small_checkpoint(), random.Random(seed)), tmp_path / "c.pth")


@given(
    st.text("0123456789x:aspectbundl ", max_size=12) | st.text(max_size=8),
    st.tuples(st.integers(1, 40_000), st.integers(1, 40_000)),
)
@settings(max_examples=500, deadline=None)
def test_processing_sizes_of_anything(wanted: str, image: tuple[int, int]) -> None:
    """No image, however narrow, and no text makes a size beyond the bound."""
    from d3_ros.errors import DataError

    for text in (wanted, "aspect", "aspect:4000"):
        try:
            size = choose_size(text, image, (64, 64), 8)
        except DataError:
            continue
        assert all(0 < side <= LARGEST_SIDE for side in size)

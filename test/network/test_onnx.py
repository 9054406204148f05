"""ONNX graphs of a bundle: they answer as PyTorch does, and every fault is told in one line."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_codec import tiny_codec
from helpers.tiny_network import tiny_network

from d3_ros.errors import BundleError, D3Error, DataError, DeviceError
from d3_ros.network import D3Predictor, load_bundle, write_bundle
from d3_ros.network.bundle.files import sha256_of
from d3_ros.network.bundle.folder import add_codec
from d3_ros.network.bundle.onnx_export import export_bundle
from d3_ros.network.inference import choose_runtime, image_transform, onnx_runtime
from d3_ros.network.inference.onnx_runtime import OnnxRuntime
from d3_ros.network.inference.torch_runtime import TorchRuntime

WEIGHTS = "onnx/vae_fp32/weights.bin"


def picture(height: int = 50, width: int = 70, seed: int = 0) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(10, axis=0).repeat(10, axis=1)[:height, :width])


@pytest.fixture(scope="module")
def exported(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a tiny codec, and ONNX graphs of both codecs and of fp16."""
    folder = tmp_path_factory.mktemp("onnx") / "tiny"
    add_codec(tiny_bundle, folder, tiny_codec())
    for precision, codec in (("fp32", "vae"), ("fp32", "tiny"), ("fp16", "vae")):
        export_bundle(folder, precision=precision, codec=codec)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rehash(folder: Path, file: str) -> None:
    digest = sha256_of(folder / file)
    edit_manifest(folder, lambda content: content["sha256"].update({file: digest}))


def fault(folder: Path, kind: type[D3Error] = BundleError, **options: Any) -> str:
    with pytest.raises(kind) as raised:
        D3Predictor.from_pretrained(folder, "cpu", runtime="onnx", **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def assert_same_as_torch(folder: Path, tolerance: float, **options: Any) -> None:
    onnx, plain = (
        D3Predictor.from_pretrained(folder, "cpu", runtime=runtime, **options)
        for runtime in ("onnx", "torch")
    )
    assert isinstance(onnx.runtime, OnnxRuntime)
    assert isinstance(plain.runtime, TorchRuntime)
    assert onnx.tasks == plain.tasks
    images = [picture(seed=1), picture(61, 43, seed=2), picture(seed=3)]
    for wanted in (None, ("depth",), ("normals",)):
        pairs = zip(
            onnx.predict_batch(images, wanted), plain.predict_batch(images, wanted), strict=True
        )
        for actual, expected in pairs:
            for task in ("depth", "normals"):
                a, e = getattr(actual, task), getattr(expected, task)
                assert (a is None) == (e is None) == (wanted is not None and task not in wanted)
                if a is not None:
                    assert a.dtype == np.float32
                    # Normals are divided by their length, which may be small.
                    bound = tolerance * (20 if task == "normals" else 1)
                    np.testing.assert_allclose(a, e, rtol=0, atol=bound)


@pytest.mark.parametrize("codec", ["vae", "tiny"])
@pytest.mark.parametrize("size", ["bundle", "aspect:64", "40x56"])
def test_graphs_answer_as_pytorch_does(exported: Path, codec: str, size: str) -> None:
    """For any size, batch and choice of tasks, though they were traced at one."""
    assert_same_as_torch(exported, 2e-4, codec=codec, processing_size=size)


def test_tasks_that_share_a_unet_keep_their_own_constants(tmp_path: Path) -> None:
    network = tiny_network(shared_unet=True)
    folder = write_bundle(
        tmp_path / "s", network, name="s", license="", source="", dtype=torch.float32
    )
    export_bundle(folder)
    assert_same_as_torch(folder, 2e-4)


def test_tasks_that_share_a_unet_go_through_it_together(exported: Path, tmp_path: Path) -> None:
    """One image and all tasks: one graph. Several images, or one task: a graph for each task."""
    network = tiny_network(shared_unet=True)
    folder = write_bundle(tmp_path / "s", network, name="s", license="", source="")
    export_bundle(folder)
    predictor = D3Predictor.from_pretrained(folder, "cpu", runtime="onnx")
    runtime, ran = predictor.runtime, list[str]()
    assert isinstance(runtime, OnnxRuntime)
    run = runtime._run

    def noted(name: str, values: Any) -> Any:
        ran.append(name)
        return run(name, values)

    runtime._run = noted  # type: ignore[method-assign]
    predictor(picture())
    assert ran == ["encode", "joint"]
    predictor(picture(), tasks=("normals",))
    assert ran[2:] == ["encode", "normals"]
    predictor.predict_batch([picture(seed=1), picture(seed=2)])
    assert ran[4:] == ["encode", "depth", "normals"]

    entry = json.loads((folder / "bundle.json").read_text())["onnx"][0]
    assert entry["joint"] is True
    assert "joint" not in json.loads((exported / "bundle.json").read_text())["onnx"][0]
    assert not (exported / "onnx" / "vae_fp32" / "joint.onnx").exists()
    edit_manifest(folder, lambda content: content["onnx"][0].update(joint=1))
    assert "joint must be true or false" in fault(folder)
    edit_manifest(folder, lambda content: content["onnx"][0].update(joint=True))
    (folder / "onnx" / "vae_fp32" / "joint.onnx").write_bytes(b"no graph")
    rehash(folder, "onnx/vae_fp32/joint.onnx")
    assert "joint.onnx cannot be loaded" in fault(folder)


def test_a_joint_graph_that_answers_wrongly_is_found_by_the_self_check(tmp_path: Path) -> None:
    import onnx

    network = tiny_network(shared_unet=True)
    folder = write_bundle(tmp_path / "s", network, name="s", license="", source="")
    export_bundle(folder)
    path = folder / "onnx" / "vae_fp32" / "joint.onnx"
    graph = onnx.load(path, load_external_data=False)
    first, second = graph.graph.output
    names = {first.name: second.name, second.name: first.name}
    for node in graph.graph.node:  # the tasks are swapped
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    path.write_bytes(graph.SerializeToString())
    rehash(folder, "onnx/vae_fp32/joint.onnx")
    assert "the self-check of" in fault(folder, DeviceError)


def test_half_precision_is_close(exported: Path) -> None:
    exact, half = (
        D3Predictor.from_pretrained(exported, "cpu", dtype, runtime="onnx")
        for dtype in ("fp32", "fp16")
    )
    assert half.precision == "fp16"
    expected, actual = exact(picture()).depth, half(picture()).depth
    assert expected is not None
    assert actual is not None
    assert 0 < np.abs(expected - actual).max() < 0.05


def test_the_export_is_part_of_the_bundle(tiny_bundle: Path, exported: Path, copy: Path) -> None:
    content = json.loads((exported / "bundle.json").read_text())
    assert content["format"] == 2  # which readers of format 1 refuse by its number
    assert json.loads((tiny_bundle / "bundle.json").read_text())["format"] == 1
    assert [(e["codec"], e["precision"]) for e in content["onnx"]] == [
        ("vae", "fp32"),
        ("tiny", "fp32"),
        ("vae", "fp16"),
    ]
    assert WEIGHTS in content["sha256"]
    assert load_bundle(exported, codec="tiny").network.tasks == ("depth", "normals")
    again = export_bundle(copy, tasks=["depth"])[1]  # takes the place of the first
    assert again.tasks == ("depth",)
    assert not (copy / "onnx" / "vae_fp32" / "normals.onnx").exists()
    assert "lack normals" in fault(copy, DeviceError)
    assert list(copy.parent.iterdir()) == [copy]


def test_weights_are_stored_once_and_in_half_where_that_loses_nothing(exported: Path) -> None:
    folder = exported / "onnx" / "vae_fp32"
    stored = sum(p.stat().st_size for p in exported.glob("[uv]*/*.safetensors"))
    assert (folder / "weights.bin").stat().st_size < 1.3 * stored


@pytest.mark.parametrize("size", [(50, 70), (64, 96), (37, 200)])
def test_pixels_go_in_and_come_out_as_with_pytorch(size: tuple[int, int]) -> None:
    rgb = picture()
    ours = onnx_runtime.to_input(rgb, size)
    theirs = image_transform.to_network(torch.from_numpy(rgb), size)[0].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    decoded = np.random.default_rng(0).normal(0, 1, (3, 24, 32)).astype(np.float32)
    decoded[:, :3] = 0  # no direction
    tensor = torch.from_numpy(decoded)[None]
    np.testing.assert_allclose(
        onnx_runtime.to_depth(decoded / 2 + 0.5, size),
        image_transform.to_depth(tensor, size).numpy(),
        rtol=0,
        atol=1e-5,
    )
    axes = (1, -1, -1)
    actual = onnx_runtime.to_normals(decoded, size, axes)
    expected = image_transform.to_normals(tensor, size, axes).numpy()
    assert np.isnan(expected).any()
    clear = np.linalg.norm(expected, axis=-1) > 0.9
    np.testing.assert_allclose(actual[clear], expected[clear], rtol=0, atol=2e-3)


# --- which runtime -------------------------------------------------------------------------------


def test_auto_takes_onnx_where_it_can_and_says_why(
    exported: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    def chosen(folder: Path, **options: Any) -> type:
        caplog.clear()
        return type(D3Predictor.from_pretrained(folder, "cpu", **options).runtime)

    assert chosen(exported) is OnnxRuntime
    assert "runs on ONNX Runtime: the bundle has graphs" in caplog.text
    assert chosen(exported, runtime="torch") is TorchRuntime
    assert chosen(tiny_bundle) is TorchRuntime
    assert "PyTorch: it has no ONNX graphs for codec vae in fp32" in caplog.text
    assert chosen(exported, dtype="bf16") is TorchRuntime
    assert chosen(exported, optimisations=()) is TorchRuntime
    monkeypatch.setattr(choose_runtime, "_gpu_is_wanted", lambda device: True)
    assert chosen(exported) is TorchRuntime
    monkeypatch.undo()
    present = {"torch", "onnxruntime"}
    monkeypatch.setattr(choose_runtime, "find_spec", lambda name: name if name in present else None)
    present = {"torch"}
    assert chosen(exported) is TorchRuntime
    assert "onnxruntime is not installed" in caplog.text
    present = {"onnxruntime"}
    assert chosen(exported) is OnnxRuntime
    with pytest.raises(DeviceError, match=r"needs PyTorch here .*which is not installed"):
        chosen(tiny_bundle)


def test_what_cannot_run_on_onnx_is_told(tiny_bundle: Path, exported: Path) -> None:
    assert "no ONNX graphs for codec vae in fp32" in fault(tiny_bundle, DeviceError)
    assert "no ONNX graphs for codec tiny in fp16" in fault(
        exported, DeviceError, codec="tiny", dtype="fp16"
    )
    with pytest.raises(DataError, match="has no task"):
        export_bundle(tiny_bundle, tasks=["matting"])  # type: ignore[list-item]


def test_a_provider_that_is_not_there(exported: Path) -> None:
    line = fault(exported, DeviceError, providers=["openvino", "cpu"])
    assert "provider 'openvino' is not in this ONNX Runtime, which has cpu" in line


# --- faults --------------------------------------------------------------------------------------


def test_damaged_missing_and_foreign_graphs(copy: Path) -> None:
    file = "onnx/vae_fp32/depth.onnx"
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[:-5])
    assert f"{copy / file} is damaged" in fault(copy)
    rehash(copy, file)
    assert f"{copy / file} cannot be loaded by ONNX Runtime" in fault(copy)
    (copy / file).write_bytes((copy / "onnx/vae_fp32/encode.onnx").read_bytes())
    rehash(copy, file)
    assert "self-check cannot run" in fault(copy)
    (copy / file).unlink()
    assert f"{copy / file} is missing" in fault(copy)
    edit_manifest(copy, lambda content: content["sha256"].pop(file))
    assert f"no sha256 of {file}" in fault(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "x"}, "codec must be vae or tiny"),
        ({"precision": "fp8"}, "precision is unknown"),
        ({"precision": []}, "precision is unknown"),
        ({"tasks": ["matting"]}, "tasks must be those of the bundle"),
        ({"tasks": [["depth"]]}, "tasks must be those of the bundle"),
        ({"tasks": []}, "tasks must be a list"),
        ({"size_multiple": 0}, "size_multiple must be from 1"),
        ({"size_multiple": float("inf")}, "holds no whole numbers"),
        ({"tolerance": float("nan")}, "tolerance must be in"),
        ({"versions": {"torch": 2}}, "versions must map"),
        ({"more": 1}, "unknown key more"),
        ({"precision": "fp16"}, "twice"),
    ],
)
def test_entries_that_make_no_sense(copy: Path, change: dict[str, Any], message: str) -> None:
    edit_manifest(copy, lambda content: content["onnx"][0].update(change))
    assert message in fault(copy)


def test_a_self_check_that_fails_is_told(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = "onnx/vae_fp32/check.npz"
    with np.load(copy / file) as stored:
        check = dict(stored)
    check["depth"] = check["depth"] + np.float32(0.01)
    np.savez(copy / file, **check)
    rehash(copy, file)
    line = fault(copy, DeviceError)
    assert line.startswith("cpu (ONNX Runtime")
    assert f"the self-check of {copy} differs by 0.01 on average (at most 0.0001)" in line


def test_a_provider_that_fails_is_followed_by_the_next(
    exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(onnx_runtime.PROVIDERS, "cuda", "CPUExecutionProvider")
    difference = OnnxRuntime._difference
    monkeypatch.setattr(
        OnnxRuntime,
        "_difference",
        lambda self, path: 0.5 if self._provider == "cuda" else difference(self, path),
    )
    with caplog.at_level(logging.WARNING):
        predictor = D3Predictor.from_pretrained(exported, runtime="onnx")
    assert predictor.device.startswith("cpu")
    assert "differs by 0.5" in caplog.text
    assert "trying cpu" in caplog.text


def test_weights_that_are_not_finite(copy: Path) -> None:
    """As with PyTorch, the frame fails and nothing is answered."""
    from d3_ros.errors import NonFiniteError

    predictor = D3Predictor.from_pretrained(copy, "cpu", runtime="onnx")
    assert isinstance(predictor.runtime, OnnxRuntime)
    run = predictor.runtime._run
    predictor.runtime._run = lambda name, values: run(name, [part * np.nan for part in values])  # type: ignore
    with pytest.raises(NonFiniteError, match="depth is not finite in fp32"):
        predictor(picture())


def test_int8_steps_do_not_follow_a_few_extreme_values(tmp_path: Path) -> None:
    """One value of 24,576 is a hundred times as large as the others: it is clipped, they stay."""
    from onnx import TensorProto, helper, numpy_helper

    from d3_ros.network.bundle.onnx_quantise import quantised

    same = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    names = ["image", "first", "middle", "answer"]  # first and last convolution stay in float
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 64, 64])
        for name in (names[0], names[-1])
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", [a, "same"], [b]) for a, b in itertools.pairwise(names)],
        "three convolutions",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(same, "same")],
    )
    for number, node in enumerate(graph.node):
        node.name = f"convolution {number}"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    images = [np.random.default_rng(seed).uniform(-1, 1, (1, 3, 64, 64)) for seed in range(2)]
    images[1][0, 0, 0, 0] = 100
    inputs = [{"image": image.astype(np.float32)} for image in images]
    answers = quantised(model, inputs, tmp_path)
    weights = {one.name: numpy_helper.to_array(one) for one in answers.graph.initializer}
    steps = [
        float(weights[node.input[1]])
        for node in answers.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in names
    ]
    assert steps  # of the middle convolution's input and answer
    assert max(steps) < 2.5 / 255  # by the largest value it would be 101 / 255

"""Export of a bundle's network to ONNX graphs that run without PyTorch.

The specialised network is exported: its timesteps and prompts are constants. It becomes an encoder
and one graph per task, for any batch and image size. Their weights share one file. Where that
loses nothing, weights are stored as fp16 and cast when a graph is loaded.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from torch import nn

from d3_ros.errors import DataError
from d3_ros.network.bundle.files import appearing_folder, sha256_of, write_json
from d3_ros.network.bundle.folder import load_bundle
from d3_ros.network.bundle.lookup import MANIFEST
from d3_ros.network.bundle.manifest import (
    ONNX_CHECK,
    ONNX_ENCODER,
    ONNX_JOINT,
    ONNX_WEIGHTS,
    Codec,
    OnnxExport,
    Precision,
    open_bundle,
)
from d3_ros.network.bundle.onnx_simplify import simplify
from d3_ros.network.inference.image_transform import to_network
from d3_ros.network.inference.specialise import EXACT, SpecialisedNetwork, specialise
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.types import Task

OPSET = 18
ENCODED = ("latent", "features")  # what the encoder gives; features where the codec has skips
# Tracing records the code path for one latent size. At a size that a UNet's levels do not divide
# evenly, that is the path which is right for every size.
TRACED_LATENT = (21, 28)
# (batch, height, width) of latents, no two alike at any level of a UNet.
SIMPLIFIED_FOR = ((1, 12, 20), (2, 26, 33), (3, 41, 9))
SMALLEST_EXTERNAL = 1024  # bytes; smaller tensors stay in the graph, where shapes are worked out
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""Accepted mean absolute difference of outputs, depth in [0, 1] and normals in [-1, 1]; for int8 it
follows from the measured loss.
"""

OnnxModel: TypeAlias = Any


class _Encoder(nn.Module):
    def __init__(self, network: SpecialisedNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, h, w) float32 image in [-1, 1] -> (N, c, h/f, w/f) latent.

        A codec with skips gives its features of the image, (N, c0, h/2, w/2), as a second tensor.
        """
        codec = self.network.vae
        if not isinstance(codec, TinyCodec):
            return (self.network.encode(image.to(self.dtype)).float(),)
        latent, features = codec.encode_apart(image.to(self.dtype))
        return (latent.float(),) if features is None else (latent.float(), features.float())


class _TaskGraph(nn.Module):
    def __init__(
        self, network: SpecialisedNetwork, tasks: Sequence[Task], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.network, self.tasks, self.dtype = network, tuple(tasks), dtype

    def forward(self, latent: torch.Tensor, *features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`_Encoder`'s answer -> per task (N, 3 or 1, h, w) float32.

        Depth is about [0, 1], normals about [-1, 1].
        """
        latents = self.network.predict_latents(latent.to(self.dtype), self.tasks)
        codec = self.network.vae
        if features and isinstance(codec, TinyCodec):
            seen = features[0].to(self.dtype)
            decoded = {task: codec.decode_apart(latents[task], seen, task) for task in self.tasks}
        else:
            decoded = self.network.decode_tasks(latents)
        answers = [decoded[task].float() for task in self.tasks]
        return tuple(
            answer / 2 + 0.5 if task == "depth" else answer
            for task, answer in zip(self.tasks, answers, strict=True)
        )


class WeightFile:
    """Collects the weights of several graphs; equal tensors are stored once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[bytes, tuple[int, int]] = {}

    def store(self, values: np.ndarray) -> tuple[int, int]:
        """Offset and length of the bytes of `values`."""
        data = np.ascontiguousarray(values).tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self._file.write(b"\0" * (-self._file.tell() % 64))
            self._places[key] = (self._file.tell(), len(data))
            self._file.write(data)
        return self._places[key]


def export_bundle(
    path_or_name: str | Path,
    output: Path | None = None,
    *,
    precision: Precision = "fp32",
    codec: Codec = "vae",
    tasks: Sequence[Task] | None = None,
) -> tuple[Path, OnnxExport]:
    """Write ONNX graphs into a bundle.

    Args:
        path_or_name: the bundle.
        output: a new bundle folder; None writes into the bundle itself. It changes at once or not
            at all. Graphs of the same codec and precision are replaced.
        precision: what the graphs compute in, "fp32" or "fp16".
        codec: which codec they have.
        tasks: which tasks; None is all.

    Returns:
        The bundle's folder, and what was written to it.

    Raises:
        BundleError: the bundle is damaged, has no such codec, or cannot be written.
        DataError: it has no such task, or a package for the export is missing.
    """
    with added_export(path_or_name, output, precision, codec, tasks) as job:
        with (job.folder / ONNX_WEIGHTS).open("wb") as file:
            weights = WeightFile(file)
            for name, model in traced_graphs(job.network, job.export.tasks):
                save_graph(model, job.folder / name, weights)
        job.network = None  # type: ignore[assignment]  # one network in memory at a time
        save_check(job)
    return job.bundle, job.export


@dataclass
class ExportJob:
    """An export that is being written.

    `origin` is the bundle, `bundle` where the result will be, `folder` where the graphs are to be
    written now. `network`: specialised, in the precision of the export. `export` can be replaced
    until the end.
    """

    origin: Path
    bundle: Path
    folder: Path
    network: SpecialisedNetwork
    export: OnnxExport


@contextmanager
def added_export(
    path_or_name: str | Path,
    output: Path | None,
    precision: Precision,
    codec: Codec,
    tasks: Sequence[Task] | None,
) -> Iterator[ExportJob]:
    """Yields a job for the caller to write graphs into, in a copy of the bundle.

    At the end the copy becomes `output`, or replaces the bundle; after an error it is removed.
    Arguments and errors are those of `export_bundle`.
    """
    onnx = _import_onnx()
    origin, manifest = open_bundle(path_or_name)
    chosen = tuple(manifest.tasks) if tasks is None else tuple(tasks)
    if unknown := set(chosen) - set(manifest.tasks):
        raise DataError(f"{origin} has no task {min(unknown)}")
    dtype = torch.float16 if precision == "fp16" else torch.float32
    network = load_bundle(origin, dtype=dtype, codec=codec).network
    left_out = {"channels_last"}  # the memory order of channels is the runtime's own business
    if precision == "int8" and isinstance(network.vae, TinyCodec):
        # With few channels, INT8 computes nine products sooner than it interleaves four results.
        left_out.add("upsampling")
    network = specialise(network, [name for name in EXACT if name not in left_out])
    export = OnnxExport(
        codec=codec,
        precision=precision,
        tasks=chosen,
        size_multiple=network.size_multiple,
        tolerance=TOLERANCES[precision],
        opset=OPSET,
        versions={"torch": torch.__version__, "onnx": onnx.__version__},
        joint=has_joint_graph(network, chosen),
    )
    target = origin if output is None else output
    with appearing_folder(target, replace=output is None) as copy:
        shutil.copytree(origin, copy, dirs_exist_ok=True)
        folder = copy / export.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        job = ExportJob(origin, target, folder, network, export)
        yield job
        others = [other for other in manifest.onnx if other.folder != export.folder]
        hashes = {
            file: digest
            for file, digest in manifest.sha256.items()
            if not file.startswith(f"{export.folder}/")
        }
        hashes |= {file: sha256_of(copy / file) for file in export.files}
        changed = replace(manifest, onnx=(*others, job.export), sha256=dict(sorted(hashes.items())))
        write_json(copy / MANIFEST, changed.as_json())


def traced_graphs(
    network: SpecialisedNetwork, tasks: Sequence[Task]
) -> Iterator[tuple[str, OnnxModel]]:
    """Yields the file name and the ONNX model of the encoder, of each task, and of all together."""
    dtype = next(network.parameters()).dtype
    height, width = (side * network.size_multiple for side in TRACED_LATENT)
    encoder, image = _Encoder(network, dtype), torch.zeros(1, 3, height, width)
    with torch.inference_mode():
        parts = dict(zip(ENCODED, encoder(image), strict=False))
    yield ONNX_ENCODER, _traced(encoder, {"image": image}, [*parts])
    for task in tasks:
        graph = _TaskGraph(network, (task,), dtype)
        yield f"{task}.onnx", _traced(graph, {n: part.clone() for n, part in parts.items()}, [task])
    if has_joint_graph(network, tasks):
        graph = _TaskGraph(network, tasks, dtype)
        copies = {name: part.clone() for name, part in parts.items()}
        yield ONNX_JOINT, _traced(graph, copies, tasks, one_image=True)


def has_joint_graph(network: SpecialisedNetwork, tasks: Sequence[Task]) -> bool:
    """Whether several tasks go through one UNet, which then takes them as one batch."""
    return len(tasks) > 1 and len({network.specs[task].unet for task in tasks}) == 1


def _traced(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    answers: Sequence[str],
    one_image: bool = False,
) -> OnnxModel:
    """The ONNX model of a module, with weights, for any size.

    Args:
        module: gives a tuple of `answers`.
        examples: its inputs, each (1, c, h, w) for a latent of `TRACED_LATENT`.
        answers: names of its outputs.
        one_image: the model is for batches of one; otherwise for any batch.
    """
    onnx = _import_onnx()
    axes = {2: "height", 3: "width"} if one_image else {0: "batch", 2: "height", 3: "width"}
    named = {
        name: {axis: axes[axis] if number == 0 else f"{name}_{axes[axis]}" for axis in axes}
        for number, name in enumerate(examples)
    }
    outer = {name: {axis: f"{name}_{axes[axis]}_out" for axis in axes} for name in answers}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        # The exporter warns of each shape that it takes as constant; a test compares other sizes.
        warnings.simplefilter("ignore")
        path = Path(scratch) / "graph.onnx"
        torch.onnx.export(
            module.eval(),
            (*examples.values(),),
            str(path),
            input_names=[*examples],
            output_names=[*answers],
            dynamic_axes=named | outer,
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(path)
    simplify(
        model,
        [
            {
                name: _zeros_of(example, 1 if one_image else count, *latent)
                for name, example in examples.items()
            }
            for count, *latent in SIMPLIFIED_FOR
        ],
    )
    return model


def _zeros_of(example: torch.Tensor, count: int, height: int, width: int) -> np.ndarray:
    """An input like `example`, for `count` latents of that size."""
    scale = example.shape[2] // TRACED_LATENT[0]
    return np.zeros((count, example.shape[1], height * scale, width * scale), np.float32)


def save_graph(model: OnnxModel, path: Path, weights: WeightFile) -> None:
    """Write a model whose weights are in `weights`, as fp16 where that loses nothing."""
    onnx = _import_onnx()
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.nbytes < SMALLEST_EXTERNAL:
            continue
        if values.dtype == np.float32:
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            if np.array_equal(half.astype(np.float32), values):
                name = tensor.name
                tensor.name, values = f"{name}_fp16", half
                tensor.data_type = onnx.TensorProto.FLOAT16
                cast = onnx.helper.make_node(
                    "Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT
                )
                casts.append(cast)
        offset, length = weights.store(values)
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "external_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": ONNX_WEIGHTS, "offset": str(offset), "length": str(length)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
    nodes = [*casts, *graph.node]
    graph.ClearField("node")
    graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())


def save_check(job: ExportJob) -> dict[str, np.ndarray]:
    """Write the self-check: an image, and what the plain network in float32 answers."""
    network = load_bundle(job.origin, codec=job.export.codec).network
    size = network.specs[job.export.tasks[0]].processing_size
    pixels = check_image(size)
    with torch.inference_mode():
        decoded = network(to_network(torch.from_numpy(pixels), size), job.export.tasks)
    answers = {str(task): decoded[task].numpy()[0] for task in job.export.tasks}
    if "depth" in answers:
        answers["depth"] = answers["depth"] / 2 + 0.5
    check = {"image": pixels, **answers}
    np.savez_compressed(job.folder / ONNX_CHECK, **check)  # type: ignore[arg-type]
    return check


def check_image(size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8: slopes, soft waves and boxes, the same for every export."""
    height, width = size
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(9 * columns + phase) * np.cos(7 * rows - phase) for phase in (0.0, 1.0, 2.0)]
    image = 90 + 100 * rows[..., None] + 40 * np.stack(waves, axis=-1)
    rng = np.random.default_rng(0)
    for _ in range(12):
        top, left = rng.integers(0, height), rng.integers(0, width)
        bottom, right = top + height // 5, left + width // 6
        image[top:bottom, left:right] = rng.integers(0, 256, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise DataError("the export needs the package onnx: pip install onnx") from error
    return onnx

"""INT8 graphs of a bundle by static quantisation: fitted to images, and their loss measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from d3_ros.errors import DataError
from d3_ros.network.bundle.manifest import ONNX_ENCODER, ONNX_WEIGHTS, Codec, OnnxExport
from d3_ros.network.bundle.onnx_export import (
    OnnxModel,
    WeightFile,
    added_export,
    save_check,
    save_graph,
    traced_graphs,
)
from d3_ros.network.bundle.onnx_simplify import Inputs
from d3_ros.network.inference.onnx_runtime import to_input
from d3_ros.types import Task

FEWEST_IMAGES = 4
HELD_OUT_SHARE = 0.25  # of the images: the loss is measured on them, the ranges on the others
SLACK = 0.005  # by which the self-check may differ more on another machine than here
OPERATORS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# Of the values of each tensor, in percent; what is outside is clipped, so that a few values cannot
# make the steps of all others coarse.
KEPT_PERCENTILE = 99.99


def export_int8(
    path_or_name: str | Path,
    images: Sequence[np.ndarray],
    output: Path | None = None,
    *,
    max_loss: float,
    codec: Codec = "vae",
    tasks: Sequence[Task] | None = None,
) -> tuple[Path, OnnxExport, dict[Task, float]]:
    """Write INT8 graphs into a bundle.

    Convolutions and matrix products with weights are quantised, except the first and the last
    convolution of each graph. Norms, activations, and attention between pixels stay in float.
    Weights have 7 bits: with 8, processors without VNNI saturate.

    Args:
        path_or_name: the bundle.
        images: (H, W, 3) uint8 RGB like those of the robot, at least `FEWEST_IMAGES`.
        output: see `export_bundle`.
        max_loss: refuse a larger loss.
        codec: see `export_bundle`.
        tasks: see `export_bundle`.

    Returns:
        The bundle's folder, what was written to it, and the loss of each task: the mean absolute
        difference from the float graphs on held-out images, depth in [0, 1], normals in [-1, 1].

    Raises:
        BundleError: the bundle is damaged, has no such codec, or cannot be written.
        DataError: there are too few images, or the loss is too large; nothing is written.
    """
    if len(images) < FEWEST_IMAGES:
        raise DataError(f"int8 needs at least {FEWEST_IMAGES} images, got {len(images)}")
    with (
        added_export(path_or_name, output, "int8", codec, tasks) as job,
        tempfile.TemporaryDirectory() as scratch,
        (job.folder / ONNX_WEIGHTS).open("wb") as file,
    ):
        size = job.network.specs[job.export.tasks[0]].processing_size
        weights, work, check = WeightFile(file), Path(scratch), save_check(job)
        inputs: list[Inputs] = [
            {"image": to_input(rgb, size)[None]} for rgb in (*images, check["image"])
        ]
        fitted = len(images) - max(1, round(len(images) * HELD_OUT_SHARE))
        exact_latents, latents = inputs, inputs
        losses: dict[Task, float] = {}
        differences: dict[Task, float] = {}
        for name, model in traced_graphs(job.network, job.export.tasks):
            # A task is fitted to the latents that it will get: those of the quantised encoder.
            int8 = quantised(model, latents[:fitted], work)
            exact, ours = _answers(model, exact_latents, work), _answers(int8, latents, work)
            save_graph(int8, job.folder / name, weights)
            if name == ONNX_ENCODER:
                exact_latents, latents = exact, ours
                continue
            for task in job.export.tasks:
                if task not in ours[0]:
                    continue
                pairs = zip(ours, exact, strict=True)
                each = [float(np.abs(a[task] - b[task]).mean()) for a, b in pairs]
                losses[task] = max(losses.get(task, 0.0), float(np.mean(each[fitted:-1])))
                differences[task] = max(differences.get(task, 0.0), each[-1])
        worst = max(losses, key=lambda task: losses[task])
        if not losses[worst] <= max_loss:
            raise DataError(
                f"int8 changes {worst} by {losses[worst]:.4f} on average, more than --max-loss "
                f"{max_loss:g}: give more images like the robot's, or stay with fp32"
            )
        tolerance = min(2 * max(differences.values()) + SLACK, 0.99)
        job.export = replace(job.export, tolerance=tolerance)
    return job.bundle, job.export, losses


def quantised(model: OnnxModel, inputs: Sequence[Inputs], work: Path) -> OnnxModel:
    """The model with quantise-dequantise pairs, whose ranges are those of `inputs`.

    Args:
        model: any; its nodes have names.
        inputs: what it will be given, by name, (N, c, h, w) float32 each.
        work: folder for files in between.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(inputs)

        def __len__(self) -> int:
            return len(inputs)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(inputs[start_index:end_index])

        def get_next(self) -> Any:
            return next(self._left, None)

    # The exporter has folded constants: the quantiser need not advise to do so.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    float_path, path = work / "float.onnx", work / "int8.onnx"
    onnx.save(model, float_path)
    weights = {tensor.name for tensor in model.graph.initializer}
    products = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and not weights & {*node.input}
    ]
    quantize_static(
        float_path,
        path,
        Reader(),
        op_types_to_quantize=[*OPERATORS],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*_outer_convolutions(model), *products],
        calibrate_method=CalibrationMethod.Percentile,
        # All tensors of one image at a time are in memory, not those of all images.
        extra_options={"CalibPercentile": KEPT_PERCENTILE, "CalibStridedMinMax": 1},
    )
    return onnx.load(path)


def _outer_convolutions(model: OnnxModel) -> list[str]:
    """Names of the first convolution, and of the last one before each output."""
    names = [node.name for node in model.graph.node if node.op_type == "Conv"][:1]
    for output in model.graph.output:
        needed = {output.name}
        for node in reversed(model.graph.node):
            if needed & {*node.output}:
                needed |= {*node.input}
                if node.op_type == "Conv":
                    names.append(node.name)
                    break
    return names


def _answers(model: OnnxModel, inputs: Sequence[Inputs], work: Path) -> list[Inputs]:
    import onnx
    import onnxruntime

    path = work / "answers.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, {**given}), strict=True)) for given in inputs]

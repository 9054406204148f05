"""Rewrites an exported ONNX graph so that runtimes compute it faster, with equal answers.

The exporter works out many shapes while the graph runs, repeats constants for every image of the
batch, and keeps transposed convolutions, which ONNX Runtime computes slowly on a CPU. Only standard
operators are written, so that every execution provider can load the result. Nothing here knows the
architecture of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from d3_ros.network.inference.onnx_runtime import ERRORS_ONLY

OnnxModel: TypeAlias = Any
OnnxNode: TypeAlias = Any
Inputs: TypeAlias = Mapping[str, np.ndarray]
# Operators between a constant and a matrix product that keep a batch axis of size one.
KEEPS_BATCH = ("Reshape", "Transpose", "Mul", "Cast")
LARGEST_CONSTANT = 256  # numbers; what is larger is a weight


def simplify(model: OnnxModel, examples: Sequence[Inputs]) -> None:
    """Rewrite a model in place.

    Args:
        model: any.
        examples: its inputs by name, of different batch, height and width. What is the same for all
            of them is taken to be the same for every input.
    """
    _split_transposed_convolutions(model)
    _keep_width_in_group_norms(model, examples[0])
    _fix_shapes(model, examples)
    _look_sizes_up_at_once(model)
    _drop_unused(model)
    _drop_repeated_constants(model)
    _drop_divisions_by_one(model)
    _drop_unused(model)


def _split_transposed_convolutions(model: OnnxModel) -> None:
    """Each transposed convolution becomes a convolution to s x s times the channels.

    `DepthToSpace` then interleaves them: all output pixels of one phase of the stride s are made
    by the same part of the kernel. It is exact where s divides the size of the kernel.
    """
    from onnx import numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        geometry = _transposed_geometry(node, weights)
        if geometry is None:
            nodes.append(node)
            continue
        constants, made = _as_convolution(node, weights, *geometry)
        nodes += made
        for name, values in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    _set_nodes(graph, nodes)


def _as_convolution(
    node: OnnxNode, weights: Mapping[str, Any], stride: int, taps: int, pads: Sequence[int]
) -> tuple[dict[str, np.ndarray], list[OnnxNode]]:
    """Constants and nodes that take the place of a transposed convolution."""
    from onnx import helper, numpy_helper

    name = node.output[0]
    kernel = numpy_helper.to_array(weights[node.input[1]])
    inputs, outputs = kernel.shape[:2]
    # (inputs, outputs, tap, phase, tap, phase); a convolution goes through the taps backwards
    parts = kernel.reshape(inputs, outputs, taps, stride, taps, stride)[:, :, ::-1, :, ::-1]
    parts = parts.transpose(3, 5, 1, 0, 2, 4).reshape(-1, inputs, taps, taps)
    constants = {f"{name}_kernel": parts}
    if len(node.input) > 2:
        bias = numpy_helper.to_array(weights[node.input[2]])
        constants[f"{name}_bias"] = np.tile(bias, stride * stride)
    given, phases, uncut = [node.input[0], *constants], f"{name}_phases", f"{name}_uncut"
    made = [
        helper.make_node("Conv", given, [phases], node.name, pads=[taps - 1] * 4),
        helper.make_node("DepthToSpace", [phases], [uncut], f"{node.name}_uncut", blocksize=stride),
    ]
    cut = {
        f"{name}_start": np.array(pads[:2]),
        f"{name}_end": np.array([-side or np.iinfo(np.int64).max for side in pads[2:]]),
        f"{name}_axes": np.array([2, 3]),
    }
    made.append(helper.make_node("Slice", [uncut, *cut], [name], f"{node.name}_cut"))
    return constants | cut, made


def _transposed_geometry(
    node: OnnxNode, weights: Mapping[str, Any]
) -> tuple[int, int, Sequence[int]] | None:
    """Stride, taps of each phase, and pads; None if `node` cannot be split."""
    from onnx import helper

    if node.op_type != "ConvTranspose" or not {*node.input[1:]} <= weights.keys():
        return None
    have = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    sides = {*weights[node.input[1]].dims[2:]}
    strides = {*have.get("strides", [1])}
    plain = (
        len(sides) == len(strides) == 1
        and {*have.get("dilations", [1])} == {1}
        and {*have.get("output_padding", [0])} == {0}
        and have.get("group", 1) == 1
        and not have.keys() & {"auto_pad", "output_shape"}
    )
    side, stride = sides.pop(), strides.pop()
    if not plain or stride == 1 or side % stride:
        return None
    return stride, side // stride, have.get("pads", [0] * 4)  # top, left, bottom, right


def _drop_repeated_constants(model: OnnxModel) -> None:
    """Constants that only matrix products read need no copy for every image of the batch."""
    graph = model.graph
    constants = _constants(graph)
    readers: dict[str, list[OnnxNode]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def ends_in_products(name: str) -> bool:
        return name in readers and all(
            node.op_type == "MatMul"
            or (node.op_type in KEEPS_BATCH and ends_in_products(node.output[0]))
            for node in readers[name]
        )

    _bypass(
        graph,
        lambda node: (
            node.op_type == "Expand"
            and node.input[0] in constants
            and ends_in_products(node.output[0])
        ),
    )


def _fix_shapes(model: OnnxModel, examples: Sequence[Inputs]) -> None:
    """Replace by constants what follows from shapes alone and is the same for every example.

    A target shape of `Reshape` becomes constant, too, where each of its sizes is a constant, the
    size of the data's same axis (0), or, for at most one, inferred by the operator (-1).
    """
    from onnx import numpy_helper

    graph = model.graph
    computed = _computed_from_shapes(graph)
    used = [node for node in graph.node if not computed & {*node.output}]
    asked = dict.fromkeys(n for node in used for n in node.input if n in computed)
    reshapes = [node for node in used if node.op_type == "Reshape" and node.input[1] in computed]
    data_shapes = {node.input[0]: f"{node.input[0]}_shape" for node in reshapes}
    values = _values(model, [*asked], data_shapes, examples)
    constants = {
        name: values[name][0]
        for name in asked
        if all(np.array_equal(values[name][0], other) for other in values[name])
    }
    for node in reshapes:
        data, target = node.input
        if target in constants:
            continue
        shape = _static_target(values[target], values[data_shapes[data]])
        if shape is not None:
            node.input[1] = f"{node.output[0]}_target"
            graph.initializer.append(numpy_helper.from_array(shape, node.input[1]))
    for name, array in constants.items():
        graph.initializer.append(numpy_helper.from_array(array, name))
    made = constants.keys()
    _set_nodes(graph, [node for node in graph.node if not made & {*node.output}])


def _keep_width_in_group_norms(model: OnnxModel, example: Inputs) -> None:
    """A group norm of an image joins a group's channels with the height, not with the width too.

    Exported is: reshape to (N, groups, the rest), normalise, reshape to the shape that it had. With
    the width as an axis of its own, `_fix_shapes` finds a constant for the shape of before.
    """
    from onnx import numpy_helper

    graph = model.graph
    numbers = _numbers(graph)
    made_by = {node.output[0]: node for node in graph.node}
    norms = [node for node in graph.node if node.op_type == "InstanceNormalization"]
    found = []
    for reshape in filter(None, (made_by.get(norm.input[0]) for norm in norms)):
        target = numbers.get(reshape.input[1]) if reshape.op_type == "Reshape" else None
        if target is not None and len(target) == 3 and target[0] == 0 and target[2] == -1:
            found.append((reshape, int(target[1])))
    shapes = {reshape.input[0]: f"{reshape.input[0]}_norm_shape" for reshape, _ in found}
    ranks = {name: len(shape[0]) for name, shape in _values(model, [], shapes, [example]).items()}
    for reshape, groups in found:
        if ranks[shapes[reshape.input[0]]] == 4:
            reshape.input[1] = f"{reshape.output[0]}_target"
            whole = np.array([0, groups, -1, 0], np.int64)
            graph.initializer.append(numpy_helper.from_array(whole, reshape.input[1]))


def _look_sizes_up_at_once(model: OnnxModel) -> None:
    """One size of a shape, as a vector of one number: one operator instead of three."""
    from onnx import helper

    graph = model.graph
    numbers = _numbers(graph)
    made_by = {node.output[0]: node for node in graph.node}

    def looked_up(node: OnnxNode) -> OnnxNode:
        gather = made_by.get(node.input[0]) if node.op_type == "Unsqueeze" else None
        if gather is None or gather.op_type != "Gather":
            return node
        shape, index = made_by.get(gather.input[0]), numbers.get(gather.input[1])
        if shape is None or shape.op_type != "Shape" or shape.attribute:
            return node
        if index is None or index.ndim or index < 0:
            return node
        names = [shape.input[0]], [node.output[0]]
        return helper.make_node("Shape", *names, node.name, start=int(index), end=int(index) + 1)

    _set_nodes(graph, [looked_up(node) for node in graph.node])


def _numbers(graph: Any) -> dict[str, np.ndarray]:
    """The values of constants, by name; without weights."""
    from onnx import numpy_helper

    large = _large(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in large}
    tensors |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def _computed_from_shapes(graph: Any) -> set[str]:
    """The tensors whose values follow from shapes and constants."""
    constants, computed = _constants(graph, _large(graph)), set[str]()
    for node in graph.node:
        known = {*filter(None, node.input)} <= constants | computed and node.op_type != "Expand"
        follows = known and len(node.output) == 1 and bool(computed & {*node.input})
        if node.op_type == "Shape" or follows:
            computed |= {*node.output}
    return computed


def _static_target(
    targets: Sequence[np.ndarray], shapes: Sequence[np.ndarray]
) -> np.ndarray | None:
    """The constant that means the same as all `targets` for data of `shapes`; None if none does."""
    result = []
    for index, size in enumerate(targets[0]):
        if all(target[index] == size for target in targets):
            result.append(int(size))
        elif all(
            index < len(shape) and target[index] == shape[index]
            for target, shape in zip(targets, shapes, strict=True)
        ):
            result.append(0)
        else:
            result.append(-1)
    return np.array(result, np.int64) if result.count(-1) <= 1 else None


def _values(
    model: OnnxModel,
    names: Sequence[str],
    shapes: Mapping[str, str],
    examples: Sequence[Inputs],
) -> dict[str, list[np.ndarray]]:
    """For each example the tensors `names`, and the shapes of other tensors, by their new names."""
    import onnx
    import onnxruntime

    wanted = [*names, *shapes.values()]
    if not wanted:
        return {}
    probe, large = onnx.ModelProto(), _large(model.graph)
    probe.opset_import.extend(model.opset_import)
    probe.ir_version = model.ir_version
    graph = probe.graph
    graph.name = "probe"
    graph.input.extend(model.graph.input)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    for tensor in model.graph.initializer:
        if tensor.name not in large:
            graph.initializer.append(tensor)
    for name, tensor in large.items():  # zeros: a large network's weights fill the memory
        sizes = onnx.numpy_helper.from_array(np.array(tensor.dims, np.int64), f"{name}_sizes")
        graph.initializer.append(sizes)
        zero = onnx.helper.make_tensor("value", tensor.data_type, [1], [0])
        graph.node.append(
            onnx.helper.make_node("ConstantOfShape", [sizes.name], [name], value=zero)
        )
    graph.node.extend(model.graph.node)
    graph.node.extend(
        onnx.helper.make_node("Shape", [tensor], [name]) for tensor, name in shapes.items()
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answers = [session.run(wanted, {**example}) for example in examples]
    return {name: [answer[i] for answer in answers] for i, name in enumerate(wanted)}


def _large(graph: Any) -> dict[str, Any]:
    """Weights that no shape is worked out from, by name."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type in floats and np.prod(tensor.dims) > LARGEST_CONSTANT
    }


def _drop_divisions_by_one(model: OnnxModel) -> None:
    graph = model.graph
    ones = {name for name, value in _numbers(graph).items() if value.ndim == 0 and value == 1}
    _bypass(graph, lambda node: node.op_type == "Div" and node.input[1] in ones)


def _bypass(graph: Any, useless: Callable[[OnnxNode], bool]) -> None:
    """Remove useless nodes, whose readers get their first input; the graph's outputs stay."""
    outputs = {output.name for output in graph.output}
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if useless(node) and not outputs & {*node.output}:
            renamed[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    _set_nodes(graph, nodes)


def _drop_unused(model: OnnxModel) -> None:
    """Nodes and weights that no output depends on."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & {*node.output}:
            needed |= {*node.input}
            nodes.append(node)
    _set_nodes(graph, nodes[::-1])
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    graph.ClearField("initializer")
    graph.initializer.extend(weights)


def _constants(graph: Any, left_out: Container[str] = ()) -> set[str]:
    """Names of weights but those `left_out`, and of what nodes compute from them alone."""
    constants = {tensor.name for tensor in graph.initializer if tensor.name not in left_out}
    for node in graph.node:
        if {*filter(None, node.input)} <= constants:
            constants |= {*node.output}
    return constants


def _set_nodes(graph: Any, nodes: Sequence[OnnxNode]) -> None:
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(kept)

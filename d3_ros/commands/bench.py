"""Measure speed: the network in every mode beside other ways; or, with --ros, the message side.

On a GPU everything has random weights of the official network's size; they do not matter to the
time. On a CPU it is the bundled model, unless told otherwise. The modes: plain (diffusers' modules
as they come), exact (specialised at load time, same numbers), fast (tiny codec instead of the VAE),
onnx and onnx-int8 (the graphs of a bundle that has them, on ONNX Runtime), and for comparison
official (as the authors' code runs it), marigold (diffusers' pipeline, one step) and
depth-anything-S, -B, -L (transformers). Each row is one frame of every camera, from the host's
pixels to the host's answer.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import write_whole
from d3_ros.types import TASKS, Task

if TYPE_CHECKING:
    from d3_ros.bench.network.run import Setting

CPU_MODEL, CPU_SIZES = "d3_nano", ("168x224", "240x320")
OFFICIAL, SIZES = "sd21", ("480x640", "768x768")
OUTPUTS: dict[str, tuple[Task, ...]] = {"depth": ("depth",), "both": TASKS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--ros", action="store_true", help="the message side, without the network")
    parser.add_argument(
        "--flops",
        action="store_true",
        help="only count operations, optimisation by optimisation; needs neither GPU nor memory",
    )
    parser.add_argument(
        "--proof",
        type=Path,
        metavar="DIR",
        help="check numbers, graphs and memory of a GPU and measure the whole table, resumable; "
        "writes DIR/proof.json and DIR/proof.md. On a CPU: a small network, to try the command",
    )
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="with --proof: no step begins later"
    )
    parser.add_argument("--size", default="640x480", help="camera image, WIDTHxHEIGHT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--cameras", nargs="+", type=int, default=[1, 2], metavar="N", help="how many at a time"
    )
    _add_network_arguments(parser.add_argument_group("the network"))
    _add_ros_arguments(parser.add_argument_group("with --ros"))


def _add_network_arguments(network: argparse._ArgumentGroup) -> None:
    network.add_argument(
        "--model", help=f"a bundle, name or folder; on a CPU {CPU_MODEL}, without --architecture"
    )
    network.add_argument(
        "--architecture",
        choices=("sd21", "small"),
        help="random weights: of the official network (on a GPU, without --model), or of a few "
        "channels to try the command",
    )
    network.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    network.add_argument("--dtype", default="auto", choices=("auto", "fp16", "bf16", "fp32"))
    network.add_argument(
        "--modes", nargs="+", metavar="MODE", help="all that there are, if left out"
    )
    network.add_argument(
        "--sizes",
        nargs="+",
        metavar="HxW",
        help=f"processing sizes of our modes; {' '.join(SIZES)}, for {CPU_MODEL} "
        f"{' '.join(CPU_SIZES)}",
    )
    network.add_argument(
        "--providers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="ONNX Runtime's execution providers in order of preference, for the modes onnx and "
        "onnx-int8: cpu, cuda, tensorrt, openvino, coreml, as far as the installed build has them",
    )
    network.add_argument("--outputs", nargs="+", default=list(OUTPUTS), choices=tuple(OUTPUTS))
    network.add_argument(
        "--rival-size",
        type=int,
        default=768,
        metavar="N",
        help="side at which the official way and Marigold see the image; Depth Anything's shorter "
        "side is 518/768 of it",
    )
    network.add_argument("--frames", type=int, default=30, help="frames measured per row")
    network.add_argument(
        "--in-turn",
        action="store_true",
        help="alternate between the modes frame by frame: for a machine with other load",
    )


def _add_ros_arguments(ros: argparse._ArgumentGroup) -> None:
    ros.add_argument("--seconds", type=float, default=10.0, help="how long each run measures")
    ros.add_argument("--rate", type=float, default=15.0, help="frames per second of a camera")
    ros.add_argument(
        "--overload",
        type=float,
        metavar="SECONDS",
        help="instead: a network that takes so long, and a camera (--rate 60, say) that does not "
        "wait for it",
    )


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and print its table."""
    width, height = _size(args.size, "--size", "WIDTHxHEIGHT, as in 640x480")
    if args.frames < 1 or min(args.cameras) < 1:
        raise DataError("--frames and --cameras must be at least 1")
    if not (0 < args.seconds < math.inf and 0 < args.rate < math.inf):
        raise DataError("--seconds and --rate must be positive")
    if args.proof is not None:
        return _proof(args, width, height)
    if args.flops:
        report = _flops(args)
    else:
        report = _ros(args, width, height) if args.ros else _network(args, width, height)
    if args.json:
        write_whole(args.json, json.dumps(report, indent=2) + "\n")
    return 0


def _network(args: argparse.Namespace, width: int, height: int) -> dict[str, Any]:
    from d3_ros.bench.network import run, table
    from d3_ros.bench.network.measuring import machine, probe_roofline
    from d3_ros.network.inference.torch_runtime import choose_device, choose_dtype

    if args.model and args.architecture:
        raise DataError("--model is a bundle's weights, --architecture random ones: give one")
    device = choose_device(args.device)
    if device.type == "cpu" and not args.architecture:
        args.model = args.model or CPU_MODEL
    sizes = _sizes(args, CPU_SIZES if args.model == CPU_MODEL else SIZES)
    modes = args.modes or run.available_modes(args.model)
    run.check_modes(modes, args.model)
    if args.providers and not {*modes} & {*run.ONNX_DTYPES}:
        raise DataError("--providers are ONNX Runtime's: give --modes onnx or onnx-int8, too")
    setting = run.Setting(
        bundle=args.model,
        architecture=args.architecture or OFFICIAL,
        device=device,
        dtype=choose_dtype(args.dtype, device),
        image_size=(height, width),
        rival_size=args.rival_size,
        frames=args.frames,
        providers=tuple(args.providers),
    )
    outputs = _outputs_of(args.model, [OUTPUTS[name] for name in args.outputs])
    wanted = run.rows(modes, sizes, outputs, args.cameras)
    found, roofline = machine(device), probe_roofline(device, setting.dtype)
    print(table.header(found, roofline, _about(setting)) + "\n")
    print(table.heading())
    results: list[run.Result] = []
    # The official way first: the others' last column is against it.
    wanted.sort(key=lambda row: row.mode != "official")
    for result in run.measure(setting, wanted, args.in_turn):
        results.append(result)
        print(table.line(result, results), flush=True)
    print(f"\n{table.stage_heading()}")
    for result in results:
        for text in table.stage_lines(result, roofline):
            print(text)
    return {**table.report(found, roofline, results), "providers": args.providers}


def _outputs_of(model: str | None, wanted: list[tuple[Task, ...]]) -> list[tuple[Task, ...]]:
    """Those of the wanted outputs that a bundle has.

    Raises:
        DataError: it has none of them.
    """
    from d3_ros.network.bundle.manifest import read_manifest

    if model is None:
        return wanted
    tasks = read_manifest(model)[1].tasks
    there = [outputs for outputs in wanted if {*outputs} <= tasks.keys()]
    if not there:
        raise DataError(f"{model} has {' and '.join(tasks)} only: see --outputs")
    return there


def _proof(args: argparse.Namespace, width: int, height: int) -> int:
    from d3_ros.bench.network.proof import Proof, prove
    from d3_ros.bench.network.run import Setting
    from d3_ros.network.inference.torch_runtime import choose_device, choose_dtype

    device = choose_device(args.device)
    on_cuda = device.type == "cuda"
    setting = Setting(
        bundle=None,
        architecture=args.architecture or (OFFICIAL if on_cuda else "small"),
        device=device,
        dtype=choose_dtype(args.dtype, device),
        image_size=(height, width),
        rival_size=args.rival_size if on_cuda else 64,
        frames=args.frames if on_cuda else 1,
    )
    sizes = _sizes(args, SIZES if on_cuda else ("64x64",))
    passed = prove(Proof(args.proof, setting, sizes, args.minutes), print)
    verdict = "all steps passed" if passed else "not complete, or a step failed"
    print(f"{args.proof / 'proof.md'}: {verdict}")
    return 0 if passed else 1


def _flops(args: argparse.Namespace) -> dict[str, Any]:
    from d3_ros.bench.network import table
    from d3_ros.bench.network.architectures import ARCHITECTURES
    from d3_ros.bench.network.operations import count_operations

    architecture = args.architecture or OFFICIAL
    print(f"random weights of {architecture}; two operations per multiply-accumulate\n")
    print(table.operations_heading())
    rows: list[dict[str, Any]] = []
    for size in _sizes(args, SIZES):
        printed: dict[tuple[Any, ...], str] = {}
        for name in args.outputs:
            tasks = OUTPUTS[name]
            changes = tuple(count_operations(ARCHITECTURES[architecture], size, tasks))
            rows += [{"size": size, "tasks": tasks, **vars(counted)} for counted in changes]
            if changes in printed:
                print(f"{size[0]}x{size[1]} {name}: the same as {printed[changes]}", flush=True)
                continue
            printed[changes] = name
            for counted in changes:
                print(table.operations_line(size, tasks, counted, changes[0]), flush=True)
    return {"operations": rows}


def _sizes(args: argparse.Namespace, default: Sequence[str]) -> list[tuple[int, int]]:
    texts = args.sizes or default
    return [_size(text, "--sizes", "HEIGHTxWIDTH, as in 480x640") for text in texts]


def _about(setting: Setting) -> str:
    weights = setting.bundle or f"random weights of {setting.architecture}"
    height, width = setting.image_size
    precision = str(setting.dtype).removeprefix("torch.")
    about = f"{weights}, {width} x {height} images, {precision}, {setting.frames} frames a row"
    return about + (f", ONNX on {', '.join(setting.providers)}" if setting.providers else "")


def _ros(args: argparse.Namespace, width: int, height: int) -> dict[str, Any]:
    try:
        from d3_ros.bench import node_thread as bench
    except ImportError as error:
        raise DataError(f"bench --ros needs ROS 2's client library: {error}") from error

    run_args = (width, height, args.seconds, args.rate)
    print(f"{args.size}, {args.rate:g} Hz, {args.seconds:g} s each; milliseconds\n")
    report: dict[str, Any] = {"size": args.size, "rate_hz": args.rate}
    if args.overload is not None:
        report["overload"] = bench.bench_overload(*run_args, args.overload)
        _print_overload(report["overload"])
        return report
    for count in args.cameras:
        name, title = ("node", "the node") if count == 1 else (f"node_{count}", f"{count} cameras")
        report[name] = bench.bench_node(*run_args, points_normals=False, cameras=count)
        _print_run(f"{title}, as it comes", report[name])
    report["ready"] = bench.bench_ready(*run_args, normals=False)
    _print_run("ready messages of the same sizes", report["ready"])
    report["node_points_with_normals"] = bench.bench_node(*run_args)
    _print_run("the node, normals in the cloud too", report["node_points_with_normals"])
    report["ready_with_normals"] = bench.bench_ready(*run_args, normals=True)
    _print_run("ready messages, normals in the cloud too", report["ready_with_normals"])
    _print_ratios(report)
    report["node_normals_from_depth"] = bench.bench_node(*run_args, normals_from_network=False)
    _print_run("the same, normals from depth", report["node_normals_from_depth"])
    try:
        report["usual_way"] = bench.bench_naive(*run_args)
        _print_run("the usual way: cv_bridge, create_cloud", report["usual_way"])
    except DataError as error:
        print(error)
    return report


def _print_ratios(report: dict[str, Any]) -> None:
    """Our thread without the scale, against publishing messages that are ready."""
    pairs = {"node": "ready", "node_points_with_normals": "ready_with_normals"}
    report["against_ready_messages"] = {
        ours: report[ours]["node_thread_ms"]["without the scale"]["p50"]
        / report[ready]["node_thread_ms"]["all"]["p50"]
        for ours, ready in pairs.items()
        if ours in report
    }
    for ours, ratio in report["against_ready_messages"].items():
        print(f"{ours}: {ratio:.2f} x the time of ready messages (limit 1.6)")
    print()


def _print_overload(run: dict[str, Any]) -> None:
    age, memory = run["age_ms"], run["memory_mib"]
    print(f"network takes {run['inference_ms']:.0f} ms")
    print(
        f"age of the output at the subscriber: p50 {age['p50']:.0f}, p95 {age['p95']:.0f}, "
        f"max {age['max']:.0f} ms"
    )
    print(
        f"{run['subscriber']['sent']} sent, {run['received']} received = {run['published']} "
        f"published + {run['dropped']} dropped + {run['refused']} refused + {run['idle']} idle"
    )
    print(f"resident memory {memory['early']:.1f} MiB early, {memory['late']:.1f} MiB at the end")


def _size(text: str, option: str, form: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise DataError(f"{option} {text}: give {form}")
    return int(match[1]), int(match[2])


def _print_run(title: str, run: dict[str, Any]) -> None:
    rows = {f"node's thread, {name}": row for name, row in run["node_thread_ms"].items()}
    rows.update({f"  {name}": row for name, row in run.get("stages_ms", {}).items()})
    subscriber = run["subscriber"]
    rows["camera's stamp to the subscriber's callback"] = subscriber["latency_ms"]
    print(f"{title:<48} {'p50':>8} {'p95':>8}")
    for name, row in rows.items():
        print(f"{name:<48} {row['p50']:8.2f} {row['p95']:8.2f}")
    if "published" in run:
        print(f"{run['received']} received, {run['published']} published, {run['dropped']} dropped")
    print(f"{subscriber['received_mb_per_s']:.0f} MB/s arrived\n")

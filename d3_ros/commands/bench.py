"""Measure speed: message to message, everything but the network."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from d3_ros.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--ros", action="store_true", help="the node from message to message, without its network"
    )
    parser.add_argument("--size", default="640x480", help="image size, WIDTHxHEIGHT")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each run measures")
    parser.add_argument("--rate", type=float, default=15.0, help="frames per second of the camera")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and print its table."""
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", args.size)
    if size is None:
        raise DataError(f"--size {args.size}: give WIDTHxHEIGHT, as in 640x480")
    try:
        from d3_ros.ros import bench
    except ImportError as error:
        raise DataError(f"bench --ros needs ROS 2's client library: {error}") from error

    run_args = (int(size[1]), int(size[2]), args.seconds, args.rate)
    print(f"{args.size}, {args.rate:g} Hz, {args.seconds:g} s each; milliseconds\n")
    report: dict[str, Any] = {"size": args.size, "rate_hz": args.rate}
    report["node"] = bench.bench_node(*run_args, points_normals=False)
    _print_run("the node, as it comes", report["node"])
    report["node_points_with_normals"] = bench.bench_node(*run_args)
    _print_run("the node, normals in the cloud too", report["node_points_with_normals"])
    report["node_normals_from_depth"] = bench.bench_node(*run_args, normals_from_network=False)
    _print_run("the same, normals from depth", report["node_normals_from_depth"])
    try:
        report["usual_way"] = bench.bench_naive(*run_args)
        _print_run("the usual way: cv_bridge, sensor_msgs_py", report["usual_way"])
    except DataError as error:
        print(error)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


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

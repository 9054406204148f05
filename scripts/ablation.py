"""An ablation on a small model: the teacher, the noise-free input and the learned timestep.

    .venv/bin/python scripts/ablation.py --output runs/ablation --seeds 1 2

Each arm is trained with nano_03_teacher.yaml, once per seed, from the prior that nano_02_prior.yaml
made (runs/nano_2/last; both files are in config/training). All arms see the same images for as many
steps. The scores on the test split are printed as a Markdown table. A finished arm is not
run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
ARMS = {
    "D³: teacher, noise-free, learned timestep": [],
    "without the teacher's features": ["model.teacher=null"],
    "without, and noisy input": ["model.teacher=null", "model.input_noise=261"],
    "without, and a fixed timestep": ["model.teacher=null", "model.learn_timestep=false"],
}
SCORES = {"test/abs_rel": "AbsRel", "test/normals_deg": "normals, °"}


def run(arm: list[str], output: Path, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Train one arm in `output`. Returns its last scores."""
    log = output / "log.jsonl"
    if not (output / "done").is_file():
        height, width = args.size
        command = [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nproc-per-node", str(args.processes), "-m", "d3_ros", "train"),
            *("--config", str(ROOT / "config" / "training" / "nano_03_teacher.yaml")),
            *(f"output={output}", f"seed={seed}"),
            f"stages=[{{size: [{height}, {width}], batch: {args.batch}, steps: {args.steps}}}]",
            *("every.validation=100000", "every.pictures=100000", "every.checkpoint=100000"),
            *arm,
            *args.overrides,
        ]
        finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if finished.returncode:
            sys.exit(f"{' '.join(command)}\n{finished.stdout.decode()[-3000:]}")
        (output / "done").touch()
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return next(
        {key: line[key] for key in SCORES} for line in reversed(lines) if set(SCORES) <= set(line)
    )


def main() -> None:
    """Train every arm and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="each arm once a seed")
    parser.add_argument("--size", type=int, nargs=2, default=[48, 64], help="height, width")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--steps", type=int, default=160, help="of every arm")
    parser.add_argument("--processes", type=int, default=2, help="of torchrun")
    parser.add_argument("overrides", nargs="*", help="more for every arm, e.g. data=FOLDER")
    args = parser.parse_args()
    jobs = [(name, seed) for seed in args.seeds for name in ARMS]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for name, seed in tqdm(jobs, unit="run", desc="ablation"):
        # The folder's name has all sizes and a number for the overrides, so that another run is not
        # taken for this one.
        sizes = f"{args.size[0]}x{args.size[1]}_{args.batch}x{args.steps}"
        if args.overrides:
            sizes += f"_{zlib.crc32(' '.join(args.overrides).encode()):08x}"
        output = args.output.resolve() / f"{list(ARMS).index(name)}_{seed}_{sizes}"
        found[name].append(run(ARMS[name], output, args, seed))
    print(f"{args.steps} steps of {args.batch} at {args.size[0]} x {args.size[1]}, ", end="")
    print(f"mean of {len(args.seeds)} seeds (each in brackets)\n")
    print(
        "| arm |", " | ".join(SCORES.values()), "|\n| --- |", " | ".join("---" for _ in SCORES), "|"
    )
    for name, scores in found.items():
        cells = []
        for key in SCORES:
            values = [one[key] for one in scores]
            digits = 1 if "deg" in key else 4
            each = ", ".join(f"{value:.{digits}f}" for value in values)
            cells.append(f"{np.mean(values):.{digits}f} ({each})")
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()

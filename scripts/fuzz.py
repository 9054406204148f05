"""Feed damaged input to everything that parses input, as long as one likes.

    python scripts/fuzz.py                            every target, 10,000 inputs each
    python scripts/fuzz.py picture cloud --count 1000000 --seed 3
    python scripts/fuzz.py --keep /tmp/faults         what broke something is written there

Inputs are valid ones with a few changes (`test/helpers/fuzz_targets.py`), the same for the same
seed. A fault is anything but an answer or one line of a D3Error; an input that takes longer than
--limit seconds of CPU time; and memory above --memory GB, which Python then raises. Some hundred
inputs a target run with the tests.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

import numpy as np  # noqa: E402
from helpers.fuzz_targets import TARGETS, Target, mutated  # noqa: E402


def fuzz(target: Target, count: int, seed: int, limit_s: float, keep: Path | None) -> Counter[str]:
    """Run a target on `count` inputs: how often each fault came."""
    rng = np.random.default_rng(seed)
    seeds = target.seeds()
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(count):
            one, other = (seeds[int(rng.integers(len(seeds)))] for _ in range(2))
            data = mutated(one, other, rng)
            started = time.process_time()  # other load does not count
            try:
                target.run(data, folder)
                fault = ""
            except Exception as error:
                fault = described(error)
            if not fault and time.process_time() - started > limit_s:
                fault = f"longer than {limit_s:g} s of CPU time"
            if fault:
                faults[fault] += 1
                if keep is not None and faults[fault] == 1:
                    (keep / f"{target.run.__name__}_{seed}_{len(faults)}").write_bytes(data)
    return faults


def described(error: Exception) -> str:
    """What was raised, and the place in this project that let it through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "d3_ros" in frame.filename] or list(frames)
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    return f"{type(error).__name__} in {place}: {' '.join(str(error).split())[:120]}"


def main() -> int:
    """Fuzz the targets; 1 where any has a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, default=10_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=5.0, help="CPU seconds for one input")
    parser.add_argument("--memory", type=float, default=4.0, help="GB of address space")
    parser.add_argument("--keep", type=Path, help="folder for inputs that broke something")
    args = parser.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(TARGETS)}")
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (int(args.memory * 1e9),) * 2)
    warnings.simplefilter("error")
    total = 0
    for name in args.targets or TARGETS:
        started = time.monotonic()
        faults = fuzz(TARGETS[name], args.count, args.seed, args.limit, args.keep)
        took = time.monotonic() - started
        print(f"{name}: {args.count} inputs in {took:.0f} s, {faults.total()} faults", flush=True)
        for fault, times in faults.most_common():
            print(f"    {times} x {fault}", flush=True)
        total += faults.total()
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())

"""The weighted mean of two bundles of one training run. It is often better on unseen frames.

    .venv/bin/python scripts/average_bundles.py runs/nano_8/last runs/nano_9/last --share 0.75 \\
        --output runs/average

Both must have the same network, and the second must be trained from the first (Wortsman et al.,
arXiv 2109.01903). The mean of two bundles that were trained apart is useless.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d3_ros.errors import D3Error
from d3_ros.network import load_bundle, write_bundle


def average(first: Path, second: Path, share: float, output: Path) -> None:
    """Write the bundle with (1 - share) times the first's weights and share times the second's.

    Raises:
        D3Error: a bundle is not usable, or the networks differ.
    """
    one, other = load_bundle(first), load_bundle(second)
    weights, others = (dict(b.network.named_parameters()) for b in (one, other))
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in others.items()}:
        raise D3Error(
            f"{first} and {second} are not of one network: their weights have other shapes"
        )
    with torch.no_grad():
        for name, weight in others.items():
            weight.lerp_(weights[name].to(weight), 1 - share)
    write_bundle(
        output,
        other.network,
        name=other.name,
        license=other.license,
        source=f"{1 - share:g} x [{one.source}] + {share:g} x [{other.source}]",
    )


def main() -> None:
    """Average two bundles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="bundle folder")
    parser.add_argument("second", type=Path, help="bundle folder, trained from the first")
    parser.add_argument(
        "--share", type=float, default=0.5, help="share of the second (default: 0.5)"
    )
    parser.add_argument("--output", type=Path, required=True, help="bundle folder to write")
    args = parser.parse_args()
    if not 0 <= args.share <= 1:
        parser.error(f"--share must be 0 to 1, not {args.share}")
    try:
        average(args.first, args.second, args.share, args.output)
    except D3Error as error:
        sys.exit(f"average_bundles: {error}")


if __name__ == "__main__":
    main()

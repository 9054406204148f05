"""A bundle whose depth takes up less of its range, so that no pixel saturates at its ends.

    .venv/bin/python scripts/narrow_range.py runs/d3_nano/1_everything/last --share 0.8 \\
        --output runs/narrow

Relative depth is known up to a scale and a shift only, so nothing is lost: every score after an
affine fit stays. But where a network's answer goes beyond the range of its training, it was cut
off there, and metric depth had no value. The bundle needs decoders that see the picture
(`model.skips`): their last layer is scaled.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d3_ros.errors import D3Error
from d3_ros.network import load_bundle, write_bundle
from d3_ros.network.model.skip_decoder import SkipDecoder
from d3_ros.network.model.tiny_codec import TinyCodec


def narrow_range(bundle: Path, share: float, output: Path) -> None:
    """Write the bundle with depths times `share` around the middle of the range.

    Raises:
        D3Error: the bundle is not usable, or its depth decoder does not see the picture.
    """
    loaded = load_bundle(bundle)
    vae = loaded.network.vae
    decoder = vae.decoders["depth"] if isinstance(vae, TinyCodec) else None
    if not isinstance(decoder, SkipDecoder) or decoder.out.bias is None:
        raise D3Error(f"{bundle}: its depth decoder does not see the picture (model.skips)")
    depths = 4 * vae.config.depth_components  # rows of the last layer: a pixel is unfolded to four
    with torch.no_grad():
        decoder.out.weight[:depths] *= share
        decoder.out.bias[:depths] *= share
        decoder.out.bias[2 * depths :] += math.log(share)  # logs of spreads, of several depths
    write_bundle(
        output,
        loaded.network,
        name=loaded.name,
        license=loaded.license,
        source=f"{loaded.source}; depth takes {share:g} of its range",
    )


def main() -> None:
    """Narrow the range of a bundle's depth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="bundle folder")
    parser.add_argument("--share", type=float, default=0.8, help="of the range (default: 0.8)")
    parser.add_argument("--output", type=Path, required=True, help="bundle folder to write")
    args = parser.parse_args()
    if not 0 < args.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, not {args.share}")
    try:
        narrow_range(args.bundle, args.share, args.output)
    except D3Error as error:
        sys.exit(f"narrow_range: {error}")


if __name__ == "__main__":
    main()

"""Draw what the image's edges bring to metric depth: a row for each frame.

    .venv/bin/python scripts/alignment_pictures.py docs/alignment_edges.jpg FOLDER:NAME ...

A row has the image with the points that the aligner is given, metric depth without and with the
image's edges, and the true depth. A folder without :NAME shows its first frame.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d3_ros import metrics
from d3_ros.data.frame_set import FrameSet
from d3_ros.data.held_out_points import draw_points
from d3_ros.errors import D3Error
from d3_ros.evaluation.evaluate import predict, rgb_of_labels
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.imaging.colour_maps import colour_depth
from d3_ros.imaging.drawing import panels, save_picture, tiled, with_bar, with_points
from d3_ros.network import D3Predictor


def row(predictor: D3Predictor, place: str, points: int) -> np.ndarray:
    """The pictures of one frame side by side, at the size of its labels."""
    folder, _, name = place.partition(":")
    frames = FrameSet(Path(folder), "all")
    frame = frames.read(name or frames.names[0])
    relative = predict(predictor, frame).depth
    assert relative is not None and frame.depth is not None
    rgb = rgb_of_labels(frame)
    truth = np.where(frame.depth > 0, frame.depth, np.float32(np.nan)).astype(np.float32)
    given = draw_points(truth, points, seed=0)
    fits = {
        "without the image": ScaleAligner().update(relative, given, 0.0),
        "with the image": ScaleAligner().update(relative, given, 0.0, rgb=rgb),
    }
    near, far = (float(q) for q in np.nanquantile(truth, (0.02, 0.98)))
    pictures = {f"{points} points": with_points(rgb, given)}
    scored = np.isfinite(truth) & ~np.isfinite(given)
    for title, fit in fits.items():
        metric = fit.apply(relative)
        error = metrics.abs_rel(metric, truth, scored & np.isfinite(metric))
        pictures[f"{title}: AbsRel {error:.3f}"] = with_bar(
            colour_depth(metric, near, far), near, far, "m"
        )
    pictures["true depth"] = with_bar(colour_depth(truth, near, far), near, far, "m")
    return panels(pictures, columns=4)


def main() -> None:
    """Draw and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="picture to write")
    parser.add_argument("frames", nargs="+", metavar="FOLDER:NAME", help="frames with depth")
    parser.add_argument("--points", type=int, default=500, help="measured pixels that are given")
    parser.add_argument("--model", default="d3_nano", help="bundle: name or folder")
    args = parser.parse_args()
    predictor = D3Predictor.from_pretrained(args.model, device="cpu", dtype="fp32")
    rows = [row(predictor, place, args.points) for place in args.frames]
    save_picture(args.output, tiled(rows, columns=1))


if __name__ == "__main__":
    try:
        main()
    except D3Error as error:
        sys.exit(f"alignment_pictures: {error}")

"""Draw the worst frame of each folder: the failure pictures of a bundle's card.

    .venv/bin/python scripts/worst_frames.py docs/d3_nano_worst.jpg FOLDER... --hide osd room

One row per folder: the image, the network's depth after its affine fit to the truth, its error, and
its normals. A folder named with --hide, whose frames may not be shown, has no image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d3_ros.data.frame_set import FrameSet
from d3_ros.errors import D3Error
from d3_ros.evaluation.evaluate import evaluate, predict
from d3_ros.evaluation.scores import affine_depth
from d3_ros.imaging.colour_maps import colour_depth, colour_normals
from d3_ros.imaging.drawing import panels, save_picture, with_bar
from d3_ros.imaging.frame_pictures import error_picture
from d3_ros.network import D3Predictor

SCORE = "affine_depth.abs_rel"


def row(predictor: D3Predictor, frames: FrameSet, hidden: bool) -> np.ndarray:
    """The pictures of the worst frame of a set, side by side."""
    worst = max(evaluate(predictor, frames, points=100), key=lambda one: one.scores[SCORE])
    frame = frames.read(worst.name)
    answer, truth = predict(predictor, frame), frame.depth
    assert answer.depth is not None and answer.normals is not None and truth is not None
    known = np.where(truth > 0, truth, np.float32(np.nan)).astype(np.float32)
    near, far = (float(q) for q in np.nanquantile(known, (0.02, 0.98)))
    fitted = affine_depth(answer.depth, truth).astype(np.float32)
    pictures = {} if hidden else {"image": frame.rgb}
    pictures |= {
        f"{frames.folder.name}/{worst.name}: depth, AbsRel {worst.scores[SCORE]:.3f}": with_bar(
            colour_depth(fitted, near, far), near, far, "m"
        ),
        "error": error_picture(fitted, known),
        "normals": colour_normals(answer.normals),
    }
    return panels(pictures, columns=4)


def main() -> None:
    """Draw and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="picture to write")
    parser.add_argument("folders", type=Path, nargs="+", help="folders of frames")
    parser.add_argument("--hide", nargs="*", default=[], help="names of folders without an image")
    parser.add_argument("--model", default="d3_nano", help="bundle: name or folder")
    args = parser.parse_args()
    hidden = {Path(name).name for name in args.hide}
    if unknown := hidden - {folder.name for folder in args.folders}:
        parser.error(f"--hide {min(unknown)}: no such folder was given")
    predictor = D3Predictor.from_pretrained(args.model, device="cpu", dtype="fp32")
    rows = [row(predictor, FrameSet(f), f.name in hidden) for f in args.folders]
    width = max(one.shape[1] for one in rows)
    padded = [
        cv2.copyMakeBorder(one, 0, 6, 0, width - one.shape[1], cv2.BORDER_CONSTANT, value=(32,) * 3)
        for one in rows
    ]
    save_picture(args.output, np.concatenate(padded))


if __name__ == "__main__":
    try:
        main()
    except D3Error as error:
        sys.exit(f"worst_frames: {error}")

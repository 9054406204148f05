"""Print what each stage of the scale alignment brings, on folders of frames with measured depth."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d3_ros import metrics
from d3_ros.data.held_out_points import draw_points
from d3_ros.data.readers import frame_folders
from d3_ros.errors import D3Error
from d3_ros.evaluation.scale import ScaleFrame
from d3_ros.evaluation.scale_frames import load_frames
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.network import D3Predictor

STAGES = ("global fit", "+ smooth field", "+ detail without image", "+ detail with image")


def answers(frame: ScaleFrame, sparse: np.ndarray) -> list[np.ndarray]:
    """Metres after every stage of `STAGES`; NaN everywhere where a stage refuses."""
    plain = ScaleAligner(local_correction=False).update(frame.relative, sparse, 0.0)
    without = ScaleAligner().update(frame.relative, sparse, 0.0)
    with_image = ScaleAligner().update(frame.relative, sparse, 0.0, rgb=frame.rgb)
    fits = [plain, without, without, with_image]
    if without.ok:
        fits[1] = replace(without, to_metres=replace(without.to_metres, detail=None))
    unknown = np.full(frame.truth.shape, np.nan, np.float32)
    return [fit.apply(frame.relative) if fit.ok else unknown for fit in fits]


def main(folder: Path, seeds: int) -> None:
    """Print a row per stage: AbsRel, AbsRel near steps, boundary F1."""
    predictor = D3Predictor.from_pretrained("d3_nano", device="cpu", dtype="fp32")
    frames = [
        frame
        for inner in frame_folders(folder)
        for frame in load_frames(inner, lambda rgb: predictor(rgb, ("depth",)).depth, 100)
    ]
    for count in (20, 100, 500):
        scores: dict[str, list[tuple[float, float, float]]] = {stage: [] for stage in STAGES}
        for frame in frames:
            for seed in range(seeds):
                sparse = draw_points(frame.truth, count, seed=seed)
                for stage, metric in zip(STAGES, answers(frame, sparse), strict=True):
                    valid = np.isfinite(frame.truth) & np.isfinite(metric) & ~np.isfinite(sparse)
                    f1 = float("nan")
                    if frame.boundary_truth is not None:
                        f1 = metrics.boundary_f1(metric, frame.boundary_truth)[0]
                    at_steps = metrics.abs_rel(metric, frame.truth, valid & frame.near_steps)
                    whole = metrics.abs_rel(metric, frame.truth, valid)
                    scores[stage].append((whole, at_steps, f1))
        for stage, rows in scores.items():
            whole, at_steps, f1 = np.nanmean(rows, axis=0)
            print(f"{count:5d} {stage:24} {whole:.4f} {at_steps:.4f} {f1:.3f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of frames, or of such folders")
    parser.add_argument("seeds", type=int, nargs="?", default=1, help="draws of the points")
    given = parser.parse_args()
    try:
        main(given.folder, given.seeds)
    except D3Error as error:
        sys.exit(f"alignment_ablation: {error}")

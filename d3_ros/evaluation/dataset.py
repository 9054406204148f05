"""Scores of a predictor on a folder of frames with measured or rendered depth.

A folder has `rgb/NAME.*` and `depth/NAME.png` (uint16 millimetres, 0 = not measured), optionally
`normals/NAME.png` (8-bit RGB, n = (value - 128) / 127, 0 = none); or, for a single frame, `rgb.*`
and `depth.png` right in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from d3_ros.errors import DataError
from d3_ros.evaluation import metrics
from d3_ros.network import D3Predictor


def frames(folder: Path) -> list[tuple[Path, Path, Path | None]]:
    """(rgb, depth, normals or None) files of a folder, in order of their names.

    Raises:
        DataError: no frames, or one without its depth.
    """
    found: list[tuple[Path, Path, Path | None]] = []
    if (folder / "depth.png").is_file():
        pictures = sorted(p for p in folder.glob("rgb.*") if p.is_file())
        found.extend((picture, folder / "depth.png", None) for picture in pictures[:1])
    for picture in sorted((folder / "rgb").glob("*")):
        depth = folder / "depth" / f"{picture.stem}.png"
        normals = folder / "normals" / f"{picture.stem}.png"
        if not depth.is_file():
            raise DataError(f"{picture} has no depth: {depth} is missing")
        found.append((picture, depth, normals if normals.is_file() else None))
    if not found:
        raise DataError(f"{folder} has no frames: it needs rgb/NAME.* and depth/NAME.png")
    return found


def evaluate(predictor: D3Predictor, folder: Path) -> Iterator[dict[str, float | str]]:
    """Per frame: its name, depth scores after an affine fit to the truth, normals' angles.

    `abs_rel` and `delta1` without unit, `rmse_m` in metres; `normals_mean_deg` and
    `normals_median_deg` where the folder has true normals.

    Raises:
        DataError: a file cannot be read, or sizes differ.
    """
    for picture, depth_file, normals_file in frames(folder):
        rgb = _read(picture, cv2.IMREAD_COLOR)[..., ::-1]
        metric = _read(depth_file, cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        if metric.shape != rgb.shape[:2]:
            raise DataError(f"{depth_file} is {metric.shape}, its image {rgb.shape[:2]}")
        prediction = predictor(rgb)
        assert prediction.depth is not None
        scores: dict[str, float | str] = {"frame": picture.stem}
        scores.update(depth_scores(prediction.depth, metric))
        if normals_file is not None and prediction.normals is not None:
            pixels = _read(normals_file, cv2.IMREAD_COLOR)[..., ::-1]
            truth = (pixels.astype(np.float32) - 128) / 127
            valid = pixels.any(axis=-1) & np.isfinite(prediction.normals).all(axis=-1)
            truth /= np.maximum(np.linalg.norm(truth, axis=-1, keepdims=True), 1e-6)
            angles = metrics.normal_angles(prediction.normals, truth, valid)
            scores["normals_mean_deg"] = float(angles.mean())
            scores["normals_median_deg"] = float(np.median(angles))
        yield scores


def depth_scores(relative: np.ndarray, metric: np.ndarray) -> dict[str, float]:
    """AbsRel, RMSE and δ1 of affine-invariant (H, W) depth after its best fit to the truth."""
    valid = metric > 0
    scale, shift = metrics.affine_align(relative, metric, valid)
    fitted = scale * relative + shift
    return {
        "abs_rel": metrics.abs_rel(fitted, metric, valid),
        "rmse_m": metrics.rmse(fitted, metric, valid),
        "delta1": metrics.delta1(fitted, metric, valid),
    }


def mean_scores(rows: Sequence[Mapping[str, float | str]]) -> dict[str, float]:
    """The mean of every score over the frames that have it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if not isinstance(value, str):
                values.setdefault(key, []).append(value)
    return {key: float(np.mean(numbers)) for key, numbers in values.items()}


def _read(path: Path, flags: int) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise DataError(f"{path} is not an image that can be read")
    return image

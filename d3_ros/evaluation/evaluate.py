"""Scores of a predictor on folders of frames, frame by frame and in the mean."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from d3_ros.data.frame_set import FrameSet
from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.evaluation.scores import frame_scores
from d3_ros.network import D3Predictor
from d3_ros.types import D3Prediction


@dataclass(frozen=True)
class FrameScores:
    """The scores of one frame by PROTOCOL.SCORE; NaN: it has no answer."""

    folder: str
    name: str
    scores: dict[str, float]


def evaluate(predictor: D3Predictor, frames: FrameSet, points: int) -> list[FrameScores]:
    """Score every frame of a set, with a progress bar.

    Args:
        predictor: who is scored.
        frames: on what.
        points: measured pixels that the sparse fit is given.

    Raises:
        D3Error: a frame cannot be read any more, or the network fails.
    """
    rows = []
    for name in tqdm(frames.names, desc=frames.folder.name, unit="frame", leave=False):
        truth = frames.read(name)
        prediction = predict(predictor, truth)
        scores = frame_scores(
            prediction, truth.depth, truth.normals, points=points, seed=points_seed(name)
        )
        rows.append(FrameScores(str(frames.folder), name, scores))
    return rows


def predict(predictor: D3Predictor, frame: LabelledFrame) -> D3Prediction:
    """What the predictor says of a frame, at the size of the frame's labels."""
    prediction = predictor(frame.rgb)
    height, width = frame.label_size
    if frame.rgb.shape[:2] == (height, width):
        return prediction

    def at(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else cv2.resize(array, (width, height))

    normals = at(prediction.normals)
    if normals is not None:
        normals = normals / np.linalg.norm(normals, axis=2, keepdims=True)
    return D3Prediction(at(prediction.depth), normals)


def points_seed(name: str) -> int:
    """The same points for the same frame, whoever is scored and in whatever company."""
    return zlib.crc32(name.encode())


def mean_scores(rows: Iterable[FrameScores]) -> dict[str, float]:
    """The mean of every score over the frames that have an answer."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.scores.items():
            values.setdefault(key, []).append(value)
    return {key: _mean(numbers) for key, numbers in values.items()}


def write_csv(path: Path, rows: Sequence[FrameScores], more: Mapping[str, Sequence[str]]) -> None:
    """A line a frame: folder, frame, what `more` says by column, and every score."""
    keys = list(dict.fromkeys(key for row in rows for key in row.scores))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["folder", "frame", *more, *keys])
        for i, row in enumerate(rows):
            extra = [column[i] for column in more.values()]
            values = [row.scores.get(key, "") for key in keys]
            writer.writerow([row.folder, row.name, *extra, *values])


def _mean(values: Sequence[float]) -> float:
    told = [value for value in values if np.isfinite(value)]
    return float(np.mean(told)) if told else float("nan")

"""Scores of a predictor on folders of frames: of each frame, and their means."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    """The scores of one frame by PROTOCOL.SCORE; NaN where the bundle gave no answer."""

    folder: str
    name: str
    scores: dict[str, float]


def evaluate(predictor: D3Predictor, frames: FrameSet, points: int) -> list[FrameScores]:
    """Score every frame of a set, with a progress bar.

    Args:
        predictor: the bundle to score.
        frames: labelled frames.
        points: measured pixels that the sparse fit is given.

    Raises:
        D3Error: a frame cannot be read any more, or the network fails.
    """
    rows = []
    for name in tqdm(frames.names, desc=frames.folder.name, unit="frame", leave=False):
        truth = frames.read(name)
        prediction = predict(predictor, truth)
        scores = frame_scores(
            prediction,
            truth.depth,
            truth.normals,
            points=points,
            seed=points_seed(name),
            rgb=rgb_of_labels(truth),
        )
        rows.append(FrameScores(str(frames.folder), name, scores))
    return rows


def predict(predictor: D3Predictor, frame: LabelledFrame) -> D3Prediction:
    """The prediction for a frame, resized to its labels."""
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


def rgb_of_labels(frame: LabelledFrame) -> np.ndarray:
    """(h, w, 3) uint8: a frame's image, resized to its labels."""
    height, width = frame.label_size
    if frame.rgb.shape[:2] == (height, width):
        return frame.rgb
    return cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA)


def points_seed(name: str) -> int:
    """Seed of a frame's sparse points, from its name: all bundles get the same points."""
    return zlib.crc32(name.encode())


def mean_scores(rows: Iterable[FrameScores]) -> dict[str, float]:
    """The mean of every score over the frames that have an answer."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.scores.items():
            values.setdefault(key, []).append(value)
    return {key: _mean(numbers) for key, numbers in values.items()}


def grouped_scores(
    rows: Sequence[FrameScores],
) -> dict[str, tuple[Sequence[FrameScores], dict[str, float]]]:
    """The rows and mean scores of each folder.

    Of several folders also of "all" (the mean over all frames) and the "mean of sets" (the mean
    over the folders of their means, in which a folder with many frames counts no more than others).
    """
    folders: dict[str, list[FrameScores]] = {}
    for row in rows:
        folders.setdefault(row.folder, []).append(row)
    groups: dict[str, tuple[Sequence[FrameScores], dict[str, float]]] = {
        folder: (mine, mean_scores(mine)) for folder, mine in folders.items()
    }
    if len(groups) > 1:
        means = [mean for _, mean in groups.values()]
        keys = dict.fromkeys(key for mean in means for key in mean)
        of_sets = {key: _mean([mean.get(key, np.nan) for mean in means]) for key in keys}
        groups |= {"all": (rows, mean_scores(rows)), "mean of sets": (rows, of_sets)}
    return groups


def _mean(values: Sequence[float]) -> float:
    told = [value for value in values if np.isfinite(value)]
    return float(np.mean(told)) if told else float("nan")

"""Whether one bundle is better than another: paired differences with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from d3_ros.evaluation.evaluate import FrameScores
from d3_ros.evaluation.scores import MEANINGS

CONFIDENCE = 0.95
DRAWS = 10_000
CHUNK = 500  # draws at a time, which bounds the memory
Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class Difference:
    """One score of two bundles on the frames for which both have it.

    `first`, `second`: means. `difference`: second - first, with its confidence interval `low` to
    `high` (NaN with fewer than two frames). `verdict`: about the second bundle.
    """

    key: str
    frames: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    verdict: Verdict

    def row(self) -> str:
        """The difference as a row of a printed table."""
        return (
            f"  {self.key:26} {self.first:9.4g} -> {self.second:9.4g}  {self.difference:+.4f} "
            f"({self.low:+.4f} to {self.high:+.4f})  {self.verdict}"
        )


def compare(
    first: Sequence[FrameScores], second: Sequence[FrameScores], seed: int = 0
) -> list[Difference]:
    """Compare every score that both bundles have.

    The intervals are percentile intervals of a paired bootstrap: frames are drawn with replacement,
    the same ones for both bundles and all scores. Frames are assumed to be independent. Frames of
    one walk resemble each other, so their true intervals are wider.

    Raises:
        ValueError: the rows are not of the same frames.
    """
    if [(row.folder, row.name) for row in first] != [(row.folder, row.name) for row in second]:
        raise ValueError("a comparison needs the scores of the same frames in the same order")
    keys = [
        key
        for key in dict.fromkeys(key for row in first for key in row.scores)
        if any(key in row.scores for row in second)
    ]
    a, b = (
        np.array([[row.scores.get(key, np.nan) for key in keys] for row in rows], np.float64)
        for rows in (first, second)
    )
    both = np.isfinite(a) & np.isfinite(b)
    lows, highs = _intervals(np.where(both, b - a, 0.0), both, seed)
    found = []
    for place, key in enumerate(keys):
        mine = both[:, place]
        if not mine.any():
            continue
        means = float(a[mine, place].mean()), float(b[mine, place].mean())
        low, high = float(lows[place]), float(highs[place])
        found.append(
            Difference(
                key,
                int(mine.sum()),
                *means,
                means[1] - means[0],
                low,
                high,
                _verdict(key, low, high),
            )
        )
    return found


def _intervals(
    differences: np.ndarray, known: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the mean of each column of (N, K) differences over resampled rows."""
    count, columns = differences.shape
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(DRAWS // CHUNK):
        times = rng.multinomial(count, np.full(count, 1 / count), size=CHUNK).astype(np.float64)
        frames = times @ known
        means.append(np.where(frames > 0, times @ differences / np.maximum(frames, 1), np.nan))
    tail = (1 - CONFIDENCE) / 2
    bounds = np.full((2, columns), np.nan)
    drawn = np.concatenate(means)
    for column in range(columns):
        if known[:, column].sum() >= 2:
            bounds[:, column] = np.nanquantile(drawn[:, column], (tail, 1 - tail))
    return bounds[0], bounds[1]


def _verdict(key: str, low: float, high: float) -> Verdict:
    if not low <= high or low <= 0 <= high:
        return "no difference shown"
    gained = low > 0
    return "better" if gained == MEANINGS[key.partition(".")[2]].higher_is_better else "worse"

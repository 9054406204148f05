"""The results of an evaluation: report.json, frames.csv and index.html in one folder."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

import d3_ros
from d3_ros.data.frame_set import FrameSet
from d3_ros.data.held_out_points import draw_points
from d3_ros.evaluation.compare import CONFIDENCE, Difference
from d3_ros.evaluation.evaluate import (
    FrameScores,
    grouped_scores,
    mean_scores,
    points_seed,
    predict,
    rgb_of_labels,
)
from d3_ros.evaluation.output_folder import REPORT, without_nan, write_table
from d3_ros.evaluation.scores import MEANINGS, PROTOCOLS, affine_depth, sparse_fit
from d3_ros.imaging import html_page as html
from d3_ros.imaging.frame_pictures import frame_pictures
from d3_ros.imaging.image_file import encode_jpeg, write_whole
from d3_ros.network import D3Predictor

MADE_BY, FILES = "d3_ros evaluate", ("frames.csv", "index.html")
# The first of these that the frames have ranks them, and stands at the top of the page.
RANKING = ("affine_depth.abs_rel", "normals.mean_deg")
CARDS = ("affine_depth.abs_rel", "affine_depth.delta1", "sparse_fit.abs_rel", "normals.mean_deg")
TITLES, GAIN_TITLES = ("best", "median", "worst"), ("most gained", "median", "most lost")


@dataclass(frozen=True)
class Evaluated:
    """One bundle and its scores, frame by frame."""

    name: str
    predictor: D3Predictor
    rows: list[FrameScores]


def write_report(
    output: Path,
    bundles: Sequence[Evaluated],
    frame_sets: Sequence[FrameSet],
    differences: Sequence[Difference],
    points: int,
) -> None:
    """Write the report of one bundle, or of two side by side, into the folder `output`.

    Args:
        output: a folder that `claim_output` prepared for `FILES`.
        bundles: one, or two scored on the same frames.
        frame_sets: what they were scored on.
        differences: between two bundles; empty for one.
        points: measured pixels that the sparse fit was given.
    """
    write_table(
        output / "frames.csv",
        [
            {"folder": row.folder, "frame": row.name, "bundle": bundle.name, **row.scores}
            for bundle in bundles
            for row in bundle.rows
        ],
    )
    content = {
        "made_by": MADE_BY,
        "files": [REPORT, *FILES],
        "d3_ros": d3_ros.__version__,
        "bundles": [
            {"name": bundle.name, "folders": _by_folder(bundle.rows)} for bundle in bundles
        ],
        "data": [frames.summary for frames in frame_sets],
        "points": points,
        "confidence": CONFIDENCE,
        "differences": [asdict(difference) for difference in differences],
    }
    text = json.dumps(without_nan(content), indent=1, ensure_ascii=False)
    write_whole(output / REPORT, text + "\n")
    _write_page(output / "index.html", bundles, frame_sets, differences, points)


def verdict(bundles: Sequence[Evaluated], differences: Sequence[Difference]) -> str:
    """The result in one sentence, by the first of `RANKING` that was scored."""
    means = mean_scores(bundles[-1].rows)
    key = next((key for key in RANKING if math.isfinite(means.get(key, math.nan))), None)
    if key is None:
        return "No frame could be scored."
    protocol, _, score = key.partition(".")
    scored = f"{MEANINGS[score].label} ({PROTOCOLS[protocol]})"
    name = bundles[-1].name
    difference = next((one for one in differences if one.key == key), None)
    if difference is None:
        count = sum(math.isfinite(row.scores.get(key, math.nan)) for row in bundles[-1].rows)
        return f"{name}: {scored} is {means[key]:.3g} over {count} frames."
    said = {
        "better": f"{name} is better than {bundles[0].name}",
        "worse": f"{name} is worse than {bundles[0].name}",
        "no difference shown": f"No difference between {name} and {bundles[0].name} is shown",
    }[difference.verdict]
    return (
        f"{said}: {scored} is {difference.second:.3g} against {difference.first:.3g} over "
        f"{difference.frames} frames ({CONFIDENCE:.0%} interval of the difference "
        f"{difference.low:+.2g} to {difference.high:+.2g})."
    )


def ranked(bundles: Sequence[Evaluated]) -> list[tuple[str, int]]:
    """(title, index of the row) of the frames to show: best, median and worst.

    Of two bundles: the frames where the second gained most, the median, and where it lost most.
    """
    first, last = bundles[0].rows, bundles[-1].rows
    key = next((key for key in RANKING if any(key in row.scores for row in first)), None)
    if key is None:
        return []
    values = [row.scores.get(key, math.nan) for row in last]
    if len(bundles) > 1:
        values = [
            value - row.scores.get(key, math.nan) for value, row in zip(values, first, strict=True)
        ]
    order = sorted((v, i) for i, v in enumerate(values) if math.isfinite(v))
    titles = TITLES if len(bundles) == 1 else GAIN_TITLES
    places = [0, len(order) // 2, len(order) - 1] if len(order) >= 3 else range(len(order))
    label = f"{PROTOCOLS[key.partition('.')[0]]}: {MEANINGS[key.partition('.')[2]].label}"
    found = []
    for title, place in zip(titles, places, strict=False):
        value, index = order[place]
        found.append((f"{title} frame: {last[index].name} ({label} {value:.3f})", index))
    return found


def _write_page(
    path: Path,
    bundles: Sequence[Evaluated],
    frame_sets: Sequence[FrameSet],
    differences: Sequence[Difference],
    points: int,
) -> None:
    title = " against ".join(bundle.name for bundle in bundles)
    body = [f"<h1>d3_ros: {escape(title)}</h1>"]
    body += [f"<p>{escape(frames.summary)}</p>" for frames in frame_sets]
    metric = mean_scores(bundles[-1].rows).get("sparse_fit.abs_rel", math.nan)
    sentences = (
        [f"Metric depth from {points} measured points is off by {100 * metric:.2g} % on average."]
        if math.isfinite(metric)
        else []
    )
    body += [html.verdict(verdict(bundles, differences), sentences), _cards(bundles)]
    if differences:
        body += _comparison(bundles, differences)
    for index_title, index in ranked(bundles):
        body.append(f"<h2>{escape(index_title)}</h2><div class=frame>")
        body += _frame(bundles, frame_sets, index, index_title, points)
        body.append("</div>")
    for bundle in bundles:
        body.append(f"<h2>Means of {escape(bundle.name)}</h2>")
        body += _means(bundle, points)
    keys = [key for key in RANKING if any(key in row.scores for row in bundles[0].rows)]
    body.append("<h2>Frames</h2>")
    body.append(_frames(bundles, keys))
    html.write_page(path, f"d3_ros: {title}", body)


def _cards(bundles: Sequence[Evaluated]) -> str:
    cards = [(str(len(bundles[0].rows)), "frames")]
    for bundle in bundles:
        means = mean_scores(bundle.rows)
        for key in CARDS:
            if key in means:
                protocol, _, score = key.partition(".")
                text = f"{MEANINGS[score].label}, {protocol.replace('_', ' ')}"
                text = text if len(bundles) == 1 else f"{bundle.name}: {text}"
                cards.append((html.number(means[key], 3), text))
    return html.cards(cards)


def _comparison(bundles: Sequence[Evaluated], differences: Sequence[Difference]) -> list[str]:
    a, b = (bundle.name for bundle in bundles)
    head = ["score", "frames", a, b, "difference", f"{CONFIDENCE:.0%} interval", f"{b} is"]

    def table(shown: Sequence[Difference]) -> str:
        return html.table(
            head,
            [
                [
                    f"{d.key.partition('.')[0].replace('_', ' ')}: "
                    f"{MEANINGS[d.key.partition('.')[2]].label}",
                    d.frames,
                    d.first,
                    d.second,
                    d.difference,
                    f"{html.number(d.low)} to {html.number(d.high)}",
                    d.verdict,
                ]
                for d in shown
            ],
        )

    note = (
        "Mean differences over the same frames, with intervals of a paired bootstrap over frames. "
        "Frames of one walk resemble each other: for them the true intervals are wider."
    )
    return [
        "<h2>Comparison</h2>",
        table([d for d in differences if d.key in CARDS]),
        html.folded(table(differences), f"All {len(differences)} scores"),
        f"<p>{note}</p>",
    ]


def _frame(
    bundles: Sequence[Evaluated],
    frame_sets: Sequence[FrameSet],
    index: int,
    title: str,
    points: int,
) -> list[str]:
    """The pictures of one frame. It is read and predicted again, with the same result."""
    row = bundles[0].rows[index]
    frames = next(one for one in frame_sets if str(one.folder) == row.folder)
    frame = frames.read(row.name)
    answers = {bundle.name: predict(bundle.predictor, frame) for bundle in bundles}
    given = truth = true_normals = None
    depths: dict[str, np.ndarray] = {}
    if frame.depth is not None:
        given = draw_points(frame.depth, points, seed=points_seed(row.name))
        truth = np.where(frame.depth > 0, frame.depth, np.float32(np.nan)).astype(np.float32)
        for name, answer in answers.items():
            if answer.depth is not None:
                fitted = affine_depth(answer.depth, frame.depth).astype(np.float32)
                depths[f"{name}: depth, fitted to the truth"] = fitted
                metric = sparse_fit(answer.depth, given, rgb_of_labels(frame))
                depths[f"{name}: metric depth from the dots"] = metric
    if frame.normals is not None:
        known = frame.normals.any(axis=2, keepdims=True)
        true_normals = np.where(known, frame.normals, np.float32(np.nan)).astype(np.float32)
    pictures = frame_pictures(
        frame.rgb,
        given=given,
        truth=truth,
        depths=depths,
        true_normals=true_normals,
        normals={
            f"{name}: normals": answer.normals
            for name, answer in answers.items()
            if answer.normals is not None
        },
    )
    return [
        html.figure(title, caption, encode_jpeg(picture)) for caption, picture in pictures.items()
    ]


def _means(bundle: Evaluated, points: int) -> list[str]:
    parts = []
    folders = _by_folder(bundle.rows)
    for protocol, meaning in PROTOCOLS.items():
        scores = [
            name
            for name in MEANINGS
            if any(f"{protocol}.{name}" in entry["mean"] for entry in folders.values())
        ]
        if not scores:
            continue
        extra = f" ({points} points a frame, scored on the others)" * (protocol == "sparse_fit")
        told = [f"{MEANINGS[n].label}: {MEANINGS[n].what}" for n in scores if MEANINGS[n].what]
        legend = "".join(f"; {one}" for one in told)
        parts.append(f"<p>{escape(meaning)}{extra}{escape(legend)}</p>")
        parts.append(
            html.table(
                ["folder", "frames", *(MEANINGS[name].label for name in scores)],
                [
                    [
                        folder,
                        entry["answered"].get(protocol, 0),
                        *(entry["mean"].get(f"{protocol}.{name}") for name in scores),
                    ]
                    for folder, entry in folders.items()
                ],
            )
        )
    return parts


def _frames(bundles: Sequence[Evaluated], keys: Sequence[str]) -> str:
    labels = [
        f"{bundle.name}: {MEANINGS[key.partition('.')[2]].label}"
        for bundle in bundles
        for key in keys
    ]
    rows = [
        [
            Path(row.folder).name,
            row.name,
            *(bundle.rows[i].scores.get(key) for bundle in bundles for key in keys),
        ]
        for i, row in enumerate(bundles[0].rows)
    ]
    return html.folded(html.table(["folder", "frame", *labels], rows), f"All {len(rows)} frames")


def _by_folder(rows: Sequence[FrameScores]) -> dict[str, dict[str, Any]]:
    """Means as `grouped_scores` gives them, with the number of scored frames."""
    return {
        name: {
            "frames": len(group),
            "mean": means,
            "answered": {
                protocol: sum(_answered(row, protocol) for row in group) for protocol in PROTOCOLS
            },
        }
        for name, (group, means) in grouped_scores(rows).items()
    }


def _answered(row: FrameScores, protocol: str) -> bool:
    scores = [value for key, value in row.scores.items() if key.startswith(f"{protocol}.")]
    return bool(scores) and math.isfinite(scores[0])

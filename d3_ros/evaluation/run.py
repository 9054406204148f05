"""`python -m d3_ros evaluate` without --scale: score one bundle, or compare two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d3_ros.data.frame_set import FrameSet, Part
from d3_ros.errors import D3Error
from d3_ros.evaluation.compare import CONFIDENCE, Difference, compare
from d3_ros.evaluation.evaluate import FrameScores, evaluate, grouped_scores
from d3_ros.evaluation.output_folder import claim_output
from d3_ros.evaluation.report import FILES, MADE_BY, Evaluated, verdict, write_report
from d3_ros.evaluation.scores import MEANINGS, PROTOCOLS
from d3_ros.network import D3Predictor


def evaluate_bundles(
    bundles: Sequence[tuple[str, D3Predictor]],
    folders: Sequence[Path],
    *,
    part: Part,
    points: int,
    output: Path | None,
    intrinsics: Sequence[float] | None = None,
) -> tuple[list[Evaluated], list[Difference]]:
    """Score bundles on the frames of some folders, print the means, and write a report.

    Args:
        bundles: one (name, predictor), or two to compare.
        folders: plain folders or folders in the official layout.
        part: of each folder, as its split.txt says; all where there is none.
        points: measured pixels that the sparse fit is given.
        output: folder of the report, or None.
        intrinsics: fx, fy, cx, cy in pixels; frames without normals get those of their depth.

    Returns:
        each bundle's scores, and the differences of the second from the first.

    Raises:
        D3Error: a folder has no usable frame, the two bundles have one name, a network fails, or
            `output` cannot be written or holds files of the user's that would be replaced.
    """
    if len({name for name, _ in bundles}) < len(bundles):
        raise D3Error("the two bundles have one name: rename the folder of one of them")
    sets = [FrameSet(folder, part, intrinsics) for folder in folders]
    if output is not None:
        claim_output(output, MADE_BY, FILES)
    for frames in sets:
        print(frames.summary)
    evaluated = [
        Evaluated(
            name, predictor, [row for one in sets for row in evaluate(predictor, one, points)]
        )
        for name, predictor in bundles
    ]
    for bundle in evaluated:
        print(f"\n{bundle.name}")
        print("\n".join(_table(bundle.rows)))
    differences: list[Difference] = []
    if len(evaluated) == 2:
        differences = compare(evaluated[0].rows, evaluated[1].rows)
        print("\n".join(_comparison(evaluated, differences)))
        print(f"\n{verdict(evaluated, differences)}")
    if output is not None:
        write_report(output, evaluated, sets, differences, points)
        print(f"\n{output / 'index.html'}, report.json, frames.csv")
    return evaluated, differences


def _table(rows: Sequence[FrameScores]) -> list[str]:
    """Means by folder and protocol, in lines for a terminal, and what the scores are."""
    lines: list[str] = []
    shown: dict[str, str] = {}
    for folder, (group, means) in grouped_scores(rows).items():
        for protocol in PROTOCOLS:
            scores = {
                MEANINGS[key.partition(".")[2]]: value
                for key, value in means.items()
                if key.startswith(f"{protocol}.")
            }
            if scores:
                told = [f"{meaning.label} {value:.4g}" for meaning, value in scores.items()]
                name = Path(folder).name
                lines.append(f"  {name:16} {len(group):5}  {protocol:17} {'  '.join(told)}")
                shown |= {meaning.label: meaning.what for meaning in scores if meaning.what}
    return lines + [f"  {label}: {what}" for label, what in shown.items()]


def _comparison(bundles: Sequence[Evaluated], differences: Sequence[Difference]) -> list[str]:
    a, b = (bundle.name for bundle in bundles)
    lines = [f"\n{b} against {a}, differences with their {CONFIDENCE:.0%} intervals"]
    return lines + [difference.row() for difference in differences]

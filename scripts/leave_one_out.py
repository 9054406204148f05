"""Does fine-tuning help in places that it has not seen? Each folder is left out once.

    .venv/bin/python scripts/leave_one_out.py FOLDER... --output runs/leave_one_out

For each folder, the bundle is fine-tuned on the frames of all others (by finetune.yaml; --set
replaces a value), and both bundles are scored on the folder that was left out. At the end stands
the difference over all frames, with its 95 % interval. The same command goes on where it was cut
off; other folders, another model or other settings need another --output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d3_ros.data.frame_set import FrameSet
from d3_ros.errors import D3Error
from d3_ros.evaluation.compare import compare
from d3_ros.evaluation.evaluate import FrameScores, evaluate
from d3_ros.evaluation.scores import POINTS
from d3_ros.network import D3Predictor
from d3_ros.training.config.recipes import find_config
from d3_ros.training.config.train_config import TrainConfig, load_config
from d3_ros.training.loop.results import LAST
from d3_ros.training.loop.train import train


def configuration(sets: list[FrameSet], model: str, settings: list[str]) -> TrainConfig:
    """Fine-tuning on the frames of all sets, each frame as often as any other."""
    datasets = ", ".join(
        f"{{kind: folder, path: {json.dumps(str(one.folder))}, weight: {len(one)}}}" for one in sets
    )
    start = [f"model.start={json.dumps(model)}", f"data.datasets=[{datasets}]"]
    return load_config(find_config("finetune.yaml"), [*start, *settings])


def told(before: list[FrameScores], after: list[FrameScores]) -> str:
    """The number of frames, and a row for each AbsRel that both have."""
    rows = [one.row() for one in compare(before, after) if one.key.endswith(".abs_rel")]
    return "\n".join([f"{len(before)} frames", *rows])


def claim(output: Path, arguments: dict[str, object]) -> None:
    """Refuse a folder with runs of other arguments: they may have seen what is left out now.

    Raises:
        SystemExit: `output` has such runs.
    """
    made_by, mine = output / "arguments.json", json.dumps(arguments, indent=1)
    output.mkdir(parents=True, exist_ok=True)
    if made_by.is_file() and made_by.read_text(encoding="utf-8") != mine:
        sys.exit(f"{output} has runs of other arguments ({made_by}): give another --output")
    made_by.write_text(mine, encoding="utf-8")


def main() -> None:
    """Train and score every folder's run, print the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="folders of frames, two or more")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--model", default="d3_nano", help="bundle to start from: name or folder")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the training")
    args = parser.parse_args()
    names = [folder.resolve().name for folder in args.folders]
    if len(set(names)) < len(names):
        parser.error("two folders have one name, and so would their runs: rename one of them")
    if len(args.folders) < 2:
        parser.error("name two folders or more: one is left out, the others are trained on")
    folders = [str(folder.resolve()) for folder in args.folders]
    claim(args.output, {"folders": folders, "model": args.model, "set": args.set})
    sets = [FrameSet(folder.resolve(), "all") for folder in args.folders]
    start = D3Predictor.from_pretrained(args.model, device="auto", dtype="fp32")
    before: list[FrameScores] = []
    after: list[FrameScores] = []
    for left_out in sets:
        others = [one for one in sets if one is not left_out]
        run = args.output / left_out.folder.name
        train(configuration(others, args.model, args.set), run)
        tuned = D3Predictor.from_pretrained(run / LAST, device="auto", dtype="fp32")
        rows = [evaluate(predictor, left_out, POINTS) for predictor in (start, tuned)]
        print(f"\nleft out: {left_out.folder.name}, {told(*rows)}")
        before += rows[0]
        after += rows[1]
    print(f"\nall, {told(before, after)}")


if __name__ == "__main__":
    try:
        main()
    except D3Error as error:
        sys.exit(f"leave_one_out: {error}")

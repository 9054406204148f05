"""Fine-tuning: train on a robot's frames, then compare both bundles on held-out frames.

    OUTPUT.run/data/       the frames, if they came from a bag
    OUTPUT.run/training/   checkpoints, log, pictures, the trained bundle
    OUTPUT.run/report/     both bundles on the held-out frames: index.html
    OUTPUT/                the new bundle, written only if it is better

The held-out frames judge the result, so they must not choose anything: the last weights are taken,
not those that score best on them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from d3_ros.errors import D3Error, DataError
from d3_ros.evaluation.compare import Difference
from d3_ros.evaluation.run import evaluate_bundles
from d3_ros.evaluation.scores import POINTS
from d3_ros.network import D3Predictor, load_bundle
from d3_ros.training.config.recipes import find_config
from d3_ros.training.config.train_config import TrainConfig, load_config
from d3_ros.training.loading.datasets import open_source
from d3_ros.training.loop.results import LAST
from d3_ros.training.loop.train import train

LARGE_UNET = 100_000_000  # parameters; a larger UNet is fine-tuned with LoRA
MIN_TEST_FRAMES = 5  # fewer cannot show a difference


@dataclass(frozen=True)
class Outcome:
    """The comparison on the held-out frames, and the folders.

    decisive: the difference in the score that decides.
    worse: the differences in AbsRel, under all protocols, that are worse beyond doubt.
    trained: the trained bundle, whether it is better or not.
    report: the folder of the comparison.
    """

    decisive: Difference
    worse: tuple[Difference, ...]
    trained: Path
    report: Path

    @property
    def better(self) -> bool:
        """Whether the held-out frames show that the trained bundle is better."""
        return self.decisive.verdict == "better"


def run_folder(output: Path) -> Path:
    """The folder for the files of the run that makes the bundle `output`."""
    return output.with_name(f"{output.name}.run")


def finetune_config(
    model: str, data: Path, output: Path, config: Path | None, settings: Sequence[str]
) -> TrainConfig:
    """The run's configuration, from the file `config` or the recipe for a bundle of this size.

    Raises:
        D3Error: the bundle or the configuration is not usable.
    """
    if config is None:
        unets = load_bundle(model).network.unets.values()
        large = max(sum(p.numel() for p in unet.parameters()) for unet in unets) > LARGE_UNET
        config = find_config("finetune_lora.yaml" if large else "finetune.yaml")
    # As texts: YAML would take 20240501 for a number.
    texts = {"name": output.name, "model.start": model}
    start = [f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in texts.items()]
    start.append(f"data={data}")
    return load_config(config, [*start, *settings])


def finetune(config: TrainConfig, output: Path, judge: str) -> Outcome:
    """Train, score both bundles on the held-out frames, write `output` if the new one is better.

    An interrupted run goes on from its newest checkpoint.

    Args:
        config: of `finetune_config`.
        output: folder of the new bundle.
        judge: the protocol of `evaluation.scores` whose AbsRel decides.

    Raises:
        D3Error: `output` exists, too few frames are held out, or training or scoring fails.
    """
    if output.exists():
        raise D3Error(f"{output} exists: remove it, or give another --output")
    held_out = len(open_source(config.data, (8, 8), "test"))
    if held_out < MIN_TEST_FRAMES:
        raise DataError(
            f"{config.data.datasets[0].path}: {held_out} frames are held out (split.txt), too "
            f"few to show whether the result is better: hold out at least {MIN_TEST_FRAMES}, with "
            "a larger --test-share of a longer recording, or by more lines 'NAME test' in split.txt"
        )
    assert config.model.start is not None
    work = run_folder(output)
    train(config, work / "training")
    trained, report = work / "training" / LAST, work / "report"
    before, after = (
        (name, D3Predictor.from_pretrained(bundle, "auto", "auto"))
        for name, bundle in (
            (f"{config.model.start} (before)", config.model.start),
            (f"{output.name} (after)", trained),
        )
    )
    folders = [Path(dataset.path) for dataset in config.data.datasets]
    _, differences = evaluate_bundles(
        [before, after], folders, part="test", points=POINTS, output=report
    )
    scores = {d.key: d for d in differences if d.key.endswith(".abs_rel")}
    if f"{judge}.abs_rel" not in scores:
        raise DataError(f"{folders[0]}: no held-out frame has depth that {judge} can score")
    worse = tuple(d for d in scores.values() if d.verdict == "worse")
    outcome = Outcome(scores[f"{judge}.abs_rel"], worse, trained, report)
    if outcome.better:
        unfinished = output.with_name(f".{output.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(trained, unfinished)
        unfinished.rename(output)
    return outcome

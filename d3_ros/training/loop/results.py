"""What a run writes besides checkpoints: scores, bundles, pictures, log lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

from d3_ros.network import D3Network, write_bundle
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.loading.datasets import open_source
from d3_ros.training.loop.lora import merge_lora
from d3_ros.training.loop.run import Run
from d3_ros.training.loop.validation import SCORES, objective_scores, write_picture

BEST, LAST = "best", "last"  # bundles in the output folder


def validate_and_export(run: Run) -> None:
    """Score the network on the test split and write it as bundle `last`; as `best` if it is."""
    if not run.accelerator.is_main_process:
        return
    with run.averaged_weights():
        with run.accelerator.autocast():
            scores = objective_scores(run.config, run.network, run.test, run.accelerator.device)
        export(run, LAST)
        score = next((scores[name] for name in SCORES if name in scores), math.inf)
        if score < run.state.best:
            run.state.best = score
            export(run, BEST)
    record(run, {f"test/{name}": value for name, value in scores.items()})


def draw(run: Run) -> None:
    """Write a grid of predictions on test frames; on training frames if there are no others."""
    if not run.accelerator.is_main_process:
        return
    config = run.config
    source = run.test if len(run.test) else open_source(config.data, config.size, "train")
    path = run.output / "pictures" / f"step_{run.state.step:08d}.png"
    with run.averaged_weights(), run.accelerator.autocast():
        write_picture(path, run.network, source, config.tasks.trained, run.accelerator.device)


def export(run: Run, name: str) -> None:
    """Write the network as a bundle, whole or not at all, in place of the one before."""
    config, network = run.config, run.network
    if config.model.lora is not None:
        network = deepcopy(network)
        merge_lora(network)
    with _bundle_curve(network, config.model.bundle_depth_curve):
        write_bundle(
            run.output / name,
            network,
            name=config.name,
            license=run.license,
            source=f"trained by d3_ros from {config.model.start or 'random weights'}: "
            f"step {run.state.step} of {config.steps}, seed {config.seed}",
            overwrite=True,
        )


@contextmanager
def _bundle_curve(network: D3Network, curve: float | None) -> Iterator[None]:
    """Inside the block, a small codec has the depth curve `curve`, if one is given."""
    codec = network.vae
    if curve is None or not isinstance(codec, TinyCodec):
        yield
        return
    trained = codec.config
    codec.config = replace(trained, depth_curve=curve)
    try:
        yield
    finally:
        codec.config = trained


def record(run: Run, values: Mapping[str, float]) -> None:
    """Write numbers to log.jsonl, and to TensorBoard if it is installed."""
    if run.accelerator.is_main_process and values:
        with (run.output / "log.jsonl").open("a", encoding="utf-8") as log:
            print(json.dumps({"step": run.state.step, **values}), file=log)
        run.accelerator.log(dict(values), step=run.state.step)


def in_words(values: Mapping[str, float]) -> str:
    """Numbers by name, in one line."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())

"""Loads and warms up the network as the parameters say, and gives its memory back."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from d3_ros.errors import BundleError
from d3_ros.ros.parameters.node_settings import NodeSettings

if TYPE_CHECKING:
    from d3_ros.network import D3Predictor


def load_network(settings: NodeSettings, say: Callable[[str], object]) -> D3Predictor:
    """The predictor that the parameters name, ready for its first frame.

    Args:
        settings: the parameters of the network (model to target_latency_ms) are used.
        say: gets a line about what is loaded and under which licence, which runtime was chosen and
            why, which provider failed, and where it runs.

    Raises:
        BundleError: there is no such model, it is damaged, or it has no depth.
        DeviceError: the device is not there or too small.
        DataError: the processing size is not possible.
        NonFiniteError: the network cannot run in this dtype.
    """
    # Importing torch takes seconds: a node that waits to be configured should not.
    from d3_ros.network import D3Predictor
    from d3_ros.network.bundle.manifest import read_manifest

    folder, manifest = read_manifest(settings.model)
    licence = manifest.license or "not stated"
    say(f"loading model {folder}: {manifest.name}, licence of its weights: {licence}")
    with _told(say):
        predictor = D3Predictor.from_pretrained(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            processing_size=settings.processing_size,
            codec="tiny" if settings.codec == "tiny" else "vae",
            optimisations=None if settings.specialise else (),
            target_latency_ms=settings.target_latency_ms or None,
            runtime=settings.runtime,  # type: ignore[arg-type]  # one of the parameter's choices
            providers=[name for name in settings.providers if name],
            threads=settings.threads,
        )
    if "depth" not in predictor.tasks:
        raise BundleError(
            f"model '{settings.model}' predicts {', '.join(predictor.tasks)} only: "
            "the node needs one with depth"
        )
    predictor.warm_up(images=len(settings.cameras))
    tasks = " and ".join(predictor.tasks)
    say(f"ready: {tasks} on {predictor.device} in {predictor.precision}")
    return predictor


@contextmanager
def _told(say: Callable[[str], object]) -> Iterator[None]:
    """While the block runs, hand every log line of `d3_ros.network` to `say`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logger, handler = logging.getLogger("d3_ros.network"), Handler(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def free_memory() -> None:
    """Give memory of networks that are no longer used back to the GPU's other users."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

"""D³-Predictor: the network, its bundles, and the predictor that applies it to images.

The names below are imported on first use: `--help`, `download` and reading a bundle's manifest
need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d3_ros.network.bundle.folder import Bundle, load_bundle, write_bundle
    from d3_ros.network.inference.predictor import D3Predictor
    from d3_ros.network.model.d3_network import D3Network
    from d3_ros.network.model.task_spec import OFFICIAL_NORMAL_AXES, PROMPTS, TaskSpec

__all__ = [
    "OFFICIAL_NORMAL_AXES",
    "PROMPTS",
    "Bundle",
    "D3Network",
    "D3Predictor",
    "TaskSpec",
    "load_bundle",
    "write_bundle",
]

_MODULES = {
    "bundle.folder": ("Bundle", "load_bundle", "write_bundle"),
    "inference.predictor": ("D3Predictor",),
    "model.d3_network": ("D3Network",),
    "model.task_spec": ("OFFICIAL_NORMAL_AXES", "PROMPTS", "TaskSpec"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"d3_ros.network.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The node's log about its network: which runtime was chosen, and why."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from d3_ros.network import D3Predictor
from d3_ros.ros.node.loading import load_network
from d3_ros.ros.parameters.node_settings import NodeSettings


def test_the_choice_of_the_runtime_is_in_the_nodes_log(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("d3_ros.network.inference.choose_runtime")

    def from_pretrained(*_: object, **__: object) -> SimpleNamespace:
        logger.info("%s runs on ONNX Runtime: the bundle has graphs for it", "d3_nano")
        logger.warning("cuda failed; trying cpu")
        return SimpleNamespace(
            tasks=("depth",), device="cpu", precision="fp32", warm_up=lambda images: None
        )

    monkeypatch.setattr(D3Predictor, "from_pretrained", from_pretrained)
    lines: list[object] = []
    load_network(NodeSettings(), lines.append)
    assert lines[1:3] == [
        "d3_nano runs on ONNX Runtime: the bundle has graphs for it",
        "cuda failed; trying cpu",
    ]
    logger.info("later")
    assert "later" not in lines

"""What the node's parameters make of the network."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.tiny_codec import tiny_codec

from d3_ros.errors import BundleError
from d3_ros.network import D3Predictor
from d3_ros.network.bundle.folder import add_codec
from d3_ros.network.inference.specialise import EXACT, SpecialisedNetwork
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.ros.node.loading import load_network
from d3_ros.ros.parameters.node_settings import settings_from

pytestmark = pytest.mark.ros


def load(bundle: Path, **values: object) -> tuple[D3Predictor, list[str]]:
    said: list[str] = []
    settings = settings_from({"model": str(bundle), "device": "cpu", **values})
    return load_network(settings, said.append), said


def test_as_it_comes_the_network_is_specialised(tiny_bundle: Path) -> None:
    predictor, said = load(tiny_bundle)
    assert isinstance(predictor.runtime.network, SpecialisedNetwork)
    assert predictor.runtime.network.applied == EXACT
    assert predictor.latency == {}
    reason = "it has no ONNX graphs for codec vae in fp32 (python -m d3_ros export)"
    assert said == [
        f"loading model {tiny_bundle}: tiny, licence of its weights: Apache-2.0",
        f"tiny runs on PyTorch: {reason}",
        "ready: depth and normals on cpu in fp32",
    ]


def test_specialising_can_be_switched_off(tiny_bundle: Path) -> None:
    predictor, _ = load(tiny_bundle, specialise=False)
    assert not isinstance(predictor.runtime.network, SpecialisedNetwork)


def test_the_tiny_codec_is_taken_where_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no tiny codec"):
        load(tiny_bundle, codec="tiny")
    bundle = add_codec(tiny_bundle, tmp_path / "fast", tiny_codec())
    assert isinstance(load(bundle, codec="tiny")[0].runtime.network.vae, TinyCodec)
    assert not isinstance(load(bundle)[0].runtime.network.vae, TinyCodec)


def test_a_target_latency_is_measured_before_the_first_frame(tiny_bundle: Path) -> None:
    predictor, _ = load(tiny_bundle, target_latency_ms=1000, processing_size="192x256")
    state = predictor.latency[480, 640]
    assert state.target_ms == 1000
    assert state.rungs == 2  # 128 x 192 and 192 x 256


def test_a_provider_that_failed_is_in_the_nodes_log(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("d3_ros.network.inference.onnx_runtime")

    def from_pretrained(*_: object, **__: object) -> SimpleNamespace:
        logger.warning("cuda: the self-check differs; trying cpu")
        return SimpleNamespace(
            tasks=("depth",), device="cpu", precision="fp32", warm_up=lambda images: None
        )

    monkeypatch.setattr(D3Predictor, "from_pretrained", from_pretrained)
    _, said = load(Path("d3_nano"))
    assert said[1] == "cuda: the self-check differs; trying cpu"
    logger.warning("later")
    assert len(said) == 3

"""How a frame runs on its device: graphs by kind of frame, and the fallback without them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_network import SIZE, tiny_network

from d3_ros.network import D3Predictor
from d3_ros.network.inference.torch_runtime import HostLink, NetworkRunner, TorchRuntime
from d3_ros.types import TASKS

CPU = torch.device("cpu")


class Runner(NetworkRunner):
    """Captures as if this were CUDA; what is captured is the network itself."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__(tiny_network().requires_grad_(False), CPU)
        self._graphs = True
        self.fault = fault
        self.captured: list[tuple[Any, ...]] = []
        self.replays = 0

    def _capture(self, image: torch.Tensor, tasks: Any) -> Any:
        self.captured.append((tuple(image.shape), tasks))
        if self.fault is not None:
            raise self.fault

        def replay(image: torch.Tensor) -> Any:
            self.replays += 1
            return self.network(image, tasks)

        return replay


def test_one_graph_per_size_batch_and_choice_of_tasks() -> None:
    runner = Runner()
    kinds = [((1, 3, 64, 96), TASKS), ((1, 3, 64, 96), ("depth",)), ((2, 3, 32, 32), ("depth",))]
    with torch.inference_mode():
        for _ in range(3):
            for shape, tasks in kinds:
                decoded = runner(torch.zeros(shape), tasks)
                assert {name: len(image) for name, image in decoded.items()} == dict.fromkeys(
                    tasks, shape[0]
                )
    assert runner.captured == kinds
    assert runner.replays == 9


def test_without_graphs_it_runs_all_the_same_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = Runner(RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing"))
    image = torch.rand(1, 3, *SIZE)
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        first, second = (runner(image, ("depth",))["depth"] for _ in "ab")
        expected = runner.network(image, ("depth",))["depth"]
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph can be captured, running without: CUDA error: operation not permitted"
    ]
    assert len(runner.captured) == 1


def test_a_warm_up_captures_whatever_will_be_asked_for() -> None:
    predictor = D3Predictor(TorchRuntime(tiny_network()))
    runner = predictor.runtime.runner = Runner()
    predictor.warm_up((48, 80), images=2)
    warm = set(runner.captured)
    assert warm == {
        ((count, 3, *SIZE), tasks)
        for count in (1, 2)
        for tasks in (TASKS, ("depth",), ("normals",))
    }
    rgb = np.zeros((48, 80, 3), np.uint8)
    predictor(rgb, tasks=("depth",))
    predictor.predict_batch([rgb, rgb])
    assert len(runner.captured) == len(warm)


def test_too_little_memory_for_a_graph_is_not_hidden() -> None:
    runner = Runner(torch.cuda.OutOfMemoryError("out of memory"))
    with pytest.raises(torch.cuda.OutOfMemoryError), torch.inference_mode():
        runner(torch.zeros(1, 3, *SIZE), ("depth",))


def test_on_the_cpu_nothing_is_captured() -> None:
    runner = NetworkRunner(tiny_network(), CPU)
    runner._capture = None  # type: ignore[assignment]  # not to be called
    with torch.inference_mode():
        assert runner(torch.zeros(1, 3, *SIZE), ("depth",))["depth"].shape == (1, 3, *SIZE)


def test_answers_are_the_callers_own() -> None:
    """An answer that is kept does not change under the next image."""
    predictor = D3Predictor(TorchRuntime(tiny_network()))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (48, 80, 3), dtype=np.uint8) for _ in "ab"]
    first = predictor(images[0])
    assert first.depth is not None
    kept = first.depth.copy()
    second = predictor(images[1])
    assert second.depth is not None
    np.testing.assert_array_equal(first.depth, kept)
    assert not np.array_equal(first.depth, second.depth)


def test_the_staging_buffer_is_used_again() -> None:
    link = HostLink(CPU)
    first = link.upload([np.zeros((4, 6, 3), np.uint8)])
    second = link.upload([np.ones((4, 6, 3), np.uint8)])
    assert first.data_ptr() == second.data_ptr()
    assert link.upload([np.ones((2, 6, 3), np.uint8)]).shape == (1, 2, 6, 3)

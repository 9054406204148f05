"""On a GPU, with a network of full size and random weights: half precision, graphs, memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from d3_ros.bench.network.architectures import SD21, random_network
from d3_ros.bench.network.measuring import MIB, MemoryWatch
from d3_ros.network import D3Predictor
from d3_ros.network.inference.specialise import EXACT
from d3_ros.network.inference.torch_runtime import TorchRuntime
from d3_ros.types import TASKS, D3Prediction

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CUDA = torch.device("cuda")
SIZE = (480, 640)
# Of relative depth, in [0, 1]: fp16 has 11 bits, and some hundred layers add up their rounding.
MEAN_DEPTH_ERROR, MEAN_NORMAL_ERROR_DEG = 0.005, 2.0


def predictor(dtype: torch.dtype, optimised: bool, size: tuple[int, int] = SIZE) -> D3Predictor:
    network = random_network(SD21, TASKS, CUDA, dtype)
    names = EXACT if optimised else ()
    return D3Predictor(TorchRuntime(network, CUDA, dtype, names, graphs=optimised), size)


def picture(seed: int = 0) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(40, axis=0).repeat(40, axis=1))


@pytest.fixture(autouse=True)
def free_memory() -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def exact() -> D3Prediction:
    """The plain way in float32."""
    return predictor(torch.float32, optimised=False)(picture())


def test_fp16_is_finite_and_close_to_fp32(exact: D3Prediction) -> None:
    half = predictor(torch.float16, optimised=True)(picture())  # NonFiniteError where it is not
    assert half.depth is not None
    assert half.normals is not None
    assert np.abs(half.depth - exact.depth).mean() < MEAN_DEPTH_ERROR
    cosine = np.clip((half.normals * exact.normals).sum(axis=-1), -1, 1)
    assert np.degrees(np.arccos(cosine)).mean() < MEAN_NORMAL_ERROR_DEG


def test_the_specialised_network_is_the_plain_one_in_fp32(exact: D3Prediction) -> None:
    special = predictor(torch.float32, optimised=True)(picture())
    np.testing.assert_allclose(special.depth, exact.depth, rtol=0, atol=1e-3)


def test_graphs_give_the_same_answer_every_time() -> None:
    graphs = predictor(torch.float16, optimised=True)
    assert graphs.runtime.runner._graphs
    first = graphs(picture(1))
    graphs(picture(2))
    again = graphs(picture(1))
    assert graphs.runtime.runner._graphs  # they could be captured
    np.testing.assert_array_equal(first.depth, again.depth)
    np.testing.assert_array_equal(first.normals, again.normals)
    one = graphs(picture(1), tasks=("depth",))  # another graph, in the same pool
    np.testing.assert_allclose(one.depth, first.depth, atol=5e-3)


def test_a_batch_of_two_cameras_is_two_answers() -> None:
    graphs = predictor(torch.float16, optimised=True)
    together = graphs.predict_batch([picture(1), picture(2)])
    for seed, prediction in zip((1, 2), together, strict=True):
        alone = graphs(picture(seed))
        assert np.abs(prediction.depth - alone.depth).mean() < MEAN_DEPTH_ERROR


def test_both_tasks_fit_into_5_gb() -> None:
    graphs = predictor(torch.float16, optimised=True, size=(768, 768))
    watch = MemoryWatch(CUDA)  # building random weights is no part of it
    graphs.warm_up()
    assert watch.peak_mib() * MIB < 5e9

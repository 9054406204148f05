"""The choice of the processing size under a latency target, on simulated and on real networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from helpers.tiny_network import tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.errors import DataError
from d3_ros.network import D3Predictor
from d3_ros.network.inference.latency import PATIENCE, WINDOW, SizeController
from d3_ros.network.inference.processing_size import size_ladder
from d3_ros.network.inference.torch_runtime import TorchRuntime

MEASURED = [((64, 64), 5.0), ((128, 192), 20.0), ((192, 256), 40.0), ((256, 320), 70.0)]
COST = dict(MEASURED)


def drive(
    controller: SizeController, frames: int, slower: Callable[[int], float] = lambda frame: 1.0
) -> list[tuple[int, int]]:
    """Frames that take as long as measured, times `slower`; the size of each."""
    sizes = []
    for frame in range(frames):
        sizes.append(controller.size)
        controller.observe(COST[controller.size] * slower(frame))
    return sizes


# --- the sizes -----------------------------------------------------------------------------------


def test_ladder_by_hand() -> None:
    # Largest: "aspect" of 768² at 4:3, 640 x 832; half of 640 is 320. Widths: 4/3 of the heights.
    assert size_ladder((480, 640), (768, 768)) == [
        *((320, 448), (384, 512), (448, 576), (512, 704), (576, 768), (640, 832))
    ]
    assert size_ladder((640, 480), (120, 160)) == [(64, 64), (192, 128)]
    assert size_ladder((100, 100), (64, 64)) == [(64, 64)]


@given(st.integers(120, 1500), st.floats(1, 2.4), st.booleans(), st.sampled_from([120, 480, 768]))
def test_ladders_rise_and_keep_the_aspect(
    shorter: int, aspect: float, portrait: bool, trained: int
) -> None:
    image = (shorter, round(shorter * aspect))
    ladder = size_ladder(image[::-1] if portrait else image, (trained, trained))
    pixels = [height * width for height, width in ladder]
    assert pixels == sorted(set(pixels))
    for height, width in ladder:
        long, short = (height, width) if portrait else (width, height)
        assert height % 64 == width % 64 == 0
        assert abs(long - short * image[1] / image[0]) <= 32 or long == 64


# --- the controller ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"), [(100, (256, 320)), (69, (192, 256)), (20, (128, 192)), (1, (64, 64))]
)
def test_it_begins_with_the_largest_that_fits(target: float, expected: tuple[int, int]) -> None:
    assert SizeController(MEASURED, target).size == expected


def test_it_stays_where_everything_is_as_measured() -> None:
    controller = SizeController(MEASURED, 45)
    assert set(drive(controller, 500)) == {(192, 256)}
    state = controller.state
    assert (state.rung, state.rungs, state.changes) == (3, 4, 0)
    assert state.latency_ms == pytest.approx(40)


def test_it_steps_down_under_load_and_up_again_afterwards() -> None:
    controller = SizeController(MEASURED, 48)
    loaded = drive(controller, 100, lambda frame: 2.5)  # 40 -> 100 ms, then 20 -> 50, then 12.5
    changes = [size for size, _ in itertools.groupby(loaded)]
    assert changes == [(192, 256), (128, 192), (64, 64)]
    assert loaded.index((128, 192)) == WINDOW
    relieved = drive(controller, 400)
    assert [size for size, _ in itertools.groupby(relieved)] == [(64, 64), (128, 192), (192, 256)]
    assert controller.state.changes == 4


def test_single_slow_frames_change_nothing() -> None:
    controller = SizeController(MEASURED, 45)
    assert set(drive(controller, 300, lambda f: 50.0 if f % 4 == 0 else 1.0)) == {(192, 256)}


def test_the_smallest_is_kept_when_nothing_fits() -> None:
    controller = SizeController(MEASURED, 4)
    assert set(drive(controller, 200)) == {(64, 64)}
    assert controller.state.latency_ms > controller.state.target_ms


def test_a_step_up_needs_headroom() -> None:
    """36 ms of 40 is more than 85 %: with a target of 40 the third size is never tried again."""
    controller = SizeController(MEASURED, 40)
    drive(controller, WINDOW, lambda frame: 1.2)
    assert set(drive(controller, 1000, lambda frame: 0.9)) == {(128, 192)}


def test_a_mistaken_step_up_is_tried_ever_more_rarely() -> None:
    """The third size takes three times what its measurement promised."""
    controller = SizeController(MEASURED, 60)
    tries = []
    for frame in range(6000):
        before = controller.size
        controller.observe(COST[before] * (3.0 if before == (192, 256) else 1.0))
        if controller.size == (192, 256) and before != controller.size:
            tries.append(frame)
    gaps = np.diff(tries)
    assert len(tries) < 12
    assert all(later >= earlier for earlier, later in itertools.pairwise(gaps))
    assert gaps[-1] > 8 * PATIENCE


@settings(max_examples=30, deadline=None)
@given(
    st.floats(6, 100),
    st.floats(0.3, 3),
    st.integers(0, 2**32 - 1),
)
def test_it_settles(target: float, slower: float, seed: int) -> None:
    """Under a load that stays, with jitter, it neither flutters nor stays too slow."""
    rng = np.random.default_rng(seed)
    controller = SizeController(MEASURED, target)
    drive(controller, 1500, lambda frame: slower * rng.lognormal(0, 0.1))
    changes = controller.state.changes
    drive(controller, 1000, lambda frame: slower * rng.lognormal(0, 0.1))
    assert controller.state.changes - changes <= 2 * 1000 / PATIENCE / 4
    assert controller.state.latency_ms <= 1.1 * target or controller.size == (64, 64)


@pytest.mark.parametrize(("measured", "target"), [([], 10.0), (MEASURED, 0.0), (MEASURED, np.nan)])
def test_nonsense_is_refused(measured: list, target: float) -> None:
    with pytest.raises(ValueError, match="needs measured sizes"):
        SizeController(measured, target)


# --- in the predictor ----------------------------------------------------------------------------


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_predictor_takes_the_size_that_fits() -> None:
    predictor = D3Predictor(TorchRuntime(tiny_network()), target_latency_ms=1e6)
    assert predictor.latency == {}
    predictor.warm_up((96, 96))
    state = predictor.latency[96, 96]
    assert state.size == (64, 64)  # the only one for a model trained at 64 x 96
    assert np.isnan(state.latency_ms)
    prediction = predictor(picture(96, 96))
    assert prediction.depth is not None
    assert prediction.depth.shape == (96, 96)
    assert 0 < predictor.latency[96, 96].latency_ms < 1e6


def test_images_of_another_size_have_their_own_choice() -> None:
    predictor = D3Predictor(TorchRuntime(tiny_network()), target_latency_ms=1e6)
    predictor.predict_batch([picture(40, 200), picture(200, 40), picture(40, 200)])
    sizes = {image: state.size for image, state in predictor.latency.items()}
    assert sizes == {(40, 200): (64, 320), (200, 40): (320, 64)}


def test_a_slow_device_gets_small_images() -> None:
    network = tiny_network()
    network.specs["depth"] = network.specs["normals"] = network.specs["depth"].__class__(
        "unet_depth", "", (192, 192), axes=(1, -1, -1)
    )
    predictor = D3Predictor(TorchRuntime(network), target_latency_ms=1e-3)
    predictor.warm_up((100, 100))
    state = predictor.latency[100, 100]
    assert (state.size, state.rung, state.rungs) == ((128, 128), 1, 2)


def test_the_processing_size_is_the_most() -> None:
    predictor = D3Predictor(
        TorchRuntime(tiny_network()), processing_size=(192, 256), target_latency_ms=1e6
    )
    predictor.warm_up((48, 64))
    assert predictor.latency[48, 64].size == predictor.processing_size("depth", (48, 64))
    assert predictor.latency[48, 64].size == (192, 256)


@pytest.mark.parametrize("target", [0.0, -5.0, float("nan")])
def test_wrong_targets_are_told(target: float) -> None:
    with pytest.raises(DataError, match="target latency must be above 0"):
        D3Predictor(TorchRuntime(tiny_network()), target_latency_ms=target)

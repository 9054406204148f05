"""A network that fails steps down, says so, and comes back; nothing bad goes out meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from d3_ros.errors import DeviceError, NonFiniteError
from d3_ros.network.inference.latency import LatencyState
from d3_ros.ros.node.network_guard import NetworkGuard
from d3_ros.ros.parameters.node_settings import NodeSettings, settings_from
from d3_ros.types import D3Prediction, Task

pytestmark = pytest.mark.ros

RGB = np.zeros((480, 640, 3), np.uint8)
Fault = Callable[["Network", np.ndarray], Exception | None]


class Network:
    """Fails as the test wishes."""

    tasks: tuple[Task, ...] = ("depth",)

    def __init__(self, precision: str, size: str, fault: Fault) -> None:
        self.precision = precision
        self.latency: dict[tuple[int, int], LatencyState] = {}
        self.size = size
        self.fault = fault

    def __call__(self, rgb: np.ndarray, tasks: Any = None) -> D3Prediction:
        raise AssertionError("the guard asks for batches")

    def processing_size(self, task: Task, image_size: tuple[int, int]) -> tuple[int, int]:
        if self.size == "bundle":
            return (512, 512)
        height, width = self.size.split("x")
        return int(height), int(width)

    def predict_batch(
        self, images: Sequence[np.ndarray], tasks: tuple[Task, ...] | None = None
    ) -> list[D3Prediction]:
        for rgb in images:
            error = self.fault(self, rgb)
            if error is not None:
                raise error
        return [D3Prediction(depth=rgb[..., 0].astype(np.float32), normals=None) for rgb in images]


class Rig:
    """A guard, what it loaded and what it said."""

    def __init__(self, fault: Fault, **parameters: object) -> None:
        self.loaded: list[tuple[str, str]] = []
        self.networks: list[Network] = []
        self.said: list[str] = []
        self.refuse: set[str] = set()
        self.fault = fault
        settings = settings_from({"dtype": "fp16", "fallback.failures": 2, **parameters})
        self.guard = NetworkGuard(self.load, settings, self.said.append)

    def load(self, settings: NodeSettings) -> Network:
        if settings.dtype in self.refuse:
            raise DeviceError(f"no room for {settings.dtype}")
        self.loaded.append((settings.dtype, settings.processing_size))
        self.networks.append(Network(settings.dtype, settings.processing_size, self.fault))
        return self.networks[-1]

    def predict(self, *images: np.ndarray) -> list[D3Prediction | Exception]:
        return self.guard.predict_each(images or (RGB,), ("depth",))


def not_finite_in_fp16(network: Network, rgb: np.ndarray) -> Exception | None:
    return NonFiniteError("not finite in fp16") if network.precision == "fp16" else None


def test_a_good_network_is_loaded_once() -> None:
    rig = Rig(lambda network, rgb: None)
    for _ in range(3):
        (result,) = rig.predict()
        assert isinstance(result, D3Prediction)
    assert rig.loaded == [("fp16", "bundle")]
    assert (rig.guard.reason, rig.said) == ("", [])
    assert rig.guard.step == "fp16, 512x512 pixels"
    assert rig.guard(RGB, ("depth",)).depth is not None


def test_the_size_chosen_by_latency_is_told() -> None:
    rig = Rig(lambda network, rgb: None)
    state = LatencyState((384, 512), 3, 6, latency_ms=41.4, target_ms=50.0, changes=1)
    assert rig.networks[0].latency == {}
    rig.networks[0].latency[480, 640] = state
    assert rig.guard.step == "fp16, 384x512 pixels (size 3 of 6, 41 of 50 ms)"


def test_answers_that_are_not_finite_step_to_a_wider_precision_after_some_in_a_row() -> None:
    rig = Rig(not_finite_in_fp16)
    assert isinstance(rig.predict()[0], NonFiniteError)
    # The second in a row steps down, and the frame is not lost.
    assert isinstance(rig.predict()[0], D3Prediction)
    assert rig.loaded == [("fp16", "bundle"), ("bf16", "bundle")]
    assert rig.said == ["stepping down to bf16, the model's own size: not finite in fp16"]
    assert "to bf16" in rig.guard.reason
    assert rig.guard.step == "bf16, 512x512 pixels"


def test_failures_that_are_not_in_a_row_change_nothing() -> None:
    bad = iter([True, False, True, False])
    rig = Rig(lambda network, rgb: NonFiniteError("not finite") if next(bad) else None)
    kinds = [type(rig.predict()[0]) for _ in range(4)]
    assert kinds == [NonFiniteError, D3Prediction, NonFiniteError, D3Prediction]
    assert len(rig.loaded) == 1


def test_int8_steps_to_fp32() -> None:
    """Half precision would be another runtime, and slow on the processor that int8 was for."""
    rig = Rig(
        lambda network, rgb: NonFiniteError("no") if network.precision == "int8" else None,
        dtype="int8",
    )
    for _ in range(2):
        rig.guard.predict_each([RGB], ("depth",))
    assert [dtype for dtype, _ in rig.loaded] == ["int8", "fp32"]


def test_the_widest_precision_has_nowhere_to_go_and_publishes_nothing() -> None:
    rig = Rig(lambda network, rgb: NonFiniteError("not finite"), dtype="fp32")
    for _ in range(5):
        assert isinstance(rig.predict()[0], NonFiniteError)
    assert rig.loaded == [("fp32", "bundle")]
    with pytest.raises(NonFiniteError):
        rig.guard(RGB, ("depth",))


def test_too_little_memory_steps_at_once_until_it_fits() -> None:
    def fault(network: Network, rgb: np.ndarray) -> Exception | None:
        height, width = network.processing_size("depth", (480, 640))
        too_large = network.precision == "fp32" or height * width > 300 * 300
        return DeviceError("too little free memory") if too_large else None

    rig = Rig(fault, dtype="fp32")
    assert isinstance(rig.predict()[0], D3Prediction)
    # By three quarters of a side, in multiples of 64.
    assert [size for _, size in rig.loaded] == ["bundle", "bundle", "384x384", "256x256"]
    assert [dtype for dtype, _ in rig.loaded] == ["fp32", "fp16", "fp16", "fp16"]
    assert rig.guard.reason.count("stepped down") == len(rig.loaded) - 1


def test_memory_that_never_suffices_is_given_up() -> None:
    rig = Rig(lambda network, rgb: DeviceError("too little free memory"))
    assert isinstance(rig.predict()[0], DeviceError)
    assert rig.loaded[-1] == ("fp16", "128x128")
    count = len(rig.loaded)
    assert isinstance(rig.predict()[0], DeviceError)
    assert len(rig.loaded) == count


def test_what_nobody_foresaw_makes_it_smaller_too() -> None:
    rig = Rig(
        lambda network, rgb: RuntimeError("kernel\nfailed") if network.size == "bundle" else None
    )
    assert isinstance(rig.predict()[0], RuntimeError)
    assert isinstance(rig.predict()[0], D3Prediction)
    assert rig.loaded[-1] == ("fp16", "384x384")
    assert "RuntimeError: kernel failed" in rig.said[0]


def test_of_a_batch_only_the_bad_image_is_lost() -> None:
    bad = np.ones_like(RGB)
    rig = Rig(
        lambda network, rgb: NonFiniteError("not finite") if rgb.any() else None,
        **{"fallback.failures": 10},
    )
    results = rig.predict(RGB, bad, RGB)
    assert [type(result) for result in results] == [D3Prediction, NonFiniteError, D3Prediction]


def test_switched_off_it_stays_where_it_is() -> None:
    rig = Rig(not_finite_in_fp16, **{"fallback.enabled": False})
    for _ in range(5):
        assert isinstance(rig.predict()[0], NonFiniteError)
    assert len(rig.loaded) == 1


def test_after_a_while_the_step_above_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("d3_ros.ros.node.network_guard.time.monotonic", lambda: now[0])
    rig = Rig(not_finite_in_fp16, **{"fallback.failures": 1, "fallback.retry_after": 60.0})
    rig.predict()
    now[0] += 59.0
    rig.predict()
    assert [dtype for dtype, _ in rig.loaded] == ["fp16", "bf16"]
    # It still fails: back at once, and the next attempt comes later.
    now[0] += 2.0
    assert isinstance(rig.predict()[0], D3Prediction)
    assert [dtype for dtype, _ in rig.loaded] == ["fp16", "bf16", "fp16", "bf16"]
    now[0] += 61.0
    rig.predict()
    assert len(rig.loaded) == 4, "twice as long"
    rig.fault = lambda network, rgb: None
    now[0] += 60.0
    rig.predict()
    assert rig.loaded[-1] == ("fp16", "bundle")
    assert rig.guard.reason == ""
    now[0] += 1e6
    rig.predict()
    assert len(rig.loaded) == 5, "at the top there is nothing to try"


def test_a_step_above_that_cannot_be_loaded_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("d3_ros.ros.node.network_guard.time.monotonic", lambda: now[0])
    rig = Rig(not_finite_in_fp16, **{"fallback.failures": 1, "fallback.retry_after": 60.0})
    rig.predict()
    rig.refuse.add("fp16")
    now[0] += 61.0
    assert isinstance(rig.predict()[0], D3Prediction)
    assert "cannot step up" in rig.said[-1]
    assert rig.guard.step == "bf16, 512x512 pixels"
    assert rig.guard.reason != ""


def test_a_step_below_that_cannot_be_loaded_is_survived() -> None:
    rig = Rig(not_finite_in_fp16, **{"fallback.failures": 1})
    rig.refuse.add("bf16")
    assert isinstance(rig.predict()[0], NonFiniteError)
    assert "cannot step down: no room for bf16" in rig.said
    # It runs on as before, and does not try again with every frame.
    for _ in range(3):
        assert isinstance(rig.predict()[0], NonFiniteError)
    assert rig.loaded == [("fp16", "bundle"), ("fp16", "bundle")]
    assert len(rig.said) == 2


def test_a_model_without_fp16_goes_to_a_smaller_size_when_memory_is_short() -> None:
    """As on ONNX Runtime with graphs in fp32 alone."""

    def fault(network: Network, rgb: np.ndarray) -> Exception | None:
        return DeviceError("too little free memory") if network.size == "bundle" else None

    rig = Rig(fault, dtype="fp32")
    rig.refuse.add("fp16")
    assert isinstance(rig.predict()[0], D3Prediction)
    assert rig.loaded == [("fp32", "bundle"), ("fp32", "384x384")]
    assert "cannot step down: no room for fp16" in rig.said
    assert rig.guard.reason == "stepped down to fp32, 384x384 pixels: too little free memory"


@pytest.mark.parametrize("size", ["bundle", "aspect", "aspect:384", "480x640"])
def test_a_size_is_told_in_words_before_the_first_image(size: str) -> None:
    words = {
        "bundle": "fp16, the model's own size",
        "aspect": "fp16, the image's aspect ratio",
        "aspect:384": "fp16, the image's aspect ratio, shorter side about 384 pixels",
        "480x640": "fp16, 480x640 pixels",
    }
    assert Rig(lambda network, rgb: None, processing_size=size).guard.step == words[size]


def test_a_load_that_raises_anything_is_survived_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up, down, and at the step that is left: CUDA's errors are plain RuntimeErrors."""
    now = [1000.0]
    monkeypatch.setattr("d3_ros.ros.node.network_guard.time.monotonic", lambda: now[0])
    rig = Rig(not_finite_in_fp16, **{"fallback.failures": 1, "fallback.retry_after": 60.0})
    broken = [False]
    load = rig.guard._load

    def fail(settings: NodeSettings) -> Network:
        if broken[0]:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED\nin cublasCreate")
        return load(settings)

    monkeypatch.setattr(rig.guard, "_load", fail)
    rig.predict()  # steps down to bf16
    broken[0] = True
    now[0] += 61.0
    (result,) = rig.predict()  # neither the step above nor the present one can be loaded
    assert isinstance(result, RuntimeError)
    line = "cannot step up to fp16, the model's own size yet: RuntimeError: CUBLAS_STATUS"
    assert any(said.startswith(line) and "\n" not in said for said in rig.said)
    loads = len(rig.loaded)
    broken[0] = False
    assert isinstance(rig.predict()[0], RuntimeError), "not with every frame"
    assert len(rig.loaded) == loads
    now[0] += 6.0
    assert isinstance(rig.predict()[0], D3Prediction)
    assert rig.guard.step == "bf16, 512x512 pixels"


def test_a_step_down_whose_load_raises_anything_is_survived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(not_finite_in_fp16, **{"fallback.failures": 1})
    load = rig.guard._load

    def fail(settings: NodeSettings) -> Network:
        if settings.dtype == "bf16":
            raise RuntimeError("CUDA error")
        return load(settings)

    monkeypatch.setattr(rig.guard, "_load", fail)
    assert isinstance(rig.predict()[0], NonFiniteError)
    assert "cannot step down: RuntimeError: CUDA error" in rig.said
    rig.fault = lambda network, rgb: None
    assert isinstance(rig.predict()[0], D3Prediction), "at the step where it was"


def test_a_network_that_cannot_be_loaded_at_all_is_an_error() -> None:
    def load(settings: NodeSettings) -> Network:
        raise DeviceError("no CUDA")

    with pytest.raises(DeviceError, match="no CUDA"):
        NetworkGuard(load, NodeSettings(), print)

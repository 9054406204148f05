"""The environment of every test process, and the fixtures that several files use."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Before NumPy and torch are imported:
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may fetch anything
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as d3_ros does
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores

import pytest
from helpers.paths import ROOT
from helpers.ros_domain import enter_own_domain
from hypothesis import settings

enter_own_domain()
# The same examples in every run; `pytest --hypothesis-profile default` draws new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

NO_TORCH = "PyTorch is not installed"
DATA_VARIABLE = "D3_ROS_TEST_DATA"
# They share 4 GB of weights, so one worker runs them; and it begins with them.
FULL_SIZE = ("test_network_conformance.py", "test_specialise.py", "test_training_conformance.py")
# The other files that take longest: begun early, so that the workers end at about the same time.
LONG = (
    "test_training_loop.py",
    "test_processes.py",
    "test_demo_run.py",
    "test_training_profile.py",
    "test_bench.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first."""
    order = {name: place for place, name in enumerate((*FULL_SIZE, *LONG))}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Parallel runs give each file to one worker, and all of `FULL_SIZE` to the same one."""
    from xdist.scheduler import LoadFileScheduling

    class FilesToWorkers(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "full size" if file.endswith(FULL_SIZE) else file

    return FilesToWorkers(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Where PyTorch is not installed, as on a robot, files that import it are skipped.

    So are those that import onnx, which is installed with it (scripts/requirements/torch.txt).
    """
    report = yield
    told = str(report.longrepr) if report.failed and find_spec("torch") is None else ""
    if "named 'torch'" in told or "named 'onnx'" in told:
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, NO_TORCH)
    return report


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real frames with measured depth, which the repository must not contain."""
    folder = Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real frames at {folder}: set {DATA_VARIABLE} to the folder that has them")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found out about datasets is remembered in the user's cache: not in the tester's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, both tasks, a UNet each; 64 x 96 processing size."""
    pytest.importorskip("torch", reason=NO_TORCH)
    from helpers.tiny_network import tiny_network

    from d3_ros.network import write_bundle

    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_bundle(
        folder, tiny_network(), name="tiny", license="Apache-2.0", source="random weights"
    )


@pytest.fixture(scope="session")
def sd21_weights() -> Any:
    """The full-size weights of the conformance vectors, 4 GB; no test may write to them."""
    from helpers import conformance

    return conformance.sd21_weights()

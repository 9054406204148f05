"""What several test files share: the data beside the repository, and a tiny model bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.paths import ROOT

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may fetch anything
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as d3_ros does, but before numpy

DATA_VARIABLE = "D3_ROS_TEST_DATA"


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
    from helpers.tiny_network import tiny_network

    from d3_ros.network import write_bundle

    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_bundle(
        folder, tiny_network(), name="tiny", license="Apache-2.0", source="random weights"
    )

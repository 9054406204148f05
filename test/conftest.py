"""What several test files share: the data beside the repository, and a tiny model bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may fetch anything
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as d3_ros does, but before numpy

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real frames, where a checkout has it."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not beside the repository")
    return SHARED


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found out about datasets is remembered in the user's cache: not in the tester's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, both tasks, a UNet each; 64 x 96 processing size."""
    from tiny_network import tiny_network

    from d3_ros.network import write_bundle

    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_bundle(
        folder, tiny_network(), name="tiny", license="Apache-2.0", source="random weights"
    )

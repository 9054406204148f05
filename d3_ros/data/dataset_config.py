"""What a training configuration says about its data; the YAML states every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3_ros.errors import DataError

DatasetKind = Literal["folder", "hypersim", "virtual_kitti", "coco"]


@dataclass(frozen=True)
class DatasetConfig:
    """One set of frames.

    kind: `folder` is the plain folder (plain_folder.py); the others are the files of that name in
        a folder of the official layout (official_layout.py).
    path: the folder.
    weight: how often a batch comes from this set, against the weights of the others.
    derive_normals: where the set has no normals, take them from its depth and intrinsics.
    """

    kind: DatasetKind
    path: str
    weight: float
    derive_normals: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1e6:
            raise DataError(
                f"data: the weight of {self.path} must be positive and at most 1,000,000, "
                f"not {self.weight}"
            )


@dataclass(frozen=True)
class DataConfig:
    """All sets of a run.

    datasets: at least one.
    augment: crop, mirror and relight the frames that are trained on, never those that are tested.
    cache_gb: memory, in GB (10⁹ bytes) a process, for decoded frames; those that came first stay.
    strict: refuse to begin where any frame must be left out; else they are named and counted.
    depth_share: share of the network's output range that lies between the 2 % and 98 % quantiles of
        a frame's depth. With 1, as in the official recipe, nearer and farther pixels saturate;
        below 1 they keep different values.
    """

    datasets: tuple[DatasetConfig, ...]
    augment: bool
    cache_gb: float
    strict: bool = False
    depth_share: float = 1.0

    def __post_init__(self) -> None:
        if not self.datasets:
            raise DataError("data: name at least one dataset")
        if not 0 <= self.cache_gb <= 1e6:
            raise DataError(f"data.cache_gb must be 0 to 1,000,000, not {self.cache_gb}")
        if not 0 < self.depth_share <= 1:
            raise DataError(
                f"data.depth_share must be above 0 and at most 1, not {self.depth_share}"
            )

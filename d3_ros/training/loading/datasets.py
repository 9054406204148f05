"""Training samples: datasets mixed by weight, deterministically, every frame checked first."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from d3_ros.data.dataset_config import DataConfig, DatasetConfig
from d3_ros.data.frame_check import Finding, check_frames, describe_faults
from d3_ros.data.labelled_frame import LabelledFrame, depth_target
from d3_ros.data.plain_folder import Split
from d3_ros.data.readers import open_reader
from d3_ros.errors import DataError
from d3_ros.network.inference.image_transform import to_network
from d3_ros.training.loading.augment import augmented
from d3_ros.training.loading.label_precision import in_half_precision
from d3_ros.training.loading.sample import Sample


def open_source(config: DataConfig, size: tuple[int, int], split: Split) -> MixedSource:
    """The samples that a configuration names.

    Args:
        config: the datasets, their weights and the augmentation.
        size: (H, W) of `Sample.image`.
        split: "train": the frames for training by split.txt, all frames without that file.
            "test": its frames for testing, perhaps none. They are never augmented.

    Raises:
        DataError: a dataset has no usable frame for training, or, with `config.strict`, an unusable
            one.
    """
    cache = _FrameCache(round(config.cache_gb * 1e9))
    augment = config.augment and split == "train"
    datasets = [
        Dataset(
            one,
            size,
            split,
            augment=augment,
            strict=config.strict,
            cache=cache,
            depth_share=config.depth_share,
        )
        for one in config.datasets
    ]
    return MixedSource(datasets, [one.weight for one in config.datasets])


class MixedSource:
    """Several datasets as one `SampleSource`. `summary` has a line for each."""

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float]) -> None:
        """Mix `datasets` by `weights`. Empty datasets are left out."""
        self._datasets = list(datasets)
        self._starts = np.concatenate([[0], np.cumsum([len(d) for d in datasets])]).astype(int)
        chances = np.where([len(d) > 0 for d in datasets], weights, 0.0)
        self._limits = np.cumsum(chances) / max(float(np.sum(chances)), 1e-12)
        self.summary = tuple(line for dataset in datasets for line in dataset.summary)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def at_size(self, size: tuple[int, int]) -> MixedSource:
        """The same frames at another (H, W) of `Sample.image`; the cache is shared."""
        other = copy.copy(self)
        other._datasets = [dataset.at_size(size) for dataset in self._datasets]
        return other

    def plan(self, seed: int, batch: int, count: int) -> list[int]:
        """Indices of batch number `batch`, all from one dataset, as `SampleSource.plan`.

        The batches that draw a dataset go through its frames in turn. `count` must not change
        during a run, or frames come unequally often.
        """
        if len(self) == 0:
            raise ValueError("a source without frames has no batches")
        # One generator for all batches, to count how often this dataset was drawn before.
        draws = np.random.default_rng([seed, 0]).random(batch + 1)
        chosen = np.searchsorted(self._limits, draws, side="right")
        number = int(chosen[-1])
        first = int(np.count_nonzero(chosen[:-1] == number)) * count
        length, start = len(self._datasets[number]), int(self._starts[number])
        places = range(first, first + count)
        rounds = {place // length for place in places}
        orders = {
            n: np.random.default_rng([seed, 1, number, n]).permutation(length) for n in rounds
        }
        return [start + int(orders[place // length][place % length]) for place in places]

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """Frame `index`, counted through all datasets, as `SampleSource.sample`."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._datasets[number].sample(index - int(self._starts[number]), rng)


class Dataset:
    """The usable frames of one dataset and one split, at one image size."""

    def __init__(
        self,
        config: DatasetConfig,
        size: tuple[int, int],
        split: Split,
        *,
        augment: bool,
        strict: bool,
        cache: _FrameCache,
        depth_share: float,
    ) -> None:
        """List and check the frames.

        Raises:
            DataError: no frame is usable for training, or, with `strict`, one is not usable.
        """
        folder = Path(config.path)
        self._reader = reader = open_reader(config.kind, folder)
        self._size, self._augment, self._cache = size, augment, cache
        self._depth_share = depth_share
        self._derive = config.derive_normals and not reader.has_normals and reader.has_depth
        self._halves = augment and not self._derive  # augmented labels need no full precision
        self._key = (str(folder), self._halves)
        findings = check_frames(reader, folder)
        if self._derive:
            findings = [_camera_needed(finding) for finding in findings]
        sides = reader.split or dict.fromkeys(reader.names, "train")
        mine = [finding for finding in findings if sides.get(finding.name) == split]
        good = [finding for finding in mine if finding.fault is None]
        bad = [finding for finding in mine if finding.fault is not None]
        self._names = [finding.name for finding in good]
        self._label_size = self._common_size(good)
        self.summary = self._summary(config, split, good, bad, reader.strays)
        if bad and strict:
            raise DataError(f"{self.summary[0]}; correct them, or set data.strict=false")
        if not good and (bad or split == "train"):
            raise DataError(f"{folder}: no usable frame ({self.summary[0]})")

    def __len__(self) -> int:
        return len(self._names)

    def at_size(self, size: tuple[int, int]) -> Dataset:
        """The same frames at another (H, W) of `Sample.image`."""
        other = copy.copy(self)
        other._size = size
        return other

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """Frame `index`, augmented with `rng` if the source augments, as `SampleSource.sample`."""
        name = self._names[index]
        frame = self._cache.get((*self._key, name), lambda: self._read(name))
        if self._augment and rng is not None:
            frame = augmented(_at_label_size(frame), rng, self._size, self._derive)
            image = torch.from_numpy(frame.rgb * 2 - 1).permute(2, 0, 1)
            return self._sample(name, image, frame, None, None)
        target = frame.target
        if self._derive:
            frame = frame.with_derived_normals()
        image = to_network(torch.from_numpy(frame.rgb), self._size)[0]
        if self._label_size is None:
            frame, target = frame.resized(*self._size), None
        picture = self._reader.files(name)[0]
        key = f"{picture.resolve()}@{picture.stat().st_mtime_ns}"
        return self._sample(name, image, frame, target, key)

    def _sample(
        self,
        name: str,
        image: torch.Tensor,
        frame: LabelledFrame,
        target: np.ndarray | None,
        image_key: str | None,
    ) -> Sample:
        depth = goal = normals = None
        if frame.depth is not None:
            depth = torch.from_numpy(np.array(frame.depth, np.float32))
            goal = torch.from_numpy(
                depth_target(frame.depth, self._depth_share)
                if target is None
                else self._depth_share * np.array(target, np.float32)
            )
        if frame.normals is not None:
            planes = np.ascontiguousarray(frame.normals.transpose(2, 0, 1), np.float32)
            normals = torch.from_numpy(planes.copy())
        return Sample(
            name=name,
            image=image.contiguous(),
            depth=depth,
            depth_target=goal,
            normals=normals,
            normals_target=normals,
            caption=frame.caption,
            image_key=image_key,
        )

    def _read(self, name: str) -> LabelledFrame:
        """A frame as the cache keeps it."""
        frame = self._reader.read(name)
        return in_half_precision(frame) if self._halves else frame

    def _common_size(self, good: Sequence[Finding]) -> tuple[int, int] | None:
        """The (height, width) of all labels, or None if they are resized to the network's."""
        sizes = {finding.label_size for finding in good}
        return sizes.pop() if len(sizes) == 1 and not self._augment else None

    def _summary(
        self,
        config: DatasetConfig,
        split: Split,
        good: Sequence[Finding],
        bad: Sequence[Finding],
        strays: Sequence[str],
    ) -> tuple[str, ...]:
        sizes = Counter(finding.label_size for finding in good)
        common = ", ".join(
            f"{size[1]} x {size[0]}" + (f" ({count})" if len(sizes) > 1 else "")
            for size, count in sizes.most_common(3)
            if size is not None
        )
        labels = ["depth"] * self._reader.has_depth + ["normals"] * self._reader.has_normals
        labels += ["normals derived from depth"] * self._derive
        line = f"{config.path} ({config.kind}, {split}): {len(good)} frames"
        line += f", {common}, {' and '.join(labels)}" if good else ""
        if bad:
            line += f"; {describe_faults(bad, len(good) + len(bad))}"
        if not strays:
            return (line,)
        more = f" and {len(strays) - 1} more files without a partner" if len(strays) > 1 else ""
        return (line, f"  {strays[0]}{more}")


class _FrameCache:
    """Decoded frames up to a limit of memory. A frame that no longer fits is not kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._frames: dict[tuple[str, bool, str], LabelledFrame] = {}
        self._free = limit_bytes
        self._lock = threading.Lock()

    def get(self, key: tuple[str, bool, str], read: Callable[[], LabelledFrame]) -> LabelledFrame:
        """The frame under `key`, read if it is not in the cache."""
        found = self._frames.get(key)
        if found is not None:
            return found
        frame = read()
        arrays = (frame.rgb, frame.depth, frame.normals)
        size = sum(array.nbytes for array in arrays if array is not None)
        with self._lock:
            if size <= self._free and key not in self._frames:
                self._free -= size
                self._frames[key] = frame
        return frame


def _at_label_size(frame: LabelledFrame) -> LabelledFrame:
    """The frame with its image resized to its labels, so that one crop fits both."""
    height, width = frame.label_size
    if frame.rgb.shape[:2] == (height, width):
        return frame
    rgb = cv2.resize(frame.rgb, (width, height))
    return replace(frame, rgb=rgb, camera=frame.camera and frame.camera.resized(width, height))


def _camera_needed(finding: Finding) -> Finding:
    if finding.fault is not None or finding.has_camera:
        return finding
    message = f"{finding.name} has no intrinsics, so that its normals cannot be derived"
    return replace(finding, fault=("no intrinsics", message))

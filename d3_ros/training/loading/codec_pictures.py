"""The pictures that a small codec learns from: any images, or frames with depth and normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import torch

from d3_ros.data.dataset_config import DataConfig, DatasetConfig, DatasetKind
from d3_ros.data.readers import open_readers
from d3_ros.errors import DataError
from d3_ros.imaging.image_file import read_rgb
from d3_ros.training.config.codec_config import CodecTrainConfig
from d3_ros.training.loading.datasets import open_source
from d3_ros.training.loading.sample import Batch, collate
from d3_ros.training.loading.unlabelled_images import crop, image_files

HELD_OUT_EVERY = 20  # one of so many pictures is held out
JUDGED_IMAGES = 32  # of the held-out ones, at most
CACHE_GB = 2.0  # memory for decoded frames with labels


class CodecPictures(Protocol):
    """Pictures to train on, and others that are held out.

    `held_out`: (3, h, w) images in [-1, 1], which are never trained on.
    """

    held_out: Sequence[torch.Tensor]

    def draw(self, step: int) -> tuple[Batch, torch.Tensor]:
        """The batch of a step, and a (B,) bool mask that is True for a random half of its images.

        Both depend on the seed and the step alone.

        Raises:
            DataError: a file is missing or damaged; the message names it.
        """
        ...


def open_pictures(config: CodecTrainConfig) -> CodecPictures:
    """The pictures in `config.data`: frames with labels where `label_weight` is above 0.

    Raises:
        DataError: there are fewer than two, or the labels are missing.
    """
    return LabelledPictures(config) if config.label_weight > 0 else UnlabelledPictures(config)


class UnlabelledPictures:
    """All image files in a folder and below it; a batch has no labels. See `CodecPictures`."""

    def __init__(self, config: CodecTrainConfig) -> None:
        self._config = config
        files = image_files(Path(config.data))
        self._files = [file for index, file in enumerate(files) if index % HELD_OUT_EVERY]
        self.held_out: Sequence[torch.Tensor] = [
            crop(read_rgb(file), config.size, None)
            for file in files[::HELD_OUT_EVERY][:JUDGED_IMAGES]
        ]

    def draw(self, step: int) -> tuple[Batch, torch.Tensor]:
        """See `CodecPictures.draw`."""
        config, rng = self._config, np.random.default_rng([self._config.seed, step])
        chosen = rng.integers(len(self._files), size=config.batch)
        images = [
            crop(read_rgb(self._files[int(i)]), config.size, rng, config.smallest_crop)
            for i in chosen
        ]
        batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
        without: tuple[None, ...] = (None,) * config.batch
        return Batch(batch, None, None, None, None, without, without), _half(rng, config.batch)


class LabelledPictures:
    """The frames of a folder with their depth and normals. See `CodecPictures`.

    Held out are the frames that split.txt names for testing; without that file, one frame of
    `HELD_OUT_EVERY`. The others are cropped, mirrored and relit as in any training on labels.
    """

    def __init__(self, config: CodecTrainConfig) -> None:
        self._config = config
        folder = Path(config.data)
        datasets = [_dataset(reader.kind, folder) for reader in open_readers(folder)]
        held_out: list[torch.Tensor] = []
        self._sources, self._kept = [], []
        for dataset in datasets:
            data = DataConfig((dataset,), augment=True, cache_gb=CACHE_GB / len(datasets))
            plain = replace(data, augment=False)
            source, tests = (
                open_source(data, config.size, "train"),
                open_source(plain, config.size, "test"),
            )
            print("\n".join(source.summary))
            indices = range(len(source))
            if len(tests):
                held_out += [tests.sample(i, None).image for i in range(len(tests))[:JUDGED_IMAGES]]
            else:
                train = open_source(plain, config.size, "train")
                some = indices[::HELD_OUT_EVERY][:JUDGED_IMAGES]
                held_out += [train.sample(i, None).image for i in some]
            self._sources.append(source)
            self._kept.append([i for i in indices if len(tests) or i % HELD_OUT_EVERY])
        self.held_out: Sequence[torch.Tensor] = held_out[:JUDGED_IMAGES]
        if not any(self._kept):
            raise DataError(f"{folder} has fewer than two frames; one is for training")

    def draw(self, step: int) -> tuple[Batch, torch.Tensor]:
        """See `CodecPictures.draw`. The frames of a batch come from one dataset."""
        config, rng = self._config, np.random.default_rng([self._config.seed, step])
        counts = np.array([len(kept) for kept in self._kept])
        number = int(rng.choice(len(counts), p=counts / counts.sum()))
        source, kept = self._sources[number], self._kept[number]
        chosen = rng.integers(len(kept), size=config.batch)
        batch = collate([source.sample(kept[int(i)], rng) for i in chosen])
        image = batch.image.contiguous(memory_format=torch.channels_last)
        return replace(batch, image=image), _half(rng, config.batch)


def _dataset(kind: Any, folder: Path) -> DatasetConfig:
    if kind not in get_args(DatasetKind):
        raise DataError(f"{folder}: training does not read the layout {kind}: see docs/data.md")
    return DatasetConfig(kind, str(folder), weight=1.0)


def _half(rng: np.random.Generator, count: int) -> torch.Tensor:
    return torch.from_numpy(rng.random(count) < 0.5)

"""The batches of a run, for each process, from any step on.

Images are numbered through the whole run. Number n is the same frame under the same augmentation
and the same noise, whichever process computes it, in whatever batch, before or after a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from d3_ros.errors import DataError
from d3_ros.training.config.train_config import TrainConfig
from d3_ros.training.loading.datasets import open_source
from d3_ros.training.loading.sample import Batch, Sample, SampleSource, collate

AUGMENTATION, NOISE = 0, 1  # streams of random numbers of one image


def image_numbers(config: TrainConfig, step: int, rank: int, processes: int) -> list[range]:
    """The image numbers of process `rank` in `step`, one range per micro-batch."""
    first, stage = 0, config.stages[0]
    for stage in config.stages:
        if step < stage.steps:
            break
        step -= stage.steps
        first += stage.steps * stage.batch
    size = config.micro_batch
    begin = first + step * stage.batch + rank * size
    return [
        range(start, start + size)
        for start in range(begin, begin - rank * size + stage.batch, size * processes)
    ]


def image_rng(seed: int, number: int) -> np.random.Generator:
    """Random numbers for the augmentation of image `number` of the run."""
    return np.random.default_rng([seed, number, AUGMENTATION])


def noise_generator(seed: int, number: int) -> torch.Generator:
    """Random numbers for the teacher's noise on image `number` of the run."""
    state = np.random.SeedSequence([seed, number, NOISE]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def run_batches(
    config: TrainConfig, start: int, rank: int, processes: int, say: Callable[[str], None]
) -> Iterator[Batch]:
    """The micro-batches of process `rank` from step `start` on, each at its stage's image size.

    `say` prints the summary of the data at the beginning of each stage.
    """
    end = 0
    for stage in config.stages:
        begin, end = end, end + stage.steps
        if start >= end:
            continue
        assert stage.size is not None  # settled when training starts
        data, batches = config.data, micro_batches
        if config.worker_processes:
            data = replace(data, cache_gb=data.cache_gb / config.workers)
            batches = micro_batches_of_processes
        one_size = open_source(data, stage.size, "train")
        say("\n".join(one_size.summary))
        source = ManySizes(
            [one_size, *(one_size.at_size(size) for size in stage.more_sizes)],
            stage.batch // config.micro_batch,
        )
        numbers = (
            images
            for step in range(max(start, begin), end)
            for images in image_numbers(config, step, rank, processes)
        )
        yield from batches(source, config.seed, numbers, config.workers)


class ManySizes:
    """A `SampleSource` of the same frames at several image sizes. Each batch draws one size.

    Args:
        sources: one per size. A size that is listed twice is drawn twice as often.
        in_a_row: number of successive batches that share one draw: the batches of a step, so that
            all processes compute the same size at the same time.
    """

    def __init__(self, sources: Sequence[SampleSource], in_a_row: int) -> None:
        self._sources, self._in_a_row = sources, in_a_row

    def __len__(self) -> int:
        return len(self._sources[0])

    def plan(self, seed: int, batch: int, count: int) -> list[int]:
        """Indices of batch number `batch`, as `SampleSource.plan`.

        Index i is frame i % len(self) at the size of source i // len(self).
        """
        draw = np.random.default_rng([seed, 2, batch // self._in_a_row])
        first = int(draw.integers(len(self._sources))) * len(self)
        return [first + index for index in self._sources[0].plan(seed, batch, count)]

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """See `SampleSource.sample`."""
        number, index = divmod(index, len(self))
        return self._sources[number].sample(index, rng)


def micro_batches(
    source: SampleSource, seed: int, numbers: Iterable[range], workers: int
) -> Iterator[Batch]:
    """Micro-batches prepared by threads.

    Args:
        source: the frames.
        seed: seed of the order and the augmentation.
        numbers: the image numbers of each batch; all ranges have one length.
        workers: threads that prepare batches ahead. 0: a batch is made when it is asked for.
    """
    if workers == 0:
        for images in numbers:
            yield collate([source.sample(*key) for key in _keys(source, seed, images)])
        return
    pool = ThreadPoolExecutor(workers)
    try:
        ahead: deque[list[Future[Sample]]] = deque()
        for images in numbers:
            ahead.append([pool.submit(source.sample, *k) for k in _keys(source, seed, images)])
            if len(ahead) > workers:
                yield collate([frame.result() for frame in ahead.popleft()])
        while ahead:
            yield collate([frame.result() for frame in ahead.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)


def micro_batches_of_processes(
    source: SampleSource, seed: int, numbers: Iterable[range], workers: int
) -> Iterator[Batch]:
    """Micro-batches prepared by `workers` processes, each with a copy of `source`, two ahead each.

    Threads share Python's lock with the training loop, so that they cannot feed a fast GPU.
    """
    loader = DataLoader(
        _Batches(source, seed),
        batch_size=None,  # _Batches makes whole batches
        sampler=numbers,
        num_workers=workers,
        pin_memory=torch.accelerator.is_available(),
        multiprocessing_context="fork",  # the source is large and has a lock: it cannot be pickled
        generator=torch.Generator(),  # otherwise it draws from the global one
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


class _Batches(Dataset["Batch | DataError"]):
    """Batches by their image numbers. An error is returned, not raised: a DataLoader would add its
    traceback to the message."""

    def __init__(self, source: SampleSource, seed: int) -> None:
        self._source, self._seed = source, seed

    def __getitem__(self, images: range) -> Batch | DataError:
        try:
            keys = _keys(self._source, self._seed, images)
            return collate([self._source.sample(*key) for key in keys])
        except DataError as error:
            return error


def _keys(source: SampleSource, seed: int, images: range) -> list[tuple[int, np.random.Generator]]:
    """The frame index of each image, and the random numbers of its augmentation."""
    indices = source.plan(seed, images.start // len(images), len(images))
    return [(i, image_rng(seed, number)) for i, number in zip(indices, images, strict=True)]

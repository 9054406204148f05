"""The stream of batches of one stage, from any image on: what a process sees, and when.

Images are numbered through the whole run. Number n is the same frame under the same augmentation
and the same noise, whichever process computes it, in whatever company, before or after a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from d3_ros.errors import DataError
from d3_ros.training.config.train_config import TrainConfig
from d3_ros.training.loading.sample import Batch, Sample, SampleSource, collate

AUGMENTATION, NOISE = 0, 1  # streams of random numbers of one image


def image_numbers(config: TrainConfig, step: int, processes: int, rank: int) -> list[range]:
    """The images of `step` that fall to process `rank`, by micro-batch, in order."""
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
    """Random numbers that alter image `number` of the run."""
    return np.random.default_rng([seed, number, AUGMENTATION])


def noise_generator(seed: int, number: int) -> torch.Generator:
    """Random numbers of the teacher's noise for image `number` of the run."""
    state = np.random.SeedSequence([seed, number, NOISE]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def micro_batches(
    source: SampleSource, seed: int, numbers: Iterable[range], workers: int
) -> Iterator[Batch]:
    """Batches of the images `numbers`, a range each, all of one length.

    Args:
        source: where frames come from.
        seed: of the order and the augmentation.
        numbers: the images of each batch, by their number in the run.
        workers: threads that prepare batches ahead; 0: none, each is made when it is asked for.
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
    """`micro_batches` by `workers` processes, each with its own copy of `source`, two ahead each.

    Threads share Python's lock, with the loop too: they cannot feed a fast GPU.
    """
    loader = DataLoader(
        _Batches(source, seed),
        batch_size=None,  # the source makes batches itself
        sampler=numbers,
        num_workers=workers,
        pin_memory=torch.accelerator.is_available(),
        multiprocessing_context="fork",  # the source is large, and holds a lock
        generator=torch.Generator(),  # else it draws from everybody's
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


class _Batches(Dataset["Batch | DataError"]):
    """Batches by the numbers of their images; a fault is returned: its one line stays one."""

    def __init__(self, source: SampleSource, seed: int) -> None:
        self._source, self._seed = source, seed

    def __getitem__(self, images: range) -> Batch | DataError:
        try:
            keys = _keys(self._source, self._seed, images)
            return collate([self._source.sample(*key) for key in keys])
        except DataError as error:
            return error


def _keys(source: SampleSource, seed: int, images: range) -> list[tuple[int, np.random.Generator]]:
    """Which frames the images are, and the random numbers that alter each."""
    indices = source.plan(seed, images.start // len(images), len(images))
    return [(i, image_rng(seed, number)) for i, number in zip(indices, images, strict=True)]

"""Work on a second core while NumPy or OpenCV release the interpreter lock.

Results do not depend on the number of threads or on which thread does what.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")

# A band of an image has at most so many pixels: several float bands fit into a core's cache, and
# OpenCV starts no threads of its own for them. Its height is a multiple of `BAND_STEP` rows.
BAND_PIXELS, BAND_STEP = 76800, 8
# The pool starts threads on demand; all aligners of the process share it.
_POOL = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="alignment")


@contextmanager
def meanwhile(work: Callable[[], Second]) -> Iterator[Callable[[], Second]]:
    """Run `work` in another thread while the block runs. Yields a function that returns its result.

    Call that function once. If the thread has not started by then, the caller runs the work itself,
    so nested calls cannot deadlock. When the block ends, the work has ended or was cancelled.
    """
    future = _POOL.submit(work)
    try:
        yield lambda: work() if future.cancel() else future.result()
    finally:
        if not future.cancel():
            future.exception()  # waits; the error is raised by the function that was yielded


def together(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Results of both; `first` runs in this thread, `second` in another one if one is free."""
    with meanwhile(second) as result:
        return first(), result()


def in_bands(work: Callable[[slice], None], rows: int, at_once: int) -> None:
    """Call `work` with slices that cover `rows` rows, at most `at_once` each, in two threads.

    Bands that fit into a core's cache take half the time of whole images.
    """
    bands = deque(slice(top, min(top + at_once, rows)) for top in range(0, rows, at_once))

    def take_from_the_heap() -> None:
        while bands:
            try:
                band = bands.popleft()
            except IndexError:  # the other thread took the last one
                return
            work(band)

    if len(bands) > 1:
        together(take_from_the_heap, take_from_the_heap)
    else:
        take_from_the_heap()


def in_image_bands(work: Callable[[slice], None], height: int, width: int) -> None:
    """`in_bands` for an image; every band but the last has a multiple of `BAND_STEP` rows."""
    rows = BAND_PIXELS // max(width, 1) // BAND_STEP * BAND_STEP
    in_bands(work, height, max(rows, BAND_STEP))

"""A second core for work that lets go of the interpreter lock, as NumPy and OpenCV do.

Results do not depend on which thread does what, nor on whether there is a second one at all.
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

# Several float images of so many pixels fit into a core's cache, and OpenCV takes no threads of its
# own for them.
BAND_PIXELS, BAND_STEP = 76800, 8
# Threads start when there is work for them; all aligners of the process share them.
_POOL = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="alignment")


@contextmanager
def meanwhile(work: Callable[[], Second]) -> Iterator[Callable[[], Second]]:
    """Another thread works while the block runs; call what is yielded for the result, once.

    Who calls it before that thread has begun does the work himself, so that calls may be nested.
    At the block's end the work has ended, too, or will never begin.
    """
    future = _POOL.submit(work)
    try:
        yield lambda: work() if future.cancel() else future.result()
    finally:
        if not future.cancel():
            future.exception()  # waits; it is raised where the result is asked for


def together(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Results of both: `first` by this thread, `second` by another, if one is free by then."""
    with meanwhile(second) as result:
        return first(), result()


def in_bands(work: Callable[[slice], None], rows: int, at_once: int) -> None:
    """Call `work` with slices that cover so many rows, at most `at_once` each, in two threads.

    Bands that are small enough to stay in a core's cache take half the time of whole images.
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
    """`in_bands` of an image, each of a multiple of `BAND_STEP` rows but for the last."""
    rows = BAND_PIXELS // max(width, 1) // BAND_STEP * BAND_STEP
    in_bands(work, height, max(rows, BAND_STEP))

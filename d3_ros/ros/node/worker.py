"""One inference thread for all cameras. Of each camera it takes the newest image."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from d3_ros.errors import one_line

Item = TypeVar("Item")


@dataclass
class _Slot(Generic[Item]):
    """What waits of one source: `current` until it is ready; `newest` came after it."""

    current: Item | None = None
    newest: Item | None = None


class LatestFrameWorker(Generic[Item]):
    """Runs `process` in a thread of its own, on the newest ready item of every source.

    All items that are ready are handed over together. So a source that is never ready delays no
    other, and a source waits for at most one batch of the others.

    An item that is replaced by a newer one before its turn is handed to `drop`. An item that is not
    ready yet is replaced only by one that is ready. Otherwise a sensor that is slower than the
    camera would keep every image waiting.

    The thread never dies: whatever `process` raises is kept in `fault`.

    Args:
        sources: their names.
        process: the work, on the items by source; called in the worker's thread.
        drop: called, in any thread, with each item that will never be processed.
        ready_in: seconds until an item may be processed, <= 0 for now. Called again after every
            `submit` and `wake`. An item for which it raises is processed at once, so that the
            fault shows there.
        name: the thread's name, for debuggers.
    """

    def __init__(
        self,
        sources: Collection[str],
        process: Callable[[dict[str, Item]], None],
        drop: Callable[[str, Item], None],
        ready_in: Callable[[str, Item], float] = lambda source, item: 0.0,
        name: str = "worker",
    ) -> None:
        self._process = process
        self._drop = drop
        self._ready_in = ready_in
        self._changed = threading.Condition()
        self._slots: dict[str, _Slot[Item]] = {source: _Slot() for source in sources}
        self._stopping = False
        self._began: float | None = None
        self._fault = ""
        # A daemon, so that a network in the middle of a long frame cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """Seconds since the batch that is being processed began; 0 where none is."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def fault(self) -> str:
        """What `process` raised on the latest batch, in one line; empty where it did not."""
        return self._fault

    def submit(self, source: str, item: Item) -> None:
        """Make `item` the next one of its source; returns at once."""
        with self._changed:
            replaced: Item | None = item
            if not self._stopping:
                slot = self._slots[source]
                replaced, slot.newest = slot.newest, item
            self._changed.notify()
        if replaced is not None:
            self._drop(source, replaced)

    def wake(self) -> None:
        """Ask `ready_in` again: something arrived that an item may be waiting for."""
        with self._changed:
            self._changed.notify()

    def clear(self) -> None:
        """Drop the items that wait; those that are being processed go on."""
        with self._changed:
            waiting = [
                (source, item)
                for source, slot in self._slots.items()
                for item in (slot.current, slot.newest)
                if item is not None
            ]
            for slot in self._slots.values():
                slot.current = slot.newest = None
        for source, item in waiting:
            self._drop(source, item)

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False where it is still busy with its last items after `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.clear()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping:
                    batch, wait_s = self._take()
                    if batch:
                        break
                    self._changed.wait(wait_s)
                if self._stopping:
                    return
            self._began = time.monotonic()
            try:
                self._process(batch)
                self._fault = ""
            except Exception as error:
                self._fault = f"{type(error).__name__}: {one_line(error)}"
            self._began = None

    def _take(self) -> tuple[dict[str, Item], float | None]:
        """The ready items, taken out of their slots; seconds until another will be ready."""
        batch: dict[str, Item] = {}
        wait_s: float | None = None
        for source, slot in self._slots.items():
            newer = slot.newest
            if newer is not None and (slot.current is None or self._wait(source, newer) <= 0):
                if slot.current is not None:
                    self._drop(source, slot.current)
                slot.current, slot.newest = newer, None
            if slot.current is None:
                continue
            ready_in = self._wait(source, slot.current)
            if ready_in <= 0:
                batch[source], slot.current = slot.current, None
            else:
                wait_s = ready_in if wait_s is None else min(wait_s, ready_in)
        return batch, wait_s

    def _wait(self, source: str, item: Item) -> float:
        try:
            return self._ready_in(source, item)
        except Exception:  # `process` meets the same fault, and its caller tells of it
            return 0.0

"""One inference thread behind a slot for each camera: of each, the newest image wins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class _Slot(Generic[Item]):
    """`current` waits until it is ready; `newest` came after it."""

    current: Item | None = None
    newest: Item | None = None


class LatestFrameWorker(Generic[Item]):
    """Runs `process`, in a thread of its own, on the newest items of all sources that are ready.

    What is ready at the same time is handed over at once. So a source that is never ready holds up
    nobody, and one that is always ready waits for no more than one batch of the others.

    An item that is overtaken before its turn is handed to `drop`. One that is not ready yet is
    overtaken only by one that is: else a sensor that is later than the camera's next image would
    keep every image from its turn.

    Args:
        sources: their names.
        process: the work, on the items by source; called in the worker's thread; must not raise.
        drop: told about each item that will never be processed; called in any thread.
        ready_in: seconds until an item may be processed, <= 0 for now. Asked again after every
            `submit` and `wake`.
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
        # A daemon, so that a network in the middle of a long frame cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, source: str, item: Item) -> None:
        """Make `item` the next one of its source; returns at once."""
        with self._changed:
            refused = self._stopping
            overtaken = item
            if not refused:
                slot = self._slots[source]
                overtaken, slot.newest = slot.newest, item  # type: ignore[assignment]
            self._changed.notify()
        if overtaken is not None:
            self._drop(source, overtaken)

    def wake(self) -> None:
        """Something arrived that may have made an item ready."""
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
                    batch, patience_s = self._take()
                    if batch:
                        break
                    self._changed.wait(patience_s)
                if self._stopping:
                    return
            self._process(batch)

    def _take(self) -> tuple[dict[str, Item], float | None]:
        """What is ready, taken out of its slots; and seconds until something else will be."""
        batch: dict[str, Item] = {}
        patience_s: float | None = None
        for source, slot in self._slots.items():
            newer = slot.newest
            if newer is not None and (slot.current is None or self._ready_in(source, newer) <= 0):
                if slot.current is not None:
                    self._drop(source, slot.current)
                slot.current, slot.newest = newer, None
            if slot.current is None:
                continue
            ready_in = self._ready_in(source, slot.current)
            if ready_in <= 0:
                batch[source], slot.current = slot.current, None
            else:
                patience_s = ready_in if patience_s is None else min(patience_s, ready_in)
        return batch, patience_s

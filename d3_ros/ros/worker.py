"""One inference thread behind a slot that holds one frame: the newest wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestWins(Generic[Item]):
    """Runs `process` on the newest item submitted, in a thread of its own.

    An item that is overtaken before its turn is handed to `drop`. `process` must not raise.

    Args:
        process: the work; called in the worker's thread.
        drop: told about each item that will never be processed; called in the submitter's thread.
        name: the thread's name, for debuggers.
    """

    def __init__(
        self, process: Callable[[Item], None], drop: Callable[[Item], None], name: str = "worker"
    ) -> None:
        self._process = process
        self._drop = drop
        self._changed = threading.Condition()
        self._waiting: Item | None = None
        self._stopping = False
        # A daemon, so that a network in the middle of a long frame cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Make `item` the next one; returns at once."""
        with self._changed:
            overtaken, self._waiting = self._waiting, None if self._stopping else item
            refused = self._stopping
            self._changed.notify()
        if overtaken is not None:
            self._drop(overtaken)
        if refused:
            self._drop(item)

    def clear(self) -> None:
        """Drop the item that waits; one that is being processed goes on."""
        with self._changed:
            overtaken, self._waiting = self._waiting, None
        if overtaken is not None:
            self._drop(overtaken)

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False where it is still busy with its last item after `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.clear()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
            assert item is not None
            self._process(item)

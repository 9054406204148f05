"""Ends a process cleanly on Ctrl-C and SIGTERM, at whatever moment they come.

It imports nothing that takes time, so that it can be installed before everything else.
"""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TerminationRequested(BaseException):
    """The process is to end.

    Not KeyboardInterrupt: where that leaves an `exec`, as in the import of torch, Python kills the
    process by SIGINT at its end, even if the exception was caught. And no Exception, so that code
    which survives faults does not survive this.
    """


class Termination:
    """Raises TerminationRequested in the main thread at the first signal, and ignores later ones.

    `requested` stays set: code that swallows every exception, as some imports do, cannot hide it.
    """

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        """Handle the signals, even if the parent process set them to be ignored."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def check(self) -> None:
        """Raise TerminationRequested if a signal came, also an earlier one."""
        if self.requested:
            raise TerminationRequested

    def ignore(self) -> None:
        """From now on, nothing interrupts the process's end."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            raise TerminationRequested

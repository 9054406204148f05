"""Ends a process cleanly on Ctrl-C and SIGTERM, at whatever moment they come.

It imports nothing that takes time, so that it can be installed before everything else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# After a signal, the process ends by itself within this time, or is ended.
GRACE_S = 1.5


class Termination:
    """Handles the signals without raising anything.

    An exception from a handler can land in an import, a callback or the start of torch's C++ code,
    which print tracebacks or abort the process. So: before `clean_up_is_needed()` a signal ends
    the process at once. After it, rclpy's own handler shuts ROS down, which ends the spinning, and
    `requested` is set. If the process is then busy (it loads a network, say), a timer ends it.
    """

    def __init__(self) -> None:
        self.requested = False
        self._exits_at_once = True
        self._timer: threading.Timer | None = None

    def install(self) -> None:
        """Handle the signals, even if the parent process set them to be ignored."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def clean_up_is_needed(self) -> None:
        """From now on, a signal lets the process end by itself."""
        self._exits_at_once = False
        sys.unraisablehook = self._on_unraisable

    def ignore(self) -> None:
        """From now on, nothing interrupts the process's end."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self._timer is not None:
            self._timer.cancel()

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Print what a destructor raised, unless ROS has ended: its objects are then unusable."""
        rclpy = sys.modules.get("rclpy")
        if not self.requested and (rclpy is None or rclpy.ok()):
            sys.__unraisablehook__(unraisable)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._exits_at_once:
            os._exit(0)
        if not self.requested:
            self.requested = True
            self._timer = threading.Timer(GRACE_S, os._exit, (0,))
            self._timer.daemon = True
            self._timer.start()

"""Highest rates of outputs."""

from __future__ import annotations


class RateCaps:
    """Says which outputs are due, so that none is sent more often than its cap.

    An output is sent with a frame, and so later than it was due; that lateness is not added to the
    next period, or a cap of 5 Hz would make 3.3 Hz of many a camera of 10 Hz.
    """

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def due(self, name: str, max_rate_hz: float, now_s: float) -> bool:
        """Whether an output may be sent; a cap of 0 is none."""
        return max_rate_hz <= 0 or now_s >= self._began.get(name, -1e9) + 1.0 / max_rate_hz

    def sent(self, name: str, max_rate_hz: float, now_s: float) -> None:
        """Note that an output was sent: its period began when it was due, unless long ago."""
        if max_rate_hz > 0:
            period = 1.0 / max_rate_hz
            due = self._began.get(name, -1e9) + period
            self._began[name] = due if now_s < due + period else now_s

"""Limits the rates of outputs."""

from __future__ import annotations


class RateCaps:
    """Says which outputs are due, so that none is sent more often than its highest rate.

    An output is sent with a frame, and so a little later than it was due. The next period is
    counted from when it was due: otherwise a limit of 5 Hz would turn a camera of 10 Hz with some
    jitter into 3.3 Hz.
    """

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def due(self, name: str, max_rate_hz: float, now_s: float) -> bool:
        """Whether an output may be sent now; a rate of 0 is no limit."""
        return max_rate_hz <= 0 or now_s >= self._began.get(name, -1e9) + 1.0 / max_rate_hz

    def sent(self, name: str, max_rate_hz: float, now_s: float) -> None:
        """Note that an output was sent; its period began when it was due, unless long ago."""
        if max_rate_hz > 0:
            period = 1.0 / max_rate_hz
            due = self._began.get(name, -1e9) + period
            self._began[name] = due if now_s < due + period else now_s

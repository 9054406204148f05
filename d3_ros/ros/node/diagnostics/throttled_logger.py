"""A logger that repeats a line every few seconds, not with every frame."""

from __future__ import annotations

import re
import threading
import time

from rclpy.impl.rcutils_logger import RcutilsLogger

DECIMAL = re.compile(r"\d+\.\d+")


class ThrottledLogger:
    """Logs a new line at once, and repeats it at most every `period_s` seconds.

    Lines that differ only in a number with a decimal point (a time, a distance) count as the same.
    No more than `most` different lines are logged in a period.
    """

    def __init__(self, logger: RcutilsLogger, period_s: float = 10.0, most: int = 20) -> None:
        self._logger = logger
        self._period_s = period_s
        self._most = most
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def warn(self, line: str) -> None:
        """Log a warning, unless the same was logged lately."""
        if self._is_news(line):
            self._logger.warning(line)

    def error(self, line: str) -> None:
        """Log an error, unless the same was logged lately."""
        if self._is_news(line):
            self._logger.error(line)

    def _is_news(self, line: str) -> bool:
        now = time.monotonic()
        line = DECIMAL.sub("#", line)
        with self._lock:
            self._said = {said: at for said, at in self._said.items() if now - at < self._period_s}
            news = line not in self._said and len(self._said) < self._most
            if news:
                self._said[line] = now
            return news

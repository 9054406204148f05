"""Saying a thing in the log once, and not thirty times a second."""

from __future__ import annotations

import re
import threading
import time

from rclpy.impl.rcutils_logger import RcutilsLogger

DECIMAL = re.compile(r"\d+\.\d+")


class ThrottledLogger:
    """Logs each distinct line at once, and again at most every `period_s` while it stays true.

    Lines that differ only in a time or another decimal fraction are the same line; of others that
    differ in a number each time, no more than `most` in a period are said.
    """

    def __init__(self, logger: RcutilsLogger, period_s: float = 10.0, most: int = 20) -> None:
        self._logger = logger
        self._period_s = period_s
        self._most = most
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def warn(self, line: str) -> None:
        """Log a warning, unless it was said lately."""
        if self._is_news(line):
            self._logger.warning(line)

    def error(self, line: str) -> None:
        """Log an error, unless it was said lately."""
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

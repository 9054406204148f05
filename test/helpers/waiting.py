"""How tests wait: for an event, never for a time that a slow machine may exceed."""

from __future__ import annotations

import time
from collections.abc import Callable

# A wait ends with its event. It takes this long when the event never comes.
PATIENCE_S = 120.0


def wait_until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Return as soon as `condition` holds; fail with `what` when it never does."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.01)

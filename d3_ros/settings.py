"""A setting describes itself: one dataclass field has its default, meaning, unit and range.

The node declares its parameters from these fields, so that no default is written twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# When a changed value takes effect: never after the start, at the next configure, or at once.
When = Literal["start", "configure", "always"]


@dataclass(frozen=True)
class SettingDescription:
    """What a value means and which values are allowed; `low` and `high` are in `unit`."""

    text: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    when: When = "always"

    def fault(self, value: Any) -> str:
        """Why `value`, which has the right type, is not allowed; empty where it is."""
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, got {value!r}"
        if self.low is None or self.high is None or self.low <= value <= self.high:
            return ""
        return (
            f"must be in [{self.low:g}, {self.high:g}]{self.unit and ' ' + self.unit}, got {value}"
        )


def setting(
    default: Any,
    text: str,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    *,
    choices: tuple[str, ...] = (),
    when: When = "always",
) -> Any:
    """A dataclass field that describes itself; the arguments are those of `SettingDescription`."""
    return field(
        default=default,
        metadata={"setting": SettingDescription(text, low, high, unit, choices, when)},
    )

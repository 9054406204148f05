"""One parameter of the node: its meaning, unit and range, and what values it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from d3_ros.errors import D3Error

Value = bool | int | float | str | tuple[str, ...]
# When a change is heard: never after the start, at the next configure, or with the next frame.
When = Literal["start", "configure", "always"]


class ParameterError(D3Error):
    """A parameter has the wrong type or a value outside its range."""


@dataclass(frozen=True)
class ParameterRow:
    """One parameter: ROS name, default, meaning, and what values it takes."""

    name: str
    default: Value
    text: str
    when: When
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def checked(self, value: object) -> Value:
        """`value` in the parameter's own type; an integer is good where a float is wanted.

        Raises:
            ParameterError: wrong type, out of range, or not one of the choices.
        """
        wanted = type(self.default)
        if wanted is tuple:
            return self._checked_names(value)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            raise ParameterError(
                f"parameter '{self.name}' must be {wanted.__name__}, got {value!r}"
            )
        if self.choices and value not in self.choices:
            raise ParameterError(
                f"parameter '{self.name}' must be one of {', '.join(self.choices)}, got {value!r}"
            )
        if self.low is not None and self.high is not None:
            assert isinstance(value, (int, float))
            if not self.low <= value <= self.high:
                raise ParameterError(
                    f"parameter '{self.name}' must be in [{self.low:g}, {self.high:g}]"
                    f"{self.unit and ' ' + self.unit}, got {value}"
                )
        assert isinstance(value, (bool, int, float, str))
        return value

    def _checked_names(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise ParameterError(f"parameter '{self.name}' must be a list of str, got {value!r}")
        return tuple(value)

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows."""
        heard = {
            "start": "Read when the node starts.",
            "configure": "Read when the node is configured.",
            "always": "May be changed at any time.",
        }[self.when]
        descriptor = ParameterDescriptor(
            name=self.name,
            description=f"{self.text}{self.unit and f' [{self.unit}]'}. {heard}",
            additional_constraints=f"One of {', '.join(self.choices)}." if self.choices else "",
            read_only=self.when == "start",
            # We check types ourselves: `max_rate: 5` for 5.0 is not worth a crash.
            dynamic_typing=True,
        )
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=self.low, to_value=self.high)
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
                ]
        return descriptor


def row(default: Value, text: str, when: When = "configure", **rest: Any) -> Any:
    """A dataclass field that is a parameter; `rest` as in ParameterRow."""
    return field(default=default, metadata={"row": {"text": text, "when": when, **rest}})


def check_range(min_range: float, max_range: float) -> None:
    """Raise ValueError where no range is left between two parameters of these names."""
    if min_range >= max_range:
        raise ValueError(f"min_range {min_range} must be below max_range {max_range}")

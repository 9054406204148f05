"""One ROS parameter, made from the field of a settings class: its checks and its descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from d3_ros.errors import D3Error
from d3_ros.settings import SettingDescription

Value = bool | int | float | str | tuple[str, ...]

TAKES_EFFECT = {
    "start": "Read when the node starts.",
    "configure": "Read when the node is configured.",
    "always": "May be changed at any time.",
}


class ParameterError(D3Error):
    """A parameter has the wrong type or a value outside its range."""


@dataclass(frozen=True)
class ParameterRow:
    """One parameter: its ROS name, default and description.

    `common`: for a parameter of one camera (`front.depth.encoding`), the name of the common one
    that it overrides (`depth.encoding`). Such a parameter may be unset (None), and is at the start.
    """

    name: str
    default: Value
    setting: SettingDescription
    common: str = ""

    def of_camera(self, camera: str) -> ParameterRow:
        """The same parameter for one camera alone."""
        return replace(self, name=f"{camera}.{self.name}", common=self.name)

    @property
    def start_value(self) -> Value | None:
        """The value where nobody sets one."""
        return None if self.common else self.default

    def checked_if_set(self, value: object) -> Value | None:
        """The same as `checked`, but a parameter of one camera may be unset."""
        return None if self.common and value is None else self.checked(value)

    def checked(self, value: object) -> Value:
        """`value` in the parameter's own type; an integer is accepted for a float.

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
        if fault := self.setting.fault(value):
            raise ParameterError(f"parameter '{self.name}' {fault}")
        assert isinstance(value, (bool, int, float, str))
        return value

    def _checked_names(self, value: object) -> tuple[str, ...]:
        if value is None:  # of an empty list, ROS does not know the type
            value = []
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise ParameterError(f"parameter '{self.name}' must be a list of str, got {value!r}")
        return tuple(value)

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows."""
        told = self.setting
        parts = [f"{told.text}{told.unit and f' [{told.unit}]'}.", TAKES_EFFECT[told.when]]
        if self.common:
            parts.append(f"Not set: as '{self.common}'.")
        descriptor = ParameterDescriptor(
            name=self.name,
            description=" ".join(parts),
            additional_constraints=f"One of {', '.join(told.choices)}." if told.choices else "",
            read_only=told.when == "start",
            # This class checks types instead of rclpy, so that `max_rate: 5` is good for 5.0.
            dynamic_typing=True,
        )
        if told.low is not None and told.high is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=told.low, to_value=told.high)
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(told.low), to_value=int(told.high), step=1)
                ]
        return descriptor


def rows_of(settings: type, prefix: str = "") -> Iterator[ParameterRow]:
    """The parameters of a settings class; a field that is a settings class itself is a group."""
    for entry in fields(settings):
        name = prefix + entry.name
        if entry.default_factory is not MISSING:
            yield from rows_of(type(entry.default_factory()), f"{name}.")
        else:
            default: Any = entry.default
            yield ParameterRow(name, default, entry.metadata["setting"])


def check_range(min_range: float, max_range: float) -> None:
    """Raise ValueError where no range is left between two parameters of these names."""
    if min_range >= max_range:
        raise ValueError(f"min_range {min_range} must be below max_range {max_range}")

"""The node's parameters: one table from which they are declared, checked and documented.

`NodeSettings` is the table: each field carries its ROS name, meaning, unit and range, and its
default is the only one there is (config/predictor.yaml repeats them for the reader, and a test
compares). The scale's rows come from `AlignmentSettings` in the same way.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from d3_ros.errors import D3Error
from d3_ros.geometry.alignment import AlignmentSettings

Value = bool | int | float | str
# When a change is heard: never after the start, at the next configure, or with the next frame.
When = Literal["start", "configure", "always"]
ROS_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


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


def _row(name: str, default: Value, text: str, when: When = "configure", **rest: Any) -> Any:
    return field(default=default, metadata={"row": ParameterRow(name, default, text, when, **rest)})


@dataclass(frozen=True)
class NodeSettings:
    """All parameters, checked; the field's metadata holds its `ParameterRow`."""

    model: str = _row("model", "d3_nano", "Model bundle: a folder, or the name of an installed one")
    device: str = _row(
        "device",
        "auto",
        "Where the network runs: auto (CUDA if there is any), cpu, cuda, cuda:1",
    )
    dtype: str = _row(
        "dtype",
        "auto",
        "Precision of the network: auto is fp16 on CUDA and fp32 elsewhere",
        choices=("auto", "fp32", "fp16", "bf16"),
    )
    processing_size: str = _row(
        "processing_size",
        "bundle",
        "Size at which the network sees the image: bundle (the model's own), HxW, aspect (keep the "
        "image's aspect ratio) or aspect:N (the same, shorter side about N pixels)",
    )
    autostart: bool = _row(
        "autostart",
        False,
        "Configure and activate by itself; the launch file does it with lifecycle events instead",
        "start",
    )
    image_rectified: bool = _row(
        "image.rectified",
        False,
        "The image is rectified: its camera is P of camera_info, without distortion",
    )
    input_reliability: str = _row(
        "input.reliability",
        "best_effort",
        "Quality of service asked of the inputs' publishers; best_effort accepts both kinds",
        choices=("best_effort", "reliable"),
    )
    input_queue_depth: int = _row(
        "input.queue_depth", 1, "Messages kept per input topic", low=1, high=100, unit="messages"
    )
    input_wait: float = _row(
        "input.wait",
        0.05,
        "How long an image waits for its camera_info and sensor depth",
        "always",
        low=0.0,
        high=1.0,
        unit="s",
    )
    sensor_depth_tolerance: float = _row(
        "sensor_depth.tolerance",
        0.05,
        "Largest difference of stamps between an image and the sensor depth used for it",
        "always",
        low=0.0,
        high=1.0,
        unit="s",
    )
    depth_encoding: str = _row(
        "depth.encoding",
        "32FC1",
        "Pixels of ~/depth/image: 32FC1 is metres, 16UC1 is millimetres with 0 for unknown",
        "always",
        choices=("32FC1", "16UC1"),
    )
    points_normals: bool = _row(
        "points.normals",
        False,
        "Give the points of ~/points normals; doubles their size and needs the normals network",
        "always",
    )
    color_max_rate: float = _row(
        "color.max_rate",
        5.0,
        "Highest rate of the two colour images",
        "always",
        low=0.1,
        high=100.0,
        unit="Hz",
    )
    diagnostics_min_rate: float = _row(
        "diagnostics.min_rate",
        0.5,
        "Published frames per second below which the diagnostics warn",
        "always",
        low=0.0,
        high=1000.0,
        unit="Hz",
    )
    diagnostics_input_timeout: float = _row(
        "diagnostics.input_timeout",
        2.0,
        "Time without an image after which the diagnostics report an error",
        "always",
        low=0.1,
        high=3600.0,
        unit="s",
    )
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)


def _alignment_rows() -> dict[str, ParameterRow]:
    rows = {}
    for entry in fields(AlignmentSettings):
        assert entry.default is not MISSING
        text = entry.metadata["text"]
        switch = isinstance(entry.default, bool)
        rows[entry.name] = ParameterRow(
            name=f"scale.{entry.name}",
            default=entry.default,
            text=text[:1].upper() + text[1:],
            when="always",
            unit=entry.metadata["unit"],
            low=None if switch else entry.metadata["low"],
            high=None if switch else entry.metadata["high"],
        )
    return rows


# field name -> row
_NODE_ROWS: dict[str, ParameterRow] = {
    entry.name: entry.metadata["row"] for entry in fields(NodeSettings) if "row" in entry.metadata
}
_ALIGNMENT_ROWS: dict[str, ParameterRow] = _alignment_rows()

PARAMETERS: dict[str, ParameterRow] = {
    row.name: row for row in (*_NODE_ROWS.values(), *_ALIGNMENT_ROWS.values())
}


def settings_from(values: Mapping[str, object]) -> NodeSettings:
    """Check values by ROS name; names that are missing have their defaults.

    Raises:
        ParameterError: a value is of the wrong type or range, or two contradict each other.
    """

    def take(rows: Mapping[str, ParameterRow]) -> dict[str, Any]:
        return {key: row.checked(values.get(row.name, row.default)) for key, row in rows.items()}

    try:
        alignment = AlignmentSettings(**take(_ALIGNMENT_ROWS))
    except ValueError as error:
        raise ParameterError(f"parameters 'scale.*': {error}") from error
    return NodeSettings(**take(_NODE_ROWS), alignment=alignment)


def declare(node: Node) -> dict[str, str]:
    """Declare every parameter on a node that declared its start values as they came.

    A bad start value must not end the process: the default takes its place, and the answer says
    what was wrong, by name, for configure to refuse.
    """
    faults = {}
    for row in PARAMETERS.values():
        # First without a range: rclpy raises on a start value outside it.
        untyped = ParameterDescriptor(dynamic_typing=True)
        if node.has_parameter(row.name):
            node.set_descriptor(row.name, untyped)
        else:
            node.declare_parameter(row.name, row.default, untyped)
        try:
            row.checked(node.get_parameter(row.name).value)
        except ParameterError as error:
            faults[row.name] = str(error)
            node.set_parameters([Parameter(row.name, value=row.default)])
        node.set_descriptor(row.name, row.descriptor())
    return faults


def unknown(node: Node) -> list[str]:
    """A line for each start value whose name nobody knows: ROS itself ignores them silently."""
    lines = []
    for name in node.get_parameters_by_prefix(""):
        if name not in PARAMETERS and not name.startswith(ROS_PARAMETERS):
            meant = difflib.get_close_matches(name, PARAMETERS, n=1)
            hint = f": did you mean '{meant[0]}'?" if meant else ", see config/predictor.yaml"
            lines.append(f"there is no parameter '{name}'{hint}")
    return lines


def read(node: Node) -> dict[str, object]:
    """The node's present values by name, unchecked."""
    return {name: node.get_parameter(name).value for name in PARAMETERS}


def heard_only_at_configure(names: Iterable[str]) -> list[str]:
    """Those of `names` whose change a configured node cannot follow."""
    return [n for n in names if n in PARAMETERS and PARAMETERS[n].when != "always"]

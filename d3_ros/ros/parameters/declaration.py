"""The node's side of its parameters: declared from the table, read, and checked for names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from d3_ros.ros.parameters.node_settings import PARAMETERS, is_per_camera
from d3_ros.ros.parameters.parameter_row import ParameterError, ParameterRow, Value

ROS_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


class LenientParameters:
    """Mixin of a node: accepts parameter values that rclpy refuses without a reason for users."""

    def declare_parameters(
        self, namespace: str, parameters: Sequence[tuple[Any, ...]], *rest: Any, **more: Any
    ) -> list[Parameter]:
        """The same as rclpy's, but start values may have any type: `declare_table` checks it.

        rclpy gives them static types. An empty list has none, and would end the process.
        """
        plain = ParameterDescriptor()
        dynamic = [
            (*entry[:2], ParameterDescriptor(dynamic_typing=True))
            if entry[2:] == (plain,)
            else entry
            for entry in parameters
        ]
        declared: list[Parameter] = super().declare_parameters(  # type: ignore[misc]
            namespace, dynamic, *rest, **more
        )
        return declared

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """The same as rclpy's, but a read-only parameter may be set to the value that it has.

        So the node accepts its own `ros2 param dump`. A parameter cannot be deleted.
        """
        node = cast(Node, self)
        changes = []
        for new in parameter_list:
            old = node.get_parameter(new.name) if node.has_parameter(new.name) else None
            # `ros2 param load` sends the text "None" for a parameter that is not set.
            none = old is not None and old.value is None and new.value == "None"
            same = none or (old is not None and old.value == new.value)
            unset = none or new.type_ == Parameter.Type.NOT_SET
            if unset and old is not None and not same:
                return SetParametersResult(
                    successful=False,
                    reason=f"parameter '{new.name}' cannot be deleted: set it to another value, or "
                    "start the node without it",
                )
            # rclpy refuses what is read-only, and undeclares what is set to nothing.
            if not (same and (unset or node.describe_parameter(new.name).read_only)):
                changes.append(new)
        if not changes:
            return SetParametersResult(successful=True)
        result: SetParametersResult = super().set_parameters_atomically(changes)  # type: ignore[misc]
        return result


def declare(node: Node) -> dict[str, str]:
    """Declare the predictor's parameters, those of each camera included: see declare_table."""
    faults = declare_table(node, PARAMETERS.values())
    return {**faults, **declare_table(node, _camera_rows(camera_names(node)))}


def declare_table(node: Node, rows: Iterable[ParameterRow]) -> dict[str, str]:
    """Declare parameters on a node that has declared all start values as they were given.

    A bad start value must not end the process. The default takes its place.

    Returns:
        Name of each parameter with a bad start value -> what was wrong with it.
    """
    faults = {}
    for row in rows:
        # First without a range: rclpy raises on a start value outside it.
        untyped = ParameterDescriptor(dynamic_typing=True)
        start_value = _for_ros(row.start_value)
        if node.has_parameter(row.name):
            node.set_descriptor(row.name, untyped)
        else:
            node.declare_parameter(row.name, start_value, untyped)
        try:
            row.checked_if_set(node.get_parameter(row.name).value)
        except ParameterError as error:
            faults[row.name] = str(error)
            node.undeclare_parameter(row.name)
            node.declare_parameter(row.name, start_value, untyped, ignore_override=True)
        node.set_descriptor(row.name, row.descriptor())
    return faults


def camera_names(node: Node) -> tuple[str, ...]:
    """The parameter `cameras`."""
    return tuple(node.get_parameter("cameras").value or ())


def unknown(node: Node) -> list[str]:
    """A line for each start value whose name nobody knows: see unknown_names."""
    return unknown_names(node, _names(node), "config/predictor.yaml")


def unknown_names(node: Node, known: Collection[str], table: str) -> list[str]:
    """A line for each start value whose name is not `known`: ROS itself ignores them silently.

    `table`: where the names can be read.
    """
    lines = []
    for name in node.get_parameters_by_prefix(""):
        if name not in known and not name.startswith(ROS_PARAMETERS):
            meant = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean '{meant[0]}'?" if meant else f", see {table}"
            lines.append(f"there is no parameter '{name}'{hint}")
    return lines


def read(node: Node) -> dict[str, object]:
    """The node's present values by name, unchecked; None where a camera has none of its own."""
    return {name: node.get_parameter(name).value for name in _names(node)}


def changed(values: Mapping[str, object]) -> dict[str, object]:
    """The values that are not the defaults, by name."""
    defaults = {name: _for_ros(row.default) for name, row in PARAMETERS.items()}
    return {name: value for name, value in values.items() if value != defaults.get(name)}


def fixed_after_configure(names: Iterable[str], cameras: Iterable[str]) -> list[str]:
    """The names of `names` whose parameters cannot change while the node is configured."""
    fixed = []
    for name in names:
        camera, _, own = name.partition(".")
        row = PARAMETERS.get(own if camera in cameras else name)
        if row is not None and row.setting.when != "always":
            fixed.append(name)
    return fixed


def _camera_rows(cameras: Iterable[str]) -> list[ParameterRow]:
    """The parameters that each named camera may have of its own."""
    return [
        row.of_camera(camera)
        for camera in filter(None, cameras)
        for row in PARAMETERS.values()
        if is_per_camera(row.name)
    ]


def _names(node: Node) -> list[str]:
    return [*PARAMETERS, *(row.name for row in _camera_rows(camera_names(node)))]


def _for_ros(value: Value | None) -> bool | int | float | str | list[str] | None:
    return list(value) if isinstance(value, tuple) else value

"""The node's side of its parameters: declared from the table, read, and checked for names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from d3_ros.ros.parameters.node_settings import PARAMETERS, is_per_camera
from d3_ros.ros.parameters.parameter_row import ParameterError, ParameterRow, Value

ROS_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def declare(node: Node) -> dict[str, str]:
    """Declare the predictor's parameters, those of each camera included: see declare_table."""
    faults = declare_table(node, PARAMETERS)
    for name in _of_cameras(node):
        if not node.has_parameter(name):  # not set: the camera has what all have
            node.declare_parameter(name, None, ParameterDescriptor(dynamic_typing=True))
    return faults


def declare_table(node: Node, rows: Mapping[str, ParameterRow]) -> dict[str, str]:
    """Declare the parameters of a table on a node that declared its start values as they came.

    A bad start value must not end the process: the default takes its place, and the answer says
    what was wrong, by name, for the node to refuse.
    """
    faults = {}
    for row in rows.values():
        # First without a range: rclpy raises on a start value outside it.
        untyped = ParameterDescriptor(dynamic_typing=True)
        if node.has_parameter(row.name):
            node.set_descriptor(row.name, untyped)
        else:
            node.declare_parameter(row.name, _for_ros(row.default), untyped)
        try:
            row.checked(node.get_parameter(row.name).value)
        except ParameterError as error:
            faults[row.name] = str(error)
            node.set_parameters([Parameter(row.name, value=_for_ros(row.default))])
        node.set_descriptor(row.name, row.descriptor())
    return faults


def camera_names(node: Node) -> tuple[str, ...]:
    """The parameter `cameras`."""
    return tuple(node.get_parameter("cameras").value)


def unknown(node: Node) -> list[str]:
    """A line for each start value whose name nobody knows: see unknown_names."""
    return unknown_names(node, [*PARAMETERS, *_of_cameras(node)], "config/predictor.yaml")


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
    return {name: node.get_parameter(name).value for name in (*PARAMETERS, *_of_cameras(node))}


def heard_only_at_configure(names: Iterable[str], cameras: Iterable[str]) -> list[str]:
    """Those of `names` whose change a configured node cannot follow."""
    fixed = []
    for name in names:
        camera, _, own = name.partition(".")
        row = PARAMETERS.get(own if camera in cameras else name)
        if row is not None and row.when != "always":
            fixed.append(name)
    return fixed


def _of_cameras(node: Node) -> list[str]:
    """What several cameras may each have of their own."""
    per_camera = [name for name in PARAMETERS if is_per_camera(name)]
    return [f"{camera}.{name}" for camera in camera_names(node) if camera for name in per_camera]


def _for_ros(value: Value) -> bool | int | float | str | list[str]:
    return list(value) if isinstance(value, tuple) else value

"""What synthetic.launch.py decides, as a plain function: arguments in, parameters out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d3_ros.ros.launch_arguments import SYNTHETIC_PARAMETERS, SYNTHETIC_SENSORS
from d3_ros.ros.launching import names_in
from d3_ros.ros.synthetic.robot_settings import PARAMETERS


def synthetic_parameters(given: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of the synthetic camera: those that were given, and 0 for unwanted sensors.

    Raises:
        RuntimeError: a sensor does not exist, or a value is not of its type or out of its range.
    """
    wanted = set(names_in(given["sensors"])) - {"none"}
    if unknown := wanted - set(SYNTHETIC_SENSORS):
        raise RuntimeError(
            f"there is no sensor '{sorted(unknown)[0]}': use {', '.join(SYNTHETIC_SENSORS)} or none"
        )
    off = {SYNTHETIC_SENSORS[name]: 0.0 for name in SYNTHETIC_SENSORS if name not in wanted}
    values = {name: _value(name, given[name]) for name in SYNTHETIC_PARAMETERS if given[name]}
    return {**off, **values}


def _value(name: str, text: str) -> int | float:
    """The value of a parameter that is a number, checked as the camera itself checks it."""
    row = PARAMETERS[name]
    whole = isinstance(row.default, int)
    try:
        value = int(text) if whole else float(text)
    except ValueError as error:
        what = "a whole number" if whole else "a number"
        raise RuntimeError(f"{name}:={text} must be {what}") from error
    if fault := row.setting.fault(value):
        raise RuntimeError(f"{name}:={text} {fault}")
    return value

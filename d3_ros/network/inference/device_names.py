"""The names of devices and precisions that arguments and parameters take.

It imports no torch: the launch files check names before anything starts.
"""

from __future__ import annotations

import re

from d3_ros.errors import DeviceError

DTYPE_NAMES = ("auto", "fp32", "fp16", "bf16", "int8")
DEVICE_NAMES = "auto, cpu, cuda, cuda:N"
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def is_device_name(name: str) -> bool:
    """Whether `name` is one of DEVICE_NAMES; the device itself may still be missing."""
    return _DEVICE.fullmatch(name) is not None


def check_device_name(name: str) -> None:
    """Raise DeviceError where `name` is no device's."""
    if not is_device_name(name):
        raise DeviceError(f"device '{name}' is not one of {DEVICE_NAMES}")

"""Every parameter of the node in one table.

`NodeSettings` is the table, and a parameter's ROS name is its path in it: `settings.color.max_rate`
is the parameter `color.max_rate`. Each field carries its meaning, unit and range, and its default
is the only one there is (config/predictor.yaml repeats them for the reader, and a test compares).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from d3_ros.geometry.alignment import AlignmentSettings
from d3_ros.ros.parameter_row import ParameterError, ParameterRow, Value, When


def _row(default: Value, text: str, when: When = "configure", **rest: Any) -> Any:
    """A field that is a parameter; `rest` as in ParameterRow."""
    return field(default=default, metadata={"row": {"text": text, "when": when, **rest}})


@dataclass(frozen=True)
class ImageSettings:
    """Parameters `image.*`."""

    rectified: bool = _row(
        False, "The image is rectified: its camera is P of camera_info, without distortion"
    )


@dataclass(frozen=True)
class InputSettings:
    """Parameters `input.*`."""

    reliability: str = _row(
        "best_effort",
        "Quality of service asked of the inputs' publishers; best_effort accepts both kinds",
        choices=("best_effort", "reliable"),
    )
    queue_depth: int = _row(1, "Messages kept per input topic", low=1, high=100, unit="messages")
    wait: float = _row(
        0.05,
        "How long an image waits for its camera_info and sensor depth",
        "always",
        low=0.0,
        high=1.0,
        unit="s",
    )


@dataclass(frozen=True)
class SensorDepthSettings:
    """Parameters `sensor_depth.*`."""

    tolerance: float = _row(
        0.05,
        "Largest difference of stamps between an image and the sensor depth used for it",
        "always",
        low=0.0,
        high=1.0,
        unit="s",
    )


@dataclass(frozen=True)
class DepthSettings:
    """Parameters `depth.*`."""

    encoding: str = _row(
        "32FC1",
        "Pixels of ~/depth/image: 32FC1 is metres, 16UC1 is millimetres with 0 for unknown",
        "always",
        choices=("32FC1", "16UC1"),
    )


@dataclass(frozen=True)
class PointsSettings:
    """Parameters `points.*`."""

    normals: bool = _row(
        False,
        "Give the points of ~/points normals; doubles their size and needs the normals network",
        "always",
    )


@dataclass(frozen=True)
class ColorSettings:
    """Parameters `color.*`."""

    max_rate: float = _row(
        5.0, "Highest rate of the two colour images", "always", low=0.1, high=100.0, unit="Hz"
    )


@dataclass(frozen=True)
class DiagnosticsSettings:
    """Parameters `diagnostics.*`."""

    min_rate: float = _row(
        0.5,
        "Published frames per second below which the diagnostics warn",
        "always",
        low=0.0,
        high=1000.0,
        unit="Hz",
    )
    input_timeout: float = _row(
        2.0,
        "Time without an image after which the diagnostics report an error",
        "always",
        low=0.1,
        high=3600.0,
        unit="s",
    )


@dataclass(frozen=True)
class NodeSettings:
    """All parameters, checked."""

    model: str = _row("d3_nano", "Model bundle: a folder, or the name of an installed one")
    device: str = _row(
        "auto", "Where the network runs: auto (CUDA if there is any), cpu, cuda, cuda:1"
    )
    dtype: str = _row(
        "auto",
        "Precision of the network: auto is fp16 on CUDA and fp32 elsewhere",
        choices=("auto", "fp32", "fp16", "bf16"),
    )
    processing_size: str = _row(
        "bundle",
        "Size at which the network sees the image: bundle (the model's own), HxW, aspect (keep the "
        "image's aspect ratio) or aspect:N (the same, shorter side about N pixels)",
    )
    autostart: bool = _row(
        False,
        "Configure and activate by itself; the launch file does it with lifecycle events instead",
        "start",
    )
    image: ImageSettings = field(default_factory=ImageSettings)
    input: InputSettings = field(default_factory=InputSettings)
    sensor_depth: SensorDepthSettings = field(default_factory=SensorDepthSettings)
    depth: DepthSettings = field(default_factory=DepthSettings)
    points: PointsSettings = field(default_factory=PointsSettings)
    color: ColorSettings = field(default_factory=ColorSettings)
    diagnostics: DiagnosticsSettings = field(default_factory=DiagnosticsSettings)
    scale: AlignmentSettings = field(default_factory=AlignmentSettings)


def settings_from(values: Mapping[str, object]) -> NodeSettings:
    """Check values by ROS name; names that are missing have their defaults.

    Raises:
        ParameterError: a value is of the wrong type or range, or two contradict each other.
    """
    settings = _build(NodeSettings, "", values)
    assert isinstance(settings, NodeSettings)
    return settings


def _build(kind: type, prefix: str, values: Mapping[str, object]) -> Any:
    arguments: dict[str, Any] = {}
    for entry in fields(kind):
        name = prefix + entry.name
        if entry.default_factory is not MISSING:
            arguments[entry.name] = _build(type(entry.default_factory()), f"{name}.", values)
        else:
            row = PARAMETERS[name]
            arguments[entry.name] = row.checked(values.get(name, row.default))
    try:
        return kind(**arguments)
    except ValueError as error:
        raise ParameterError(f"parameters '{prefix}*': {error}") from error


def _rows(kind: type, prefix: str = "") -> Iterator[ParameterRow]:
    for entry in fields(kind):
        name = prefix + entry.name
        if entry.default_factory is not MISSING:  # a group: the parameters below its name
            yield from _rows(type(entry.default_factory()), f"{name}.")
        elif "row" in entry.metadata:
            default: Any = entry.default
            yield ParameterRow(name, default, **entry.metadata["row"])
        else:
            yield _alignment_row(name, entry)


def _alignment_row(name: str, entry: Field[Any]) -> ParameterRow:
    """The geometry knows no ROS: its settings tell text, unit and range in their own way."""
    assert entry.default is not MISSING
    text, switch = entry.metadata["text"], isinstance(entry.default, bool)
    return ParameterRow(
        name=name,
        default=entry.default,
        text=text[:1].upper() + text[1:],
        when="always",
        unit=entry.metadata["unit"],
        low=None if switch else entry.metadata["low"],
        high=None if switch else entry.metadata["high"],
    )


PARAMETERS: dict[str, ParameterRow] = {row.name: row for row in _rows(NodeSettings)}

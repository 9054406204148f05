"""Every parameter of the node in one table.

`NodeSettings` is the table, and a parameter's ROS name is its path in it: `settings.color.max_rate`
is the parameter `color.max_rate`. Each field carries its meaning, unit and range, and its default
is the only one there is (config/predictor.yaml repeats them for the reader, and a test compares).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from d3_ros.geometry.alignment import AlignmentSettings
from d3_ros.geometry.rigid import rigid_transform
from d3_ros.geometry.sparse_depth import HIDDEN_RATIO
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
class ExtrinsicSettings:
    """Parameters `sensor_depth.points.*` and `sensor_depth.scan.*`."""

    T_camera_sensor: str = _row(  # the field's name
        "",
        "Where the sensor is: x y z (m) and the unit quaternion qx qy qz qw that map its points "
        "into the camera's optical frame; empty: asked of tf",
        "always",
    )

    def __post_init__(self) -> None:
        _ = self.matrix

    @property
    def matrix(self) -> np.ndarray | None:
        """(4, 4) T_camera_sensor; None where it is left to tf."""
        text = self.T_camera_sensor
        return _rigid(text) if text.strip() else None


@lru_cache(maxsize=8)
def _rigid(text: str) -> np.ndarray:
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
        if len(numbers) != 7:
            raise ValueError(f"got {len(numbers)} numbers")
        return rigid_transform(numbers[:3], numbers[3:])
    except ValueError as error:
        raise ValueError(
            f"T_camera_sensor must be 7 numbers, x y z qx qy qz qw: {error}"
        ) from error


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
    max_age: float = _row(
        0.2,
        "The same where tf follows the robot's motion from one stamp to the other: "
        "sensor_depth/points and sensor_depth/scan, through fixed_frame",
        "always",
        low=0.0,
        high=10.0,
        unit="s",
    )
    fixed_frame: str = _row(
        "odom",
        "Frame of tf in which the world stands still from a sensor's stamp to the image's; where "
        "it is empty or tf does not know it, the robot is taken to stand still",
        "always",
    )
    min_range: float = _row(
        0.1,
        "Points of a cloud or scan nearer to their sensor are not used",
        "always",
        low=0.0,
        high=100.0,
        unit="m",
    )
    max_range: float = _row(
        200.0,
        "Points of a cloud or scan farther from their sensor are not used",
        "always",
        low=0.1,
        high=1000.0,
        unit="m",
    )
    hidden_ratio: float = _row(
        HIDDEN_RATIO,
        "A projected point this share farther than what is measured on both sides of it is seen "
        "through a nearer surface and not used",
        "always",
        low=0.01,
        high=1.0,
    )
    hidden_window: float = _row(
        1.0 / 64.0,
        "How far from a projected point that is looked for, as a share of the image's width; 0 "
        "uses every point",
        "always",
        low=0.0,
        high=0.1,
    )
    points: ExtrinsicSettings = field(default_factory=ExtrinsicSettings)
    scan: ExtrinsicSettings = field(default_factory=ExtrinsicSettings)

    def __post_init__(self) -> None:
        if self.min_range >= self.max_range:
            raise ValueError(f"min_range {self.min_range} must be below max_range {self.max_range}")


@dataclass(frozen=True)
class FusionSettings:
    """Parameters `fusion.*`."""

    enabled: bool = _row(
        False,
        "Where a sensor measured and the prediction agrees, give the measurement itself",
        "always",
    )
    tolerance: float = _row(
        0.1,
        "Largest |prediction - sensor| / sensor of pixels that agree",
        "always",
        low=0.001,
        high=1.0,
    )
    blend: int = _row(
        12,
        "Width of the border over which measured depth passes into predicted depth",
        "always",
        low=0,
        high=200,
        unit="pixels",
    )


@dataclass(frozen=True)
class GroundSettings:
    """Parameters `ground.*`."""

    camera_height: float = _row(
        0.0,
        "Height of the camera above a level floor, which gives the scale where no sensor does; "
        "0: not known",
        "always",
        low=0.0,
        high=100.0,
        unit="m",
    )
    camera_tilt: float = _row(
        0.0, "How far the camera looks down", "always", low=-1.5, high=1.5, unit="rad"
    )
    frame: str = _row(
        "",
        "Frame of tf whose x-y plane is the floor (base_footprint): the camera's height and tilt "
        "are asked of tf; empty: the two parameters are taken",
        "always",
    )
    max_tilt: float = _row(
        0.26,
        "Largest angle between the normal of a floor pixel and the upward direction",
        "always",
        low=0.01,
        high=0.8,
        unit="rad",
    )
    min_share: float = _row(
        0.03, "Smallest share of the image that must be floor", "always", low=0.001, high=1.0
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
    max_age: float = _row(
        0.0,
        "Age of the output (p95, from the image's stamp to publication) above which the "
        "diagnostics warn; 0: never",
        "always",
        low=0.0,
        high=60.0,
        unit="s",
    )
    max_abs_rel: float = _row(
        0.25,
        "AbsRel on held-out sensor points above which the diagnostics warn",
        "always",
        low=0.0,
        high=10.0,
    )
    max_normal_angle: float = _row(
        1.0,
        "Median angle between the network's normals and those of its metric depth above which the "
        "diagnostics warn",
        "always",
        low=0.0,
        high=3.1416,
        unit="rad",
    )


@dataclass(frozen=True)
class FallbackSettings:
    """Parameters `fallback.*`."""

    enabled: bool = _row(
        True,
        "Where the network fails, step down: another precision, then a smaller processing size",
    )
    failures: int = _row(
        3,
        "Failures in a row before a step down; too little memory steps at once",
        low=1,
        high=1000,
        unit="frames",
    )
    retry_after: float = _row(
        60.0,
        "Time after which the step above is tried again, twice as long every time; 0: never",
        low=0.0,
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
    codec: str = _row(
        "vae",
        "Between images and latents: vae, or tiny, the small codec distilled from it where the "
        "model has one; much faster, and not quite the same answer",
        choices=("vae", "tiny"),
    )
    specialise: bool = _row(
        True,
        "Make the network faster at loading, with the same numbers; off only to look for a fault",
    )
    target_latency_ms: float = _row(
        0.0,
        "Choose the processing size by the time that the network takes, up to processing_size, "
        "with the image's aspect ratio; 0: always processing_size",
        low=0.0,
        high=60000.0,
        unit="ms",
    )
    autostart: bool = _row(
        False,
        "Configure and activate by itself; the launch file does it with lifecycle events instead",
        "start",
    )
    cameras: tuple[str, ...] = _row(
        ("",),
        "Names of the cameras that share the network; 'front' subscribes to front/image and "
        "publishes ~/front/depth/image. One empty name is a camera without prefix",
        "start",
    )
    image: ImageSettings = field(default_factory=ImageSettings)
    input: InputSettings = field(default_factory=InputSettings)
    sensor_depth: SensorDepthSettings = field(default_factory=SensorDepthSettings)
    depth: DepthSettings = field(default_factory=DepthSettings)
    points: PointsSettings = field(default_factory=PointsSettings)
    color: ColorSettings = field(default_factory=ColorSettings)
    diagnostics: DiagnosticsSettings = field(default_factory=DiagnosticsSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    ground: GroundSettings = field(default_factory=GroundSettings)
    fallback: FallbackSettings = field(default_factory=FallbackSettings)
    scale: AlignmentSettings = field(default_factory=AlignmentSettings)

    def __post_init__(self) -> None:
        names = self.cameras
        if not names or len(set(names)) < len(names) or (len(names) > 1 and "" in names):
            raise ParameterError(
                f"parameter 'cameras' must be different names, or one empty one, got {list(names)}"
            )
        for name in filter(None, names):
            if not CAMERA_NAME.fullmatch(name) or name in TOP_NAMES:
                raise ParameterError(
                    f"parameter 'cameras': '{name}' cannot be a camera's name: take letters, "
                    "digits and _, and no parameter's name"
                )


def settings_from(values: Mapping[str, object], camera: str = "") -> NodeSettings:
    """Check values by ROS name; names that are missing have their defaults.

    Args:
        values: parameters by name.
        camera: whose settings; its own `CAMERA.NAME`, where it is there and not None, goes before
            `NAME`: see `is_per_camera`.

    Raises:
        ParameterError: a value is of the wrong type or range, or two contradict each other.
    """
    settings = _build(NodeSettings, "", values, f"{camera}." if camera else "")
    assert isinstance(settings, NodeSettings)
    return settings


def is_per_camera(name: str) -> bool:
    """Whether each of several cameras may have a parameter of its own: those of a group."""
    return "." in name and not name.startswith(("fallback.", "input."))


def _build(kind: type, prefix: str, values: Mapping[str, object], camera: str) -> Any:
    arguments: dict[str, Any] = {}
    for entry in fields(kind):
        name = prefix + entry.name
        if entry.default_factory is not MISSING:
            group = type(entry.default_factory())
            arguments[entry.name] = _build(group, f"{name}.", values, camera)
            continue
        row = PARAMETERS[name]
        if camera and is_per_camera(name) and values.get(camera + name) is not None:
            row = replace(row, name=camera + name)  # so that a complaint names what was written
        arguments[entry.name] = row.checked(values.get(row.name, row.default))
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
# What a camera's name would be confused with.
TOP_NAMES = {name.partition(".")[0] for name in PARAMETERS}
CAMERA_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")

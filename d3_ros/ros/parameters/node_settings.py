"""Every parameter of the node in one table.

`NodeSettings` is the table, and a parameter's ROS name is its path in it: `settings.color.max_rate`
is the parameter `color.max_rate`. Each field carries its meaning, unit and range, and its default
is the only one there is (config/predictor.yaml repeats them for the reader, and a test compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from d3_ros.geometry.alignment import AlignmentSettings
from d3_ros.imaging.image_file import MAX_MEGAPIXELS
from d3_ros.network.inference.device_names import DTYPE_NAMES
from d3_ros.ros.parameters.camera_names import fault_of_cameras, top_names
from d3_ros.ros.parameters.metric_settings import (
    FusionSettings,
    GroundSettings,
    SensorDepthSettings,
)
from d3_ros.ros.parameters.output_settings import (
    ColorSettings,
    DepthSettings,
    NormalsSettings,
    OutputSettings,
    PointsSettings,
    RelativeSettings,
)
from d3_ros.ros.parameters.parameter_row import ParameterError, ParameterRow, rows_of
from d3_ros.settings import setting


@dataclass(frozen=True)
class ImageSettings:
    """Parameters `image.*`."""

    transport: str = setting(
        "raw",
        "Type of the image messages: raw (Image), or compressed (CompressedImage with JPEG or PNG, "
        "on the image topic's sub-topic /compressed)",
        choices=("raw", "compressed"),
        when="configure",
    )
    bit_depth: int = setting(
        16,
        "Significant bits of images with 16 bits a channel (mono16, bayer_*16, rgb16); 10 or 12 "
        "for cameras that use no more",
        low=8,
        high=16,
        unit="bits",
    )
    max_megapixels: float = setting(
        MAX_MEGAPIXELS,
        "Compressed images of more pixels than this, by their header, are refused and not decoded: "
        "a few bytes may declare gigabytes",
        low=0.1,
        high=1000.0,
        unit="megapixels",
    )
    rectified: bool = setting(
        False,
        "The image is rectified already: its camera is P of camera_info, without distortion",
        when="configure",
    )
    mask: str = setting(
        "",
        "Pixels that show the robot itself: no depth, normal or point, and sensor depth on them is "
        "not used. The path of a PNG of the full image, not black where to ignore, or a rectangle "
        "x y width height in pixels of the full image; empty: none",
        when="configure",
    )


@dataclass(frozen=True)
class InputSettings:
    """Parameters `input.*`."""

    reliability: str = setting(
        "best_effort",
        "Reliability that the input subscriptions ask for; best_effort accepts both kinds of "
        "publisher",
        choices=("best_effort", "reliable"),
        when="configure",
    )
    queue_depth: int = setting(
        1, "Messages kept per input topic", low=1, high=100, unit="messages", when="configure"
    )
    wait: float = setting(
        0.05,
        "How long an image waits for its camera_info and sensor depth",
        low=0.0,
        high=1.0,
        unit="s",
    )


@dataclass(frozen=True)
class DiagnosticsSettings:
    """Parameters `diagnostics.*`."""

    min_rate: float = setting(
        0.5,
        "Published frames per second below which the diagnostics warn",
        low=0.0,
        high=1000.0,
        unit="Hz",
    )
    input_timeout: float = setting(
        2.0,
        "Time without an image after which the diagnostics report an error",
        low=0.1,
        high=3600.0,
        unit="s",
    )
    max_age: float = setting(
        0.0,
        "Age of the output (p95, from the image's stamp to publication) above which the "
        "diagnostics warn; 0: never",
        low=0.0,
        high=60.0,
        unit="s",
    )
    max_frame_time: float = setting(
        30.0,
        "Time of work on one frame after which the diagnostics report an error",
        low=0.1,
        high=3600.0,
        unit="s",
    )
    max_abs_rel: float = setting(
        0.25,
        "AbsRel on held-out sensor points above which the diagnostics warn",
        low=0.0,
        high=10.0,
    )
    check_extrinsics: bool = setting(
        True,
        "Every few seconds, compare the depth edges of a LiDAR or scanner with the edges of the "
        "image, and warn where its extrinsics seem wrong; at most 2 % of one CPU core",
    )
    max_normal_angle: float = setting(
        1.0,
        "Median angle between the network's normals and those of its metric depth above which the "
        "diagnostics warn",
        low=0.0,
        high=3.1416,
        unit="rad",
    )


@dataclass(frozen=True)
class FallbackSettings:
    """Parameters `fallback.*`."""

    enabled: bool = setting(
        True,
        "When the network fails, use another precision, then a smaller processing size",
        when="configure",
    )
    failures: int = setting(
        3,
        "Failures in a row before such a step down; too little memory leads to one at once",
        low=1,
        high=1000,
        unit="frames",
        when="configure",
    )
    retry_after: float = setting(
        60.0,
        "Time after which the step above is tried again; it doubles with every try. 0: never",
        low=0.0,
        high=3600.0,
        unit="s",
        when="configure",
    )


@dataclass(frozen=True)
class NodeSettings:
    """All parameters, checked."""

    model: str = setting(
        "d3_nano", "Model bundle: a folder, or the name of an installed one", when="configure"
    )
    device: str = setting(
        "auto",
        "Where the network runs: auto (CUDA if there is any), cpu, cuda, cuda:1",
        when="configure",
    )
    dtype: str = setting(
        "auto",
        "Precision of the network: auto is fp16 with PyTorch on CUDA, else fp32; int8 needs a "
        "model with ONNX graphs of it",
        choices=DTYPE_NAMES,
        when="configure",
    )
    runtime: str = setting(
        "auto",
        "Library that computes the network: torch, onnx (ONNX Runtime), or auto: onnx where the "
        "model has graphs for dtype and codec and PyTorch has no GPU",
        choices=("auto", "torch", "onnx"),
        when="configure",
    )
    providers: tuple[str, ...] = setting(
        ("",),
        "ONNX execution providers in order of preference: cpu, cuda, tensorrt, openvino, coreml. "
        "One empty name: chosen by device",
        when="configure",
    )
    threads: int = setting(
        0,
        "Threads of ONNX Runtime; 0: one per core",
        low=0,
        high=256,
        unit="threads",
        when="configure",
    )
    processing_size: str = setting(
        "bundle",
        "Size at which the network sees the image: bundle (the model's own), HxW, aspect (keep the "
        "image's aspect ratio) or aspect:N (the same, shorter side about N pixels)",
        when="configure",
    )
    codec: str = setting(
        "vae",
        "Network between images and latents: vae, or tiny, a small one distilled from it. tiny is "
        "much faster, slightly less accurate, and not in every model",
        choices=("vae", "tiny"),
        when="configure",
    )
    specialise: bool = setting(
        True,
        "Optimise the network when it is loaded, without changing its numbers; off only to look "
        "for a fault",
        when="configure",
    )
    target_latency_ms: float = setting(
        0.0,
        "Longest time that the network may take: the node chooses the processing size for it, with "
        "the image's aspect ratio and at most processing_size. 0: always processing_size",
        low=0.0,
        high=60000.0,
        unit="ms",
        when="configure",
    )
    autostart: bool = setting(
        False,
        "The node configures and activates itself; the launch file does that with lifecycle events",
        when="start",
    )
    cameras: tuple[str, ...] = setting(
        ("",),
        "Names of the cameras that share the network; 'front' subscribes to front/image and "
        "publishes ~/front/depth/image. One empty name is a camera without prefix",
        when="start",
    )
    image: ImageSettings = field(default_factory=ImageSettings)
    input: InputSettings = field(default_factory=InputSettings)
    sensor_depth: SensorDepthSettings = field(default_factory=SensorDepthSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    depth: DepthSettings = field(default_factory=DepthSettings)
    relative: RelativeSettings = field(default_factory=RelativeSettings)
    normals: NormalsSettings = field(default_factory=NormalsSettings)
    points: PointsSettings = field(default_factory=PointsSettings)
    color: ColorSettings = field(default_factory=ColorSettings)
    diagnostics: DiagnosticsSettings = field(default_factory=DiagnosticsSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    ground: GroundSettings = field(default_factory=GroundSettings)
    fallback: FallbackSettings = field(default_factory=FallbackSettings)
    scale: AlignmentSettings = field(default_factory=AlignmentSettings)

    def __post_init__(self) -> None:
        if fault := fault_of_cameras(self.cameras, top_names(PARAMETERS)):
            raise ParameterError(f"parameter 'cameras': {fault}")


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
    """Whether one of several cameras may override a parameter, as `front.depth.encoding` does.

    It may override every parameter of a group, but for `fallback.*` and `input.*`.
    """
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
            row = row.of_camera(camera[:-1])  # so that a complaint names what was written
        arguments[entry.name] = row.checked(values.get(row.name, row.default))
    try:
        return kind(**arguments)
    except ValueError as error:
        raise ParameterError(f"parameters '{prefix}*': {error}") from error


PARAMETERS: dict[str, ParameterRow] = {row.name: row for row in rows_of(NodeSettings)}

"""What the launch files decide, as plain functions: arguments in, topics and parameters out.

The launch files only turn the answers into launch actions. Nothing here imports launch or rclpy, so
that every decision can be tested without a ROS installation. Faults are RuntimeErrors of one line,
which `ros2 launch` shows as they are. What only the synthetic robot needs is in
d3_ros/ros/synthetic/launching.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from d3_ros.errors import BundleError, one_line
from d3_ros.network.bundle.lookup import find_bundle
from d3_ros.network.inference.device_names import DEVICE_NAMES, DTYPE_NAMES, is_device_name
from d3_ros.ros.launch_arguments import (
    PARAMETER_ARGUMENTS,
    TOPIC_ARGUMENTS,
)
from d3_ros.ros.parameters.camera_names import fault_of_cameras, top_names

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
PARAMETERS_KEY = "ros__parameters"
# Arguments that every launch file has: the launch system itself reads them.
LAUNCH_S_OWN = (
    *("launch-prefix", "launch-prefix-filter"),
    *("emulate_tty", "sigterm_timeout", "sigkill_timeout"),
)
_PRESET_KEYS = ("frame", "topics", "parameters")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True)
class PredictorPlan:
    """What predictor.launch.py starts.

    Attributes:
        parameters: files and dictionaries; a later one wins over an earlier one.
        remappings: (the node's topic, where it comes from).
        by_events: configure and activate the node by lifecycle events of the launch system.
        respawn: start the process again when it died.
        use_sim_time: for the node and RViz.
        rviz_frame: RViz's fixed frame; None where RViz is not wanted.
        ros_arguments: further ROS arguments of the node.
    """

    parameters: Sequence[str | dict[str, Any]]
    remappings: Sequence[tuple[str, str]]
    by_events: bool
    respawn: bool
    use_sim_time: bool
    rviz_frame: str | None
    ros_arguments: Sequence[str]


def plan_predictor(given: Mapping[str, str], config: Path, pushed: str = "") -> PredictorPlan:
    """Decide what to start.

    Args:
        given: every one of PREDICTOR_ARGUMENTS.
        config: the installed folder config/.
        pushed: the namespace that another launch file put around this one.

    Raises:
        RuntimeError: an argument is wrong; the line names it.
    """
    node = full_name(pushed, given["namespace"], given["name"])
    ros_arguments = log_arguments(node, given["log_level"])
    preset = read_preset(given["preset"], config / "presets")
    own = read_parameters(given["params_file"], node) if given["params_file"] else {}
    cameras = names_in(given["cameras"])
    check_network(given)
    check_cameras(cameras, config)
    starts, respawns = is_true(given, "autostart"), is_true(given, "respawn")
    overrides: dict[str, Any] = {n: given[n] for n in PARAMETER_ARGUMENTS if given[n]}
    if cameras:
        overrides["cameras"] = cameras
    if given["use_sim_time"]:
        use_sim_time = is_true(given, "use_sim_time")
    else:
        use_sim_time = own.get("use_sim_time", preset["parameters"].get("use_sim_time")) is True
    topics = topics_of(given, preset["topics"], cameras)
    frame = given["rviz_frame"] or preset["frame"]
    return PredictorPlan(
        parameters=[
            str(config / "predictor.yaml"),
            preset["parameters"],
            *([given["params_file"]] if given["params_file"] else []),
            {
                "use_sim_time": use_sim_time,
                # A transition asked of a process that has just died is lost with it, so a node that
                # comes back has to start by itself.
                "autostart": starts and respawns,
                **overrides,
            },
        ],
        remappings=list(topics.items()),
        by_events=starts and not respawns,
        respawn=respawns,
        use_sim_time=use_sim_time,
        rviz_frame=frame if is_true(given, "rviz") else None,
        ros_arguments=ros_arguments,
    )


def check_network(given: Mapping[str, str]) -> None:
    """Refuse a model, device or dtype that the node would refuse; an empty one is not given.

    Raises:
        RuntimeError: there is no such model, device name or dtype.
    """
    model, device, dtype = (given[name] for name in PARAMETER_ARGUMENTS)
    if device and not is_device_name(device):
        raise RuntimeError(f"device:={device} must be one of {DEVICE_NAMES}")
    if dtype and dtype not in DTYPE_NAMES:
        raise RuntimeError(f"dtype:={dtype} must be one of {', '.join(DTYPE_NAMES)}")
    if model:
        try:
            find_bundle(model)
        except BundleError as error:
            raise RuntimeError(f"model:={model}: {error}") from error


def check_cameras(cameras: Sequence[str], config: Path) -> None:
    """Refuse names that the node would refuse; with no name, the node has one camera.

    Raises:
        RuntimeError: two cameras have one name, or one has a name that it cannot have.
    """
    taken = top_names(read_parameters(str(config / "predictor.yaml"), "/predictor"))
    if cameras and (fault := fault_of_cameras(cameras, taken)):
        raise RuntimeError(f"cameras:={','.join(cameras)}: {fault}")


def read_preset(name: str, folder: Path) -> dict[str, Any]:
    """A preset's frame, topics and parameters; with an empty name, the defaults.

    Raises:
        RuntimeError: there is no such preset, or it has keys that mean nothing.
    """
    preset: dict[str, Any] = {"frame": "camera_optical_frame", "topics": {}, "parameters": {}}
    if not name:
        return preset
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise RuntimeError(f"there is no preset '{name}': use one of {known}, or a .yaml file")
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise RuntimeError(f"preset '{path}': {one_line(error)}") from error
    if not isinstance(read, dict):
        raise RuntimeError(f"preset '{path}' must have keys: {', '.join(_PRESET_KEYS)}")
    for key in ("topics", "parameters"):
        if not isinstance(read.get(key) or {}, dict):
            raise RuntimeError(f"preset '{path}': below '{key}:' there must be lines 'name: value'")
    inputs = set(TOPIC_ARGUMENTS.values())
    wrong = [*(set(read) - set(_PRESET_KEYS)), *(set(read.get("topics") or {}) - inputs)]
    if wrong:
        raise RuntimeError(
            f"preset '{path}' has '{wrong[0]}', which is no key or input of a preset"
        )
    return {key: read.get(key) or value for key, value in preset.items()}


def read_parameters(file: str, node: str) -> dict[str, Any]:
    """The parameters that a YAML file gives to a node, by their ROS names.

    Args:
        file: path of a ROS parameter file.
        node: full name of the node, such as /front/predictor.

    Raises:
        RuntimeError: it cannot be read, or is no ROS parameter file.
    """
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise RuntimeError(f"params_file:={file}: {one_line(error)}") from error
    found: dict[str, Any] = {}
    for pattern, parameters in _sections(content, file):
        if _is_meant(pattern, node):
            found.update(_flat(parameters))
    return found


def _sections(tree: Any, file: str, name: str = "") -> Iterator[tuple[str, Any]]:
    """(node name, which may have wildcards; nested parameters) of each section of a file."""
    for key, value in tree.items() if isinstance(tree, dict) else [("", None)]:
        if key == PARAMETERS_KEY and name:
            yield name, value or {}
        elif isinstance(value, dict):
            yield from _sections(value, file, f"{name}/{str(key).strip('/')}")
        else:
            raise RuntimeError(
                f"params_file:={file} is no ROS parameter file: its parameters must be below the "
                f"lines '/**:' and '{PARAMETERS_KEY}:'"
            )


def _is_meant(pattern: str, node: str) -> bool:
    """Whether a section's name is a node's: `*` stands for one part of it, `**` for any number."""
    parts = [
        {"**": "(/[^/]+)*", "*": "/[^/]+"}.get(p, f"/{re.escape(p)}")
        for p in pattern[1:].split("/")
    ]
    return re.fullmatch("".join(parts), node) is not None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters by their ROS names: groups are joined with dots."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        found.update(_flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return found


def full_name(pushed: str, namespace: str, name: str) -> str:
    """A node's full name; `pushed`: the namespace around it, by PushRosNamespace."""
    return str(PurePosixPath("/", pushed, namespace, name))


def log_arguments(node: str, level: str) -> list[str]:
    """ROS arguments that set the level of one node's logger; `node`: its full name.

    `--log-level debug` alone would also show what ROS's own libraries log: thousands of lines.

    Raises:
        RuntimeError: there is no such level.
    """
    if level not in LOG_LEVELS:
        raise RuntimeError(f"log_level:={level} must be one of {', '.join(LOG_LEVELS)}")
    return ["--log-level", f"{node.strip('/').replace('/', '.')}:={level}"]


def check_exit(node: str, code: int) -> None:
    """Raise RuntimeError where a node's process failed: the launch then ends with 1, not 0.

    Args:
        node: its full name.
        code: its exit code; negative where a signal ended it.
    """
    if code != 0:
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise RuntimeError(f"the node {node} {how}: its last lines above say why")


def check_names(words: Sequence[str], file: str, known: Collection[str], config: Path) -> None:
    """Refuse arguments of the command line that the launch file does not have.

    Args:
        words: the command line, as in sys.argv.
        file: the launch file's name. Where the command line does not name it, another launch file
            includes it, and the arguments are that one's.
        known: the launch file's arguments.
        config: the installed folder config/.

    Raises:
        RuntimeError: an argument is unknown; the line has a hint.
    """
    if not any(Path(word).name == file for word in words):
        return
    for word in words:
        name, assigned, value = word.partition(":=")
        if assigned and name not in known and name not in LAUNCH_S_OWN:
            hint = _hint(name, value, known, config / "predictor.yaml")
            raise RuntimeError(f"{file} has no argument {name}:=; {hint}")


def _hint(name: str, value: str, known: Collection[str], table: Path) -> str:
    """What somebody probably meant who gave an argument that does not exist."""
    parameters = read_parameters(str(table), "/predictor")
    if close := difflib.get_close_matches(name, parameters, n=1, cutoff=0.8):
        *groups, last = close[0].split(".")
        inner = "".join(f"{group}: {{" for group in groups)
        return (
            f"{close[0]} is a parameter of the node. Write it into a file, for example "
            f"'/**: {{ros__parameters: {{{inner}{last}: {value}{'}' * len(groups)}}}}}', and name "
            "the file: params_file:=/path/to/it.yaml"
        )
    if "." in name:
        return "parameters of a node go into a file; params_file:= names it"
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}:=?" if close else f"there are {', '.join(sorted(known))}"


def topics_of(
    given: Mapping[str, str], preset: Mapping[str, str], cameras: Sequence[str]
) -> dict[str, str]:
    """The node's input topic -> the topic that it comes from.

    Arguments win over the preset. Where nothing names a calibration, it is beside the image.

    Raises:
        RuntimeError: a topic argument does not name one topic for each camera.
    """
    topics = {}
    for argument, topic in TOPIC_ARGUMENTS.items():
        sources = names_in(given[argument])
        if sources and len(sources) != max(len(cameras), 1):
            raise RuntimeError(
                f"{argument}:={given[argument]} names {len(sources)} topics for "
                f"{max(len(cameras), 1)} cameras"
            )
        for index, camera in enumerate(cameras or [""]):
            own = f"{camera}/{topic}" if camera else topic
            # The preset's calibration belongs to the preset's image.
            from_preset = not camera and not (argument == "camera_info" and given["image"])
            if sources:
                topics[own] = sources[index]
            elif from_preset and topic in preset:
                topics[own] = preset[topic]
            elif argument == "camera_info":
                image = f"{camera}/image" if camera else "image"
                topics[own] = camera_info_beside(topics.get(image, image))
    return topics


def camera_info_beside(image: str) -> str:
    """The calibration's topic by image_transport's convention: the sibling of the image topic."""
    return str(PurePosixPath(image).with_name("camera_info"))


def names_in(text: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def is_true(given: Mapping[str, str], name: str) -> bool:
    """The value of a switch.

    Raises:
        RuntimeError: it is neither true nor false.
    """
    text = given[name].strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise RuntimeError(f"{name}:={given[name]} must be true or false")

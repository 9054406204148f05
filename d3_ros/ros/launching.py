"""What the launch files decide, as plain functions: arguments in, topics and parameters out.

The launch files only turn the answers into launch actions. Nothing here imports launch or rclpy, so
that every decision can be tested without a ROS installation. Faults are RuntimeErrors of one line,
which `ros2 launch` shows as they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from d3_ros.errors import one_line

# Launch argument -> the node's topic.
TOPIC_ARGUMENTS = {
    "image": "image",
    "camera_info": "camera_info",
    "sensor_depth": "sensor_depth/image",
    "sensor_points": "sensor_depth/points",
    "sensor_scan": "sensor_depth/scan",
}
# Launch arguments that set the parameter of the same name.
PARAMETER_ARGUMENTS = ("model", "device", "dtype")

# Launch argument -> (default, description).
PREDICTOR_ARGUMENTS = {
    "name": ("predictor", "Name of the node; its topics are below it"),
    "namespace": ("", "Namespace of the node and of its topics"),
    "preset": (
        "",
        "Camera driver whose topics and parameters are used: realsense, zed, oak, usb_cam, "
        "gazebo, or a file like those in config/presets",
    ),
    "params_file": ("", "YAML file with parameters; the others are as in config/predictor.yaml"),
    "cameras": (
        "",
        "Names of several cameras, as front,rear; each topic argument below is then a list of as "
        "many topics. Empty: one camera",
    ),
    "model": ("", "Model bundle, by path or name. Empty: as in params_file"),
    "device": ("", "auto, cpu, cuda or cuda:N. Empty: as in params_file"),
    "dtype": ("", "auto, fp32, fp16 or bf16. Empty: as in params_file"),
    "image": ("", "Topic of the colour or mono image. Empty: the preset's, or image"),
    "camera_info": ("", "Topic of its calibration. Empty: camera_info beside the image"),
    "sensor_depth": ("", "Topic of the registered sensor depth image. Empty: the preset's, if any"),
    "sensor_points": ("", "Topic of the PointCloud2 of a LiDAR or another sensor"),
    "sensor_scan": ("", "Topic of a planar LaserScan"),
    "autostart": ("true", "Configure and activate the node, also after a respawn"),
    "respawn": ("false", "Start the process again when it died"),
    "use_sim_time": (
        "",
        "Take the time from /clock, as with a bag or a simulator. Empty: as in params_file or the "
        "preset, else false",
    ),
    "log_level": ("info", "Level of the node's log: debug, info, warn, error or fatal"),
    "rviz": ("false", "Start RViz with image, depth, normals, cloud and TF"),
    "rviz_frame": ("", "Fixed frame of RViz. Empty: the preset's, or camera_optical_frame"),
}

# Sensor -> the parameter of the synthetic camera that is 0 where the sensor is not wanted.
SYNTHETIC_SENSORS = {"image": "sensor_share", "points": "points_rate", "scan": "scan_rate"}
# Parameters of the synthetic camera that are launch arguments -> (type, description).
SYNTHETIC_PARAMETERS: dict[str, tuple[type, str]] = {
    "seed": (int, "Draws the room, the start and the noise"),
    "width": (int, "Width of the image, pixels"),
    "height": (int, "Height of the image, pixels"),
    "image_rate": (float, "Images a second"),
    "speed": (float, "Speed of the robot, m/s; 0 stands still"),
}
SYNTHETIC_ARGUMENTS = {
    "namespace": ("", "Namespace of both nodes and their topics"),
    "sensors": ("image", "Sensors that measure: a list of image, points and scan, or none"),
    "predictor": ("true", "Start the predictor, too"),
    **{
        name: ("", f"{text}. Empty: the node's own default")
        for name, (_, text) in SYNTHETIC_PARAMETERS.items()
    },
}
# Arguments of synthetic.launch.py that it hands on to predictor.launch.py -> default.
HANDED_ON = {
    "params_file": "",
    "model": "",
    "device": "",
    "dtype": "",
    "autostart": "true",
    "log_level": "info",
    "rviz": "false",
    "rviz_frame": "odom",
}

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
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
    """

    parameters: Sequence[str | dict[str, Any]]
    remappings: Sequence[tuple[str, str]]
    by_events: bool
    respawn: bool
    use_sim_time: bool
    rviz_frame: str | None


def plan_predictor(given: Mapping[str, str], config: Path) -> PredictorPlan:
    """Decide what to start.

    Args:
        given: every one of PREDICTOR_ARGUMENTS.
        config: the installed folder config/.

    Raises:
        RuntimeError: an argument is wrong; the line names it.
    """
    check_log_level(given)
    preset = read_preset(given["preset"], config / "presets")
    own = read_parameters(given["params_file"]) if given["params_file"] else {}
    cameras = names_in(given["cameras"])
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
    )


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
    read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    inputs = set(TOPIC_ARGUMENTS.values())
    wrong = [*(set(read) - set(_PRESET_KEYS)), *(set(read.get("topics") or {}) - inputs)]
    if wrong:
        raise RuntimeError(
            f"preset '{path}' has '{wrong[0]}', which is no key or input of a preset"
        )
    return {key: read.get(key) or value for key, value in preset.items()}


def read_parameters(file: str) -> dict[str, Any]:
    """The parameters of a YAML file, of all its sections, by name as far as they are not nested.

    Raises:
        RuntimeError: it cannot be read, or is no ROS parameter file.
    """
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise RuntimeError(f"params_file:={file}: {one_line(error)}") from error
    sections: list[Any] = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(section, dict) for section in sections):
        raise RuntimeError(
            f"params_file:={file} is no ROS parameter file: its parameters must be below the lines "
            "'/**:' and 'ros__parameters:'"
        )
    found: dict[str, Any] = {}
    for section in sections:
        found.update(section.get("ros__parameters") or {})
    return found


def check_exit(code: int) -> None:
    """Raise RuntimeError where the node's process failed: the launch then ends with 1, not 0.

    `code`: its exit code; negative where a signal ended it.
    """
    if code != 0:
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise RuntimeError(f"the predictor {how}: its last lines above say why")


def check_log_level(given: Mapping[str, str]) -> None:
    """Raise RuntimeError where log_level is none of ROS's."""
    if given["log_level"] not in LOG_LEVELS:
        raise RuntimeError(
            f"log_level:={given['log_level']} must be one of {', '.join(LOG_LEVELS)}"
        )


def check_names(words: Sequence[str], file: str, known: Collection[str]) -> None:
    """Refuse arguments of the command line that the launch file does not have.

    Args:
        words: the command line, as in sys.argv.
        file: the launch file's name. Where the command line does not name it, another launch file
            includes it, and the arguments are that one's.
        known: the launch file's arguments.

    Raises:
        RuntimeError: an argument is unknown; the line has a hint.
    """
    if not any(Path(word).name == file for word in words):
        return
    for word in words:
        name, assigned, _ = word.partition(":=")
        if not assigned or name in known:
            continue
        if "." in name:
            hint = (
                "if it is a parameter of the node, write it into a file, and name it: params_file:="
            )
        else:
            close = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {close[0]}:=?" if close else f"there are {', '.join(sorted(known))}"
            )
        raise RuntimeError(f"{file} has no argument {name}:=; {hint}")


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


def synthetic_parameters(given: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of the synthetic camera: those that were given, and 0 for unwanted sensors.

    Raises:
        RuntimeError: a sensor does not exist, or a value is not of its type.
    """
    wanted = {name.strip() for name in given["sensors"].split(",")} - {"", "none"}
    if unknown := wanted - set(SYNTHETIC_SENSORS):
        raise RuntimeError(
            f"there is no sensor '{sorted(unknown)[0]}': use {', '.join(SYNTHETIC_SENSORS)} or none"
        )
    parameters: dict[str, Any] = {
        SYNTHETIC_SENSORS[name]: 0.0 for name in SYNTHETIC_SENSORS if name not in wanted
    }
    for name, (kind, _) in SYNTHETIC_PARAMETERS.items():
        if not given[name]:
            continue
        try:
            parameters[name] = kind(given[name])
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise RuntimeError(f"{name}:={given[name]} must be {what}") from error
    return parameters


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

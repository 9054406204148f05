"""Start the node `predictor`, configure and activate it; with `rviz:=true`, RViz beside it.

ros2 launch d3_ros predictor.launch.py preset:=realsense
ros2 launch d3_ros predictor.launch.py image:=/camera/image_raw sensor_points:=/velodyne_points
ros2 launch d3_ros predictor.launch.py cameras:=front,rear image:=/front/image_raw,/rear/image_raw

A preset names the topics of a camera driver and the parameters that fit it: config/presets. What is
given as an argument wins over the preset, and so do the parameters of `params_file`; `model`,
`device` and `dtype` win over all.
"""

from pathlib import Path, PurePosixPath

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

# Launch argument: the node's topic.
TOPICS = {
    "image": "image",
    "camera_info": "camera_info",
    "sensor_depth": "sensor_depth/image",
    "sensor_points": "sensor_depth/points",
    "sensor_scan": "sensor_depth/scan",
}
ARGUMENTS = {
    "name": ("predictor", "Name of the node; its topics are below it"),
    "namespace": ("", "Namespace of the node and of its topics"),
    "preset": (
        "",
        "Camera driver whose topics and parameters are taken: realsense, zed, oak, usb_cam, "
        "gazebo, or a file like those in config/presets",
    ),
    "params_file": ("", "YAML file with parameters; the others are as in config/predictor.yaml"),
    "cameras": (
        "",
        "Several cameras, as front,rear; the topics below are then lists of as many. Empty: one "
        "camera",
    ),
    "model": ("", "Model bundle, by path or name; empty: as in params_file"),
    "device": ("", "auto, cpu, cuda or cuda:N; empty: as in params_file"),
    "dtype": ("", "auto, fp32, fp16 or bf16; empty: as in params_file"),
    "image": ("", "Topic of the colour or mono image; empty: the preset's, or image"),
    "camera_info": ("", "Topic of its calibration; empty: camera_info beside the image"),
    "sensor_depth": ("", "Topic of the registered sensor depth image; empty: the preset's, if any"),
    "sensor_points": ("", "Topic of a LiDAR's or another sensor's PointCloud2"),
    "sensor_scan": ("", "Topic of a planar LaserScan"),
    "autostart": ("true", "Configure and activate the node, also after a respawn"),
    "respawn": ("false", "Start the process again where it died"),
    "use_sim_time": (
        "",
        "Take the time from /clock, as with a bag or a simulator; empty: false, "
        "but for preset:=gazebo",
    ),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "rviz": ("false", "Start RViz with image, depth, normals, cloud and TF"),
    "rviz_frame": ("", "RViz's fixed frame; empty: the preset's, or camera_optical_frame"),
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list:
    """The actions, once the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    config = Path(FindPackageShare("d3_ros").perform(context)) / "config"
    preset = read_preset(given["preset"], config / "presets")
    starts, respawns = is_true(given["autostart"]), is_true(given["respawn"])
    cameras = names_in(given["cameras"])
    topics = topics_of(given, preset["topics"], cameras)
    overrides = {name: given[name] for name in ("model", "device", "dtype") if given[name]}
    if cameras:
        overrides["cameras"] = cameras
    sim_time = is_true(given["use_sim_time"] or str(preset["parameters"].get("use_sim_time")))
    predictor = LifecycleNode(
        package="d3_ros",
        executable="predictor",
        name=given["name"],
        namespace=given["namespace"],
        parameters=[
            str(config / "predictor.yaml"),
            preset["parameters"],
            *([given["params_file"]] if given["params_file"] else []),
            {
                "use_sim_time": sim_time,
                # A transition asked of a process that has just died is lost with it, so a node that
                # comes back has to start by itself.
                "autostart": starts and respawns,
                **overrides,
            },
        ],
        remappings=list(topics.items()),
        ros_arguments=["--log-level", given["log_level"]],
        respawn=respawns,
        respawn_delay=2.0,
        output="screen",
    )
    actions = autostart(predictor) if starts and not respawns else []
    if is_true(given["rviz"]):
        frame = given["rviz_frame"] or preset["frame"]
        actions.append(rviz(given, topics, frame, str(config / "predictor.rviz"), sim_time))
    return [*actions, predictor]


def read_preset(name: str, folder: Path) -> dict:
    """A preset's frame, topics and parameters; without a name, one that presets nothing."""
    preset = {"frame": "camera_optical_frame", "topics": {}, "parameters": {}}
    if not name:
        return preset
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise RuntimeError(f"there is no preset '{name}': take one of {known}, or a .yaml file")
    read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    wrong = [*(set(read) - set(preset)), *(set(read.get("topics") or {}) - set(TOPICS.values()))]
    if wrong:
        raise RuntimeError(
            f"preset '{path}' has '{wrong[0]}', which is no key or input of a preset"
        )
    return {key: read.get(key) or value for key, value in preset.items()}


def topics_of(given: dict[str, str], preset: dict[str, str], cameras: list[str]) -> dict[str, str]:
    """Where each of the node's inputs comes from, by its own name."""
    topics = {}
    for argument, topic in TOPICS.items():
        sources = names_in(given[argument])
        if sources and len(sources) != max(len(cameras), 1):
            raise RuntimeError(
                f"{argument}:={given[argument]} names {len(sources)} topics for "
                f"{max(len(cameras), 1)} cameras"
            )
        for index, camera in enumerate(cameras or [""]):
            own = f"{camera}/{topic}" if camera else topic
            if sources:
                topics[own] = sources[index]
            elif (
                topic in preset
                and not camera
                and not (argument == "camera_info" and given["image"])
            ):
                topics[own] = preset[topic]
            elif argument == "camera_info":
                image = f"{camera}/image" if camera else "image"
                topics[own] = camera_info_beside(topics.get(image, image))
    return topics


def autostart(node: LifecycleNode) -> list:
    """Configure the node when its process starts, activate it when that succeeded."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[change(Transition.TRANSITION_ACTIVATE)],
            )
        ),
    ]


def rviz(
    given: dict[str, str], topics: dict[str, str], frame: str, config: str, sim_time: bool
) -> Node:
    """RViz in the node's namespace, so that the relative topics of its configuration fit."""
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        arguments=["-d", config, "-f", frame],
        remappings=[("image", topics["image"])] if "image" in topics else [],
        parameters=[{"use_sim_time": sim_time}],
        output="log",
    )


def camera_info_beside(image: str) -> str:
    """image_transport's convention: the calibration is the sibling of the image topic."""
    return str(PurePosixPath(image).with_name("camera_info"))


def names_in(text: str) -> list[str]:
    """The names of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")

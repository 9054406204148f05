"""Start the node `predictor`, configure and activate it; with `rviz:=true`, RViz beside it.

ros2 launch d3_ros predictor.launch.py image:=/camera/image_raw sensor_depth:=/camera/depth/image

The parameters come from `params_file`; `model`, `device` and `dtype` override it where given.
"""

from pathlib import PurePosixPath

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

SHARE = FindPackageShare("d3_ros")
ARGUMENTS = {
    "name": ("predictor", "Name of the node; its topics are below it"),
    "namespace": ("", "Namespace of the node and of its topics, one per camera"),
    "params_file": (
        PathJoinSubstitution([SHARE, "config", "predictor.yaml"]),
        "YAML file with the node's parameters",
    ),
    "model": ("", "Model bundle, by path or name; empty: as in params_file"),
    "device": ("", "auto, cpu, cuda or cuda:N; empty: as in params_file"),
    "dtype": ("", "auto, fp32, fp16 or bf16; empty: as in params_file"),
    "image": ("image", "Topic of the colour or mono image"),
    "camera_info": ("", "Topic of its calibration; empty: camera_info beside the image topic"),
    "sensor_depth": ("sensor_depth/image", "Topic of the registered sensor depth image"),
    "sensor_points": ("sensor_depth/points", "Topic of a LiDAR's or another sensor's PointCloud2"),
    "sensor_scan": ("sensor_depth/scan", "Topic of a planar LaserScan"),
    "autostart": ("true", "Configure and activate the node, also after a respawn"),
    "respawn": ("false", "Start the process again where it died"),
    "use_sim_time": ("false", "Take the time from /clock, as with a bag or a simulator"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "rviz": ("false", "Start RViz with image, depth, normals, cloud and TF"),
    "rviz_frame": ("camera_optical_frame", "RViz's fixed frame"),
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
    overrides = {name: given[name] for name in ("model", "device", "dtype") if given[name]}
    starts, respawns = is_true(given["autostart"]), is_true(given["respawn"])
    predictor = LifecycleNode(
        package="d3_ros",
        executable="predictor",
        name=given["name"],
        namespace=given["namespace"],
        parameters=[
            given["params_file"],
            {
                "use_sim_time": is_true(given["use_sim_time"]),
                # A transition asked of a process that has just died is lost with it, so a node that
                # comes back has to start by itself.
                "autostart": starts and respawns,
                **overrides,
            },
        ],
        remappings=[
            ("image", given["image"]),
            ("camera_info", given["camera_info"] or camera_info_beside(given["image"])),
            ("sensor_depth/image", given["sensor_depth"]),
            ("sensor_depth/points", given["sensor_points"]),
            ("sensor_depth/scan", given["sensor_scan"]),
        ],
        ros_arguments=["--log-level", given["log_level"]],
        respawn=respawns,
        respawn_delay=2.0,
        output="screen",
    )
    actions = autostart(predictor) if starts and not respawns else []
    if is_true(given["rviz"]):
        actions.append(rviz(given))
    return [*actions, predictor]


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


def rviz(given: dict[str, str]) -> Node:
    """RViz in the node's namespace, so that the relative topics of its configuration fit."""
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        arguments=[
            *("-d", PathJoinSubstitution([SHARE, "config", "predictor.rviz"])),
            *("-f", given["rviz_frame"]),
        ],
        remappings=[("image", given["image"])],
        parameters=[{"use_sim_time": is_true(given["use_sim_time"])}],
        output="log",
    )


def camera_info_beside(image: str) -> str:
    """image_transport's convention: the calibration is the sibling of the image topic."""
    return str(PurePosixPath(image).with_name("camera_info"))


def is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")

"""Start the node `predictor`, configure and activate it; with `rviz:=true`, RViz beside it.

ros2 launch d3_ros predictor.launch.py preset:=realsense
ros2 launch d3_ros predictor.launch.py image:=/camera/image_raw sensor_points:=/velodyne_points
ros2 launch d3_ros predictor.launch.py cameras:=front,rear image:=/front/image_raw,/rear/image_raw

A preset (config/presets) names the topics of a camera driver and the parameters that fit it.
Arguments win over the preset. Parameters of `params_file` win over the preset's; `model`, `device`
and `dtype` win over both. d3_ros/ros/launch_arguments.py describes the arguments;
d3_ros/ros/launching.py turns them into topics and parameters.
"""

import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from d3_ros.ros.fast_dds import profile_variables
from d3_ros.ros.launch_actions import ends_the_launch, hears_ctrl_c
from d3_ros.ros.launch_arguments import PREDICTOR_ARGUMENTS
from d3_ros.ros.launching import PredictorPlan, check_names, plan_predictor


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in PREDICTOR_ARGUMENTS.items()
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list:
    """The actions, once the arguments are known."""
    config = Path(FindPackageShare("d3_ros").perform(context)) / "config"
    check_names(sys.argv, Path(__file__).name, PREDICTOR_ARGUMENTS, config)
    given = {name: LaunchConfiguration(name).perform(context) for name in PREDICTOR_ARGUMENTS}
    plan = plan_predictor(given, config, context.launch_configurations.get("ros_namespace", ""))
    profile = profile_variables(config / "fastdds.xml", context.environment)
    predictor = LifecycleNode(
        package="d3_ros",
        executable="predictor",
        name=given["name"],
        namespace=given["namespace"],
        parameters=plan.parameters,
        remappings=plan.remappings,
        ros_arguments=plan.ros_arguments,
        additional_env=profile,
        respawn=plan.respawn,
        respawn_delay=2.0,
        output="screen",
    )
    actions = [hears_ctrl_c(predictor)]
    if plan.by_events:
        actions.extend(autostart(predictor))
    if not plan.respawn:
        actions.append(ends_the_launch(predictor))
    # RViz may be closed: the node goes on.
    if plan.rviz_frame is not None and rviz_is_installed(context):
        actions.append(rviz(given, plan, str(config / "predictor.rviz"), profile))
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


def rviz_is_installed(context: LaunchContext) -> bool:
    """Whether the package rviz2 is there; if not, a warning says so."""
    try:
        FindPackageShare("rviz2").perform(context)
    except LookupError:
        get_logger("d3_ros").warning(
            "rviz:=true, but the package rviz2 is not installed; the predictor starts without it. "
            "To install it: sudo apt install ros-$ROS_DISTRO-rviz2"
        )
        return False
    return True


def rviz(given: dict[str, str], plan: PredictorPlan, config: str, profile: dict[str, str]) -> Node:
    """RViz in the node's namespace, so that the relative topics of its configuration fit."""
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        arguments=["-d", config, "-f", plan.rviz_frame],
        remappings=[pair for pair in plan.remappings if pair[0] == "image"],
        parameters=[{"use_sim_time": plan.use_sim_time}],
        additional_env=profile,
        output="log",
    )

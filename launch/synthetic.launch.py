"""A robot without hardware: a synthetic camera in a furnished room, and the predictor on it.

ros2 launch d3_ros synthetic.launch.py rviz:=true
ros2 launch d3_ros synthetic.launch.py sensors:=points,scan width:=320 height:=240

It publishes odometry, tf from odom to base_link and the sensors, and the exact depth on
truth/depth, so that Nav2, RTAB-Map and others can be tried without a camera and without a GPU.
"""

import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from d3_ros.ros.fast_dds import profile_variables
from d3_ros.ros.launch_actions import ends_the_launch, hears_ctrl_c
from d3_ros.ros.launch_arguments import HANDED_ON, SYNTHETIC_ARGUMENTS
from d3_ros.ros.launching import (
    check_names,
    full_name,
    is_true,
    log_arguments,
)
from d3_ros.ros.synthetic.launching import synthetic_parameters


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in SYNTHETIC_ARGUMENTS.items()
            ),
            *(
                DeclareLaunchArgument(
                    name, default_value=default, description="As for predictor.launch.py"
                )
                for name, default in HANDED_ON.items()
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list:
    """The actions, once the arguments are known."""
    config = Path(FindPackageShare("d3_ros").perform(context)) / "config"
    check_names(sys.argv, Path(__file__).name, {*SYNTHETIC_ARGUMENTS, *HANDED_ON}, config)
    given = {
        name: LaunchConfiguration(name).perform(context)
        for name in (*SYNTHETIC_ARGUMENTS, *HANDED_ON)
    }
    pushed = context.launch_configurations.get("ros_namespace", "")
    name = full_name(pushed, given["namespace"], "synthetic_camera")
    camera = Node(
        package="d3_ros",
        executable="synthetic_camera",
        name="synthetic_camera",
        namespace=given["namespace"],
        parameters=[synthetic_parameters(given)],
        ros_arguments=log_arguments(name, given["log_level"]),
        additional_env=profile_variables(config / "fastdds.xml", context.environment),
        output="screen",
    )
    actions = []
    if is_true(given, "predictor"):
        launch_file = PathJoinSubstitution(
            [FindPackageShare("d3_ros"), "launch", "predictor.launch.py"]
        )
        handed_on = {name: given[name] for name in ("namespace", *HANDED_ON)}
        actions.append(
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(launch_file), launch_arguments=handed_on.items()
            )
        )
    # The predictor comes first: a wrong argument of it is told before the camera starts.
    return [*actions, hears_ctrl_c(camera), ends_the_launch(camera), camera]

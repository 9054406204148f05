"""A robot without hardware: a synthetic camera in a furnished room, and the predictor on it.

ros2 launch d3_ros synthetic.launch.py rviz:=true
ros2 launch d3_ros synthetic.launch.py sensors:=points,scan width:=320 height:=240

There is odometry, tf from odom to base_link and the sensors, and the exact depth on truth/depth:
what Nav2, RTAB-Map and others need to be tried without camera or GPU.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

# Sensor: the parameter of synthetic_camera that is 0 where it is not wanted.
SENSORS = {"image": "sensor_share", "points": "points_rate", "scan": "scan_rate"}
# Parameters of synthetic_camera that are arguments here, with their type.
PARAMETERS = {
    "seed": (int, "Draws the room, the start and the noise"),
    "width": (int, "Width of the image, pixels"),
    "height": (int, "Height of the image, pixels"),
    "image_rate": (float, "Images a second"),
    "speed": (float, "Speed of the robot, m/s; 0 stands still"),
}
ARGUMENTS = {
    "namespace": ("", "Namespace of both nodes and their topics"),
    "sensors": ("image", "What measures: a list of image, points and scan; none: nothing"),
    "predictor": ("true", "Start the predictor, too"),
    **{
        name: ("", f"{text}; empty: the node's own default")
        for name, (_, text) in PARAMETERS.items()
    },
}
# Handed on to predictor.launch.py.
PREDICTOR_ARGUMENTS = {
    "params_file": "",
    "model": "",
    "device": "",
    "dtype": "",
    "autostart": "true",
    "log_level": "info",
    "rviz": "false",
    "rviz_frame": "odom",
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ),
            *(
                DeclareLaunchArgument(
                    name, default_value=default, description="As of predictor.launch.py"
                )
                for name, default in PREDICTOR_ARGUMENTS.items()
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list:
    """The actions, once the arguments are known."""
    given = {
        name: LaunchConfiguration(name).perform(context)
        for name in (*ARGUMENTS, *PREDICTOR_ARGUMENTS)
    }
    actions = [
        Node(
            package="d3_ros",
            executable="synthetic_camera",
            name="synthetic_camera",
            namespace=given["namespace"],
            parameters=[camera_parameters(given)],
            ros_arguments=["--log-level", given["log_level"]],
            output="screen",
        )
    ]
    if given["predictor"].strip().lower() in ("true", "1", "yes", "on"):
        launch_file = PathJoinSubstitution(
            [FindPackageShare("d3_ros"), "launch", "predictor.launch.py"]
        )
        handed_on = {"namespace": given["namespace"]}
        handed_on.update((name, given[name]) for name in PREDICTOR_ARGUMENTS)
        actions.append(
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(launch_file), launch_arguments=handed_on.items()
            )
        )
    return actions


def camera_parameters(given: dict[str, str]) -> dict:
    """Parameters of synthetic_camera: those that were given, and 0 for what is not to measure."""
    wanted = {name.strip() for name in given["sensors"].split(",")} - {"", "none"}
    if unknown := wanted - set(SENSORS):
        raise RuntimeError(
            f"there is no sensor '{sorted(unknown)[0]}': take {', '.join(SENSORS)} or none"
        )
    parameters: dict = {SENSORS[name]: 0.0 for name in SENSORS if name not in wanted}
    for name, (kind, _) in PARAMETERS.items():
        if given[name]:
            parameters[name] = kind(given[name])
    return parameters

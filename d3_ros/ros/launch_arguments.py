"""The arguments of the launch files, with defaults and descriptions."""

from __future__ import annotations

from d3_ros.network.inference.device_names import DEVICE_NAMES, DTYPE_NAMES

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
    "device": ("", f"One of {DEVICE_NAMES}. Empty: as in params_file"),
    "dtype": ("", f"One of {', '.join(DTYPE_NAMES)}. Empty: as in params_file"),
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
    "log_level": ("info", "Level of this node's own log: debug, info, warn, error or fatal"),
    "rviz": ("false", "Start RViz with image, depth, normals, cloud and TF"),
    "rviz_frame": ("", "Fixed frame of RViz. Empty: the preset's, or camera_optical_frame"),
}

# Sensor -> the parameter of the synthetic camera that is 0 where the sensor is not wanted.
SYNTHETIC_SENSORS = {"image": "sensor_share", "points": "points_rate", "scan": "scan_rate"}
# Parameters of the synthetic camera that are launch arguments -> description. Their types and
# ranges are those of its settings.
SYNTHETIC_PARAMETERS = {
    "seed": "Draws the room, the start and the noise",
    "width": "Width of the image, pixels",
    "height": "Height of the image, pixels",
    "image_rate": "Images a second",
    "speed": "Speed of the robot, m/s; 0 stands still",
}
SYNTHETIC_ARGUMENTS = {
    "namespace": ("", "Namespace of both nodes and their topics"),
    "sensors": ("image", "Sensors that measure: a list of image, points and scan, or none"),
    "predictor": ("true", "Start the predictor, too"),
    **{
        name: ("", f"{text}. Empty: the node's own default")
        for name, text in SYNTHETIC_PARAMETERS.items()
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

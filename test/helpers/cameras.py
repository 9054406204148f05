"""Cameras of every lens model, 64 x 48 pixels."""

from d3_ros.types import CameraIntrinsics

CAMERAS = {
    "pinhole": CameraIntrinsics(64, 48, 50.0, 52.0, 31.5, 23.5),
    "plumb_bob": CameraIntrinsics(
        64, 48, 50.0, 52.0, 31.5, 23.5, "plumb_bob", (-0.28, 0.07, 0.001, -0.0005, 0.01)
    ),
    "rational": CameraIntrinsics(
        64,
        48,
        50.0,
        52.0,
        31.5,
        23.5,
        "rational_polynomial",
        (1.2, 0.4, 0.0002, -0.0001, 0.02, 1.55, 0.7, 0.1),
    ),
    "fisheye": CameraIntrinsics(
        64, 48, 28.0, 28.0, 31.5, 23.5, "equidistant", (-0.01, 0.003, -0.002, 0.0003)
    ),
}

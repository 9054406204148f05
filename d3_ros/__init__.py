"""Depth, surface normals and metric point clouds from any camera, with D³-Predictor on ROS 2."""

__version__ = "0.1.0"

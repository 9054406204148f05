"""Depth, surface normals and metric point clouds from any camera, with D³-Predictor on ROS 2."""

import os

# The matrices of the scale fit are small: a second BLAS thread gains a millisecond on an idle
# machine and loses half a second on a busy one, where threads spin for each other. Only heeded when
# this comes before numpy; whoever wants it otherwise sets it in the environment.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.2.0"

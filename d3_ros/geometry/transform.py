"""Rigid transforms between sensor frames, as 4 x 4 matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation


def transform_from_pose(
    translation_m: Sequence[float], quaternion_xyzw: Sequence[float]
) -> np.ndarray:
    """(4, 4) float64 matrix of a pose: it maps the posed frame's points into the frame around it.

    Args:
        translation_m: x, y, z in metres.
        quaternion_xyzw: rotation in the order of geometry_msgs/Quaternion; any length but zero.

    Raises:
        ValueError: a number is not finite, or the quaternion is zero.
    """
    pose = np.array([*translation_m, *quaternion_xyzw], np.float64)
    if pose.shape != (7,) or not np.isfinite(pose).all() or not pose[3:].any():
        raise ValueError(
            f"a pose is x y z qx qy qz qw, finite and with a quaternion that is not zero, "
            f"got {pose.tolist()}"
        )
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(pose[3:]).as_matrix()
    matrix[:3, 3] = pose[:3]
    return matrix


def inverse_transform(transform: np.ndarray) -> np.ndarray:
    """The inverse of a rigid (4, 4) transform."""
    inverse = np.eye(4)
    inverse[:3, :3] = transform[:3, :3].T
    inverse[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return inverse

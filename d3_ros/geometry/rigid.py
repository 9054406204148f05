"""Rigid transforms as 4 x 4 matrices: `T_a_b` maps points of frame b into frame a."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

# A quaternion of this relative error in length is a rounded unit one; a worse one is a mistake.
UNIT_TOLERANCE = 0.01


def rigid_transform(translation: Sequence[float], quaternion: Sequence[float]) -> np.ndarray:
    """(4, 4) float64 matrix of a translation in metres and a unit quaternion (x, y, z, w).

    Raises:
        ValueError: a number is not finite, or the quaternion is not of length 1.
    """
    x, y, z, w = np.asarray(quaternion, np.float64)
    length = float(np.sqrt(x * x + y * y + z * z + w * w))
    if not (np.isfinite(translation).all() and abs(length - 1.0) <= UNIT_TOLERANCE):
        raise ValueError(
            f"translation {list(translation)} must be finite and quaternion {list(quaternion)} "
            f"(x y z w) of length 1, is {length:.3g}"
        )
    x, y, z, w = x / length, y / length, z / length, w / length
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = translation
    return matrix


def inverse_rigid(transform: np.ndarray) -> np.ndarray:
    """T_b_a of a rigid T_a_b, both (4, 4) float64."""
    inverse = np.eye(4)
    inverse[:3, :3] = transform[:3, :3].T
    inverse[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return inverse


def quaternion_of(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """The unit quaternion (x, y, z, w) of a (3, 3) rotation matrix."""
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return x, y, z, w

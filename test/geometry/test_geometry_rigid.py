"""Rigid transforms against scipy's rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from d3_ros.geometry.rigid import inverse_rigid, quaternion_of, rigid_transform

NUMBER = st.floats(-10, 10, allow_nan=False)


@given(st.tuples(NUMBER, NUMBER, NUMBER), st.tuples(NUMBER, NUMBER, NUMBER, NUMBER))
def test_the_matrix_is_scipy_s(
    translation: tuple[float, ...], direction: tuple[float, ...]
) -> None:
    length = np.linalg.norm(direction)
    if length < 1e-3:
        return
    quaternion = np.array(direction) / length
    matrix = rigid_transform(translation, quaternion)
    np.testing.assert_allclose(
        matrix[:3, :3], Rotation.from_quat(quaternion).as_matrix(), atol=1e-12
    )
    np.testing.assert_array_equal(matrix[:3, 3], translation)
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (0, 0, 0, 2.0), (0, 0, 0, np.nan)])
def test_what_is_no_rotation_is_refused(quaternion: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="of length 1"):
        rigid_transform((0, 0, 0), quaternion)


def test_rounded_quaternions_are_taken_for_unit_ones() -> None:
    matrix = rigid_transform((0, 0, 0), (0.0, 0.0, 0.7071, 0.7071))
    np.testing.assert_allclose(matrix[:3, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_the_inverse_leads_back() -> None:
    """A quarter turn about z, then 1 m along x."""
    pose = rigid_transform((1, 0, 0), (0, 0, np.sqrt(0.5), np.sqrt(0.5)))
    np.testing.assert_allclose(inverse_rigid(pose) @ [1, 2, 0, 1], [2, 0, 0, 1], atol=1e-12)


def test_a_rotation_becomes_its_quaternion() -> None:
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    quaternion = np.array(quaternion_of(quarter))
    # Of a quaternion and its negative, which turn alike, either may come.
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quaternion * np.sign(quaternion[3]), [0, 0, half, half], atol=1e-12)

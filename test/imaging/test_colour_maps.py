"""Pictures of depth and normals."""

from __future__ import annotations

import numpy as np

from d3_ros.imaging.colour_maps import INVALID_GREY, colour_depth, colour_normals


def test_near_is_bright_and_invalid_is_grey():
    depth = np.array([[1.0, 2.0, 3.0, np.nan, np.inf]], np.float32)
    picture = colour_depth(depth, near=1.0, far=3.0)
    assert picture.shape == (1, 5, 3) and picture.dtype == np.uint8
    brightness = picture[0, :3].astype(int).sum(axis=1)
    assert brightness[0] > brightness[1] > brightness[2]
    assert picture[0, 0, 0] > picture[0, 0, 2]  # warm: RGB order, red above blue
    assert (picture[0, 3:] == INVALID_GREY).all()


def test_range_is_robust_to_single_pixels():
    depth = np.tile(np.linspace(1, 2, 100, dtype=np.float32), (100, 1))
    with_outlier = depth.copy()
    with_outlier[50, 50] = 1e6
    a, b = colour_depth(depth).astype(int), colour_depth(with_outlier).astype(int)
    assert np.abs(a - b)[np.arange(100) != 50].max() <= 24  # under three of 255 levels


def test_values_beyond_the_range_take_its_ends():
    depth = np.array([[0.0, 1.0, 3.0, 9.0]], np.float32)
    picture = colour_depth(depth, near=1.0, far=3.0)
    np.testing.assert_array_equal(picture[0, 0], picture[0, 1])
    np.testing.assert_array_equal(picture[0, 2], picture[0, 3])


def test_nothing_valid_is_all_grey():
    assert (colour_depth(np.full((4, 4), np.nan, np.float32)) == INVALID_GREY).all()


def test_normals_by_hand():
    normals = np.array([[[0, 0, -1], [0, -1, 0], [1, 0, 0], [-1, 0, 0], [np.nan] * 3]], np.float32)
    before = normals.copy()
    picture = colour_normals(normals)
    np.testing.assert_array_equal(
        picture[0],
        [(128, 128, 255), (128, 255, 128), (255, 128, 128), (0, 128, 128), (0, 0, 0)],
    )
    np.testing.assert_array_equal(normals, before)

"""Organised clouds and PLY files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from d3_ros.geometry.camera import project
from d3_ros.geometry.point_cloud import cloud_size, pack_cloud, ply_file
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(4, 3, 2.0, 4.0, 1.0, 1.0)
LENS = CameraIntrinsics(64, 48, 50.0, 50.0, 31.5, 23.5, "plumb_bob", (-0.2, 0.05, 1e-3, 0, 0))
FISHEYE = CameraIntrinsics(64, 48, 27.0, 27.0, 31.5, 23.5, "equidistant", (0.02, 0, 0, 0))
PINHOLE = CameraIntrinsics(64, 48, 50.0, 51.0, 30.0, 22.0)


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    depth = np.full((3, 4), 2.0, np.float32)
    rgb = np.zeros((3, 4, 3), np.uint8)
    rgb[0, 3] = (0x12, 0x34, 0xFF)
    normals = np.zeros((3, 4, 3), np.float32)
    normals[0, 3] = (0.0, -0.6, -0.8)
    return depth, rgb, normals


def test_layout_by_hand():
    depth, rgb, normals = example()
    cloud = pack_cloud(depth, rgb, normals, CAMERA)
    assert cloud.shape == (3, 4, 8) and cloud.dtype == np.float32
    # u = 3: x = (3 - 1) / 2 * 2 m; v = 0: y = (0 - 1) / 4 * 2 m.
    np.testing.assert_allclose(cloud[0, 3, :3], (2.0, -0.5, 2.0))
    np.testing.assert_allclose(cloud[0, 3, 4:], (0.0, -0.6, -0.8, 0.0))
    assert cloud[0, 3].view(np.uint32)[3] == 0x001234FF
    assert cloud[0, 3].tobytes()[12:16] == bytes((0xFF, 0x34, 0x12, 0))  # B G R 0


def test_without_normals_a_point_is_16_bytes():
    depth, rgb, _ = example()
    cloud = pack_cloud(depth, rgb, None, CAMERA)
    assert cloud.shape == (3, 4, 4)
    assert cloud[0, 3].view(np.uint32)[3] == 0x001234FF
    assert not pack_cloud(depth, None, None, CAMERA)[..., 3].view(np.uint32).any()


def test_invalid_depth_is_nan_in_x_y_z_and_keeps_its_colour():
    depth, rgb, normals = example()
    depth.flat[:4] = (np.nan, np.inf, 0.0, -1.0)
    rgb[0, 0] = (1, 2, 3)
    for cloud in (pack_cloud(depth, rgb, normals, CAMERA), pack_cloud(depth, rgb, None, CAMERA)):
        assert np.isnan(cloud[0, :, :3]).all() and np.isfinite(cloud[1:, :, :3]).all()
        assert cloud[0, 0].view(np.uint32)[3] == 0x00010203


def test_writes_into_a_message_buffer_and_leaves_inputs_alone():
    depth, rgb, normals = example()
    depth[1, 1] = np.nan
    copies = [a.copy() for a in (depth, rgb, normals)]
    buffer = bytearray(3 * 4 * 32)
    out = np.frombuffer(buffer, np.float32).reshape(3, 4, 8)
    result = pack_cloud(depth, rgb, normals, CAMERA, out)
    assert result is out
    np.testing.assert_array_equal(
        np.frombuffer(buffer, np.uint32),
        pack_cloud(depth, rgb, normals, CAMERA).view(np.uint32).ravel(),
    )
    for array, copy in zip((depth, rgb, normals), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("with_normals", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_expected_error_is_one_more_value_of_a_point(with_normals, stride):
    depth, rgb, normals = example()
    sigma = np.linspace(0.1, 0.5, 12, dtype=np.float32).reshape(3, 4)
    normals = normals if with_normals else None
    without = pack_cloud(depth, rgb, normals, CAMERA, stride=stride)
    cloud = pack_cloud(depth, rgb, normals, CAMERA, sigma_m=sigma, stride=stride)
    np.testing.assert_array_equal(cloud[..., -1], sigma[::stride, ::stride])
    np.testing.assert_array_equal(cloud[..., :-1].view(np.uint32), without.view(np.uint32))
    with pytest.raises(ValueError, match=r"sigma must be \(3, 4\) float32"):
        pack_cloud(depth, rgb, normals, CAMERA, sigma_m=sigma[:2])


@pytest.mark.parametrize("camera", [PINHOLE, LENS, FISHEYE])
@pytest.mark.parametrize("with_normals", [False, True])
def test_every_point_reprojects_to_its_pixel(camera, with_normals):
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.3, 9, (48, 64)).astype(np.float32)
    normals = np.zeros((48, 64, 3), np.float32) if with_normals else None
    cloud = pack_cloud(depth, None, normals, camera)
    known = np.isfinite(cloud[..., 2])
    assert known.mean() > 0.9
    pixels = project(cloud[known][:, :3], camera)
    v, u = np.nonzero(known)
    assert np.abs(pixels - np.column_stack([u, v])).max() < 0.01


def test_pixels_without_a_ray_are_invalid():
    camera = CameraIntrinsics(101, 3, 20.0, 20.0, 50.0, 1.0, "equidistant")
    cloud = pack_cloud(np.ones((3, 101), np.float32), None, None, camera)
    assert np.isnan(cloud[1, 0, :3]).all() and np.isfinite(cloud[1, 50, :3]).all()


def test_wrong_shapes_are_told():
    depth, rgb, normals = example()
    with pytest.raises(ValueError, match="rgb must be"):
        pack_cloud(depth, rgb[:2], normals, CAMERA)
    with pytest.raises(ValueError, match="depth must be"):
        pack_cloud(depth.astype(np.float64), rgb, normals, CAMERA)
    with pytest.raises(ValueError, match="out must be"):
        pack_cloud(depth, rgb, None, CAMERA, np.empty((3, 4, 8), np.float32))


@settings(max_examples=50, deadline=None)
@given(
    depth=hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32)),
    rgb=hnp.arrays(np.uint8, (3, 4, 3)),
)
def test_any_depth_is_valid_or_nan_in_all_three(depth, rgb):
    cloud = pack_cloud(depth, rgb, None, CAMERA)
    valid = (depth > 0) & (depth < np.inf)
    np.testing.assert_array_equal(np.isnan(cloud[..., :3]).all(axis=2), ~valid)
    np.testing.assert_array_equal(cloud[..., 2][valid], depth[valid])
    bits = cloud[..., 3].copy().view(np.uint32).astype(np.int64)
    np.testing.assert_array_equal(bits, rgb.astype(np.int64) @ (1 << 16, 1 << 8, 1))


@pytest.mark.parametrize("with_normals", [False, True])
def test_ply_reads_back(with_normals):
    xyz = np.array([[[1, 2, 3], [np.nan] * 3, [4, 5, 6.5]]], np.float32)
    rgb = np.array([[[10, 20, 30], [0, 0, 0], [40, 50, 60]]], np.uint8)
    normals = np.array([[[0, 0, -1], [0, 0, 0], [0, -1, 0]]], np.float32) if with_normals else None
    header, _, body = ply_file(xyz, rgb, normals).partition(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")
    assert b"element vertex 2\n" in header
    stride = 27 if with_normals else 15
    assert len(body) == 2 * stride
    last = body[stride:]
    np.testing.assert_array_equal(np.frombuffer(last[:12], "<f4"), (4, 5, 6.5))
    assert tuple(last[-3:]) == (40, 50, 60)
    if with_normals:
        np.testing.assert_array_equal(np.frombuffer(last[12:24], "<f4"), (0, -1, 0))


@pytest.mark.parametrize("camera", [PINHOLE, LENS], ids=["pinhole", "lens"])
@pytest.mark.parametrize("stride", [1, 3, 5])
@pytest.mark.parametrize("with_normals", [False, True])
def test_a_stride_takes_the_same_points_and_fewer(camera, stride, with_normals):
    rng = np.random.default_rng(1)
    depth = rng.uniform(1, 5, (48, 64)).astype(np.float32)
    rgb = rng.integers(0, 255, (48, 64, 3), np.uint8)
    normals = rng.normal(size=(48, 64, 3)).astype(np.float32) if with_normals else None
    all_points = pack_cloud(depth, rgb, normals, camera)
    some = pack_cloud(depth, rgb, normals, camera, stride=stride)
    assert some.shape[:2] == cloud_size(48, 64, stride)
    assert np.array_equal(some.view(np.uint32), all_points[::stride, ::stride].view(np.uint32))


def test_points_out_of_range_are_nan_and_the_range_is_along_the_ray():
    depth = np.full((3, 4), 2.0, np.float32)
    cloud = pack_cloud(depth, None, None, CAMERA, min_range=2.01, max_range=2.7)
    distance = np.linalg.norm(pack_cloud(depth, None, None, CAMERA)[..., :3], axis=2)
    # u = 1, v = 1 is the principal point, 2 m away; u = 3 is sqrt(2) times as far.
    np.testing.assert_allclose(distance[1], [5**0.5, 2, 5**0.5, 8**0.5], rtol=1e-6)
    kept = np.isfinite(cloud[..., :3]).all(axis=2)
    assert np.array_equal(kept, (distance > 2.01) & (distance < 2.7))
    assert kept[1].tolist() == [True, False, True, False]

"""Labelled frames: changes of view by hand, and labels that agree with each other after them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3_ros.data.labelled_frame import LabelledFrame, depth_target
from d3_ros.data.plain_folder import decode_normals
from d3_ros.geometry.camera import ray_map
from d3_ros.geometry.normals import normals_from_depth
from d3_ros.training.loading.augment import augmented, bordered, distorted, relit
from d3_ros.training.loading.label_precision import in_half_precision
from d3_ros.types import CameraIntrinsics

CAMERA = CameraIntrinsics(8, 6, 5.0, 6.0, 3.0, 2.0)


def counted() -> LabelledFrame:
    """8 x 6; the pixel (u, v) has red 10 u + v and depth 10 u + v + 1, normals that differ."""
    v, u = np.mgrid[0:6, 0:8]
    number = (10 * u + v).astype(np.float32)
    normals = np.stack([number, -number, np.full_like(number, -50)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    rgb = np.repeat(number.astype(np.uint8)[..., None], 3, axis=2)
    return LabelledFrame(rgb, number + 1, normals, CAMERA)


def wall(camera: CameraIntrinsics, normal: tuple[float, float, float]) -> LabelledFrame:
    """A plane 2 m away along its normal, seen by `camera`, with exact depth and normals."""
    unit = np.array(normal) / np.linalg.norm(normal)
    depth = (-2.0 / (ray_map(camera) @ unit)).astype(np.float32)
    normals = np.broadcast_to(unit.astype(np.float32), (*depth.shape, 3))
    rgb = np.full((*depth.shape, 3), 99, np.uint8)
    return LabelledFrame(rgb, depth, normals, camera)


def test_a_crop_moves_the_principal_point() -> None:
    part = counted().cropped(2, 1, 4, 3)
    assert part.camera == CameraIntrinsics(4, 3, 5.0, 6.0, 1.0, 1.0)
    assert part.rgb[0, 0, 0] == 21
    assert part.depth is not None
    assert part.depth[2, 3] == 10 * 5 + 3 + 1
    assert part.normals is not None
    np.testing.assert_array_equal(part.normals, counted().normals[1:4, 2:6])


def test_a_mirror_turns_x_and_moves_the_principal_point() -> None:
    frame = counted()
    seen = frame.mirrored()
    # The pixel u is now at 7 - u, and so is the axis that was at 3.
    assert seen.camera == CameraIntrinsics(8, 6, 5.0, 6.0, 4.0, 2.0)
    assert seen.depth is not None
    assert seen.normals is not None
    assert frame.normals is not None
    assert seen.depth[3, 1] == 10 * 6 + 3 + 1
    np.testing.assert_array_equal(seen.normals[3, 1], frame.normals[3, 6] * (-1, 1, 1))
    twice = seen.mirrored()
    assert twice.camera == CAMERA
    np.testing.assert_array_equal(twice.normals, frame.normals)


def test_resizing_has_half_pixel_centres() -> None:
    half = counted().resized(3, 4)
    # cx' = (3 + 0.5) / 2 - 0.5, cy' = (2 + 0.5) / 2 - 0.5.
    assert half.camera == CameraIntrinsics(4, 3, 2.5, 3.0, 1.25, 0.75)
    # Bilinear at the middle of four pixels is their mean: (0 + 10 + 1 + 11) / 4 = 5.5.
    assert half.rgb[0, 0, 0] in (5, 6)
    assert half.depth is not None
    # The new pixel's centre, 1.0 in old pixel edges, falls on old pixel (1, 1).
    assert half.depth[0, 0] == 12
    assert set(half.depth.ravel()) <= set(counted().depth.ravel()), "labels are never mixed"


def test_sparse_depth_keeps_its_points() -> None:
    depth = np.zeros((6, 8), np.float32)
    depth[0, 1], depth[1, 0] = 4.0, 3.0  # both fall into the pixel (0, 0): the nearer stays
    depth[5, 7] = 9.0
    small = LabelledFrame(np.zeros((6, 8, 3), np.uint8), depth, None, None).resized(3, 4)
    expected = np.zeros((3, 4))
    expected[0, 0], expected[2, 3] = 3.0, 9.0
    np.testing.assert_array_equal(small.depth, expected)


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(0, 20),
    y=st.integers(0, 12),
    mirror=st.booleans(),
    nx=st.floats(-0.5, 0.5),
    ny=st.floats(-0.5, 0.5),
    lens=st.sampled_from(
        [
            (),
            (0.05, -0.01, 0.002, -0.003, 0.0),
            (0.05, -0.01, 0.002, -0.003, 0, 0, 0, 0, 0.02, -0.01, -0.015, 0.008, 0.03, -0.05),
        ]
    ),
)
def test_camera_depth_and_normals_agree_whatever_is_done(
    x: int, y: int, mirror: bool, nx: float, ny: float, lens: tuple[float, ...]
) -> None:
    """The camera's own idea of the normals is that of the labels, after a crop and a mirror."""
    model = {0: "none", 5: "plumb_bob", 14: "rational_polynomial"}[len(lens)]
    camera = CameraIntrinsics(64, 48, 60.0, 62.0, 30.0, 25.0, model, lens)
    frame = wall(camera, (nx, ny, -1.0)).cropped(x, y, 40, 32)
    frame = frame.mirrored() if mirror else frame
    assert frame.camera is not None
    assert frame.depth is not None
    derived = normals_from_depth(np.ascontiguousarray(frame.depth), frame.camera)
    np.testing.assert_allclose(derived[4:-4, 4:-4], frame.normals[4:-4, 4:-4], atol=2e-3)


def test_resized_labels_agree_with_the_resized_camera() -> None:
    camera = CameraIntrinsics(96, 60, 80.0, 80.0, 47.5, 29.5)
    small = wall(camera, (0.2, -0.4, -1.0)).resized(20, 32)  # a third: centres fall on centres
    assert small.camera is not None
    derived = normals_from_depth(np.ascontiguousarray(small.depth), small.camera)
    np.testing.assert_allclose(derived[3:-3, 3:-3], small.normals[3:-3, 3:-3], atol=1e-4)


def test_derived_normals_of_a_wall_and_of_nothing() -> None:
    camera = CameraIntrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
    frame = wall(camera, (0.3, -0.1, -1.0))
    assert frame.depth is not None
    depth = frame.depth.copy()
    depth[:, :10] = 0
    derived = LabelledFrame(frame.rgb, depth, None, camera).with_derived_normals()
    assert derived.normals is not None
    assert not derived.normals[:, :8].any()
    np.testing.assert_allclose(derived.normals[20, 40], frame.normals[20, 40], atol=1e-4)


def test_the_target_by_hand() -> None:
    depth = np.arange(101, dtype=np.float32)[None] + 10
    target = depth_target(depth)
    assert target[0, 2] == -1.0  # the 2 % quantile of 10..110
    assert target[0, 98] == 1.0
    assert target[0, 50] == pytest.approx(0.0, abs=1e-6)
    assert target.min() == -1.0
    assert target.max() == 1.0
    # What is not known takes no part in the quantiles.
    gap = np.concatenate([depth, np.zeros((1, 101), np.float32)])
    np.testing.assert_array_equal(depth_target(gap)[0], target[0])
    assert not depth_target(np.zeros((2, 2), np.float32)).any()


def test_a_smaller_share_leaves_room_for_what_is_nearer_and_farther() -> None:
    depth = np.arange(101, dtype=np.float32)[None] + 10
    depth[0, -1] = 1000
    target = depth_target(depth, 0.8)[0]
    assert target[2] == pytest.approx(-0.8)
    assert target[98] == pytest.approx(0.8)
    step = 1.6 / 96
    np.testing.assert_allclose(target[:3], [-0.8 - 2 * step, -0.8 - step, -0.8], atol=1e-5)
    assert target[99] == pytest.approx(0.8 + step, abs=1e-5)
    assert target[100] == 1.0, "clipped at the end of the range"


def test_augmented_frames_are_whole_and_follow_from_the_seed() -> None:
    camera = CameraIntrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
    slanted = wall(camera, (0.6, 0.0, -0.8))
    sides = set()
    for seed in range(20):
        one, again = (
            augmented(slanted, np.random.default_rng(seed), (24, 32), False) for _ in "ab"
        )
        np.testing.assert_array_equal(one.rgb, again.rgb)
        assert one.rgb.shape == (24, 32, 3)
        assert one.rgb.min() >= 0
        assert one.rgb.max() <= 1
        assert one.depth is not None
        assert one.normals is not None
        # Where depth grows to the other side, n_x has changed its sign too.
        slope = float(np.sign(one.depth[12, -4] - one.depth[12, 3]))  # inside of any border
        sides.add(slope)
        np.testing.assert_allclose(one.normals[12, 5], (0.6 * slope, 0, -0.8), atol=1e-6)
    assert sides == {-1.0, 1.0}
    derived = augmented(
        LabelledFrame(slanted.rgb, slanted.depth, None, camera),
        np.random.default_rng(3),
        (24, 32),
        True,
    )
    same = augmented(slanted, np.random.default_rng(3), (24, 32), False)
    assert derived.normals is not None
    np.testing.assert_allclose(derived.normals[3:-3, 3:-3], same.normals[3:-3, 3:-3], atol=5e-3)


def test_augmented_frames_keep_their_proportions() -> None:
    """At another aspect ratio than the frame's, a part of it is seen, not all of it squeezed."""
    camera = CameraIntrinsics(96, 72, 60.0, 60.0, 47.5, 35.5)
    flat = wall(camera, (0.0, 0.0, -1.0))
    for size in ((64, 32), (32, 64), (48, 64)):
        for seed in range(10):
            seen = augmented(flat, np.random.default_rng(seed), size, False).camera
            assert seen is not None
            assert (seen.height, seen.width) == size
            assert abs(seen.fx / seen.fy - 1) < 0.12


def test_a_bent_picture_and_its_labels_stay_together() -> None:
    camera = CameraIntrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
    flat = wall(camera, (0.0, 0.0, -1.0))
    depth = np.full((48, 64), 1.0, np.float32)
    depth[:, 40:] = 3.0
    rgb = np.repeat((depth > 2)[..., None], 3, axis=2).astype(np.uint8) * 255
    frame = dataclasses.replace(flat, rgb=rgb, depth=depth)
    moved = False
    for seed in range(5):
        bent = distorted(frame, np.random.default_rng(seed))
        assert bent.depth is not None
        assert (bent.depth > 0).all()  # no corner without picture
        assert ((bent.rgb[..., 0] > 127) == (bent.depth > 2)).mean() > 0.98
        moved = moved or bool((bent.depth != depth).any())
    assert moved


def test_kept_frames_are_augmented_as_fresh_ones_within_half_precision() -> None:
    camera = CameraIntrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
    slanted = wall(camera, (0.6, 0.0, -0.8))
    kept = in_half_precision(slanted)
    assert kept.depth is not None
    assert kept.normals is not None
    assert kept.depth.dtype == kept.normals.dtype == np.float16
    one, other = (augmented(f, np.random.default_rng(5), (24, 32), False) for f in (slanted, kept))
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert other.depth is not None
    assert other.normals is not None
    assert other.depth.dtype == other.normals.dtype == np.float32
    np.testing.assert_allclose(other.depth, one.depth, rtol=2**-11)
    np.testing.assert_allclose(other.normals, one.normals, atol=2**-11)


def test_relighting_makes_dark_pictures_and_pools_of_light() -> None:
    grey = np.full((30, 40, 3), 0.5, np.float32)
    lit = [relit(grey, np.random.default_rng(seed)) for seed in range(60)]
    assert min(image.mean() for image in lit) < 0.15
    # Grey that is lit evenly stays even but for grain and JPEG: halves differ only in a pool.
    halves = [abs(float(image[:, :20].mean() - image[:, 20:].mean())) for image in lit]
    assert sum(difference > 0.02 for difference in halves) > 5
    assert sum(difference < 0.01 for difference in halves) > 20


class Scripted:
    """Chosen instead of drawn: a sensor that mixes colours, and no other change."""

    def __init__(self) -> None:
        self.chances = iter([0.5, 0.9, 0.1, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9])
        self.normals = iter([WHITE, 0.2, MIX, 0.0])
        self.spreads = iter([0.6, 1.0])  # saturation, contrast

    def random(self) -> float:
        return next(self.chances)

    def normal(self, *_: object) -> Any:
        return next(self.normals)

    def uniform(self, *_: object) -> float:
        return next(self.spreads)


WHITE = np.array([0.1, 0.0, -0.1])
MIX = np.array([[0.0, 0.1, 0.0], [0.0, 0.0, -0.1], [0.05, 0.0, 0.0]])


def test_relighting_is_exposure_then_sensor_then_saturation() -> None:
    """One pixel by hand: each step where a camera has it, red, green and blue apart."""
    pixel = np.array([0.1, 0.2, 0.4])
    seen = (np.eye(3) + MIX) @ (pixel * np.exp(0.2) * np.exp(WHITE))
    expected = seen.mean() + 0.6 * (seen - seen.mean())
    picture = np.tile(pixel.astype(np.float32), (4, 6, 1))
    scripted: Any = Scripted()
    np.testing.assert_allclose(relit(picture, scripted)[2, 3], expected, rtol=1e-5)


def test_relighting_keeps_a_picture() -> None:
    rgb = np.random.default_rng(0).random((30, 40, 3), dtype=np.float32)
    for seed in range(10):
        lit = relit(rgb, np.random.default_rng(seed))
        assert lit.dtype == np.float32
        assert lit.shape == rgb.shape
        assert 0 <= lit.min() <= lit.max() <= 1


def test_a_border_is_not_image_and_has_no_labels() -> None:
    camera = CameraIntrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
    slanted = wall(camera, (0.6, 0.0, -0.8))
    frame = LabelledFrame(
        np.full((48, 64, 3), 0.5, np.float32), slanted.depth, slanted.normals, camera
    )
    colours = set()
    for seed in range(20):
        framed = bordered(frame, np.random.default_rng(seed))
        assert framed.depth is not None
        assert framed.normals is not None
        border = framed.rgb[..., 0] != 0.5
        np.testing.assert_array_equal(framed.depth == 0, border)
        np.testing.assert_array_equal(~framed.normals.any(axis=2), border)
        assert not border[2:-2, 3:-3].any()
        colours |= set(np.unique(framed.rgb[border]).tolist())
    assert colours == {0.0, 1.0}


def test_one_normal_is_decoded_as_a_picture_of_them_is() -> None:
    pixels = np.array([[[128, 128, 1], [0, 0, 0]]], np.uint8)
    expected = np.array([[[0, 0, -1], [0, 0, 0]]], np.float32)
    np.testing.assert_array_equal(decode_normals(pixels), expected)
    for pixel, vector in zip(pixels[0], expected[0], strict=True):
        np.testing.assert_array_equal(decode_normals(pixel), vector)
